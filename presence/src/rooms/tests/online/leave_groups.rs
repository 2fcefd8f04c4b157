//! The online users after each event, while presences are gathered to leave in one event.

use proptest::{collection::vec, prelude::*};
use uuid::Uuid;

use crate::rooms::tests::prelude::*;
use crate::{
    signal::{EventPublisher, LeaveGroup},
    testing::store::ManualClock,
};

use super::subscriber_view::Fold;

const ROOMS: usize = 2;
const USERS: u8 = 3;
const CHANNELS: u8 = 6;
const GROUPS: usize = 2;

/// The change of one channel in a transaction. A presence that leaves may leave with one of the groups.
#[derive(Debug, Clone)]
enum ChannelChange {
    Come {
        order: u64,
        user: Option<u8>,
    },
    Leave {
        with: Option<usize>,
    },
    /// It leaves, and joins as another presence.
    Anew {
        order: u64,
        user: Option<u8>,
        with: Option<usize>,
    },
    Update {
        user: Option<u8>,
    },
}

#[derive(Debug, Clone)]
enum GroupStep {
    Commit {
        room: usize,
        changes: BTreeMap<u8, ChannelChange>,
    },
    /// No more presences are added to this group.
    End {
        room: usize,
        group: usize,
    },
}

fn change() -> impl Strategy<Value = ChannelChange> {
    let user = || prop::option::weighted(0.9, 0..USERS);
    let with = || prop::option::weighted(0.7, 0..GROUPS);
    prop_oneof![
        4 => (any::<u64>(), user()).prop_map(|(order, user)| ChannelChange::Come { order, user }),
        4 => with().prop_map(|with| ChannelChange::Leave { with }),
        1 => (any::<u64>(), user(), with()).prop_map(|(order, user, with)| ChannelChange::Anew { order, user, with }),
        1 => user().prop_map(|user| ChannelChange::Update { user }),
    ]
}

fn step() -> impl Strategy<Value = GroupStep> {
    prop_oneof![
        5 => (0..ROOMS, prop::collection::btree_map(0..CHANNELS, change(), 1..4))
            .prop_map(|(room, changes)| GroupStep::Commit { room, changes }),
        1 => (0..ROOMS, 0..GROUPS).prop_map(|(room, group)| GroupStep::End { room, group }),
    ]
}

struct GroupWorld {
    store: MemoryStore,
    node: NodeId,
    signals: EventPublisher,
    rooms: [RoomName; ROOMS],
    groups: [[Option<LeaveGroup>; GROUPS]; ROOMS],
    ids: Cell<u64>,
}

impl GroupWorld {
    async fn new() -> Self {
        let (store, node) = (MemoryStore::new(ManualClock::new().clock()), NodeId::random());
        store.register(node, NodeName::new("here").unwrap(), Duration::from_secs(60)).await.unwrap();
        let (signals, rooms) = (EventPublisher::default(), ["lobby", "attic"].map(room));
        Self { store, node, signals, rooms, groups: Default::default(), ids: Cell::default() }
    }

    async fn there(&self, room: usize) -> Vec<Arc<Presence>> {
        self.store.load(self.rooms[room].clone()).await.unwrap().map(|snapshot| snapshot.presences).unwrap_or_default()
    }

    async fn users(&self, room: usize) -> BTreeSet<UserId> {
        self.there(room).await.iter().filter_map(|one| one.user.clone()).collect()
    }

    /// A new id. `order` decides its place among the others.
    fn fresh(&self, order: u64) -> PresenceId {
        self.ids.set(self.ids.get() + 1);
        PresenceId::from_uuid(Uuid::from_u64_pair(order, self.ids.get()))
    }

    async fn commit(&mut self, room: usize, changes: &BTreeMap<u8, ChannelChange>) {
        let there = self.there(room).await;
        let (mut writes, mut leave_with) = (Vec::new(), BTreeMap::new());
        for (number, change) in changes {
            let channel = channel(format!("c{number}"));
            let here = there.iter().find(|one| one.channel == channel).map(|one| one.id);
            let name = |user: &Option<u8>| user.map(|user| self::user(&format!("u{user}")));
            let join =
                |id: PresenceId, user| Write::Join(Arc::new(Presence::new(id, channel.clone(), name(user), self.node)));
            let leave = here.map(|id| Write::Leave { id, channel: channel.clone() });
            match change {
                ChannelChange::Come { order, user } => {
                    let fresh = self.fresh(*order);
                    writes.push(join(here.unwrap_or(fresh), user));
                }
                ChannelChange::Leave { .. } => writes.extend(leave),
                ChannelChange::Anew { order, user, .. } => {
                    writes.extend(leave.into_iter().chain([join(self.fresh(*order), user)]))
                }
                ChannelChange::Update { user } => writes.extend(here.map(|id| Write::Update {
                    id,
                    channel: channel.clone(),
                    user: Some(name(user)),
                    meta: None,
                })),
            }
            if let (
                Some(id),
                ChannelChange::Leave { with: Some(group) } | ChannelChange::Anew { with: Some(group), .. },
            ) = (here, change)
            {
                leave_with.insert(id, *group);
                let (signals, name) = (&self.signals, &self.rooms[room]);
                self.groups[room][*group].get_or_insert_with(|| signals.leave_group(name));
            }
        }
        if !writes.is_empty() {
            let writes = [RoomWrites { room: self.rooms[room].clone(), writes }];
            let [commit] = &self.store.commit(self.node, Attempt::next(), writes.clone().into()).await.unwrap()[..]
            else {
                panic!("of one room")
            };
            let group_of =
                |one: &Presence| leave_with.get(&one.id).and_then(|group| self.groups[room][*group].as_ref());
            self.signals.announce(&commit.room, &commit.delta, &commit.online_changes, group_of);
        }
    }
}

async fn check(steps: &[GroupStep]) {
    let mut world = GroupWorld::new().await;
    let mut subscribers =
        [None, Some(world.rooms[0].clone())].map(|room| (world.signals.subscribe(room), Fold::default()));
    for step in steps {
        match step {
            GroupStep::Commit { room, changes } => world.commit(*room, changes).await,
            GroupStep::End { room, group } => world.groups[*room][*group] = None,
        }
        for (changes, fold) in &mut subscribers {
            fold.receive(changes, false);
        }
        for room in 0..ROOMS {
            // The presences of a group have left, but their event is not published yet.
            let (now, online) = (world.users(room).await, subscribers[0].1.online(&world.rooms[room]));
            assert!(online.is_superset(&now));
            assert!(online == now || world.groups[room].iter().any(Option::is_some));
        }
    }
    world.groups = Default::default();
    for (changes, fold) in &mut subscribers {
        fold.receive(changes, false);
    }
    assert_eq!(subscribers[0].1.online(&world.rooms[0]), world.users(0).await);
    assert_eq!(subscribers[0].1.online(&world.rooms[1]), world.users(1).await);
    assert_eq!(subscribers[1].1.online(&world.rooms[0]), world.users(0).await);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_subscriber_that_counts_users_by_the_events_is_right_after_each_event_whichever_presences_leave_together(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&steps));
    }
}
