//! 100,000 presences in 1,000 rooms are removed, until the last event is heard: those of a dead node, and stale ones of the own.
//! And a round of the supervisor that finds nothing among 1,000,000.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use presence::{PresenceChange, Rooms, Sweep, name::ChannelName, signal::Subscription, store::Store};
use presence_test_servers::Server;

use super::{HOUR, Place, RUNS, begin, fill, room, since, tell, user};

const ROOMS: usize = 1_000;
const EACH: usize = 100;
const ALL: usize = ROOMS * EACH;

/// Hears events until all have left; returns how many events that took.
async fn all_left(changes: &mut Subscription) -> usize {
    let (mut left, mut events) = (0, 0);
    while left < ALL {
        let event = changes.next().await.expect("the rooms are there");
        assert_eq!(event.missed, 0);
        events += 1;
        match event.change {
            PresenceChange::Bulk(gone) => left += gone.len(),
            PresenceChange::Added(_) => events -= 1,
            other => panic!("only bulk changes remove: {other:?}"),
        }
    }
    events
}

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let (mut dead, mut stale) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let place = Place::new(server).await;
        let store = place.store().await;
        let life = begin(&store, "dead", HOUR).await;
        fill(&store, life, ROOMS, EACH).await;
        store.register(life, &"dead".parse().expect("a good name"), Duration::ZERO).await.expect("it ends its lease");
        let (rooms, supervisor) = place.rooms().await;
        // The node must have been alive for a lease before it judges others.
        let lease = rooms.config().lease();
        tokio::time::sleep(lease + lease / 2).await;
        let mut changes = rooms.changes();
        let begun = Instant::now();
        let (events, swept) = tokio::join!(all_left(&mut changes), supervisor.send(Sweep));
        dead.push(since(begun));
        let swept = swept.expect("it runs").expect("it sweeps");
        println!("{database:<9} run {run}: {swept} of a dead node removed, {events} bulk events");

        drop(changes);
        join_stale(&rooms).await;
        let mut changes = rooms.changes();
        let begun = Instant::now();
        let (events, pruned) =
            tokio::join!(all_left(&mut changes), rooms.prune_presences(Some(Duration::from_millis(1))));
        stale.push(since(begun));
        let pruned = pruned.expect("it prunes");
        println!("{database:<9} run {run}: {pruned} stale ones of the own node removed, {events} bulk events");
        rooms.shutdown().await;
    }
    tell(database, "100,000 of a dead node in 1,000 rooms removed, events heard", dead, 1.0, "s");
    tell(database, "100,000 stale ones of the own node in 1,000 rooms, the same", stale, 1.0, "s");
}

/// Fills rooms with presences of this node that nobody touches.
async fn join_stale(rooms: &Rooms) {
    for hundred in 0..EACH {
        let join = async |n: usize| {
            let channel = ChannelName::new(format!("stale {hundred} {n}")).expect("a good name");
            rooms.add(&room(n), &channel, Some(&user(hundred))).await.expect("it joins");
        };
        join_all((0..ROOMS).map(join)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
}

pub(super) async fn measure_idle(database: &str, server: Option<&Server>) {
    let place = Place::new(server).await;
    let (store, node) = place.writer().await;
    fill(&store, node, ROOMS, 1_000).await;
    let mut times = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        assert!(store.fence(node).await.expect("it may judge").is_empty());
        assert_eq!(store.sweep(node, 1_000).await.expect("it sweeps").handled, 0);
        assert_eq!(store.prune(node, Duration::from_secs(60), 1_000).await.expect("it prunes").handled, 0);
        times.push(since(begun));
    }
    tell(database, "fence, sweep and prune with nothing due, 1,000,000 live", times, 1e3, "ms");
}
