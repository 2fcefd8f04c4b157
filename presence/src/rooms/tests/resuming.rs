//! Presences that outlive their sockets.

mod nodes;
mod tokens;

use futures_util::FutureExt;

use super::bench::{Client, Node, config, heard, lobby, ms, node, node_on, node_with, pass, secs, settle, user};
use crate::{
    CloseCode, Error, Member,
    clock::Clock,
    room::ToRoom,
    store::{MemoryStore, RoomStore, Write},
};

const GRACE: std::time::Duration = secs(10);

/// A socket of ann's with her token.
fn ann(node: &Node) -> Client {
    node.client("ann").with_token("ann", GRACE)
}

/// Bob, who looks on, and ann with her token, who says that she is busy.
async fn two(node: &Node) -> (Client, Client) {
    let (bob, first) = (node.member("bob").await, ann(node));
    first.join(lobby()).await.unwrap();
    first.update(lobby(), r#"{"busy":true}"#).await.unwrap();
    settle().await;
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["ann", "bob"]);
    bob.frames();
    (bob, first)
}

/// How many frames bob gets while this happens.
async fn told(bob: &Client, happens: impl Future<Output = ()>) -> usize {
    let before = bob.count();
    happens.await;
    pass(secs(1)).await;
    bob.count() - before
}

/// The rows of the lobby: user, channel, and whether it is held.
async fn rows(node: &Node) -> Vec<(String, String, bool)> {
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
async fn who_returns_in_time_has_its_presence_again_and_others_are_told_nothing() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    let id = first.me();
    first.lose(lobby());
    assert_eq!(told(&bob, pass(secs(8))).await, 0);
    let held = node.members(lobby()).await.unwrap();
    assert!(format!("{held:?}").contains("held: true"), "{held:?}");
    assert_eq!(node.count(lobby()).await.unwrap().presences, 2, "who is held counts");

    let second = ann(&node);
    assert_eq!(told(&bob, async { second.join(lobby()).await.unwrap() }).await, 0);
    let screen = second.screen();
    assert_eq!((screen.states, screen.diffs, screen.me == id), (1, 0, true));
    assert_eq!(screen.here[&id].1["busy"], true);
    assert_eq!((screen.version, &screen.here), (bob.screen().version, &bob.screen().here));
    assert_eq!(told(&bob, pass(secs(20))).await, 0, "nothing is due any more");
    assert_eq!(heard(&mut changes), Vec::<String>::new());
    let members = node.members(lobby()).await.unwrap();
    assert!(!format!("{members:?}").contains("held: true"), "{members:?}");

    second.update(lobby(), r#"{"busy":false}"#).await.unwrap();
    second.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((bob.sees(), heard(&mut changes)), (vec!["bob".to_owned()], vec!["~ann".to_owned(), "-ann".to_owned()]));
    assert_eq!(rows(&node).await.len(), 1);
}

#[actix::test]
async fn who_does_not_return_leaves_once_when_its_grace_is_over() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    first.lose(lobby());
    assert_eq!(told(&bob, pass(GRACE - secs(1) - ms(100))).await, 0);
    assert_eq!(told(&bob, pass(secs(1))).await, 1);
    assert_eq!((bob.sees(), heard(&mut changes)), (vec!["bob".to_owned()], vec!["-[ann]".to_owned()]));
    let second = ann(&node);
    assert_eq!(told(&bob, async { second.join(lobby()).await.unwrap() }).await, 1);
    assert_ne!(second.me(), first.me(), "it is another presence");
    assert_eq!((heard(&mut changes), node.children()), (vec!["+ann".to_owned()], 2));
}

#[actix::test]
async fn many_whose_grace_is_over_leave_in_one_event_and_many_return_in_silence() {
    let node = node().await;
    let bob = node.member("bob").await;
    let crowd = |node: &Node| -> Vec<_> {
        (0..50).map(|n| node.client(&format!("u{n}")).with_token(&n.to_string(), GRACE)).collect()
    };
    let first = crowd(&node);
    super::bench::join_all(&first, lobby()).await;
    pass(secs(1)).await;
    let (mut changes, frames) = (node.changes(), bob.count());
    first.iter().for_each(|one| one.lose(lobby()));
    pass(secs(5)).await;
    let second = crowd(&node);
    super::bench::join_all(&second, lobby()).await;
    pass(secs(20)).await;
    assert_eq!((heard(&mut changes), bob.count()), (vec![], frames));
    assert!(second.iter().zip(&first).all(|(second, first)| second.me() == first.me()));
    second.iter().for_each(|one| one.lose(lobby()));
    pass(secs(20)).await;
    let told = heard(&mut changes);
    assert_eq!((told.len(), told[0].matches('u').count(), bob.count() - frames), (1, 50, 1));
}

#[actix::test]
async fn without_a_token_or_a_grace_a_lost_socket_leaves_at_once() {
    let node = node().await;
    let (bob, _first) = two(&node).await;
    let (cid, dan) = (node.member("cid").await, node.client("dan").with_token("dan", secs(0)));
    dan.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    for lost in [cid, dan] {
        assert_eq!(told(&bob, async { lost.lose(lobby()) }).await, 1);
    }
    assert_eq!(bob.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn an_explicit_leave_is_immediate_and_the_token_comes_anew() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let id = first.me();
    assert_eq!(told(&bob, async { first.leave(lobby()).await.unwrap() }).await, 1);
    first.join(lobby()).await.unwrap();
    assert_ne!(first.me(), id);
    assert_eq!(first.screen().here[&first.me()].1, serde_json::json!({}));
    first.lose(lobby());
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_eq!(second.me(), first.me(), "the same token holds for the presence that came after");
    assert_eq!(bob.sees(), ["ann", "bob"]);
}

#[actix::test]
async fn a_return_needs_no_database_and_what_it_missed_is_written_later() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.faults.hang();
    first.lose(lobby());
    let second = ann(&node);
    let back = async { second.join(lobby()).now_or_never().map_or_else(|| (), |joined| joined.unwrap()) };
    assert_eq!(told(&bob, back).await, 0);
    second.join(lobby()).await.unwrap();
    assert_eq!((second.me(), second.sees()), (first.me(), vec!["ann".to_owned(), "bob".into()]));
    pass(secs(15)).await;
    node.store.faults.release();
    pass(secs(5)).await;
    let [row, _] = &rows(&node).await[..] else { panic!("two rows") };
    assert_eq!((row.1.as_str(), row.2), (second.channel.as_str(), false));
    assert_eq!(bob.screen().told, ["+ann", "~ann"]);
}

#[actix::test]
async fn who_does_not_return_while_the_database_is_away_leaves_when_it_is_back() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.faults.hang();
    first.lose(lobby());
    assert_eq!(told(&bob, pass(secs(20))).await, 0);
    node.store.faults.release();
    pass(secs(5)).await;
    assert_eq!((bob.sees(), bob.screen().told.last().unwrap().as_str()), (vec!["bob".to_owned()], "-ann"));
    assert_eq!(rows(&node).await.len(), 1);
}

#[actix::test]
async fn an_update_under_way_is_not_lost_by_a_return() {
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
    assert_eq!(bob.screen().here[&second.me()].1["n"], 2);
    second.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["bob"], "it leaves as the socket that it is");
}

/// The commit of the update showed the presence as it was before its socket was lost, so that it was listed as not held until the room
/// was next read; and who resumed it had its former meta, which a node that began anew wrote back.
#[actix::test]
async fn one_that_is_lost_while_its_update_is_under_way_is_held_and_has_the_updated_meta() {
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
async fn a_room_that_fails_forgets_neither_who_is_held_nor_who_can_be_resumed() {
    tokio::time::pause();
    for hard in [false, true] {
        let node = node_on(&MemoryStore::new(Clock::system()), "here", config()).await;
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
        assert_eq!((second.me(), twin.me(), dan.closes()), (first.me(), dan.me(), vec![CloseCode::SUPERSEDED]));
        node.rooms.table().send_running(lobby(), ToRoom::Panic);
        pass(secs(3)).await;
        second.leave(lobby()).await.unwrap();
        twin.lose(lobby());
        pass(secs(20)).await;
        assert_eq!(
            (bob.sees(), heard(&mut changes)),
            (vec!["bob".to_owned()], vec!["-ann".to_owned(), "-[dan]".into()])
        );
    }
}

#[actix::test]
async fn who_is_held_is_spared_by_its_deadline_and_pruned_when_asked() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let cid = node.client("cid").with_token("cid", secs(60));
    cid.join(lobby()).await.unwrap();
    for _ in 0..11 {
        pass(secs(5)).await;
        bob.touch();
        first.touch();
    }
    // It was silent for nearly as long as it may; but now it is lost, and has its grace.
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
async fn one_with_a_token_is_turned_away_as_any_other_when_too_many_changes_wait() {
    // It was told that the database is away.
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
