//! Which presence a token resumes, and which socket has it when several come.

use crate::rooms::tests::prelude::*;

use super::{GRACE, ann, frames_during, rows, two};

#[actix::test]
async fn a_token_resumes_nothing_for_another_user_or_in_another_room() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    first.lose(lobby());
    let attic = room("attic");
    for (other, place) in [(node.client("eve"), lobby()), (node.anonymous(), lobby()), (node.client("ann"), &attic)] {
        let other = other.with_token("ann", GRACE);
        other.join(place).await.unwrap();
        assert_ne!(other.me(), first.me());
    }
    pass(secs(5)).await;
    assert_eq!(bob.sees(), ["ann", "bob", "eve"]);
    pass(secs(10)).await;
    assert_eq!(bob.sees(), ["bob", "eve"], "nobody took it over");
}

#[actix::test]
async fn a_socket_with_a_token_in_use_resumes_the_presence_and_supersedes_the_former_socket() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    let mut changes = node.changes();
    let second = ann(&node);
    assert_eq!(frames_during(&bob, async { second.join(lobby()).await.unwrap() }).await, 0);
    assert_eq!((first.close_codes(), second.me()), (vec![CloseCode::SUPERSEDED], first.me()));
    let late = async {
        // These are calls of the former socket before it knows that it is superseded.
        first.update(lobby(), r#"{"late":true}"#).await.unwrap_err();
        first.leave(lobby()).await.unwrap();
        first.lose(lobby());
        pass(secs(20)).await;
    };
    assert_eq!((frames_during(&bob, late).await, published(&mut changes)), (0, vec![]));
    assert_eq!(second.sees(), ["ann", "bob"]);
    let [row, _] = &rows(&node).await[..] else { panic!("two rows") };
    assert_eq!((row.1.as_str(), row.2), (second.channel.as_str(), false));
}

#[actix::test]
async fn of_two_sockets_that_come_with_one_token_at_once_the_later_has_the_presence() {
    tokio::time::pause();
    for durability in [Durability::Committed, Durability::Relaxed] {
        let node = new_node(config().durability(durability)).await;
        let bob = node.member("bob").await;
        let (first, second) = (ann(&node), ann(&node));
        let (one, two) = join(first.join(lobby()), second.join(lobby())).await;
        one.unwrap();
        two.unwrap();
        pass(secs(1)).await;
        assert_eq!(first.close_codes(), [CloseCode::SUPERSEDED]);
        assert_eq!(second.sees(), ["ann", "bob"]);
        assert_eq!((bob.view().changes, node.children()), (vec!["+ann".to_owned()], 2));
    }
}

#[actix::test]
async fn a_join_that_waits_to_resume_a_presence_and_is_dropped_supersedes_nobody() {
    let node = node().await;
    let bob = node.member("bob").await;
    let (first, second) = (ann(&node), ann(&node));
    node.store.hang_after_commit();
    let mut joining = Box::pin(first.join(lobby()));
    assert!((&mut joining).now_or_never().is_none());
    settle().await;
    {
        let mut waiting = Box::pin(second.join(lobby()));
        assert!((&mut waiting).now_or_never().is_none());
        settle().await;
    }
    node.store.release_commits();
    joining.await.unwrap();
    pass(secs(1)).await;
    assert_eq!((first.close_codes(), bob.sees()), (vec![], vec!["ann".to_owned(), "bob".into()]));
}

/// Gives the presence of a socket to eve, as `Rooms::add` does.
async fn give_to_eve(node: &TestNode, socket: &FakeClient) {
    let presence = Presence { user: Some(user("eve")), ..Presence::clone(&socket.presence(lobby())) };
    node.rooms.join_again(lobby(), socket.entrant(Arc::new(presence))).await.unwrap();
}

#[actix::test]
async fn a_presence_with_another_user_cannot_be_resumed_by_its_former_user() {
    let node = node().await;
    let (bob, first) = two(&node).await;
    give_to_eve(&node, &first).await;
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    assert_ne!(second.me(), first.me());
    pass(secs(1)).await;
    assert_eq!((bob.sees(), first.close_codes()), (vec!["ann".to_owned(), "bob".into(), "eve".into()], vec![]));
}

#[actix::test]
async fn a_presence_that_gets_another_user_while_it_joins_cannot_be_resumed_by_its_former_user() {
    // The next socket of ann joined as eve.
    let node = node_with(config().durability(Durability::Relaxed)).await;
    let (bob, first) = (node.member("bob").await, ann(&node));
    pass(secs(1)).await;
    node.store.hang_after_commit();
    first.join(lobby()).await.unwrap();
    give_to_eve(&node, &first).await;
    settle().await;
    node.store.release_commits();
    pass(secs(1)).await;
    assert_eq!(bob.sees(), ["bob", "eve"]);
    let second = ann(&node);
    second.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((bob.sees(), first.close_codes()), (vec!["ann".to_owned(), "bob".into(), "eve".into()], vec![]));
}

#[actix::test]
async fn a_presence_that_gets_another_user_while_the_former_user_returns_is_not_resumed() {
    // Both changes were in one transaction, and the row still had the token.
    let node = node().await;
    let (bob, first) = two(&node).await;
    node.store.hang_after_commit();
    let _under_way = bob.update(lobby(), r#"{"n":1}"#).now_or_never();
    settle().await;
    let second = ann(&node);
    let ((), joined, ()) = tokio::join!(give_to_eve(&node, &first), second.join(lobby()), async {
        settle().await;
        node.store.commits();
        node.store.release_commits();
    });
    joined.unwrap();
    pass(secs(1)).await;
    assert_eq!((bob.sees(), first.close_codes()), (vec!["ann".to_owned(), "bob".into(), "eve".into()], vec![]));
    assert_eq!(node.store.sizes(), [2], "it takes no second attempt");
}
