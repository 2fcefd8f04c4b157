//! Heartbeats that request an answer, from a client that does not read.

use super::prelude::*;
use crate::ANSWERED_HEARTBEAT;

/// Counts the heartbeats that it has handled.
struct Counting(Rc<Cell<usize>>);

impl Consumer for Counting {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        assert!(crate::__private::touch_presence(socket, &frame, &[]).await, "it is swallowed");
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

#[actix::test]
async fn answers_to_a_client_that_does_not_read_are_bounded() {
    let node = node_with(config().outbox_frames(4)).await;
    let answered = Rc::new(Cell::new(0));
    let consumer = Counting(answered.clone());
    let mut client = TestSocket::connect(TestSocket::upgrade(&node), consumer).await.expect("accepted");
    client.stop_reading();
    for _ in 0..100 {
        client.send_text(ANSWERED_HEARTBEAT);
    }
    settle().await;
    assert_eq!(answered.get(), 4, "the fifth waits until the client reads");
    for _ in 0..100 {
        let answer = client.receive().await;
        assert_eq!(answer, Received::Frame(Frame::Text(ANSWERED_HEARTBEAT.into())));
    }
    settle().await;
    assert_eq!(answered.get(), 100);
}
