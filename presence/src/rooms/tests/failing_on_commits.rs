//! Rooms that fail while they handle an answer of the database.

use super::prelude::*;

const POINTS: [FaultPoint; 2] = [FaultPoint::Answer, FaultPoint::Apply];

fn fail_at(node: &TestNode, point: FaultPoint) {
    node.table().send_running(lobby(), ToRoom::PanicAt(point));
}

/// A node with these members, who joined together. Its room fails at this point of the next commit. The subscription begins before that.
async fn about_to_fail<const N: usize>(
    point: FaultPoint,
    names: [&str; N],
) -> (TestNode, [FakeClient; N], Subscription) {
    let node = new_node(config()).await;
    let members = names.map(|name| node.client(name));
    all_join(&members, lobby()).await;
    pass(secs(1)).await;
    let changes = node.changes();
    fail_at(&node, point);
    (node, members, changes)
}

#[actix::test]
async fn a_change_succeeds_and_fires_one_event_although_the_room_fails_while_it_handles_the_commit() {
    // The events were lost if the room panicked before it published them.
    tokio::time::pause();
    for point in POINTS {
        let (node, [bob], mut changes) = about_to_fail(point, ["bob"]).await;
        let before = node.rooms.this_node().now();
        let ann = node.member("ann").await;
        assert!(node.rooms.this_node().now().since(before) < secs(1), "{point:?}");
        pass(secs(3)).await;
        fail_at(&node, point);
        ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
        pass(secs(3)).await;
        assert_eq!(ann.sees(), ["ann", "bob"], "{point:?}");
        fail_at(&node, point);
        ann.leave(lobby()).await.unwrap();
        pass(secs(3)).await;
        assert_eq!(published(&mut changes), ["+ann", "~ann", "-ann"], "{point:?}");
        assert_eq!(bob.view().changes, ["+ann", "~ann", "-ann"], "{point:?}");
        bob.leave(lobby()).await.unwrap();
        pass(secs(10)).await;
        assert_eq!((node.running(), node.children()), (0, 0), "the room waits for nothing more");
    }
}

#[actix::test]
async fn a_prune_is_one_bulk_event_although_the_room_fails_while_it_handles_the_commit() {
    tokio::time::pause();
    for point in POINTS {
        let (node, _crowd, mut changes) = about_to_fail(point, ["u0", "u1", "u2", "u3", "u4"]).await;
        pass(secs(70)).await;
        assert_eq!(
            (published(&mut changes), node.rows(lobby()).await),
            (vec!["-[u0 u1 u2 u3 u4]".to_owned()], Vec::new())
        );
    }
}

#[actix::test]
async fn a_refused_join_is_answered_although_the_room_fails_while_it_handles_the_refusal() {
    // The join stayed in progress for ever, and so did the joins that waited for it.
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

/// Removes a presence without its node.
async fn remove_by_another_process(node: &TestNode, one: &FakeClient) {
    let other = NodeId::random();
    let store = node.store.database();
    store.register(other, NodeName::new("other").unwrap(), secs(100)).await.unwrap();
    let writes = vec![Write::Leave { id: one.id(lobby()), channel: one.channel.clone() }];
    let commits =
        store.commit(other, Attempt::next(), [RoomWrites { room: lobby().clone(), writes }].into()).await.unwrap();
    assert_eq!(commits[0].delta.left.len(), 1);
}

#[actix::test]
async fn a_member_that_another_process_removed_is_restored_after_the_next_commit() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(1)).await;
    let mut changes = node.changes();
    remove_by_another_process(&node, &ann).await;
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    pass(ms(500)).await;
    assert_eq!((node.rows(lobby()).await, ann.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    assert_eq!(published(&mut changes), ["~bob", "+ann"], "its removal was another's to tell");
}

#[actix::test]
async fn a_member_that_another_process_removed_is_restored_although_the_room_fails() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(1)).await;
    remove_by_another_process(&node, &ann).await;
    for fault in [ToRoom::Panic, ToRoom::PanicInModel] {
        node.table().send_running(lobby(), fault);
        pass(secs(3)).await;
        assert_eq!((node.rows(lobby()).await, bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    }
}

#[actix::test]
async fn rejoins_after_a_fencing_are_accepted_by_a_full_queue() {
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
            crowd.iter().for_each(FakeClient::touch);
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
