//! Sockets that are closed because their presence was removed.

use tokio::sync::oneshot;

use crate::rooms::tests::prelude::*;

use super::single::guest;

/// Joins, and never returns from `connect`.
struct Waiting;

impl Consumer for Waiting {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await?;
        std::future::pending().await
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn a_client_that_is_removed_while_it_connects_receives_the_close_code() {
    let node = node_with(config()).await;
    let connecting = TestSocket::connect(TestSocket::upgrade(&node.rooms).user(Some(user("ann"))), Waiting);
    let removing = async {
        pass(secs(1)).await;
        node.rooms.remove_user(&user("ann"), Some(Close::new(CloseCode(4003), "banned"))).await.unwrap();
    };
    let (socket, ()) = futures_util::future::join(connecting, removing).await;
    assert_eq!(socket.expect("answered").receive().await, Received::Close(Some(CloseCode(4003))));
}

#[actix::test]
async fn a_removal_closes_a_client_that_joins_again_at_once() {
    // Its socket ignored a removal from a room that it was in again, whatever the close code.
    let node = node().await;
    let (mut ann, name, _) = guest(&node, &["lobby"]).await;
    let (rooms, channel) = (node.rooms.clone(), name.clone());
    let joins = actix::spawn(async move {
        loop {
            let _ = rooms.add(lobby(), &channel, Some(&user("ann"))).await;
            tokio::task::yield_now().await;
        }
    });
    settle().await;
    node.remove_user(&user("ann"), Some(Close::new(CloseCode(4003), "banned"))).await.unwrap();
    assert_eq!(ann.closed().await.1, "banned");
    joins.abort();
    pass(secs(1)).await;
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn a_removal_closes_a_client_that_leaves_and_joins_again_at_once() {
    // The room considered it as having left by itself.
    let node = node().await;
    let (mut ann, name, _) = guest(&node, &["lobby"]).await;
    let (reply, _answer) = oneshot::channel();
    let close = Some(Close::new(CloseCode(4003), "banned"));
    node.table().send_running(lobby(), ToRoom::Remove { user: Some(user("ann")), close, reply });
    let ann_again = user("ann");
    let (left, _) = futures_util::join!(node.leave_all(&name), node.add(lobby(), &name, Some(&ann_again)));
    left.unwrap();
    assert_eq!(ann.closed().await.1, "banned");
    pass(secs(1)).await;
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn after_a_new_join_only_a_close_for_the_former_presence_is_ignored() {
    let node = node().await;
    for (code, is_closed) in [(CloseCode(4003), true), (CloseCode::STALE, false), (CloseCode::SUPERSEDED, false)] {
        let (mut ann, name, _) = guest(&node, &["lobby"]).await;
        let close = Some(Close::new(code, "removed"));
        let (room, channels) = (lobby().clone(), vec![name.clone()]);
        // It has joined again before this message arrives.
        node.hubs().of(&name).unwrap().addr.do_send(ToHub::Removed { room, channels, members: Vec::new(), close });
        settle().await;
        if is_closed {
            assert_eq!(ann.closed().await.1, "removed");
        } else {
            assert!(ann.receive_nothing().await, "{code}");
        }
    }
}
