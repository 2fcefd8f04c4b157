//! Names that are in use, removals on another node, and large removals, on each kind of database.

use super::prelude::*;
use super::removing::removals;
use crate::{
    actor::Sweep,
    store::{
        SqlStore, Store,
        trial::{Kind, Trial, on_each_kind},
    },
    testing::store::ManualClock,
};

on_each_kind! {
    a_name_that_another_process_has_put_into_the_room_is_in_use_until_it_leaves,
    channels_and_presences_of_another_node_are_removed_there,
    a_join_waits_for_one_batch_of_a_large_removal_and_each_room_has_one_event,
}

/// A node that looks for requests of others every 200 ms.
async fn node_on(trial: &Trial, name: &str) -> Rooms {
    let config = Config::builder().sweep_interval(ms(200)).build().unwrap();
    let rooms = Rooms::start(config, SqlStore::connect(&trial.url).unwrap(), NodeName::new(name).unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

fn a_name_that_another_process_has_put_into_the_room_is_in_use_until_it_leaves(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let (here, there) = (node_on(&trial, "here").await, node_on(&trial, "there").await);
        let job = channel("job 7");
        there.add(lobby(), &job, Some(&user("job"))).await.unwrap();
        // Other joins in the same transaction are not refused with it.
        let other = channel("job 8");
        let (taken, other) = futures_util::join!(here.add(lobby(), &job, None), here.add(lobby(), &other, None));
        assert!(matches!(&taken, Err(Error::ChannelTaken { channel, .. }) if *channel == job), "{taken:?}");
        assert!(taken.unwrap_err().is_retryable());
        assert!(other.is_ok(), "{other:?}");
        there.remove(lobby(), &job).await.unwrap();
        here.add(lobby(), &job, None).await.unwrap();
        here.shutdown().await;
        there.shutdown().await;
    });
}

fn channels_and_presences_of_another_node_are_removed_there(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let (here, there) = (node_on(&trial, "here").await, node_on(&trial, "there").await);
        let (bar, job) = (room("bar"), channel("it's job 7"));
        let client = || FakeClient::new(&there, Some(user("ann")));
        let [one, two, three, stays] = [client(), client(), client(), client()];
        for client in [&one, &two, &three, &stays] {
            client.join(lobby()).await.unwrap();
        }
        two.join(&bar).await.unwrap();
        there.add(&bar, &job, None).await.unwrap();
        here.remove(lobby(), &one.channel).await.unwrap();
        here.leave_all(&two.channel).await.unwrap();
        let close = Some(Close::new(CloseCode(4003), "enough"));
        assert!(here.remove_presence(lobby(), three.id(lobby()), close.clone()).await.unwrap());
        assert!(!here.remove_presence(lobby(), three.id(lobby()), close.clone()).await.unwrap(), "it is gone");
        here.remove(&bar, &job).await.unwrap();
        settle().await;
        assert_eq!(removals(&one), [("lobby".to_owned(), None)]);
        let mut both = removals(&two);
        both.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(both, [("bar".to_owned(), None), ("lobby".to_owned(), None)]);
        assert_eq!((removals(&three), removals(&stays)), (vec![("lobby".to_owned(), close)], vec![]));
        let in_lobby = here.this_node().store.load(lobby().clone()).await.unwrap().unwrap().presences;
        assert_eq!(in_lobby.iter().map(|one| one.id).collect::<Vec<_>>(), [stays.id(lobby())]);
        assert_eq!(here.this_node().store.load(bar.clone()).await.unwrap().unwrap().presences, []);
        here.shutdown().await;
        there.shutdown().await;
    });
}

const ROOMS: usize = 200;
const EACH: usize = 100;
/// How many presences one transaction removes while a join waits.
const BATCH: usize = 1024;
const LEASE: Duration = secs(3);

/// The presences that a former incarnation left, by room.
async fn remains(store: &SqlStore) -> BTreeMap<String, BTreeSet<PresenceId>> {
    let (node, name) = (NodeId::random(), NodeName::new("dead").unwrap());
    store.prepare().await.unwrap();
    store.register(node, name.clone(), secs(60)).await.unwrap();
    let mut all = BTreeMap::new();
    for some in (0..ROOMS).collect::<Vec<_>>().chunks(10) {
        let of = |n: &usize| {
            let ids: BTreeSet<_> = (0..EACH).map(|_| PresenceId::random()).collect();
            let join = |id: &PresenceId| {
                Write::Join(Arc::new(Presence::new(*id, ChannelName::new(id.to_string()).unwrap(), None, node)))
            };
            let writes = RoomWrites { room: room(&n.to_string()), writes: ids.iter().map(join).collect() };
            all.insert(n.to_string(), ids);
            writes
        };
        let writes: Vec<_> = some.iter().map(of).collect();
        store.commit(node, Attempt::next(), writes.clone().into()).await.unwrap();
    }
    store.register(node, name.clone(), Duration::ZERO).await.unwrap();
    all
}

/// Makes the node renew its lease, and waits until it may declare others dead.
async fn renewed(rooms: &Rooms) {
    let node = rooms.this_node();
    rooms.report_fenced(node.id().unwrap());
    while !node.registration.lease().may_judge(node.now()) {
        tokio::task::yield_now().await;
    }
}

/// The presences that left each room. Checks that there is one event for each.
async fn left_by_room(changes: &mut Subscription) -> BTreeMap<String, BTreeSet<PresenceId>> {
    let mut left = BTreeMap::new();
    while left.len() < ROOMS {
        let event = changes.next().await.unwrap();
        assert_eq!(event.missed, 0);
        if let PresenceChange::Bulk(gone) = event.change {
            let ids: BTreeSet<_> = gone.iter().map(|presence| presence.id).collect();
            assert_eq!(ids.len(), gone.len());
            assert_eq!(left.insert(event.room.to_string(), ids), None, "one event");
        }
    }
    left
}

fn a_join_waits_for_one_batch_of_a_large_removal_and_each_room_has_one_event(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let database = SqlStore::connect(&trial.url).unwrap();
        let left = remains(&database).await;
        let store = RecordingStore::new(FaultyStore::new(database));
        let config = Config::builder().lease(LEASE).sweep_interval(secs(3600)).prune_interval(secs(3600));
        let (name, clock) = (NodeName::new("here").unwrap(), ManualClock::new());
        let rooms = Rooms::with_clock(config.build().unwrap(), store.clone(), name, clock.clock());
        let supervisor = PruningSupervisor::spawn(&rooms);
        rooms.ready().await;
        // A node does not declare others dead before it has renewed its own lease for one full lease.
        clock.advance(LEASE);
        renewed(&rooms).await;

        let mut changes = rooms.changes();
        let mut swept = std::pin::pin!(supervisor.send(Sweep));
        let mut waited = Vec::new();
        let removed = loop {
            let before = store.cleared();
            let n = waited.len() % ROOMS;
            let (at, channel) = (room(&n.to_string()), ChannelName::new(format!("new {}", waited.len())).unwrap());
            tokio::select! {
                removed = &mut swept => break removed.unwrap().unwrap(),
                joined = rooms.add(&at, &channel, None) => drop(joined.unwrap()),
            }
            waited.push(store.cleared() - before);
        };
        println!("{kind:?}: {} joins during {} batches waited for {waited:?}", waited.len(), store.cleared());
        // Batches grow while no join waits.
        let most = (ROOMS * EACH).div_ceil(BATCH);
        assert_eq!(removed, ROOMS * EACH);
        assert!((most / 8..=most).contains(&store.cleared()), "{} batches", store.cleared());
        // Counted are those that begin while a join is on its way, which it need not wait for: one that came first, and one that
        // begins before the answer is here. On a busy machine an answer may be late, but not all are.
        waited.sort_unstable();
        assert!(waited[(waited.len() - 1) * 3 / 4] <= 2 && waited[waited.len() - 1] <= 10, "{waited:?}");
        assert!(waited.len() >= store.cleared() / 4, "they go on all the time: {waited:?}");
        assert_eq!(left_by_room(&mut changes).await, left);
        rooms.shutdown().await;
    });
}
