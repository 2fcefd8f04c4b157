//! What an actor asks by message, it is answered as if it had called.

use super::bench::{config, heard, leap, lobby, node, own_node_on, pass, room, secs, user};
use crate::{
    Close, CloseCode, Error,
    actor::{Add, AnonymousCount, LeaveAll, PrunePresences, PruneRooms, Remove, RemoveRoom, RemoveUser, Touch, Users},
    clock::Clock,
    name::ChannelName,
    store::MemoryStore,
};

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

fn add(channel: &ChannelName, name: Option<&str>) -> Add {
    Add { room: lobby().clone(), channel: channel.clone(), user: name.map(user) }
}

#[actix::test]
async fn an_actor_adds_rebinds_and_removes_with_one_event_each() {
    let node = node().await;
    let (rooms, mut changes, one) = (node.addr(), node.changes(), channel("1"));
    for who in [Some("ann"), Some("ann"), Some("bob"), None] {
        assert_eq!(rooms.send(add(&one, who)).await.unwrap().unwrap().name(), lobby());
    }
    assert_eq!(heard(&mut changes), ["+ann", "~bob", "~-"]);
    assert_eq!(rooms.send(AnonymousCount { room: lobby().clone() }).await.unwrap().unwrap(), 1);
    for _ in 0..2 {
        rooms.send(Remove { room: lobby().clone(), channel: one.clone() }).await.unwrap().unwrap();
    }
    assert_eq!(heard(&mut changes), ["--"]);
    assert_eq!(rooms.send(PruneRooms).await.unwrap().unwrap(), 1);
}

#[actix::test]
async fn an_actor_has_a_channel_leave_every_room() {
    let node = node().await;
    let (rooms, one) = (node.addr(), channel("1"));
    rooms.send(add(&one, Some("ann"))).await.unwrap().unwrap();
    rooms.send(Add { room: room("bar"), channel: one.clone(), user: Some(user("ann")) }).await.unwrap().unwrap();
    let mut changes = node.changes();
    for channel in [channel("unknown"), one.clone(), one] {
        rooms.send(LeaveAll { channel }).await.unwrap().unwrap();
    }
    assert_eq!(heard(&mut changes), ["-ann", "-ann"]);
}

#[actix::test]
async fn an_actor_keeps_a_channel_alive_and_prunes_the_others() {
    let node = node().await;
    let (rooms, one, two) = (node.addr(), channel("1"), channel("2"));
    rooms.send(add(&one, Some("ann"))).await.unwrap().unwrap();
    rooms.send(add(&two, Some("bob"))).await.unwrap().unwrap();
    leap(secs(30)).await;
    rooms.send(Touch { channel: one }).await.unwrap();
    rooms.send(Touch { channel: channel("unknown") }).await.unwrap();
    leap(secs(10)).await;
    assert_eq!(rooms.send(PrunePresences(Some(secs(20)))).await.unwrap().unwrap(), 1);
    assert_eq!(rooms.send(Users { room: lobby().clone() }).await.unwrap().unwrap(), [user("ann")]);
}

#[actix::test]
async fn an_actor_removes_a_user_and_a_room() {
    let node = node().await;
    let (rooms, _ann, _bob) = (node.addr(), node.member("ann").await, node.member("bob").await);
    assert_eq!(rooms.send(RemoveUser { user: user("ann"), close: None }).await.unwrap().unwrap(), 1);
    assert_eq!(rooms.send(RemoveRoom { room: lobby().clone(), close: None }).await.unwrap().unwrap(), 1);
    let wrong = RemoveRoom { room: lobby().clone(), close: Some(Close::new(CloseCode(1006), "")) };
    assert!(matches!(rooms.send(wrong).await.unwrap(), Err(Error::CloseCode { code: CloseCode(1006) })));
    pass(secs(1)).await;
    assert_eq!(node.names(lobby()).await, Vec::<String>::new());
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
