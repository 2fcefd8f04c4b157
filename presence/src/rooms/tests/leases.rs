//! The registration of a node: its supervisor, its lease and its name.

use tokio::time::timeout;

use super::prelude::*;

fn database() -> MemoryStore {
    tokio::time::pause();
    MemoryStore::new(Clock::system())
}

fn often() -> ConfigBuilder {
    config().lease(secs(3))
}

#[actix::test]
async fn without_a_supervisor_sockets_work_and_one_warning_says_what_is_not_cleaned_up() {
    // If this line was forgotten, every socket was refused.
    let (database, log) = (database(), Log::of_warnings());
    let node = unsupervised_node_on(&database, "here", often());
    let ann = node.client("ann");
    let bob = node.client("bob").with_token("bob", secs(10));
    let cid = node.client("cid");
    for client in [&ann, &bob, &cid] {
        client.join(lobby()).await.unwrap();
    }
    let (incarnation, lines) = (node.node(), log.lines());
    assert!(incarnation.is_some() && lines.len() == 1, "{lines:?}");
    for part in ["PruningSupervisor::spawn", "dead nodes", "empty rooms"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    bob.lose(lobby());
    let other = unsupervised_node_on(&database, "other", often());
    let _dan = other.member("dan").await;
    other.store.faults.hang(); // Its process is gone.
    for _ in 0..3 {
        pass(secs(25)).await;
        ann.touch();
    }
    assert_eq!(node.node(), incarnation, "the lease is kept");
    assert_eq!(ann.sees(), ["ann", "dan"], "silent and lost sockets leave, and what a dead node left stays");
    assert_eq!((node.remove_user(&user("ann"), None).await.unwrap(), node.prune_rooms().await.unwrap()), (1, 0));
    PruningSupervisor::spawn(&node.rooms);
    pass(secs(5)).await;
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn a_node_is_ready_when_it_is_registered() {
    let node = starting_node_on(&database(), "here", config());
    node.store.faults.fail_next(usize::MAX);
    pass(secs(10)).await;
    assert!(node.ready().now_or_never().is_none() && !node.is_ready() && node.node().is_none());
    let ann = node.client("ann");
    assert!(matches!(ann.join(lobby()).await, Err(Error::StoreUnavailable(_))));
    node.store.faults.fail_next(0);
    node.ready().await;
    assert!(node.is_ready() && node.node().is_some());
    pass(secs(2)).await;
    assert_eq!((node.rows(lobby()).await, node.running()), (Vec::<String>::new(), 0));
    ann.join(lobby()).await.unwrap();
}

#[actix::test]
async fn a_join_before_the_registration_of_the_node_waits_for_it() {
    let node = starting_node_on(&database(), "here", config());
    node.store.faults.hang();
    let ann = node.client("ann");
    let (joined, ()) = tokio::join!(ann.join(lobby()), async {
        pass(secs(2)).await;
        node.store.faults.release();
    });
    joined.unwrap();
    let snapshot = node.store.database().load(lobby().clone()).await.unwrap().unwrap();
    assert_eq!(Some(snapshot.presences[0].node), node.node(), "and belongs to the life that was then begun");
}

#[actix::test]
async fn a_node_whose_name_is_taken_over_before_its_registration_is_answered_is_superseded() {
    // It tried for ever to register an incarnation that was over.
    let database = database();
    let node = starting_node_on(&database, "here", often());
    node.store.lose_registrations(usize::MAX);
    pass(secs(1)).await;
    let other = node_on(&database, "here", often()).await;
    pass(secs(20)).await;
    assert!(node.is_superseded() && other.is_ready() && !node.is_ready());
}

#[actix::test]
async fn a_lease_that_expired_without_notice_is_renewed_and_nothing_is_lost() {
    let node = node_with(often()).await;
    let ann = node.member("ann").await;
    let (life, mut changes) = (node.node(), node.changes());
    node.store.faults.hang();
    pass(secs(20)).await;
    node.store.faults.release();
    pass(secs(10)).await;
    assert_eq!((node.node(), published(&mut changes), ann.sees()), (life, Vec::new(), vec!["ann".to_owned()]));
}

#[actix::test]
async fn the_lease_is_renewed_also_while_a_commit_hangs() {
    let database = database();
    let node = node_on(&database, "here", often()).await;
    let other = node_on(&database, "other", often()).await;
    let _ann = node.member("ann").await;
    let (life, mut changes) = (node.node(), other.changes());
    node.store.hang_after_commit();
    let bob = node.client("bob");
    let _ = bob.join(lobby()).await;
    pass(secs(20)).await;
    assert_eq!((node.node(), published(&mut changes)), (life, Vec::new()));
}

#[actix::test]
async fn a_node_that_starts_under_the_name_of_a_running_node_supersedes_it() {
    let database = database();
    let old = node_on(&database, "here", often()).await;
    let [ann, bob] = old.members_named(["ann", "bob"]).await;
    let log = Log::of_warnings();
    assert!(!old.is_superseded());
    let new = node_on(&database, "here", often()).await;
    pass(secs(3)).await;
    assert!(old.is_superseded());
    let said: Vec<_> = log.lines().into_iter().filter(|line| line.contains("started its rooms twice")).collect();
    let names_it = said.iter().all(|line| line.contains(&new.node().unwrap().to_string()));
    assert!(said.len() == 1 && names_it, "{:?}", log.lines());
    drop(log);
    assert_eq!((ann.close_codes(), bob.close_codes()), (vec![CloseCode::RESTARTING], vec![CloseCode::RESTARTING]));
    assert!(matches!(old.client("cid").join(lobby()).await, Err(Error::ShuttingDown)));
    assert!(!old.is_ready() && new.is_ready());
    ann.join(lobby()).await.unwrap_err();
    let back = new.member("ann").await;
    pass(secs(15)).await;
    assert_eq!(back.sees(), ["ann"], "and those who did not come to it leave after their grace");
    assert!(new.is_ready() && new.node().is_some(), "the loser does not take the name back");
}

#[actix::test]
async fn a_superseded_node_ends_only_when_the_other_process_has_ended() {
    // Each process took the name back when it was started again, and no socket could stay on either.
    let database = database();
    let old = node_on(&database, "here", often()).await;
    let superseded = old.superseded();
    tokio::pin!(superseded);
    let new = node_on(&database, "here", often()).await;
    assert!(timeout(secs(600), superseded.as_mut()).await.is_err());
    assert!(new.is_ready());
    new.shutdown().await;
    timeout(secs(4), superseded).await.expect("the name is free");
}

#[actix::test]
async fn a_superseded_node_waits_two_leases_for_a_process_that_was_killed() {
    let database = database();
    let old = node_on(&database, "here", often()).await;
    let superseded = old.superseded();
    tokio::pin!(superseded);
    let new = node_on(&database, "here", often()).await;
    new.store.faults.hang();
    assert!(timeout(secs(4), superseded.as_mut()).await.is_err());
    timeout(secs(6), superseded).await.expect("it does not come back");
}

#[actix::test]
async fn rooms_that_are_started_twice_in_one_process_under_one_name_fail_at_once_and_leave_the_first_alone() {
    // This happens in the closure of `HttpServer::new`. The later rooms superseded the earlier ones.
    let database = database();
    let first = own_node_on(&database, "here", often());
    first.ready().await;
    let ann = first.member("ann").await;
    let log = Log::of_warnings();
    let second = own_node_on(&database, "here", often());
    let supervisor = PruningSupervisor::spawn(&second.rooms);
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{lines:?}");
    for part in ["`here`", "once", "before `HttpServer::new`"] {
        assert!(lines[0].contains(part), "{part}: {lines:?}");
    }
    pass(secs(20)).await;
    let joined = second.client("bob").join(lobby()).await;
    assert!(matches!(&joined, Err(Error::NameInUse { name }) if name.as_str() == "here"), "{joined:?}");
    assert!(matches!(second.prune_rooms().await, Err(Error::NameInUse { .. })));
    assert!(matches!(supervisor.send(crate::actor::Sweep).await.unwrap(), Err(Error::NameInUse { .. })));
    let called = second.add(lobby(), &channel("job"), None).await;
    assert!(matches!(called, Err(Error::NameInUse { .. })));
    let why = second.not_ready().unwrap().to_string();
    assert_eq!(why, "other rooms of this process have the name of this node", "and not that it is starting");
    assert!(!second.is_ready() && second.node().is_none() && second.store.faults.calls() == 0);
    ann.touch();
    assert!(first.is_ready() && first.names(lobby()).await == ["ann"] && ann.close_codes().is_empty());
    assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
    // Under another name or on another database, rooms of this process are independent.
    let elsewhere = MemoryStore::new(Clock::system());
    for other in [own_node_on(&database, "there", often()), own_node_on(&elsewhere, "here", often())] {
        other.ready().await;
    }
    second.shutdown().await;
    assert!(first.is_ready());
    first.shutdown().await;
    own_node_on(&database, "here", often()).ready().await;
}

// behaviour: W20 own-rows-on-start
#[actix::test]
async fn after_a_restart_former_presences_are_held_and_leave_with_one_bulk_event_per_room() {
    let database = database();
    let old = node_on(&database, "here", config()).await;
    let crowd = old.crowd(5).await;
    let cid = old.client("cid");
    cid.join(&room("attic")).await.unwrap();
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", config()).await;
    let mut changes = new.changes();
    let ann = new.member("ann").await;
    assert_eq!(ann.sees().len(), 6, "pages that come back see a stable roster");
    pass(secs(9)).await;
    assert_eq!((published(&mut changes), ann.frames().len()), (vec!["+ann".to_owned()], 0));
    pass(secs(4)).await;
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(events, ["-[cid]", "-[u0 u1 u2 u3 u4]"]);
    assert_eq!((ann.sees(), ann.frames().len(), ann.view().diffs), (vec!["ann".to_owned()], 0, 1));
    drop(crowd);
}

#[actix::test]
async fn a_relaxed_join_whose_answer_is_lost_is_in_the_room_in_the_next_incarnation() {
    // The node may learn that the join was committed before or after the room rejoins its presences in the next incarnation.
    tokio::time::pause();
    for later in 0..4 {
        let database = MemoryStore::new(Clock::system());
        let node = node_on(&database, "here", often().durability(Durability::Relaxed)).await;
        let other = node_on(&database, "other", often()).await;
        // Since she is held, the database keeps the row of this incarnation, and with it the outcome of its commits.
        let ann = node.client("ann").with_token("ann", secs(60));
        ann.join(&room("attic")).await.unwrap();
        pass(secs(1)).await;
        ann.lose(&room("attic"));
        pass(secs(1)).await;
        let (life, bob) = (node.node(), node.client("bob"));
        node.store.hang_after_commit();
        bob.join(lobby()).await.unwrap();
        settle().await;
        node.store.faults.hang();
        pass(secs(20)).await;
        assert_eq!(node.rows(lobby()).await, NONE, "it was taken for dead");
        bob.touch();
        pass(ms(250 * later)).await;
        node.store.release_commits();
        node.store.faults.release();
        pass(secs(15)).await;
        assert_ne!(node.node(), life);
        let there = vec!["bob".to_owned()];
        assert_eq!((node.rows(lobby()).await, other.names(lobby()).await), (there.clone(), there), "{later}");
    }
}
