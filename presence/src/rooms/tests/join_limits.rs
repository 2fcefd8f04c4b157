//! Joins with a limit.

use super::prelude::*;

const GRACE: std::time::Duration = secs(10);

fn is_full(joined: &Result<()>) -> bool {
    matches!(joined, Err(Error::RoomFull { room, limit: 2 }) if room == lobby())
}

/// How many joined. Checks that all others were refused since the room is full.
fn got_in(joined: &[Result<()>]) -> usize {
    let in_it = joined.iter().filter(|joined| joined.is_ok()).count();
    let full = joined.iter().filter(|joined| is_full(joined)).count();
    assert_eq!(in_it + full, joined.len(), "{joined:?}");
    in_it
}

async fn all_within(clients: &[FakeClient]) -> Vec<Result<()>> {
    join_all(clients.iter().map(|client| client.join_within(lobby(), 2))).await
}

/// Ann, who has a token, and bob. The room is full.
async fn full(node: &TestNode) -> (FakeClient, FakeClient) {
    let ann = node.client("ann").with_token("ann", GRACE);
    ann.join_within(lobby(), 2).await.unwrap();
    let bob = node.client("bob");
    bob.join_within(lobby(), 2).await.unwrap();
    settle().await;
    (ann, bob)
}

#[actix::test]
async fn a_limit_of_two_is_exact_for_twelve_joins_at_once() {
    for durability in [Durability::Committed, Durability::Relaxed] {
        let node = node_with(config().durability(durability)).await;
        let mut changes = node.changes();
        let crowd: Vec<_> = (0..12).map(|n| node.client(&format!("u{n}"))).collect();
        assert_eq!(got_in(&all_within(&crowd).await), 2);
        pass(secs(1)).await;
        assert_eq!((published(&mut changes).len(), node.rows(lobby()).await.len(), node.children()), (2, 2, 2));
        assert_eq!(crowd.iter().filter(|client| client.count() > 0).count(), 2, "the others are events nothing");
        tokio::time::resume();
    }
}

#[actix::test]
async fn a_limit_is_exact_for_joins_on_two_nodes_at_once() {
    let [here, there] = nodes(config).await;
    let [ours, theirs] = [&here, &there].map(|node| (0..6).map(|n| node.client(&format!("u{n}"))).collect::<Vec<_>>());
    let (ours, theirs) = join(all_within(&ours), all_within(&theirs)).await;
    assert_eq!(got_in(&ours) + got_in(&theirs), 2);
    assert_eq!(here.rows(lobby()).await.len(), 2);
}

#[actix::test]
async fn a_leave_makes_a_place_free() {
    let node = node().await;
    let (_ann, bob) = full(&node).await;
    let cid = node.client("cid");
    assert!(is_full(&cid.join_within(lobby(), 2).await));
    bob.leave(lobby()).await.unwrap();
    cid.join_within(lobby(), 2).await.unwrap();
    assert_eq!(node.rows(lobby()).await, ["ann", "cid"]);
}

#[actix::test]
async fn a_held_presence_counts_until_its_grace_is_over_and_its_socket_returns_with_its_token() {
    let [here, there] = nodes(config).await;
    let (first, bob) = full(&here).await;
    let id = first.me();
    first.lose(lobby());
    pass(secs(1)).await;
    assert!(is_full(&here.client("cid").join_within(lobby(), 2).await));
    // On its own node, and then on another.
    let second = here.client("ann").with_token("ann", GRACE);
    second.join_within(lobby(), 2).await.unwrap();
    assert_eq!(second.me(), id);
    second.lose(lobby());
    pass(secs(1)).await;
    let third = there.client("ann").with_token("ann", GRACE);
    third.join_within(lobby(), 2).await.unwrap();
    assert_eq!((third.me(), there.rows(lobby()).await.len()), (id, 2));
    third.lose(lobby());
    bob.touch();
    pass(GRACE + secs(3)).await;
    there.client("cid").join_within(lobby(), 2).await.unwrap();
}

#[actix::test]
async fn a_token_without_a_presence_does_not_bypass_the_limit() {
    let node = node().await;
    let (_ann, bob) = full(&node).await;
    let cid = node.client("cid").with_token("cid", GRACE);
    assert!(is_full(&cid.join_within(lobby(), 2).await));
    bob.leave(lobby()).await.unwrap();
    cid.join_within(lobby(), 2).await.unwrap();
    // The refusal left nothing of its token.
    cid.lose(lobby());
    let next = node.client("cid").with_token("cid", GRACE);
    next.join_within(lobby(), 2).await.unwrap();
    assert_eq!(next.me(), cid.me());
}

#[actix::test]
async fn a_member_joins_again_although_the_room_is_full() {
    let node = node().await;
    let (ann, bob) = full(&node).await;
    for member in [&ann, &bob] {
        member.join_within(lobby(), 1).await.unwrap();
    }
}

#[actix::test]
async fn a_join_without_a_limit_is_not_limited_but_counts() {
    let node = node().await;
    let _both = full(&node).await;
    let cid = node.member("cid").await;
    assert_eq!(node.rows(lobby()).await.len(), 3);
    cid.leave(lobby()).await.unwrap();
    assert!(is_full(&node.client("dan").join_within(lobby(), 2).await));
}

#[actix::test]
async fn a_refusal_is_sent_although_the_answer_of_the_database_was_lost() {
    let node = node().await;
    let _both = full(&node).await;
    pass(secs(1)).await;
    node.store.faults.lose_answers(1);
    assert!(is_full(&node.client("cid").join_within(lobby(), 2).await));
    assert_eq!(node.rows(lobby()).await, ["ann", "bob"]);
}

#[actix::test]
async fn a_full_room_refuses_although_the_room_fails_while_it_handles_the_refusal() {
    for token in [false, true] {
        let node = node().await;
        let _both = full(&node).await;
        node.rooms.send_to_room(lobby(), ToRoom::PanicAt(FaultPoint::Answer));
        let cid = node.client("cid");
        let cid = if token { cid.with_token("cid", GRACE) } else { cid };
        assert!(is_full(&cid.join_within(lobby(), 2).await), "with a token: {token}");
        pass(secs(3)).await;
        assert_eq!(node.rows(lobby()).await, ["ann", "bob"]);
        tokio::time::resume();
    }
}

#[actix::test]
async fn an_update_during_a_join_that_is_refused_is_dropped() {
    for token in [false, true] {
        let node = node().await;
        let _both = full(&node).await;
        let cid = node.client("cid");
        let cid = if token { cid.with_token("cid", GRACE) } else { cid };
        let (joined, updated) = join(cid.join_within(lobby(), 2), cid.update(lobby(), r#"{"n":1}"#)).await;
        assert!(is_full(&joined));
        assert!(matches!(updated, Err(Error::NotInRoom { .. })), "with a token: {token}: {updated:?}");
        tokio::time::resume();
    }
}
