//! Heartbeats that request an answer, from a client that does not read, and heartbeats that arrive together.

use super::prelude::*;
use crate::{ANSWERED_HEARTBEAT, HEARTBEAT};

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

/// Keeps the texts that it receives, heartbeats too.
struct Recording(Rc<RefCell<Vec<String>>>);

impl Consumer for Recording {
    async fn receive(&mut self, _: &mut Socket, frame: Frame) -> Result<()> {
        let text = std::str::from_utf8(frame.as_bytes()).expect("a test sends text");
        self.0.borrow_mut().push(text.to_owned());
        Ok(())
    }
}

#[actix::test]
async fn each_of_many_heartbeats_that_arrive_together_is_received_in_its_order() {
    let node = node_with(config().messages_per_second(0).inbox_frames(4)).await;
    let received = Rc::<RefCell<Vec<String>>>::default();
    let consumer = Recording(received.clone());
    let mut client = TestSocket::connect(TestSocket::upgrade(&node), consumer).await.expect("accepted");
    let sent = [vec![HEARTBEAT; 11], vec!["x"], vec![ANSWERED_HEARTBEAT; 3], vec![HEARTBEAT; 2], vec!["y"; 2]].concat();
    client.send_texts_together(sent.iter().copied());
    for _ in 0..sent.len() {
        settle().await;
    }
    assert_eq!(*received.borrow(), sent);
}
