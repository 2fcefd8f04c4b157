//! What is left of rooms that were shut down and dropped: nothing.

use std::{
    rc::{Rc, Weak as RcWeak},
    sync::{Arc, Weak},
};

use actix::{Actor, Context, Handler};

use super::bench::{Node, lobby, node, pass, room, secs};
use crate::{Error, PresenceChanged, delivery::Sockets, name::ChannelName, rooms::RoomsInner};

struct Listener;

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<PresenceChanged> for Listener {
    type Result = ();

    fn handle(&mut self, _: PresenceChanged, _: &mut Self::Context) {}
}

fn what_is_left(node: &Node) -> (Weak<RoomsInner>, RcWeak<std::cell::RefCell<Sockets>>) {
    (Arc::downgrade(&node.rooms.0), Rc::downgrade(&node.hubs().here().sockets))
}

#[actix::test]
async fn rooms_that_were_shut_down_are_dropped_with_their_last_handle_and_so_are_their_hubs() {
    let node = node().await;
    node.subscribe(None, Listener.start().recipient());
    let mut crowd = node.crowd(5).await;
    crowd[0].leave(lobby()).await.unwrap();
    crowd.push(node.client("other"));
    crowd[5].join(&room("attic")).await.unwrap();
    let channel = ChannelName::new("job").unwrap();
    node.add(lobby(), &channel, None).await.unwrap();
    node.names(&room("cellar")).await;
    node.shutdown().await;
    let late = crowd[2].leave(lobby()).await;
    assert!(matches!(late, Err(Error::ShuttingDown)), "no room is started for it");
    let (rooms, sockets) = what_is_left(&node);
    // What waits for a client that does not read is looked after until its connection ends.
    crowd.iter().for_each(|client| drop(client.frames()));
    drop((crowd, node));
    pass(secs(20)).await;
    assert_eq!((rooms.strong_count(), sockets.strong_count()), (0, 0));
}
