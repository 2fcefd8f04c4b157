//! Who is online, event by event, while sockets come, are lost, return and leave, channels change hands, users and rooms are
//! removed and pruned, the database is away, rooms fail and nodes die.

use proptest::{collection::vec, prelude::*};

use crate::rooms::tests::{prelude::*, support::user as user_named};

use super::subscriber_view::{Fold, events};

const ROOMS: usize = 2;
const USERS: usize = 3;
/// Each user has two in each room.
const TABS: usize = 12;
const CHANNELS: usize = 4;
const GRACE: u64 = 5;

#[derive(Debug, Clone)]
enum HistoryStep {
    /// A socket joins with the token of the tab, also if the former one is still open.
    Come {
        tab: usize,
        node: usize,
    },
    Lose {
        tab: usize,
    },
    Leave {
        tab: usize,
    },
    /// A channel without a socket is added, or gets another user.
    Add {
        channel: usize,
        user: Option<usize>,
    },
    Remove {
        channel: usize,
    },
    RemoveUser {
        user: usize,
        node: usize,
    },
    RemoveRoom {
        room: usize,
        node: usize,
    },
    Prune {
        node: usize,
    },
    Pass {
        ms: u64,
    },
    /// The next calls of the database of a node fail.
    Away {
        node: usize,
        calls: usize,
    },
    /// No call of the database is answered for a while.
    Hang {
        node: usize,
        ms: u64,
    },
    /// The next commits of a node are written, but not answered.
    LoseAnswers {
        node: usize,
        commits: usize,
    },
    /// No commit is answered for a while, although it is written.
    HangAfter {
        node: usize,
        ms: u64,
    },
    Fail {
        node: usize,
        room: usize,
    },
    /// A process ends without a shutdown, and another one starts under its name.
    Die {
        node: usize,
    },
    /// Waits until nothing is in progress, and checks who is online.
    Calm,
}

fn step(nodes: usize) -> impl Strategy<Value = HistoryStep> {
    let of_user = prop::option::weighted(0.8, 0..USERS);
    prop_oneof![
        10 => (0..TABS, 0..nodes).prop_map(|(tab, node)| HistoryStep::Come { tab, node }),
        5 => (0..TABS).prop_map(|tab| HistoryStep::Lose { tab }),
        4 => (0..TABS).prop_map(|tab| HistoryStep::Leave { tab }),
        5 => (0..CHANNELS, of_user).prop_map(|(channel, user)| HistoryStep::Add { channel, user }),
        3 => (0..CHANNELS).prop_map(|channel| HistoryStep::Remove { channel }),
        1 => (0..USERS, 0..nodes).prop_map(|(user, node)| HistoryStep::RemoveUser { user, node }),
        1 => (0..ROOMS, 0..nodes).prop_map(|(room, node)| HistoryStep::RemoveRoom { room, node }),
        1 => (0..nodes).prop_map(|node| HistoryStep::Prune { node }),
        6 => prop_oneof![0..20_u64, 0..3000_u64].prop_map(|ms| HistoryStep::Pass { ms }),
        1 => (0..nodes, 1..6_usize).prop_map(|(node, calls)| HistoryStep::Away { node, calls }),
        1 => (0..nodes, 0..7000_u64).prop_map(|(node, ms)| HistoryStep::Hang { node, ms }),
        1 => (0..nodes, 1..4_usize).prop_map(|(node, commits)| HistoryStep::LoseAnswers { node, commits }),
        1 => (0..nodes, 0..7000_u64).prop_map(|(node, ms)| HistoryStep::HangAfter { node, ms }),
        1 => (0..nodes, 0..ROOMS).prop_map(|(node, room)| HistoryStep::Fail { node, room }),
        1 => (0..nodes).prop_map(|node| HistoryStep::Die { node }),
        1 => Just(HistoryStep::Calm),
    ]
}

struct RunningNode {
    node: TestNode,
    changes: Subscription,
    /// Answers to commits were lost or late, so the node publishes these changes late.
    late: bool,
}

struct HistoryWorld {
    database: MemoryStore,
    nodes: Vec<RunningNode>,
    tabs: BTreeMap<usize, Rc<FakeClient>>,
    rooms: [RoomName; ROOMS],
    /// If there is one node, it publishes all changes, in order.
    fold: Fold,
    /// For each user in a room, the events of each node: whether the user went online.
    transitions: BTreeMap<(RoomName, UserId), Vec<Vec<bool>>>,
}

fn name(user: usize) -> UserId {
    user_named(&format!("u{user}"))
}

async fn start(database: &MemoryStore, node: usize) -> RunningNode {
    let config = config().lease(secs(10)).grace(secs(GRACE)).max_age(secs(20)).on_stale(OnStale::Keep);
    let config = config.prune_interval(secs(3)).reconcile_interval(secs(2)).sweep_interval(secs(1));
    let node = node_on(database, &format!("n{node}"), config).await;
    RunningNode { changes: node.changes(), node, late: false }
}

impl HistoryWorld {
    async fn new(nodes: usize) -> Self {
        let database = MemoryStore::new(Clock::system());
        let mut running = Vec::new();
        for node in 0..nodes {
            running.push(start(&database, node).await);
        }
        let rooms = ["lobby", "attic"].map(room);
        Self {
            database,
            nodes: running,
            tabs: BTreeMap::new(),
            rooms,
            fold: Fold::default(),
            transitions: BTreeMap::new(),
        }
    }

    fn rooms_of(&self, node: usize) -> Rooms {
        self.nodes[node].node.rooms.clone()
    }

    fn channel(&self, channel: usize) -> (Rooms, RoomName, ChannelName) {
        let rooms = self.rooms_of(channel / ROOMS % self.nodes.len());
        (rooms, self.rooms[channel % ROOMS].clone(), ChannelName::new(format!("c{channel}")).unwrap())
    }

    async fn go(&mut self, step: &HistoryStep) {
        match *step {
            HistoryStep::Come { tab, node } => {
                let user = format!("u{}", tab % USERS);
                let client = self.nodes[node].node.client(&user).with_token(&format!("{tab}"), secs(GRACE));
                let (client, room) = (Rc::new(client), self.room_of(tab));
                if let Some(former) = self.tabs.insert(tab, client.clone()) {
                    former.vanish();
                }
                actix::spawn(async move { drop(client.join(&room).await) });
            }
            HistoryStep::Lose { tab } => {
                if let Some(client) = self.tabs.remove(&tab) {
                    client.lose(&self.room_of(tab));
                }
            }
            HistoryStep::Leave { tab } => {
                if let Some(client) = self.tabs.remove(&tab) {
                    let room = self.room_of(tab);
                    actix::spawn(async move { drop(client.leave(&room).await) });
                }
            }
            HistoryStep::Add { channel, user } => {
                let ((rooms, room, channel), user) = (self.channel(channel), user.map(name));
                actix::spawn(async move { drop(rooms.add(&room, &channel, user.as_ref()).await) });
            }
            HistoryStep::Remove { channel } => {
                let (rooms, room, channel) = self.channel(channel);
                actix::spawn(async move { drop(rooms.remove(&room, &channel).await) });
            }
            HistoryStep::RemoveUser { user, node } => {
                let rooms = self.rooms_of(node);
                actix::spawn(async move { drop(rooms.remove_user(&name(user), None).await) });
            }
            HistoryStep::RemoveRoom { room, node } => {
                let (rooms, room) = (self.rooms_of(node), self.rooms[room].clone());
                actix::spawn(async move { drop(rooms.remove_room(&room, None).await) });
            }
            HistoryStep::Prune { node } => {
                let rooms = self.rooms_of(node);
                actix::spawn(async move { drop(rooms.prune_presences(Some(ms(500))).await) });
            }
            HistoryStep::Pass { ms: time } => {
                self.tabs.values().step_by(2).for_each(|client| client.touch());
                pass(ms(time)).await;
            }
            HistoryStep::Away { node, calls } => {
                self.nodes[node].node.store.faults.fail_next(calls);
            }
            HistoryStep::Hang { node, ms: time } => {
                self.until_answered(node).await;
                self.nodes[node].node.store.faults.hang();
                pass(ms(time)).await;
                self.nodes[node].node.store.faults.release();
            }
            HistoryStep::LoseAnswers { node, commits } => {
                self.nodes[node].late = true;
                self.nodes[node].node.store.lose_commits(commits);
            }
            HistoryStep::HangAfter { node, ms: time } => {
                self.nodes[node].late = true;
                self.nodes[node].node.store.hang_after_commit();
                pass(ms(time)).await;
                self.nodes[node].node.store.release_commits();
            }
            HistoryStep::Fail { node, room } => {
                self.rooms_of(node).table().send_running(&self.rooms[room], ToRoom::Panic);
                pass(secs(2)).await;
            }
            HistoryStep::Die { node } => self.die(node).await,
            HistoryStep::Calm => self.calm().await,
        }
        settle().await;
        self.receive();
    }

    fn room_of(&self, tab: usize) -> RoomName {
        self.rooms[tab / USERS % ROOMS].clone()
    }

    async fn die(&mut self, node: usize) {
        settle().await;
        self.until_answered(node).await;
        self.nodes[node].node.store.faults.hang();
        // It still publishes what it has committed, after its other calls have timed out.
        pass(secs(6)).await;
        self.receive();
        let rooms = self.rooms_of(node);
        self.tabs.retain(|_, client| !std::sync::Arc::ptr_eq(&client.rooms.0, &rooms.0));
        self.nodes[node] = start(&self.database, node).await;
    }

    /// A node is about to die, or to be considered dead. Nobody publishes the commits whose answers it has not received by then.
    async fn until_answered(&self, node: usize) {
        if self.nodes[node].late {
            self.nodes[node].node.store.lose_commits(0);
            pass(secs(2)).await;
        }
    }

    async fn calm(&mut self) {
        self.tabs.values().for_each(|client| client.touch());
        self.nodes.iter().for_each(|running| running.node.store.lose_commits(0));
        pass(secs(GRACE + 6)).await;
        self.nodes.iter_mut().for_each(|running| running.late = false);
        self.receive();
        for room in &self.rooms {
            let there =
                self.database.load(room.clone()).await.unwrap().map(|snapshot| snapshot.presences).unwrap_or_default();
            let users: BTreeSet<_> = there.iter().filter_map(|one| one.user.clone()).collect();
            if self.nodes.len() == 1 {
                assert_eq!(self.fold.online(room), users);
            }
            for user in (0..USERS).map(name) {
                let transitions = self.transitions.get(&(room.clone(), user.clone())).cloned().unwrap_or_default();
                assert!(alternate(&transitions, users.contains(&user)), "{user} in {room}: {transitions:?}");
            }
        }
    }

    fn receive(&mut self) {
        let count = self.nodes.len();
        for (number, running) in self.nodes.iter_mut().enumerate() {
            // Each of several nodes publishes its own changes, and there is no order between nodes.
            let published = if count == 1 {
                self.fold.receive(&mut running.changes, running.late)
            } else {
                events(&mut running.changes)
            };
            for event in published {
                let changed = event.user_offline().iter().map(|user| (user, false));
                for (user, online) in changed.chain(event.user_online().iter().map(|user| (user, true))) {
                    let transitions = self.transitions.entry((event.room.clone(), user.clone()));
                    transitions.or_insert_with(|| vec![Vec::new(); count])[number].push(online);
                }
            }
        }
    }
}

/// Whether the events of all nodes about a user fit together: the user went online and offline alternately, and is online now or not.
fn alternate(transitions: &[Vec<bool>], now: bool) -> bool {
    let mut reached = BTreeSet::from([vec![0; transitions.len()]]);
    for turn in 0..transitions.iter().map(Vec::len).sum() {
        let next = |published: &Vec<usize>| {
            let after = |node: usize| {
                let mut published = published.clone();
                published[node] += 1;
                published
            };
            let fits = |node: &usize| transitions[*node].get(published[*node]) == Some(&(turn % 2 == 0));
            (0..transitions.len()).filter(fits).map(after).collect::<Vec<_>>()
        };
        reached = reached.iter().flat_map(next).collect();
    }
    !reached.is_empty() && now == (transitions.iter().map(Vec::len).sum::<usize>() % 2 == 1)
}

async fn check(nodes: usize, steps: &[HistoryStep]) {
    tokio::time::pause();
    let mut world = HistoryWorld::new(nodes).await;
    for step in steps {
        world.go(step).await;
    }
    world.calm().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_subscriber_that_counts_users_by_the_events_of_a_node_is_right_after_each_event(steps in vec(step(1), 1..40)) {
        actix::System::new().block_on(check(1, &steps));
    }

    #[test]
    fn on_several_nodes_each_user_goes_online_and_offline_alternately(steps in vec(step(2), 1..40)) {
        actix::System::new().block_on(check(2, &steps));
    }
}

/// The sweep removed it, and its own leave, which was repeated, found it gone before the room was notified of that.
#[test]
fn a_leave_of_a_presence_that_was_swept_meanwhile_is_one_event() {
    let mut steps = vec![
        HistoryStep::Come { tab: 1, node: 0 },
        HistoryStep::Lose { tab: 1 },
        HistoryStep::Fail { node: 0, room: 0 },
    ];
    for _ in 0..20 {
        let more = [
            HistoryStep::Away { node: 0, calls: 5 },
            HistoryStep::Pass { ms: 1658 },
            HistoryStep::Hang { node: 0, ms: 6871 },
            HistoryStep::Calm,
        ];
        steps.extend(more);
        steps.extend([HistoryStep::Come { tab: 1, node: 0 }, HistoryStep::Lose { tab: 1 }]);
    }
    actix::System::new().block_on(check(1, &steps));
}

/// The leave at the end of its grace is tried again and again, and meanwhile a sweep removes the presence.
#[test]
fn a_lost_presence_that_a_sweep_removes_while_its_leave_fails_leaves_once() {
    let steps = [
        HistoryStep::Come { tab: 11, node: 0 },
        HistoryStep::Lose { tab: 11 },
        HistoryStep::Hang { node: 0, ms: 4489 },
        HistoryStep::Away { node: 0, calls: 4 },
        HistoryStep::Calm,
    ];
    actix::System::new().block_on(check(1, &steps));
}
