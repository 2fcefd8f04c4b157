//! What is worth a warning, and what is not.

use std::rc::Rc;

use tokio::sync::Notify;

use super::bench::{Log, lobby, node, settle};
use crate::{
    Consumer, Frame, Result, Socket, Upgrade,
    testing::{Received, TestSocket},
};

/// Answers a frame when it may.
struct Slow(Rc<Notify>);

impl Consumer for Slow {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        self.0.notified().await;
        socket.send("an answer").await
    }
}

#[actix::test]
async fn a_client_that_goes_while_it_is_answered_is_no_warning() {
    let node = node().await;
    let log = Log::of_warnings();
    let may_answer = Rc::new(Notify::new());
    let mut ann = TestSocket::connect(Upgrade::new(&node.rooms), Slow(may_answer.clone())).await.unwrap();
    assert!(matches!(ann.receive().await, Received::Frame(_)), "the first frame");
    ann.send_text("a question");
    settle().await;
    ann.lose();
    settle().await;
    may_answer.notify_one();
    settle().await;
    assert_eq!(node.names(lobby()).await, Vec::<String>::new());
    let about_on_connect = |line: &String| line.contains("on_connect");
    assert_eq!(
        log.lines().into_iter().filter(|line| !about_on_connect(line)).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}
