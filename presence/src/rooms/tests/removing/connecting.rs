//! Sockets that are removed with a Close before their `connect` has returned: the client reads the code and the reason.

use tokio::sync::oneshot;

use crate::rooms::tests::prelude::*;
use crate::testing::Refused;

/// Joins, and has connected when it receives this.
struct SlowToConnect {
    connected: Option<oneshot::Receiver<()>>,
    disconnects: Rc<Cell<usize>>,
}

impl Consumer for SlowToConnect {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await?;
        if let Some(connected) = self.connected.take() {
            let _ = connected.await;
        }
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    async fn disconnect(&mut self, _: &mut Socket, _: CloseCode) -> Result<()> {
        self.disconnects.set(self.disconnects.get() + 1);
        Ok(())
    }
}

async fn ann(node: &TestNode, guest: SlowToConnect) -> std::result::Result<TestSocket, Refused> {
    let token = ResumeToken::new("the-token-of-this-tab").unwrap();
    TestSocket::connect(TestSocket::upgrade(node).user(Some(user("ann"))).resume_token(Some(token)), guest).await
}

/// Ann is banned while she connects.
async fn is_banned(while_she_joins: bool) {
    let (node, disconnects) = (node().await, Rc::new(Cell::new(0)));
    let (_connect, connected) = oneshot::channel();
    if while_she_joins {
        node.store.commits_take(secs(1));
    }
    let connects = ann(&node, SlowToConnect { connected: Some(connected), disconnects: disconnects.clone() });
    let bans = async {
        pass(ms(100)).await;
        node.remove_user(&user("ann"), Some(Close::new(CloseCode(4003), "banned"))).await.unwrap();
    };
    let (ann, ()) = join(connects, bans).await;
    let mut ann = ann.expect("the handshake is answered 101");
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4003))));
    assert_eq!(ann.close_reason(), Some("banned"));
    pass(secs(2)).await;
    assert_eq!((node.rows(lobby()).await, disconnects.get()), (Vec::<String>::new(), 0));
}

#[actix::test]
async fn one_who_is_banned_while_it_connects_reads_the_code_and_the_reason() {
    // The reason was lost.
    is_banned(false).await;
}

#[actix::test]
async fn one_who_is_banned_while_it_joins_reads_the_code_and_the_reason() {
    // The handshake was answered 409, which a page takes for a lost connection: it came back again and again.
    is_banned(true).await;
}

#[actix::test]
async fn of_two_sockets_that_join_at_once_with_one_token_the_former_reads_that_it_was_superseded() {
    // As above.
    let (node, disconnects) = (node().await, Rc::new(Cell::new(0)));
    node.store.commits_take(ms(100));
    let guest = || SlowToConnect { connected: None, disconnects: disconnects.clone() };
    let (former, newer) = join(ann(&node, guest()), ann(&node, guest())).await;
    let (mut former, mut newer) = (former.expect("101"), newer.expect("101"));
    assert_eq!(former.receive().await, Received::Close(Some(CloseCode::SUPERSEDED)));
    assert!(matches!(newer.receive().await, Received::Frame(_)), "its first frame");
    assert!(newer.receive_nothing().await);
    assert_eq!((node.rows(lobby()).await, disconnects.get()), (vec!["ann".to_owned()], 0));
}
