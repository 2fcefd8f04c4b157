//! Joins, updates and leaves: what the room, its members and the database show of them.

use super::prelude::*;

// behaviour: 3 created
#[actix::test]
async fn a_join_creates_the_room_and_fires_one_event() {
    let node = node().await;
    let mut changes = node.changes();
    assert_eq!(node.running(), 0);
    let ann = node.member("ann").await;
    assert_eq!((node.running(), node.rows(lobby()).await), (1, vec!["ann".to_owned()]));
    pass(ms(1000)).await;
    assert_eq!(published(&mut changes), ["+ann"]);
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn the_first_frame_has_the_joiner_and_is_queued_when_join_resolves() {
    let node = node().await;
    let _ann = node.member("ann").await;
    let bob = node.member("bob").await;
    let first = bob.frames();
    assert_eq!((first.len(), bob.sees()), (1, vec!["ann".to_owned(), "bob".to_owned()]));
    assert_eq!(first[0]["me"], bob.id(lobby()).to_string());
    pass(ms(1000)).await;
    assert_eq!(bob.frames().len(), 0, "its own join is no news to the joiner");
}

#[actix::test]
async fn joining_again_is_a_touch_and_nothing_is_sent_or_written() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let _ = (ann.frames(), bob.frames(), node.store.commits());
    let now = node.rooms.this_node().now();
    ann.join_silently(lobby()).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!(published(&mut changes), NONE);
    assert_eq!((ann.frames().len(), bob.frames().len(), node.store.commits().len()), (0, 0, 0));
    assert_eq!(ann.touch.seen(), now, "joining again is a touch");
}

// behaviour: 1 one-presence-per-socket
#[actix::test]
async fn a_second_tab_is_a_second_presence_of_the_same_user() {
    let node = node().await;
    let tabs = (node.member("ann").await, node.member("ann").await);
    pass(ms(200)).await;
    let count = node.count(lobby()).await.unwrap();
    assert_eq!((count.users, count.presences), (1, 2));
    assert_eq!((tabs.0.sees(), tabs.1.sees()), (vec!["ann".to_owned(); 2], vec!["ann".to_owned(); 2]));
    tabs.0.leave(lobby()).await.unwrap();
    assert_eq!(node.names(lobby()).await, ["ann"], "the user is here as long as a tab is");
    tabs.1.leave(lobby()).await.unwrap();
    assert_eq!(node.names(lobby()).await, NONE);
}

#[actix::test]
async fn anonymous_sockets_are_counted_and_not_listed() {
    let node = node().await;
    let ann = node.member("ann").await;
    let (one, two) = (node.anonymous(), node.anonymous());
    one.join(lobby()).await.unwrap();
    two.join(lobby()).await.unwrap();
    pass(ms(200)).await;
    assert_eq!((ann.view().anonymous, ann.sees()), (2, vec!["ann".to_owned()]));
    one.leave(lobby()).await.unwrap();
    pass(ms(200)).await;
    assert_eq!((ann.view().anonymous, node.anonymous_count(lobby()).await.unwrap()), (1, 1));
}

// behaviour: 3 leaver-hears-no-leave
#[actix::test]
async fn a_leave_is_sent_once_to_the_other_members_and_nothing_more_to_the_leaver() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let _ = bob.frames();
    bob.leave(lobby()).await.unwrap();
    assert_eq!(node.rows(lobby()).await, ["ann"]);
    node.send(lobby(), r#""after""#).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!(published(&mut changes), ["-bob"]);
    assert_eq!(ann.view().changes, ["+bob", "-bob"]);
    assert_eq!(bob.frames().len(), 0, "it is no longer in the group");
}

#[actix::test]
async fn a_leave_without_a_presence_changes_nothing() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let _ = ann.frames();
    let bob = node.client("bob");
    bob.leave(lobby()).await.unwrap();
    bob.leave(&room("nowhere")).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!((published(&mut changes), ann.frames().len(), node.running()), (Vec::new(), 0, 1));
}

// behaviour: W24 metadata
#[actix::test]
async fn an_update_is_sent_to_all_members_and_an_equal_one_to_none() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(ms(1000)).await;
    let mut changes = node.changes();
    bob.update(lobby(), r#"{"mood":"busy"}"#).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!(
        (published(&mut changes), ann.view().changes),
        (vec!["~bob".to_owned()], vec!["+bob".into(), "~bob".into()])
    );
    assert_eq!(ann.view().here[&bob.id(lobby()).to_string()].1["mood"], "busy");
    let _ = (ann.frames(), bob.frames(), node.store.commits());
    bob.update(lobby(), r#" {"mood":"busy"} "#).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!((published(&mut changes), node.store.commits().len()), (Vec::new(), 0));
    assert_eq!((ann.frames().len(), bob.frames().len()), (0, 0));
}

#[actix::test]
async fn after_a_leave_a_join_begins_another_presence_with_an_empty_meta() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    let before = bob.id(lobby());
    assert_eq!(bob.view().states, 1);
    bob.leave(lobby()).await.unwrap();
    bob.join(lobby()).await.unwrap();
    pass(ms(200)).await;
    assert_ne!(bob.id(lobby()), before);
    assert_eq!(ann.view().here[&bob.id(lobby()).to_string()].1, serde_json::json!({}));
    assert_eq!(bob.view().states, 2);
}

// behaviour: 7 order-of-messages
#[actix::test]
async fn messages_and_events_reach_members_only_and_in_order() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    for n in 0..10 {
        node.send(lobby(), n.to_string()).await.unwrap();
    }
    node.send_to(&bob.channel, "10").await.unwrap();
    settle().await;
    assert_eq!(ann.view().messages, (0..10).map(serde_json::Value::from).collect::<Vec<_>>());
    assert_eq!(bob.view().messages, [10]);
    let name = crate::name::EventName::new("wave").unwrap();
    node.send_event(lobby(), crate::Event::new(name, &1).unwrap()).unwrap();
    settle().await;
    assert_eq!((ann.connection_messages().len(), bob.connection_messages().len()), (1, 0));
}

#[actix::test]
async fn simultaneous_joins_of_one_socket_are_one_join_and_all_succeed() {
    // Each join dropped the answer of the other and sent its request again, until both gave up and the presence left.
    let node = node().await;
    node.store.commits_take(ms(10));
    let (mut changes, ann) = (node.changes(), node.client("ann"));
    let joined = join_all((0..8).map(|_| ann.join(lobby()))).await;
    assert!(joined.into_iter().all(|joined| joined.is_ok()));
    pass(ms(1000)).await;
    assert_eq!((published(&mut changes), ann.view().states), (vec!["+ann".to_owned()], 1));
    assert_eq!(node.names(lobby()).await, ["ann"]);
}
