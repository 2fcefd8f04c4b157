//! Coming, changing and going: what the room, its members and the database make of it.

use futures_util::future::join_all;

use super::bench::{heard, lobby, ms, node, pass, room, settle};
use crate::Error;

// behaviour: 3 created
#[actix::test]
async fn a_join_makes_the_room_and_is_announced_once() {
    let node = node().await;
    let mut changes = node.changes();
    assert_eq!(node.running(), 0);
    let ann = node.member("ann").await;
    assert_eq!((node.running(), node.rows(lobby()).await), (1, vec!["ann".to_owned()]));
    pass(ms(1000)).await;
    assert_eq!(heard(&mut changes), ["+ann"]);
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn the_first_frame_is_there_when_join_resolves_and_holds_the_joiner_and_nothing_follows() {
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
async fn a_member_that_joins_again_is_seen_and_nothing_is_announced_or_written() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let _ = (ann.frames(), bob.frames(), node.store.commits());
    let now = node.rooms.this_node().now();
    ann.join_silently(lobby()).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!(heard(&mut changes), Vec::<String>::new());
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
    assert_eq!(node.names(lobby()).await, Vec::<String>::new());
}

#[actix::test]
async fn anonymous_sockets_are_counted_and_not_listed() {
    let node = node().await;
    let ann = node.member("ann").await;
    let (one, two) = (node.anonymous(), node.anonymous());
    one.join(lobby()).await.unwrap();
    two.join(lobby()).await.unwrap();
    pass(ms(200)).await;
    assert_eq!((ann.screen().anonymous, ann.sees()), (2, vec!["ann".to_owned()]));
    one.leave(lobby()).await.unwrap();
    pass(ms(200)).await;
    assert_eq!((ann.screen().anonymous, node.anonymous_count(lobby()).await.unwrap()), (1, 1));
}

// behaviour: 3 leaver-hears-no-leave
#[actix::test]
async fn a_leave_is_announced_once_to_those_who_stay_and_the_leaver_gets_nothing_more() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let _ = bob.frames();
    bob.leave(lobby()).await.unwrap();
    assert_eq!(node.rows(lobby()).await, ["ann"]);
    node.send(lobby(), r#""after""#).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!(heard(&mut changes), ["-bob"]);
    assert_eq!(ann.screen().told, ["+bob", "-bob"]);
    assert_eq!(bob.frames().len(), 0, "it is no longer in the group");
}

#[actix::test]
async fn a_leave_of_one_who_is_not_there_is_silent() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let _ = ann.frames();
    let bob = node.client("bob");
    bob.leave(lobby()).await.unwrap();
    bob.leave(&room("nowhere")).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!((heard(&mut changes), ann.frames().len(), node.running()), (Vec::new(), 0, 1));
}

#[actix::test]
async fn leaves_that_race_announce_one() {
    // The ancestor announced four to eight in this race.
    let node = node().await;
    let (_ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(ms(1000)).await;
    let mut changes = node.changes();
    let id = bob.id(lobby());
    let left = join_all((0..8).map(|_| node.rooms.leave(lobby(), id, &bob.channel))).await;
    assert!(left.into_iter().all(|left| left.is_ok()), "each of them may think it was the one");
    pass(ms(1000)).await;
    assert_eq!(heard(&mut changes), ["-bob"]);
}

// behaviour: W24 metadata
#[actix::test]
async fn an_update_is_told_to_all_and_one_that_changes_nothing_to_nobody() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(ms(1000)).await;
    let mut changes = node.changes();
    bob.update(lobby(), r#"{"mood":"busy"}"#).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!((heard(&mut changes), ann.screen().told), (vec!["~bob".to_owned()], vec!["+bob".into(), "~bob".into()]));
    assert_eq!(ann.screen().here[&bob.id(lobby()).to_string()].1["mood"], "busy");
    let _ = (ann.frames(), bob.frames(), node.store.commits());
    bob.update(lobby(), r#" {"mood":"busy"} "#).await.unwrap();
    pass(ms(1000)).await;
    assert_eq!((heard(&mut changes), node.store.commits().len()), (Vec::new(), 0));
    assert_eq!((ann.frames().len(), bob.frames().len()), (0, 0));
}

#[actix::test]
async fn updates_that_wait_together_become_one_and_the_last_one_counts() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(ms(1000)).await;
    let mut changes = node.changes();
    node.store.commits();
    node.store.commits_take(ms(50));
    let (first, _) = tokio::join!(bob.update(lobby(), r#"{"n":0}"#), async {
        settle().await;
        for n in 1..10 {
            let meta = format!(r#"{{"n":{n}}}"#);
            let update = bob.update(lobby(), &meta);
            assert!(futures_util::FutureExt::now_or_never(update).is_none());
        }
    });
    first.unwrap();
    pass(ms(1000)).await;
    assert_eq!(node.store.sizes(), [1, 1], "nine updates waited for the first, and went together");
    assert_eq!(heard(&mut changes), ["~bob", "~bob"]);
    assert_eq!(ann.screen().here[&bob.id(lobby()).to_string()].1["n"], 9);
}

#[actix::test]
async fn an_update_without_a_presence_is_refused_by_name() {
    let node = node().await;
    let (_ann, bob) = (node.member("ann").await, node.client("bob"));
    let update = bob.update(lobby(), r#"{"n":0}"#).await;
    assert!(matches!(update, Err(Error::NotInRoom { room }) if room == *lobby()));
}

#[actix::test]
async fn a_leave_and_a_join_again_are_another_presence_with_an_empty_meta() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    let before = bob.id(lobby());
    assert_eq!(bob.screen().states, 1);
    bob.leave(lobby()).await.unwrap();
    bob.join(lobby()).await.unwrap();
    pass(ms(200)).await;
    assert_ne!(bob.id(lobby()), before);
    assert_eq!(ann.screen().here[&bob.id(lobby()).to_string()].1, serde_json::json!({}));
    assert_eq!(bob.screen().states, 2);
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
    assert_eq!(ann.screen().messages, (0..10).map(serde_json::Value::from).collect::<Vec<_>>());
    assert_eq!(bob.screen().messages, [10]);
    let name = crate::name::EventName::new("wave").unwrap();
    node.send_event(lobby(), crate::Event::new(name, &1).unwrap()).unwrap();
    settle().await;
    assert_eq!((ann.told().len(), bob.told().len()), (1, 0));
}

#[actix::test]
async fn joins_of_one_socket_that_meet_are_one_join_and_all_of_them_succeed() {
    // Each took the other's answer away and asked again, until both gave up and the presence left.
    let node = node().await;
    node.store.commits_take(ms(10));
    let (mut changes, ann) = (node.changes(), node.client("ann"));
    let joined = join_all((0..8).map(|_| ann.join(lobby()))).await;
    assert!(joined.into_iter().all(|joined| joined.is_ok()));
    pass(ms(1000)).await;
    assert_eq!((heard(&mut changes), ann.screen().states), (vec!["+ann".to_owned()], 1));
    assert_eq!(node.names(lobby()).await, ["ann"]);
}
