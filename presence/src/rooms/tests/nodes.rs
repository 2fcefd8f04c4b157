//! Two nodes on one database, with nothing between them but the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::bench::{Client, Log, Node, config, heard, lobby, ms, node_on, pass, secs, settle, user};
use crate::{
    clock::{Clock, Tick},
    config::ConfigBuilder,
    model::Presence,
    name::{ChannelName, NodeId, NodeName, PresenceId},
    store::{Attempt, MemoryStore, NodeStore, RoomStore, RoomWrites, Write},
};

fn quick() -> ConfigBuilder {
    config().lease(secs(3)).sweep_interval(secs(1)).reconcile_interval(secs(2))
}

async fn two(config: fn() -> ConfigBuilder) -> (Node, Node) {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await)
}

/// Lets time pass in which these sockets are heard of.
async fn alive(clients: &[&Client], time: std::time::Duration) {
    for _ in 0..time.as_secs() {
        pass(secs(1)).await;
        clients.iter().for_each(|client| client.touch());
    }
}

// behaviour: W17 resync
#[actix::test]
async fn changes_of_another_node_arrive_when_rooms_are_compared() {
    let (here, there) = two(quick).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    assert_eq!(bob.sees(), ["ann", "bob"]);
    pass(secs(3)).await;
    assert_eq!(ann.sees(), ["ann", "bob"]);
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(ann.screen().here[&bob.id(lobby()).to_string()].1["n"], 1);
    bob.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(
        (ann.screen().told, here.names(lobby()).await),
        (vec!["+bob".into(), "~bob".into(), "-bob".to_owned()], ann.sees())
    );
}

#[actix::test]
async fn each_change_fires_on_the_node_that_made_it_and_nowhere_else() {
    let (here, there) = two(quick).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    pass(secs(3)).await;
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(heard(&mut changes), ["+ann", "~ann"]);
    assert_eq!(heard(&mut others), ["+bob", "-bob"]);
}

#[actix::test]
async fn the_presences_of_a_dead_node_leave_once_as_one_bulk_event_on_the_node_that_found_it() {
    let (here, there) = two(quick).await;
    let ann = here.member("ann").await;
    let crowd = there.crowd(5).await;
    alive(&[&ann], secs(5)).await;
    let (mut changes, frames) = (here.changes(), ann.count());
    there.store.faults.hang();
    alive(&[&ann], secs(10)).await;
    assert_eq!(heard(&mut changes), ["-[u0 u1 u2 u3 u4]"]);
    assert_eq!((ann.sees(), ann.count() - frames), (vec!["ann".to_owned()], 1));
    alive(&[&ann], secs(30)).await;
    assert_eq!((heard(&mut changes), here.rows(lobby()).await), (Vec::new(), vec!["ann".to_owned()]));
    drop(crowd);
}

#[actix::test]
async fn a_node_that_was_taken_for_dead_lives_again_and_nobody_is_lost_or_doubled() {
    let (here, there) = two(quick).await;
    let ann = here.member("ann").await;
    let crowd = there.crowd(5).await;
    let all: Vec<_> = crowd.iter().chain([&ann]).collect();
    alive(&all, secs(5)).await;
    let (life, ids) = (there.node(), crowd[0].screen().here.keys().cloned().collect::<Vec<_>>());
    let (mut changes, mut others) = (here.changes(), there.changes());
    there.store.faults.hang();
    alive(&all, secs(10)).await;
    assert_eq!((heard(&mut changes), ann.sees()), (vec!["-[u0 u1 u2 u3 u4]".to_owned()], vec!["ann".to_owned()]));
    there.store.faults.release();
    alive(&all, secs(10)).await;
    assert_ne!(there.node(), life, "it has another life");
    assert_eq!(ann.sees(), ["ann", "u0", "u1", "u2", "u3", "u4"]);
    assert_eq!(crowd[0].screen().here.keys().cloned().collect::<Vec<_>>(), ids, "under the same ids");
    assert_eq!(crowd[0].sees(), ann.sees());
    let mut told = heard(&mut others);
    told.sort();
    assert_eq!(
        (told, heard(&mut changes)),
        (vec!["+u0".to_owned(), "+u1".into(), "+u2".into(), "+u3".into(), "+u4".into()], vec![])
    );
    for member in &all {
        for name in ["u0", "u1", "u2", "u3", "u4"] {
            let told = member.screen().told;
            let count = |event: String| told.iter().filter(|one| **one == event).count();
            assert!(count(format!("-{name}")) <= 1 && count(format!("+{name}")) <= 2, "{told:?}");
        }
    }
    // And it goes on as before.
    crowd[0].leave(lobby()).await.unwrap();
    crowd[1].update(lobby(), r#"{"n":1}"#).await.unwrap();
    alive(&all[1..], secs(70)).await;
    assert_eq!((ann.sees(), crowd[1].sees()), (there.names(lobby()).await, ann.sees()));
    assert_eq!((ann.sees().len(), there.children(), here.children()), (5, 4, 1));
}

#[actix::test]
async fn one_who_leaves_while_its_node_is_taken_for_dead_does_not_come_back() {
    // Its rejoin and its leave cancelled out, though the database still had it: held, until the grace was over.
    let (here, there) = two(quick).await;
    let (ann, bob, cid) = (here.member("ann").await, there.member("bob").await, there.member("cid").await);
    alive(&[&ann, &bob, &cid], secs(5)).await;
    // The other finds it dead, but does not get to remove anybody.
    here.store.clear_nobody();
    there.store.clear_nobody();
    there.store.faults.hang();
    alive(&[&ann, &bob, &cid], secs(6)).await;
    there.store.commits_take(ms(700));
    there.store.faults.release();
    // Now its sockets join again, and while those joins wait, one of them leaves.
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
async fn an_update_that_waits_while_its_node_begins_another_life_is_not_undone() {
    // The rejoin took its place in the queue, with the meta of before.
    let (here, there) = two(quick).await;
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
        assert_eq!(client.screen().here[&bob.id(lobby()).to_string()].1["n"], 1);
    }
}

#[actix::test]
async fn an_outage_of_the_database_for_both_nodes_makes_nobody_leave() {
    let (here, there) = two(config).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(21)).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    here.store.faults.hang();
    there.store.faults.hang();
    alive(&[&ann, &bob], secs(55)).await;
    here.store.faults.release();
    // The other one comes back a little later, and all the while this one sweeps and prunes.
    alive(&[&ann, &bob], secs(2)).await;
    there.store.faults.release();
    alive(&[&ann, &bob], secs(70)).await;
    assert_eq!((heard(&mut changes), heard(&mut others)), (Vec::<String>::new(), Vec::<String>::new()));
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    assert!(ann.screen().told.iter().all(|told| told.starts_with('+')));
}

#[actix::test]
async fn scheduled_pruning_judges_no_other_node_before_this_one_may() {
    // After an outage the rows of a node that is just coming back were old enough, and its lease had run out.
    let (here, there) = two(|| config().prune_interval(secs(1))).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(20)).await;
    let mut changes = here.changes();
    here.store.faults.hang();
    there.store.faults.hang();
    alive(&[&ann, &bob], secs(58)).await;
    here.store.faults.release();
    alive(&[&ann, &bob], secs(5)).await;
    there.store.faults.release();
    alive(&[&ann, &bob], secs(30)).await;
    assert_eq!((heard(&mut changes), ann.sees()), (Vec::new(), vec!["ann".to_owned(), "bob".into()]));
}

#[actix::test]
async fn pruning_by_call_judges_no_other_node_before_this_one_may() {
    // It removed the presences of every node that came back from the outage a little later than this one.
    let (here, there) = two(config).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(20)).await;
    let mut changes = here.changes();
    here.store.faults.hang();
    there.store.faults.hang();
    alive(&[&ann, &bob], secs(58)).await;
    here.store.faults.release();
    alive(&[&ann, &bob], secs(5)).await;
    assert_eq!(here.prune_presences(None).await.unwrap(), 0, "the lease of the other ran out, and its rows are old");
    there.store.faults.release();
    alive(&[&ann, &bob], secs(30)).await;
    assert_eq!((heard(&mut changes), ann.sees()), (Vec::new(), vec!["ann".to_owned(), "bob".into()]));
}

// behaviour: W21 monotonic
#[actix::test]
async fn a_database_whose_clock_jumps_forward_makes_nobody_leave() {
    // Whoever swept or pruned first took every other node for dead.
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
    assert_eq!((heard(&mut changes), heard(&mut others)), (Vec::new(), Vec::<String>::new()));
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    // And it still finds out who is really dead.
    there.store.faults.hang();
    alive(&[&ann], secs(14)).await;
    assert_eq!(heard(&mut changes), ["-[bob]"]);
}

#[actix::test]
async fn pruning_by_call_counts_our_own_and_those_that_are_held() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", config().grace(secs(30))).await;
    let _crowd = old.crowd(3).await;
    old.store.faults.hang();
    let new = node_on(&database, "here", config().grace(secs(30))).await;
    let (_ann, _bob) = (new.member("ann").await, new.member("bob").await);
    let mut changes = new.changes();
    pass(secs(5)).await;
    assert_eq!(new.prune_presences(Some(secs(6))).await.unwrap(), 0, "it may not judge yet what others left");
    pass(secs(9)).await;
    assert_eq!(new.prune_presences(Some(secs(3))).await.unwrap(), 5);
    let mut told = heard(&mut changes);
    told.sort();
    assert_eq!(told, ["-[ann bob]", "-[u0 u1 u2]"]);
}

// behaviour: 3 changed-elsewhere
#[actix::test]
async fn what_a_tool_removes_is_told_to_the_members_of_every_node_and_fires_no_event() {
    let (here, there) = two(quick).await;
    let dead = NodeId::random();
    let database = here.store.database();
    database.register(dead, NodeName::new("dead").unwrap(), ms(1)).await.unwrap();
    let ghost =
        Arc::new(Presence::new(PresenceId::random(), ChannelName::new("g").unwrap(), Some(user("ghost")), dead));
    let writes = vec![Write::Join(ghost)];
    database.commit(dead, Attempt::next(), [RoomWrites { room: lobby().clone(), writes }].into()).await.unwrap();
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    pass(ms(2500)).await;
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into(), "ghost".into()], ann.sees()));
    let (mut changes, mut others) = (here.changes(), there.changes());
    let tool = NodeId::random();
    database.register(tool, NodeName::new("presence-cli:1").unwrap(), secs(60)).await.unwrap();
    assert_eq!(database.prune(tool, Duration::from_millis(1), 10).await.unwrap().handled, 1);
    pass(ms(2500)).await;
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    assert_eq!((heard(&mut changes), heard(&mut others)), (Vec::<String>::new(), Vec::<String>::new()));
}

#[actix::test]
async fn one_who_left_while_its_room_was_read_stays_gone_however_late_that_reading_comes() {
    // The reading was from before the leave, of which the room could not yet make use, since a change of the other node was
    // missing. So it took the one who had left for one of its own, and then its absence for a removal by somebody else.
    let (here, there) = two(quick).await;
    let (ann, bob) = (here.member("ann").await, here.member("bob").await);
    pass(secs(3)).await;
    let (mut changes, log) = (here.changes(), Log::of_warnings());
    here.store.hang_after_load();
    let _cid = there.member("cid").await;
    pass(secs(3)).await;
    let _dan = there.member("dan").await;
    bob.leave(lobby()).await.unwrap();
    here.store.release_loads();
    alive(&[&ann], secs(10)).await;
    assert_eq!(
        (here.rows(lobby()).await, ann.sees()),
        (vec!["ann".to_owned(), "cid".into(), "dan".into()], ann.sees())
    );
    assert_eq!(ann.sees(), ["ann", "cid", "dan"]);
    assert_eq!((heard(&mut changes), log.lines()), (vec!["-bob".to_owned()], Vec::new()));
}

#[actix::test]
async fn a_join_that_finds_the_room_changed_by_another_node_waits_for_a_reading_and_no_longer() {
    // It waited for the hold window: for a change that nobody sends.
    let (here, there) = two(config).await;
    let (_ann, _bob) = (here.member("ann").await, there.member("bob").await);
    pass(secs(1)).await;
    let (before, loads) = (here.rooms.this_node().now(), here.store.loads());
    let cid = here.member("cid").await;
    assert_eq!(here.store.loads() - loads, 1);
    // Timers are as exact as that.
    assert!(here.rooms.this_node().now().since(before) <= ms(2));
    assert_eq!(cid.sees(), ["ann", "bob", "cid"]);
}

#[actix::test]
async fn joins_that_find_a_room_changed_while_it_is_read_share_the_next_reading() {
    let (here, there) = two(config).await;
    let (_ann, _bob) = (here.member("ann").await, there.member("bob").await);
    let loads = here.store.loads();
    here.store.hang_after_load();
    let crowd: Vec<_> = (0..20).map(|n| here.client(&format!("u{n}"))).collect();
    let all = futures_util::future::join_all(crowd.iter().map(|client| async {
        pass(ms(10)).await;
        there.member("x").await;
        client.join(lobby()).await.unwrap();
    }));
    futures_util::future::join(all, async {
        pass(ms(500)).await;
        here.store.release_loads();
    })
    .await;
    assert!(here.store.loads() - loads <= 3, "{}", here.store.loads() - loads);
    assert_eq!(crowd[0].sees().len(), 42);
}

#[actix::test]
async fn a_presence_without_a_socket_that_a_shutdown_removes_is_not_brought_back() {
    let node = super::bench::node().await;
    let job = ChannelName::new("job").unwrap();
    let _room = node.rooms.add(lobby(), &job, Some(&user("job"))).await.unwrap();
    let log = Log::of_warnings();
    node.rooms.shutdown().await;
    settle().await;
    assert_eq!(log.lines(), Vec::<String>::new());
    assert_eq!(node.rows(lobby()).await, Vec::<String>::new());
}

/// The database loses changes of both nodes that it had confirmed, and then this one makes so many.
async fn database_loses_changes(and_then: usize) {
    let (here, there) = two(quick).await;
    let (ann, bob, cid) = (here.member("ann").await, here.member("bob").await, there.member("cid").await);
    pass(secs(3)).await;
    let crash = here.store.database().crash_to_now();
    let dan = here.member("dan").await;
    bob.leave(lobby()).await.unwrap();
    let eve = there.member("eve").await;
    pass(secs(3)).await;
    assert_eq!((ann.sees(), cid.sees()), (here.rows(lobby()).await, here.rows(lobby()).await));
    crash();
    let mut more = Vec::new();
    for n in 0..and_then {
        more.push(here.member(&format!("u{n}")).await);
    }
    alive(&[&ann, &cid, &dan, &eve], secs(8)).await;
    let mut all = vec!["ann".to_owned(), "cid".into(), "dan".into(), "eve".into()];
    all.extend((0..and_then).map(|n| format!("u{n}")));
    assert_eq!(here.rows(lobby()).await, all);
    for client in [&ann, &cid, &dan, &eve] {
        assert_eq!(client.sees(), all);
    }
    assert_eq!((here.names(lobby()).await, there.names(lobby()).await), (all.clone(), all));
}

#[actix::test]
async fn a_room_whose_version_went_back_is_read_anew_and_who_is_connected_joins_again() {
    // Only a database that was ahead of the node was noticed.
    database_loses_changes(0).await;
}

#[actix::test]
async fn a_version_that_is_used_a_second_time_is_not_taken_for_one_that_is_known() {
    database_loses_changes(1).await;
}

#[actix::test]
async fn a_version_after_those_that_were_used_a_second_time_is_not_taken_for_the_next() {
    database_loses_changes(5).await;
}

#[actix::test]
async fn one_who_joins_while_its_node_begins_another_life_is_in_when_the_join_is_answered() {
    // The join was committed, and removed with the life before; the room had learned of neither, and waited for ever.
    let (here, there) = two(|| quick().store_timeout(secs(20))).await;
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
    assert_eq!(
        (ann.sees(), here.rows(lobby()).await),
        (vec!["ann".to_owned(), "bob".into(), "zed".into()], ann.sees())
    );
}

#[actix::test]
async fn one_who_is_brought_back_says_of_itself_what_it_said_last_though_a_reading_from_before_came_later() {
    // The reading showed the update before the last, which the room then took for the last.
    let (here, there) = two(quick).await;
    let (ann, _bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann], secs(3)).await;
    here.store.hang_after_load();
    let _cid = there.member("cid").await;
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    settle().await;
    let _dan = there.member("dan").await;
    ann.update(lobby(), r#"{"n":2}"#).await.unwrap();
    // By another hand, as if its node had been taken for dead.
    let writes = vec![Write::Leave { id: ann.id(lobby()), channel: ann.channel.clone() }];
    let removal = RoomWrites { room: lobby().clone(), writes };
    here.store.database().commit(here.node().unwrap(), Attempt::next(), [removal].clone().into()).await.unwrap();
    here.store.release_loads();
    alive(&[&ann], secs(3)).await;
    assert_eq!(ann.sees(), ["ann", "bob", "cid", "dan"]);
    assert_eq!(ann.screen().here[&ann.id(lobby()).to_string()].1["n"], 2);
}
