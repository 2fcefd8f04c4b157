//! Presences that outlive their sockets.

mod nodes;
mod property;
mod tokens;

use super::prelude::*;

const GRACE: std::time::Duration = secs(10);

/// A socket of ann's with her token.
fn ann(node: &TestNode) -> FakeClient {
    node.client("ann").with_token("ann", GRACE)
}

/// Bob, who watches, and ann with her token and the meta that she is busy.
async fn two(node: &TestNode) -> (FakeClient, FakeClient) {
    let (bob, first) = (node.member("bob").await, ann(node));
    first.join(lobby()).await.unwrap();
    first.update(lobby(), r#"{"busy":true}"#).await.unwrap();
    settle().await;
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["ann", "bob"]);
    bob.frames();
    (bob, first)
}

/// How many frames bob receives while this runs.
async fn frames_during(bob: &FakeClient, happens: impl Future<Output = ()>) -> usize {
    let before = bob.count();
    happens.await;
    pass(secs(1)).await;
    bob.count() - before
}

/// The rows of the lobby: user, channel, and whether it is held.
async fn rows(node: &TestNode) -> Vec<(String, String, bool)> {
    let snapshot = node.store.database().load(lobby().clone()).await.unwrap();
    let mut rows: Vec<_> = snapshot
        .into_iter()
        .flat_map(|snapshot| snapshot.presences)
        .map(|one| (one.user.as_ref().unwrap().as_str().to_owned(), one.channel.as_str().to_owned(), one.held))
        .collect();
    rows.sort();
    rows
}

#[actix::test]
async fn a_presence_that_is_resumed_in_time_causes_no_notice() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    let id = first.me();
    first.lose(lobby());
    assert_eq!(frames_during(&bob, pass(secs(8))).await, 0);
    let held = node.members(lobby()).await.unwrap();
    assert!(format!("{held:?}").contains("held: true"), "{held:?}");
    assert_eq!(node.count(lobby()).await.unwrap().presences, 2, "who is held counts");

    let second = ann(&node);
    assert_eq!(frames_during(&bob, async { second.join(lobby()).await.unwrap() }).await, 0);
    let screen = second.view();
    assert_eq!((screen.states, screen.diffs, screen.me == id), (1, 0, true));
    assert_eq!(screen.here[&id].1["busy"], true);
    assert_eq!((screen.version, &screen.here), (bob.view().version, &bob.view().here));
    assert_eq!(frames_during(&bob, pass(secs(20))).await, 0, "nothing is due any more");
    assert_eq!(published(&mut changes), NONE);
    let members = node.members(lobby()).await.unwrap();
    assert!(!format!("{members:?}").contains("held: true"), "{members:?}");

    second.update(lobby(), r#"{"busy":false}"#).await.unwrap();
    second.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(
        (bob.sees(), published(&mut changes)),
        (vec!["bob".to_owned()], vec!["~ann".to_owned(), "-ann".to_owned()])
    );
    assert_eq!(rows(&node).await.len(), 1);
}

#[actix::test]
async fn a_held_presence_leaves_once_when_its_grace_is_over() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    first.lose(lobby());
    assert_eq!(frames_during(&bob, pass(GRACE - secs(1) - ms(100))).await, 0);
    assert_eq!(frames_during(&bob, pass(secs(1))).await, 1);
    assert_eq!((bob.sees(), published(&mut changes)), (vec!["bob".to_owned()], vec!["-[ann]".to_owned()]));
    let second = ann(&node);
    assert_eq!(frames_during(&bob, async { second.join(lobby()).await.unwrap() }).await, 1);
    assert_ne!(second.me(), first.me(), "it is another presence");
    assert_eq!((published(&mut changes), node.children()), (vec!["+ann".to_owned()], 2));
}

#[actix::test]
async fn many_presences_whose_grace_is_over_leave_in_one_event_and_many_that_are_resumed_cause_none() {
    let node = node().await;
    let bob = node.member("bob").await;
    let crowd = |node: &TestNode| -> Vec<_> {
        (0..50).map(|n| node.client(&format!("u{n}")).with_token(&n.to_string(), GRACE)).collect()
    };
    let first = crowd(&node);
    all_join(&first, lobby()).await;
    pass(secs(1)).await;
    let (mut changes, frames) = (node.changes(), bob.count());
    first.iter().for_each(|one| one.lose(lobby()));
    pass(secs(5)).await;
    let second = crowd(&node);
    all_join(&second, lobby()).await;
    pass(secs(20)).await;
    assert_eq!((published(&mut changes), bob.count()), (vec![], frames));
    assert!(second.iter().zip(&first).all(|(second, first)| second.me() == first.me()));
    second.iter().for_each(|one| one.lose(lobby()));
    pass(secs(20)).await;
    let events = published(&mut changes);
    assert_eq!((events.len(), events[0].matches('u').count(), bob.count() - frames), (1, 50, 1));
}

#[actix::test]
async fn without_a_token_or_a_grace_a_lost_socket_leaves_at_once() {
    let node = node().await;
    let (bob, _first) = two(&node).await;
    let (cid, dan) = (node.member("cid").await, node.client("dan").with_token("dan", secs(0)));
    dan.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    for lost in [cid, dan] {
        assert_eq!(frames_during(&bob, async { lost.lose(lobby()) }).await, 1);
    }
    assert_eq!(bob.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn a_leave_is_immediate_and_ends_what_the_token_resumes() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let id = first.me();
    assert_eq!(frames_during(&bob, async { first.leave(lobby()).await.unwrap() }).await, 1);
    first.join(lobby()).await.unwrap();
    assert_ne!(first.me(), id);
    assert_eq!(first.view().here[&first.me()].1, serde_json::json!({}));
    first.lose(lobby());
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me(), "the same token holds for the presence that came after");
    assert_eq!(bob.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn a_resume_on_the_same_node_needs_no_database() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.faults.hang();
    first.lose(lobby());
    let second = ann(&node);
    let back = async { second.join(lobby()).now_or_never().map_or_else(|| (), |joined| joined.unwrap()) };
    assert_eq!(frames_during(&bob, back).await, 0);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.sees()), (first.me(), vec!["ann".to_owned(), "bob".into()]));
    pass(secs(15)).await;
    node.store.faults.release();
    pass(secs(5)).await;
    let [row, _] = &rows(&node).await[..] else { panic!("two rows") };
    assert_eq!((row.1.as_str(), row.2), (second.channel.as_str(), false));
    assert_eq!(bob.view().changes, ["+ann", "~ann"]);
}

#[actix::test]
async fn an_update_in_progress_is_not_lost_by_a_resume() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.hang_after_commit();
    let mut update = Box::pin(first.update(lobby(), r#"{"n":1}"#));
    assert!((&mut update).now_or_never().is_none());
    settle().await;
    first.lose(lobby());
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    second.update(lobby(), r#"{"n":2}"#).now_or_never();
    node.store.release_commits();
    update.await.unwrap();
    pass(secs(1)).await;
    assert_eq!(bob.view().here[&second.me()].1["n"], 2);
    second.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["bob"], "it leaves as the socket that it is");
}

/// The commit of the update showed the presence as it was before its socket was lost, so that it was listed as not held until the room
/// was next read; and who resumed it had its former meta, which a node that began anew wrote back.
#[actix::test]
async fn a_presence_that_is_lost_during_an_update_is_held_with_the_updated_meta() {
    let node = node().await;
    let (_bob, first) = two(&node).await;
    node.store.commits_take(ms(300));
    let update = first.update(lobby(), r#"{"busy":false}"#);
    assert!(update.now_or_never().is_none());
    settle().await;
    first.lose(lobby());
    pass(secs(1)).await;
    let busy = r#"{"busy":false}"#;
    let members = node.members(lobby()).await.unwrap();
    let presences = members.iter().find(|one| one.user() == Some(&user("ann"))).map(Member::presences).unwrap();
    assert_eq!((presences[0].held, presences[0].meta.as_str()), (true, busy));
    assert!(rows(&node).await[0].2, "the database holds it too");

    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    let writes = node.store.commits().into_iter().flatten().flat_map(|room| room.writes);
    let resumed =
        writes.filter_map(|write| if let Write::Resume { presence, .. } = write { Some(presence) } else { None });
    assert_eq!(resumed.last().unwrap().meta.as_str(), busy);
}

#[actix::test]
async fn a_socket_that_is_lost_while_it_joins_leaves_if_it_is_new() {
    let node = node().await;
    let bob = node.member("bob").await;
    let first = ann(&node);
    node.store.hang_after_commit();
    {
        let mut joining = Box::pin(first.join(lobby()));
        assert!((&mut joining).now_or_never().is_none());
        settle().await;
    }
    node.store.release_commits();
    pass(secs(1)).await;
    assert_eq!((bob.sees(), rows(&node).await.len()), (vec!["bob".to_owned()], 1));
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn a_room_that_fails_keeps_its_held_and_resumable_presences() {
    tokio::time::pause();
    for hard in [false, true] {
        let node = new_node(config()).await;
        let (bob, first) = two(&node).await;
        let dan = node.client("dan").with_token("dan", GRACE);
        dan.join(lobby()).await.unwrap();
        pass(secs(1)).await;
        let mut changes = node.changes();
        first.lose(lobby());
        settle().await;
        let fail = if hard { ToRoom::PanicInModel } else { ToRoom::Panic };
        node.rooms.table().send_running(lobby(), fail);
        pass(secs(3)).await;
        let (second, twin) = (ann(&node), node.client("dan").with_token("dan", GRACE));
        second.join(lobby()).await.unwrap();
        twin.join(lobby()).await.unwrap();
        assert_eq!((second.me(), twin.me(), dan.close_codes()), (first.me(), dan.me(), vec![CloseCode::SUPERSEDED]));
        node.rooms.table().send_running(lobby(), ToRoom::Panic);
        pass(secs(3)).await;
        second.leave(lobby()).await.unwrap();
        twin.lose(lobby());
        pass(secs(20)).await;
        assert_eq!(bob.sees(), ["bob"]);
        assert_eq!(published(&mut changes), ["-ann", "-[dan]"]);
    }
}

#[actix::test]
async fn a_held_presence_is_not_stale_but_is_pruned_by_call() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let cid = node.client("cid").with_token("cid", secs(60));
    cid.join(lobby()).await.unwrap();
    for _ in 0..11 {
        pass(secs(5)).await;
        bob.touch();
        first.touch();
    }
    // It was silent for nearly `max_age`. Now its socket is lost, and its grace begins.
    cid.lose(lobby());
    for _ in 0..10 {
        pass(secs(5)).await;
        bob.touch();
        first.touch();
    }
    assert_eq!(bob.sees(), ["ann", "bob", "cid"]);
    assert_eq!(node.prune_presences(Some(secs(40))).await.unwrap(), 1);
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["ann", "bob"]);
    let again = node.client("cid").with_token("cid", secs(60));
    again.join(lobby()).await.unwrap();
    assert_ne!(again.me(), cid.me());
}

#[actix::test]
async fn nobody_resumes_while_the_node_shuts_down() {
    let node = node().await;
    let (_bob, first) = two(&node).await;
    first.lose(lobby());
    let ((), ()) = tokio::join!(node.shutdown(), async {
        settle().await;
        assert!(matches!(ann(&node).join(lobby()).await, Err(Error::ShuttingDown)));
    });
}

#[actix::test]
async fn a_join_with_a_token_is_refused_as_any_other_when_too_many_changes_are_pending() {
    // It failed with the error that the database is away.
    let node = node_with(config().max_pending_writes(1)).await;
    let bob = node.member("bob").await;
    node.store.hang_after_commit();
    let _under_way = bob.update(lobby(), r#"{"n":1}"#).now_or_never();
    settle().await;
    let _waits = bob.update(lobby(), r#"{"n":2}"#).now_or_never();
    settle().await;
    let refused = ann(&node).join(lobby()).await;
    assert!(matches!(refused, Err(Error::Overloaded { limit: 1 })), "{refused:?}");
    node.store.release_commits();
}
