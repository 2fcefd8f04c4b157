//! What a room owes when it fails over the answer of the database.

use super::bench::{Client, Node, config, heard, join_all, lobby, ms, node, node_on, pass, secs, settle};
use crate::{
    Error,
    clock::Clock,
    name::{NodeId, NodeName},
    room::{FaultPoint, ToRoom},
    signal::Subscription,
    store::{Attempt, ClearMode, MemoryStore, NodeStore, RoomStore, RoomWrites, Write},
};

const POINTS: [FaultPoint; 2] = [FaultPoint::Answer, FaultPoint::Apply];

/// A node of its own, as often as a test wants one.
async fn anew() -> Node {
    node_on(&MemoryStore::new(Clock::system()), "here", config()).await
}

fn fail_at(node: &Node, point: FaultPoint) {
    node.table().send_running(lobby(), ToRoom::PanicAt(point));
}

/// A node with these in the lobby, who joined together, whose room is about to fail there, and what is heard from then on.
async fn about_to_fail<const N: usize>(point: FaultPoint, names: [&str; N]) -> (Node, [Client; N], Subscription) {
    let node = anew().await;
    let members = names.map(|name| node.client(name));
    join_all(&members, lobby()).await;
    pass(secs(1)).await;
    let changes = node.changes();
    fail_at(&node, point);
    (node, members, changes)
}

#[actix::test]
async fn a_join_over_whose_answer_the_room_fails_succeeds_and_is_told_once() {
    // A panic before the events lost them.
    tokio::time::pause();
    for point in POINTS {
        let (node, [bob], mut changes) = about_to_fail(point, ["bob"]).await;
        let before = node.rooms.this_node().now();
        let ann = node.member("ann").await;
        assert!(node.rooms.this_node().now().since(before) < secs(1), "{point:?}");
        pass(secs(3)).await;
        assert_eq!(heard(&mut changes), ["+ann"], "{point:?}");
        assert_eq!((ann.sees(), bob.screen().told), (vec!["ann".to_owned(), "bob".into()], vec!["+ann".to_owned()]));
    }
}

#[actix::test]
async fn a_leave_over_whose_answer_the_room_fails_succeeds_and_is_told_once() {
    tokio::time::pause();
    for point in POINTS {
        let (node, [ann, bob], mut changes) = about_to_fail(point, ["ann", "bob"]).await;
        ann.leave(lobby()).await.unwrap();
        pass(secs(3)).await;
        assert_eq!((heard(&mut changes), bob.sees()), (vec!["-ann".to_owned()], vec!["bob".to_owned()]), "{point:?}");
        bob.leave(lobby()).await.unwrap();
        pass(secs(10)).await;
        assert_eq!((node.running(), node.children()), (0, 0), "nothing is owed");
    }
}

#[actix::test]
async fn an_update_over_whose_answer_the_room_fails_succeeds_and_is_told_once() {
    tokio::time::pause();
    for point in POINTS {
        let (node, [ann, bob], mut changes) = about_to_fail(point, ["ann", "bob"]).await;
        ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
        pass(secs(3)).await;
        assert_eq!(
            (heard(&mut changes), bob.screen().told.last()),
            (vec!["~ann".to_owned()], Some(&"~ann".to_owned()))
        );
        assert_eq!(node.store.database().load(lobby().clone()).await.unwrap().unwrap().presences.len(), 2, "{point:?}");
    }
}

#[actix::test]
async fn a_pruning_over_whose_answer_the_room_fails_is_one_bulk_event() {
    tokio::time::pause();
    for point in POINTS {
        let (node, _crowd, mut changes) = about_to_fail(point, ["u0", "u1", "u2", "u3", "u4"]).await;
        pass(secs(70)).await;
        assert_eq!((heard(&mut changes), node.rows(lobby()).await), (vec!["-[u0 u1 u2 u3 u4]".to_owned()], Vec::new()));
    }
}

#[actix::test]
async fn a_refusal_over_which_the_room_fails_is_given_again() {
    // The join stayed under way for ever, and who waited for it waited in vain.
    let node = node().await;
    let bob = node.member("bob").await;
    node.store
        .refuse(|write| matches!(write, Write::Join(presence) if presence.user.as_ref().unwrap().as_str() == "ann"));
    let before = node.rooms.this_node().now();
    fail_at(&node, FaultPoint::Answer);
    assert!(matches!(node.client("ann").join(lobby()).await, Err(Error::StoreRefused(_))));
    assert!(node.rooms.this_node().now().since(before) < secs(1));
    pass(secs(3)).await;
    assert_eq!(bob.sees(), ["bob"]);
    bob.leave(lobby()).await.unwrap();
    pass(secs(10)).await;
    assert_eq!((node.running(), node.children()), (0, 0), "nothing is owed");
}

/// Removes a presence behind the back of its node.
async fn remove_by_another_hand(node: &Node, one: &Client) {
    let other = NodeId::random();
    let store = node.store.database();
    store.register(other, NodeName::new("other").unwrap(), secs(100)).await.unwrap();
    let writes = vec![Write::Leave { id: one.id(lobby()), channel: one.channel.clone() }];
    let commits =
        store.commit(other, Attempt::next(), [RoomWrites { room: lobby().clone(), writes }].into()).await.unwrap();
    assert_eq!(commits[0].delta.left.len(), 1);
}

#[actix::test]
async fn a_member_removed_by_another_hand_is_restored_when_a_commit_tells_of_it() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(1)).await;
    let mut changes = node.changes();
    remove_by_another_hand(&node, &ann).await;
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    pass(ms(500)).await;
    assert_eq!((node.rows(lobby()).await, ann.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    assert_eq!(heard(&mut changes), ["~bob", "+ann"], "its removal was another's to tell");
}

#[actix::test]
async fn a_member_removed_by_another_hand_is_restored_when_the_room_fails_before_it_knows() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(1)).await;
    remove_by_another_hand(&node, &ann).await;
    for fault in [ToRoom::Panic, ToRoom::PanicInModel] {
        node.table().send_running(lobby(), fault);
        pass(secs(3)).await;
        assert_eq!((node.rows(lobby()).await, bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    }
}

#[actix::test]
async fn those_who_join_again_after_a_fencing_are_taken_by_a_full_queue() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let node = node_on(&database, "here", config().max_pending_writes(4)).await;
    let mut crowd = Vec::new();
    for n in 0..10 {
        crowd.push(node.member(&format!("u{n}")).await);
    }
    let judge = NodeId::random();
    node.store.faults.hang();
    pass(secs(15)).await;
    database.register(judge, NodeName::new("judge").unwrap(), secs(100)).await.unwrap();
    for dead in database.fence(judge).await.unwrap() {
        let _ = database.clear(judge, dead, ClearMode::HoldResumable(secs(1)), 100).await.unwrap();
    }
    assert_eq!(node.rows(lobby()).await.len(), 0);
    let full: Vec<_> = (0..4).map(|n| node.client(&format!("x{n}"))).collect();
    let joins = async { futures_util::future::join_all(full.iter().map(|one| one.join(lobby()))).await };
    let ((), _) = tokio::join!(
        async {
            settle().await;
            crowd.iter().for_each(Client::touch);
            node.store.faults.release();
        },
        joins
    );
    pass(secs(10)).await;
    assert!(crowd.iter().all(|one| node_has(&one.sees(), 10)), "all are there again");
    let mut rows = node.rows(lobby()).await;
    rows.retain(|row| row.starts_with('u'));
    assert_eq!(rows.len(), 10);
}

fn node_has(names: &[String], crowd: usize) -> bool {
    names.iter().filter(|name| name.starts_with('u')).count() == crowd
}
