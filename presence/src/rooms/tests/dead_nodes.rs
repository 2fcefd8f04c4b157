//! Nodes that are dead, or that another node considers dead by mistake.

use std::sync::atomic::{AtomicU64, Ordering};

use super::prelude::*;
use crate::clock::Tick;

#[actix::test]
async fn the_presences_of_a_dead_node_leave_in_one_bulk_event_on_the_node_that_fenced_it() {
    let [here, there] = nodes(quick).await;
    let ann = here.member("ann").await;
    let crowd = there.crowd(5).await;
    alive(&[&ann], secs(5)).await;
    let (mut changes, frames) = (here.changes(), ann.count());
    there.store.faults.hang();
    alive(&[&ann], secs(10)).await;
    assert_eq!(published(&mut changes), ["-[u0 u1 u2 u3 u4]"]);
    assert_eq!((ann.sees(), ann.count() - frames), (vec!["ann".to_owned()], 1));
    alive(&[&ann], secs(30)).await;
    assert_eq!((published(&mut changes), here.rows(lobby()).await), (Vec::new(), vec!["ann".to_owned()]));
    drop(crowd);
}

#[actix::test]
async fn of_two_survivors_one_cleans_up_and_the_other_only_if_it_does_not() {
    let [here, there, yonder] = nodes(quick).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    let crowd = yonder.crowd(5).await;
    let all: Vec<_> = crowd.iter().chain([&ann, &bob]).collect();
    alive(&all, secs(5)).await;
    yonder.store.faults.hang();
    alive(&all, secs(10)).await;
    let cleared = [here.store.cleared(), there.store.cleared()];
    assert_eq!(cleared.iter().sum::<usize>(), 1, "{cleared:?}");
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".to_owned()], ann.sees()));
    // It comes back under another id and dies again, as often as it takes until the one is chosen that cannot.
    here.store.clear_nobody();
    for _ in 0..6 {
        yonder.store.faults.release();
        alive(&all, secs(10)).await;
        assert_eq!(ann.sees().len(), 7);
        yonder.store.faults.hang();
        alive(&all, secs(10)).await;
        assert_eq!(ann.sees(), ["ann", "bob"]);
    }
}

#[actix::test]
async fn clearing_a_dead_node_for_longer_than_a_sweep_is_one_event_of_one_node() {
    // The other one took it for forgotten, cleared the rest, and each told its part.
    const CROWD: usize = 3_000;
    let [here, there] = nodes(quick).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    let dead = NodeId::random();
    let database = here.store.database();
    database.register(dead, NodeName::new("dead").unwrap(), secs(3)).await.unwrap();
    let presence =
        |n| Presence::new(PresenceId::random(), channel(format!("c{n}")), Some(user(&format!("u{n}"))), dead);
    let joins = (0..CROWD).map(|n| Write::Join(Arc::new(presence(n)))).collect();
    let joins = RoomWrites { room: lobby().clone(), writes: joins };
    let _ = database.commit(dead, Attempt::next(), [joins].into()).await.unwrap();
    let (mut changes, mut others) = (here.changes(), there.changes());
    for node in [&here, &there] {
        node.store.removals_take(ms(700));
    }
    alive(&[&ann, &bob], secs(12)).await;
    let events = [published(&mut changes), published(&mut others)].concat();
    assert_eq!(events.len(), 1, "{:?}", events.iter().map(String::len).collect::<Vec<_>>());
    assert_eq!(events[0].split(' ').count(), CROWD);
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".to_owned()], ann.sees()));
}

#[actix::test]
async fn presences_whose_grace_is_over_are_swept_although_the_node_chosen_for_their_room_does_not_sweep() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let [here, there] = [node_on(&database, "here", quick()).await, unsupervised_node_on(&database, "there", quick())];
    there.rooms.ready().await;
    let mut changes = here.changes();
    // A node that has ended properly.
    let gone = NodeId::random();
    database.register(gone, NodeName::new("gone").unwrap(), secs(3)).await.unwrap();
    let bobs: Vec<_> =
        (0..12).map(|n| Presence::new(PresenceId::random(), channel(format!("c{n}")), None, gone)).collect();
    let in_rooms = |write: &dyn Fn(&Presence) -> Write| {
        let rooms = bobs.iter().enumerate().map(|(n, bob)| (room(&format!("room {n}")), vec![write(bob)]));
        rooms.map(|(room, writes)| RoomWrites { room, writes }).collect::<Vec<_>>()
    };
    let join = |bob: &Presence| Write::Join(Arc::new(bob.clone()));
    let hold = |bob: &Presence| Write::Hold { id: bob.id, channel: bob.channel.clone(), grace: secs(2) };
    for rooms in [in_rooms(&join), in_rooms(&hold)] {
        let _ = database.commit(gone, Attempt::next(), rooms.into()).await.unwrap();
    }
    assert_eq!(database.retire(gone, Duration::ZERO).await.unwrap(), []);
    pass(ms(1_900)).await;
    assert_eq!(published(&mut changes), NONE);
    // The first sweep that finds something leaves the rooms of the other node to it, and the one after it does not.
    let mut at_once = Vec::new();
    while at_once.is_empty() {
        pass(ms(50)).await;
        at_once = published(&mut changes);
    }
    assert!((1..12).contains(&at_once.len()), "{at_once:?}");
    pass(secs(2)).await;
    let later = published(&mut changes);
    assert_eq!(at_once.len() + later.len(), 12);
    drop(there);
}

#[actix::test]
async fn a_node_that_was_considered_dead_rejoins_and_no_presence_is_lost_or_doubled() {
    let [here, there] = nodes(quick).await;
    let ann = here.member("ann").await;
    let crowd = there.crowd(5).await;
    let all: Vec<_> = crowd.iter().chain([&ann]).collect();
    alive(&all, secs(5)).await;
    let (life, ids) = (there.node(), crowd[0].view().here.keys().cloned().collect::<Vec<_>>());
    let (mut changes, mut others) = (here.changes(), there.changes());
    there.store.faults.hang();
    alive(&all, secs(10)).await;
    assert_eq!((published(&mut changes), ann.sees()), (vec!["-[u0 u1 u2 u3 u4]".to_owned()], vec!["ann".to_owned()]));
    there.store.faults.release();
    alive(&all, secs(10)).await;
    assert_ne!(there.node(), life, "it has another life");
    assert_eq!(ann.sees(), ["ann", "u0", "u1", "u2", "u3", "u4"]);
    assert_eq!(crowd[0].view().here.keys().cloned().collect::<Vec<_>>(), ids, "under the same ids");
    assert_eq!(crowd[0].sees(), ann.sees());
    let mut events = published(&mut others);
    events.sort();
    assert_eq!(events, ["+u0", "+u1", "+u2", "+u3", "+u4"]);
    assert_eq!(published(&mut changes), NONE);
    for member in &all {
        for name in ["u0", "u1", "u2", "u3", "u4"] {
            let events = member.view().changes;
            let count = |event: String| events.iter().filter(|one| **one == event).count();
            assert!(count(format!("-{name}")) <= 1 && count(format!("+{name}")) <= 2, "{events:?}");
        }
    }
    // Afterwards the node works as before.
    crowd[0].leave(lobby()).await.unwrap();
    crowd[1].update(lobby(), r#"{"n":1}"#).await.unwrap();
    alive(&all[1..], secs(70)).await;
    assert_eq!((ann.sees(), crowd[1].sees()), (there.names(lobby()).await, ann.sees()));
    assert_eq!((ann.sees().len(), there.children(), here.children()), (5, 4, 1));
}

#[actix::test]
async fn a_presence_that_leaves_while_its_node_is_considered_dead_does_not_return() {
    // Its rejoin and its leave cancelled out, although the database still had it as held until its grace was over.
    let [here, there] = nodes(quick).await;
    let ann = here.member("ann").await;
    let bob = there.member("bob").await;
    let cid = there.member("cid").await;
    alive(&[&ann, &bob, &cid], secs(5)).await;
    // The other node fences it, but cannot remove its presences.
    here.store.clear_nobody();
    there.store.clear_nobody();
    there.store.faults.hang();
    alive(&[&ann, &bob, &cid], secs(6)).await;
    there.store.commits_take(ms(700));
    there.store.faults.release();
    // Now its sockets join again. While these joins are pending, one of them leaves.
    let life = there.node();
    while there.node() == life || there.node().is_none() {
        pass(ms(10)).await;
    }
    pass(ms(20)).await;
    bob.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(there.names(lobby()).await, ["ann", "cid"]);
    assert_eq!(there.rows(lobby()).await, ["ann", "cid"]);
}

#[actix::test]
async fn a_pending_update_is_not_undone_by_a_new_incarnation_of_the_node() {
    // The rejoin replaced it in the queue, with the former meta.
    let [here, there] = nodes(quick).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(5)).await;
    there.store.faults.hang();
    alive(&[&ann, &bob], secs(8)).await;
    let (updated, ()) = tokio::join!(bob.update(lobby(), r#"{"n":1}"#), async {
        pass(ms(100)).await;
        there.store.faults.release();
    });
    assert!(updated.is_ok());
    alive(&[&ann, &bob], secs(5)).await;
    for client in [&ann, &bob] {
        assert_eq!(client.view().here[&bob.id(lobby()).to_string()].1["n"], 1);
    }
}

#[actix::test]
async fn an_outage_of_the_database_for_two_nodes_makes_nobody_leave_however_they_prune() {
    // The node that came back first removed the presences of the other: their rows were old enough, and the lease of their node had expired.
    let [here, there] = nodes(|| config().prune_interval(secs(1))).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(21)).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    here.store.faults.hang();
    there.store.faults.hang();
    alive(&[&ann, &bob], secs(58)).await;
    here.store.faults.release();
    // The other one comes back later. Until then this one sweeps and prunes, in rounds and by call.
    alive(&[&ann, &bob], secs(5)).await;
    assert_eq!(here.prune_presences(None).await.unwrap(), 0);
    there.store.faults.release();
    alive(&[&ann, &bob], secs(70)).await;
    assert_eq!(published(&mut changes), NONE);
    assert_eq!(published(&mut others), NONE);
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    assert!(ann.view().changes.iter().all(|events| events.starts_with('+')));
}

// behaviour: W21 monotonic
#[actix::test]
async fn a_database_whose_clock_jumps_forward_makes_nobody_leave() {
    // The node that swept or pruned first considered every other node dead.
    tokio::time::pause();
    let (system, ahead) = (Clock::system(), Arc::new(AtomicU64::new(0)));
    let jumping = {
        let ahead = ahead.clone();
        Clock::new(move || Tick(system.now().0 + ahead.load(Ordering::Relaxed)))
    };
    let database = MemoryStore::new(jumping);
    let often = || config().prune_interval(secs(1));
    let (here, there) = (node_on(&database, "here", often()).await, node_on(&database, "there", often()).await);
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(20)).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    for jump in [secs(3600), secs(5), secs(9), secs(2)] {
        for n in 0..9 {
            // At any moment between two renewals.
            pass(ms(370 * n)).await;
            ahead.fetch_add(u64::try_from(jump.as_millis()).unwrap(), Ordering::Relaxed);
            assert_eq!(here.prune_presences(None).await.unwrap(), 0);
            alive(&[&ann, &bob], secs(17)).await;
        }
    }
    assert_eq!(published(&mut changes), NONE);
    assert_eq!(published(&mut others), NONE);
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    // It still fences a node that is really dead.
    there.store.faults.hang();
    alive(&[&ann], secs(14)).await;
    assert_eq!(published(&mut changes), ["-[bob]"]);
}

#[actix::test]
async fn a_join_during_a_new_incarnation_is_in_the_room_when_it_is_answered() {
    // The join was committed, and removed with the former incarnation. The room knew neither, and waited for ever.
    let [here, there] = nodes(|| quick().store_timeout(secs(20))).await;
    let (ann, zed) = (here.member("ann").await, there.member("zed").await);
    alive(&[&ann, &zed], secs(5)).await;
    let life = there.node();
    there.store.hang_after_commit();
    let bob = there.client("bob");
    let (joined, ()) = futures_util::future::join(bob.join(lobby()), async {
        pass(ms(50)).await;
        there.store.faults.hang();
        alive(&[&ann, &zed, &bob], secs(6)).await;
        there.store.faults.release();
        there.store.release_commits();
    })
    .await;
    joined.unwrap();
    alive(&[&ann, &zed, &bob], secs(8)).await;
    assert_ne!(there.node(), life, "it was taken for dead");
    assert_eq!(ann.sees(), ["ann", "bob", "zed"]);
    assert_eq!(here.rows(lobby()).await, ann.sees());
}
