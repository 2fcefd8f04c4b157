//! What a dead node left, on each kind of database: it is removed in many transactions, between which others join.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::bench::{Watched, room, secs};
use crate::{
    Config, PruningSupervisor, Rooms,
    actor::Sweep,
    model::Presence,
    name::{ChannelName, NodeId, NodeName, PresenceId},
    signal::{PresenceChange, Subscription},
    store::{
        Attempt, NodeStore, RoomStore, RoomWrites, SqlStore, Store, Write,
        trial::{Kind, Trial, on_each_kind},
    },
    testing::store::FaultyStore,
};

on_each_kind! { a_join_waits_for_one_batch_of_a_large_removal_and_each_room_is_told_once }

const ROOMS: usize = 200;
const EACH: usize = 100;
/// So many are removed in one transaction, if somebody waits.
const BATCH: usize = 1024;
const LEASE: Duration = secs(3);

/// A life that is over, and what it left in each room.
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

/// Who left which room, each in one event.
async fn told(changes: &mut Subscription) -> BTreeMap<String, BTreeSet<PresenceId>> {
    let mut told = BTreeMap::new();
    while told.len() < ROOMS {
        let event = changes.next().await.unwrap();
        assert_eq!(event.missed, 0);
        if let PresenceChange::Bulk(gone) = event.change {
            let ids: BTreeSet<_> = gone.iter().map(|presence| presence.id).collect();
            assert_eq!(ids.len(), gone.len());
            assert_eq!(told.insert(event.room.to_string(), ids), None, "one event");
        }
    }
    told
}

fn a_join_waits_for_one_batch_of_a_large_removal_and_each_room_is_told_once(kind: Kind) {
    let trial = Trial::of(kind);
    actix::System::new().block_on(async {
        let database = SqlStore::connect(&trial.url).unwrap();
        let left = remains(&database).await;
        let store = Watched::new(FaultyStore::new(database));
        let config = Config::builder().lease(LEASE).sweep_interval(secs(3600)).prune_interval(secs(3600));
        let rooms = Rooms::start(config.build().unwrap(), store.clone(), NodeName::new("here").unwrap());
        let supervisor = PruningSupervisor::spawn(&rooms);
        rooms.ready().await;
        // A node judges no other before it has lived for a lease, by the database's own clock.
        tokio::time::sleep(LEASE + LEASE / 2).await;

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
        // They grow in moments in which nobody waits.
        let most = (ROOMS * EACH).div_ceil(BATCH);
        assert_eq!(removed, ROOMS * EACH);
        assert!((most / 8..=most).contains(&store.cleared()), "{} batches", store.cleared());
        // Counted are those that begin while a join is on its way, which it need not wait for: one that came first, and one that
        // begins before the answer is here. On a busy machine an answer may be late, but not all are.
        waited.sort_unstable();
        assert!(waited[(waited.len() - 1) * 3 / 4] <= 2 && waited[waited.len() - 1] <= 10, "{waited:?}");
        assert!(waited.len() >= store.cleared() / 4, "they go on all the time: {waited:?}");
        assert_eq!(told(&mut changes).await, left);
        rooms.shutdown().await;
    });
}
