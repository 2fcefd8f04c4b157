//! Messages of actors that change rooms. Their answers are those of the calls.

use super::prelude::*;
use crate::actor::{
    Add, AnonymousCount, LeaveAll, PrunePresences, PruneRooms, Remove, RemoveRoom, RemoveUser, Touch, Users,
};

fn add(channel: &ChannelName, name: Option<&str>) -> Add {
    Add { room: lobby().clone(), channel: channel.clone(), user: name.map(user), options: JoinOptions::new() }
}

// behaviour: 2.1 add-returns-room; 2.1 anonymous-user; 2.1 idempotent-re-add; 2.1 re-add-as-another-user
// behaviour: 2.2 remove-signals-once; 2.2 empty-room-stays; 3 told-before-the-call-returns; 3 silent-rounds
// behaviour: W4 rebind
#[actix::test]
async fn an_actor_adds_rebinds_and_removes_with_one_event_each() {
    let node = node().await;
    let rooms = node.addr();
    let mut changes = node.changes();
    let one = channel("1");
    let mut ids = Vec::new();
    for who in [Some("ann"), Some("ann"), Some("bob"), None] {
        assert_eq!(rooms.send(add(&one, who)).await.unwrap().unwrap().name(), lobby());
        let members = node.members(lobby()).await.unwrap();
        ids.extend(members.iter().flat_map(Member::presences).map(|presence| presence.id));
    }
    assert_eq!(published(&mut changes), ["+ann", "~bob", "~-"]);
    assert_eq!(ids, [ids[0]; 4], "it stays the same presence");
    assert_eq!(rooms.send(AnonymousCount { room: lobby().clone() }).await.unwrap().unwrap(), 1);
    for _ in 0..2 {
        rooms.send(Remove { room: lobby().clone(), channel: one.clone() }).await.unwrap().unwrap();
    }
    assert_eq!(published(&mut changes), ["--"]);
    assert_eq!(rooms.send(PruneRooms).await.unwrap().unwrap(), 1, "the room was still there");
    assert_eq!((rooms.send(PruneRooms).await.unwrap().unwrap(), published(&mut changes)), (0, vec![]));
}

// behaviour: 2.4 leave-all-once-per-room; 2.4 leave-all-unknown; 2.4 leave-all-and-no-more; 3 removed
#[actix::test]
async fn an_actor_removes_a_channel_from_every_room() {
    let node = node().await;
    let (rooms, one) = (node.addr(), channel("1"));
    rooms.send(add(&one, Some("ann"))).await.unwrap().unwrap();
    rooms.send(add(&channel("2"), Some("ann"))).await.unwrap().unwrap();
    rooms.send(Add { room: room("bar"), ..add(&one, Some("ann")) }).await.unwrap().unwrap();
    let mut changes = node.changes();
    for channel in [channel("unknown"), one.clone(), one] {
        rooms.send(LeaveAll { channel }).await.unwrap().unwrap();
    }
    assert_eq!(published(&mut changes), ["-ann", "-ann"]);
    assert_eq!(node.rows(lobby()).await, ["ann"], "the other channel of the user stays");
}

// behaviour: 2.1 re-add-and-last-seen; 2.3 touch-all-rooms; 2.3 touch-unknown; 3 nothing-to-tell
#[actix::test]
async fn a_touch_and_another_add_keep_a_channel_alive_in_all_its_rooms_and_a_prune_removes_the_others() {
    let node = node().await;
    let rooms = node.addr();
    let one = channel("1");
    let two = channel("2");
    let three = channel("3");
    for (channel, name) in [(&one, "ann"), (&two, "bob"), (&three, "cid")] {
        rooms.send(add(channel, Some(name))).await.unwrap().unwrap();
    }
    rooms.send(Add { room: room("bar"), ..add(&one, Some("ann")) }).await.unwrap().unwrap();
    let mut changes = node.changes();
    leap(secs(30)).await;
    rooms.send(Touch { channel: one }).await.unwrap();
    rooms.send(Touch { channel: channel("unknown") }).await.unwrap();
    rooms.send(add(&three, Some("cid"))).await.unwrap().unwrap();
    leap(secs(10)).await;
    assert_eq!(published(&mut changes), NONE);
    assert_eq!(rooms.send(PrunePresences(Some(secs(20)))).await.unwrap().unwrap(), 1);
    assert_eq!(rooms.send(Users { room: lobby().clone() }).await.unwrap().unwrap(), [user("ann"), user("cid")]);
    assert_eq!(node.names(&room("bar")).await, ["ann"]);
}

#[actix::test]
async fn an_actor_removes_a_user_and_a_room() {
    let node = node().await;
    let rooms = node.addr();
    let _ann = node.member("ann").await;
    let _bob = node.member("bob").await;
    assert_eq!(rooms.send(RemoveUser { user: user("ann"), close: None }).await.unwrap().unwrap(), 1);
    assert_eq!(rooms.send(RemoveRoom { room: lobby().clone(), close: None }).await.unwrap().unwrap(), 1);
    let wrong = RemoveRoom { room: lobby().clone(), close: Some(Close::new(CloseCode(1006), "")) };
    assert!(matches!(rooms.send(wrong).await.unwrap(), Err(Error::CloseCode { code: CloseCode(1006) })));
    pass(secs(1)).await;
    assert_eq!(node.names(lobby()).await, NONE);
}

#[actix::test]
async fn an_actor_gets_the_errors_of_the_calls() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let (first, second) = (own_node_on(&database, "here", config()), own_node_on(&database, "here", config()));
    let rooms = second.addr();
    assert!(matches!(rooms.send(add(&channel("1"), None)).await.unwrap(), Err(Error::NameInUse { .. })));
    assert!(matches!(rooms.send(PruneRooms).await.unwrap(), Err(Error::NameInUse { .. })));
    let removed = rooms.send(RemoveUser { user: user("ann"), close: None }).await.unwrap();
    assert!(matches!(removed, Err(Error::NameInUse { .. })));
    first.shutdown().await;
    let (rooms, one) = (first.addr(), channel("1"));
    assert!(matches!(rooms.send(LeaveAll { channel: one.clone() }).await.unwrap(), Err(Error::ShuttingDown)));
    rooms.send(Touch { channel: one }).await.unwrap();
}
