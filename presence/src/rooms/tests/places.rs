//! Rooms with a limit of places.

use futures_util::future::{join, join_all};

use super::bench::{Client, Node, config, heard, lobby, node, node_on, node_with, pass, secs, settle};
use crate::{
    Error, Result,
    clock::Clock,
    config::Durability,
    room::{FaultPoint, ToRoom},
    store::MemoryStore,
};

const GRACE: std::time::Duration = secs(10);

fn is_full(joined: &Result<()>) -> bool {
    matches!(joined, Err(Error::RoomFull { room, limit: 2 }) if room == lobby())
}

/// How many got in, and that all others found the room full.
fn got_in(joined: &[Result<()>]) -> usize {
    let in_it = joined.iter().filter(|joined| joined.is_ok()).count();
    let full = joined.iter().filter(|joined| is_full(joined)).count();
    assert_eq!(in_it + full, joined.len(), "{joined:?}");
    in_it
}

async fn all_within(clients: &[Client]) -> Vec<Result<()>> {
    join_all(clients.iter().map(|client| client.join_within(lobby(), 2))).await
}

/// Ann, who can come back, and bob: the room is full.
async fn full(node: &Node) -> (Client, Client) {
    let ann = node.client("ann").with_token("ann", GRACE);
    ann.join_within(lobby(), 2).await.unwrap();
    let bob = node.client("bob");
    bob.join_within(lobby(), 2).await.unwrap();
    settle().await;
    (ann, bob)
}

#[actix::test]
async fn of_twelve_who_come_at_once_two_get_in() {
    for durability in [Durability::Committed, Durability::Relaxed] {
        let node = node_with(config().durability(durability)).await;
        let mut changes = node.changes();
        let crowd: Vec<_> = (0..12).map(|n| node.client(&format!("u{n}"))).collect();
        assert_eq!(got_in(&all_within(&crowd).await), 2);
        pass(secs(1)).await;
        assert_eq!((heard(&mut changes).len(), node.rows(lobby()).await.len(), node.children()), (2, 2, 2));
        assert_eq!(crowd.iter().filter(|client| client.count() > 0).count(), 2, "the others are told nothing");
        tokio::time::resume();
    }
}

#[actix::test]
async fn of_those_who_come_to_two_nodes_at_once_as_many_get_in_as_there_are_places() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await);
    let [ours, theirs] = [&here, &there].map(|node| (0..6).map(|n| node.client(&format!("u{n}"))).collect::<Vec<_>>());
    let (ours, theirs) = join(all_within(&ours), all_within(&theirs)).await;
    assert_eq!(got_in(&ours) + got_in(&theirs), 2);
    assert_eq!(here.rows(lobby()).await.len(), 2);
}

#[actix::test]
async fn one_who_leaves_frees_its_place() {
    let node = node().await;
    let (_ann, bob) = full(&node).await;
    let cid = node.client("cid");
    assert!(is_full(&cid.join_within(lobby(), 2).await));
    bob.leave(lobby()).await.unwrap();
    cid.join_within(lobby(), 2).await.unwrap();
    assert_eq!(node.rows(lobby()).await, ["ann", "cid"]);
}

#[actix::test]
async fn a_member_that_was_cut_off_keeps_its_place_for_its_grace_and_returns_with_its_token() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let (here, there) = (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await);
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
async fn one_who_comes_with_a_token_that_nobody_has_needs_a_place() {
    let node = node().await;
    let (_ann, bob) = full(&node).await;
    let cid = node.client("cid").with_token("cid", GRACE);
    assert!(is_full(&cid.join_within(lobby(), 2).await));
    bob.leave(lobby()).await.unwrap();
    cid.join_within(lobby(), 2).await.unwrap();
    // The refusal left nothing of its token behind.
    cid.lose(lobby());
    let next = node.client("cid").with_token("cid", GRACE);
    next.join_within(lobby(), 2).await.unwrap();
    assert_eq!(next.me(), cid.me());
}

#[actix::test]
async fn one_who_is_in_joins_again_though_the_room_is_full() {
    let node = node().await;
    let (ann, bob) = full(&node).await;
    for member in [&ann, &bob] {
        member.join_within(lobby(), 1).await.unwrap();
    }
}

#[actix::test]
async fn a_join_without_a_limit_asks_for_no_place_but_takes_one() {
    let node = node().await;
    let _both = full(&node).await;
    let cid = node.member("cid").await;
    assert_eq!(node.rows(lobby()).await.len(), 3);
    cid.leave(lobby()).await.unwrap();
    assert!(is_full(&node.client("dan").join_within(lobby(), 2).await));
}

#[actix::test]
async fn a_refusal_whose_answer_was_lost_is_given_once_it_is_known() {
    let node = node().await;
    let _both = full(&node).await;
    pass(secs(1)).await;
    node.store.faults.lose_answers(1);
    assert!(is_full(&node.client("cid").join_within(lobby(), 2).await));
    assert_eq!(node.rows(lobby()).await, ["ann", "bob"]);
}

#[actix::test]
async fn a_refusal_over_which_the_room_fails_is_given_all_the_same() {
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
async fn what_one_says_of_itself_who_finds_no_place_is_said_of_nobody() {
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
