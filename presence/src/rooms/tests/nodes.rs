//! Two nodes on one database, with nothing between them but the database.

use super::prelude::*;

// behaviour: W17 resync
#[actix::test]
async fn changes_of_another_node_arrive_when_rooms_are_compared() {
    let [here, there] = nodes(quick).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    assert_eq!(bob.sees(), ["ann", "bob"]);
    pass(secs(3)).await;
    assert_eq!(ann.sees(), ["ann", "bob"]);
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(ann.view().here[&bob.id(lobby()).to_string()].1["n"], 1);
    bob.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(ann.view().changes, ["+bob", "~bob", "-bob"]);
    assert_eq!(here.names(lobby()).await, ann.sees());
}

#[actix::test]
async fn each_change_fires_on_the_node_that_made_it_and_nowhere_else() {
    let [here, there] = nodes(quick).await;
    let (mut changes, mut others) = (here.changes(), there.changes());
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    pass(secs(3)).await;
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    bob.leave(lobby()).await.unwrap();
    pass(secs(3)).await;
    assert_eq!(published(&mut changes), ["+ann", "~ann"]);
    assert_eq!(published(&mut others), ["+bob", "-bob"]);
}

#[actix::test]
async fn pruning_by_call_counts_own_and_held_presences() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", config().grace(secs(30))).await;
    let _crowd = old.crowd(3).await;
    old.store.faults.hang();
    let new = node_on(&database, "here", config().grace(secs(30))).await;
    let [_ann, _bob] = new.members_named(["ann", "bob"]).await;
    let mut changes = new.changes();
    pass(secs(5)).await;
    assert_eq!(new.prune_presences(Some(secs(6))).await.unwrap(), 0, "it may not judge yet what others left");
    pass(secs(9)).await;
    assert_eq!(new.prune_presences(Some(secs(3))).await.unwrap(), 5);
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(events, ["-[ann bob]", "-[u0 u1 u2]"]);
}

// behaviour: 3 changed-elsewhere
#[actix::test]
async fn a_removal_by_a_tool_is_sent_to_the_members_of_every_node_and_fires_no_event() {
    let [here, there] = nodes(quick).await;
    let dead = NodeId::random();
    let database = here.store.database();
    database.register(dead, NodeName::new("dead").unwrap(), ms(1)).await.unwrap();
    let ghost = Arc::new(Presence::new(PresenceId::random(), channel("g"), Some(user("ghost")), dead));
    let writes = vec![Write::Join(ghost)];
    database.commit(dead, Attempt::next(), [RoomWrites { room: lobby().clone(), writes }].into()).await.unwrap();
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    pass(ms(2500)).await;
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into(), "ghost".into()], ann.sees()));
    let (mut changes, mut others) = (here.changes(), there.changes());
    let tool = NodeId::random();
    database.register(tool, NodeName::new("presence-cli:1").unwrap(), secs(60)).await.unwrap();
    assert_eq!(database.prune(tool, Duration::from_millis(1), Duration::ZERO, 10).await.unwrap().handled, 1);
    pass(ms(2500)).await;
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    assert_eq!(published(&mut changes), NONE);
    assert_eq!(published(&mut others), NONE);
}

#[actix::test]
async fn a_presence_that_left_during_a_load_stays_away_however_late_the_load_arrives() {
    // The reading was from before the leave, of which the room could not yet make use, since a change of the other node was
    // missing. So it took the one who had left for one of its own, and then its absence for a removal by somebody else.
    let [here, there] = nodes(quick).await;
    let [ann, bob] = here.members_named(["ann", "bob"]).await;
    pass(secs(3)).await;
    let (mut changes, log) = (here.changes(), Log::of_warnings());
    here.store.hang_after_load();
    let _cid = there.member("cid").await;
    pass(secs(3)).await;
    let _dan = there.member("dan").await;
    bob.leave(lobby()).await.unwrap();
    here.store.release_loads();
    alive(&[&ann], secs(10)).await;
    assert_eq!(here.rows(lobby()).await, ["ann", "cid", "dan"]);
    assert_eq!(ann.sees(), ["ann", "cid", "dan"]);
    assert_eq!((published(&mut changes), log.lines()), (vec!["-bob".to_owned()], Vec::new()));
}

#[actix::test]
async fn a_join_that_finds_a_change_of_another_node_waits_for_one_load_only() {
    // It waited for a change that no node would send.
    let [here, there] = nodes(config).await;
    let (_ann, _bob) = (here.member("ann").await, there.member("bob").await);
    pass(secs(1)).await;
    let (before, loads) = (here.rooms.this_node().now(), here.store.loads());
    let cid = here.member("cid").await;
    assert_eq!(here.store.loads() - loads, 1);
    // Timers are exact to this degree.
    assert!(here.rooms.this_node().now().since(before) <= ms(2));
    assert_eq!(cid.sees(), ["ann", "bob", "cid"]);
}

#[actix::test]
async fn joins_that_find_a_room_changed_while_it_is_loaded_share_the_next_load() {
    let [here, there] = nodes(config).await;
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
async fn a_database_that_lost_confirmed_changes_is_noticed_and_the_connected_sockets_join_again() {
    tokio::time::pause();
    // The version of the room went back, or is used a second time, or is one after those.
    for further_changes in [0, 1, 5] {
        check_lost_changes(further_changes).await;
    }
}

/// The database loses changes of both nodes that it had confirmed, and then this node makes so many.
async fn check_lost_changes(and_then: usize) {
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", quick()).await, node_on(&database, "there", quick()).await);
    let [ann, bob] = here.members_named(["ann", "bob"]).await;
    let cid = there.member("cid").await;
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
async fn a_restored_presence_has_its_latest_meta_although_an_older_load_arrives_later() {
    // The load showed the update before the last one, and the room considered it the last.
    let [here, there] = nodes(quick).await;
    let (ann, _bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann], secs(3)).await;
    here.store.hang_after_load();
    let _cid = there.member("cid").await;
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    settle().await;
    let _dan = there.member("dan").await;
    ann.update(lobby(), r#"{"n":2}"#).await.unwrap();
    // This is a removal by another process, as if this node had been considered dead.
    let writes = vec![Write::Leave { id: ann.id(lobby()), channel: ann.channel.clone() }];
    let removal = RoomWrites { room: lobby().clone(), writes };
    here.store.database().commit(here.node().unwrap(), Attempt::next(), [removal].clone().into()).await.unwrap();
    here.store.release_loads();
    alive(&[&ann], secs(3)).await;
    assert_eq!(ann.sees(), ["ann", "bob", "cid", "dan"]);
    assert_eq!(ann.view().here[&ann.id(lobby()).to_string()].1["n"], 2);
}

#[actix::test]
async fn a_presence_whose_leave_was_lost_is_no_ghost_although_its_room_is_not_in_memory() {
    let [here, there] = nodes(quick).await;
    let (ann, bob) = (here.member("ann").await, there.member("bob").await);
    alive(&[&ann, &bob], secs(3)).await;
    let crash = here.store.database().crash_to_now();
    ann.leave(lobby()).await.unwrap();
    alive(&[&bob], secs(10)).await;
    assert_eq!((here.running(), here.rows(lobby()).await), (0, vec!["bob".to_owned()]));
    crash();
    assert_eq!(here.rows(lobby()).await, ["ann", "bob"]);
    // It is held for two comparisons and `store_timeout`, because another node may have its socket.
    alive(&[&bob], secs(15)).await;
    assert_eq!((here.rows(lobby()).await, bob.sees()), (vec!["bob".to_owned()], vec!["bob".to_owned()]));
}

#[actix::test]
async fn a_node_that_has_lost_nothing_learns_from_the_others_that_versions_were_used_again() {
    let [here, there] = nodes(|| config().lease(secs(3600)).reconcile_interval(secs(5))).await;
    let [ann, bob] = [here.member("ann").await, there.member("bob").await];
    alive(&[&ann, &bob], secs(20)).await;
    let crash = here.store.database().crash_to_now();
    let cid = there.member("cid").await;
    alive(&[&ann, &bob, &cid], secs(20)).await;
    assert_eq!(ann.sees(), ["ann", "bob", "cid"]);
    crash();
    let log = Log::of_warnings();
    // The next version of the room is that of the lost join.
    let dan = FakeClient::new(&there, Some(user("dan")));
    dan.join(lobby()).await.unwrap();
    alive(&[&ann, &bob, &cid, &dan], secs(12)).await;
    for client in [&ann, &bob, &cid, &dan] {
        assert_eq!(client.sees(), ["ann", "bob", "cid", "dan"]);
    }
    let lines = log.lines_with("has lost changes that it had confirmed").len();
    assert_eq!(lines, 2, "one for each node");
}
