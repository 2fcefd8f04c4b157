//! Joins that come faster than the rate.

use crate::rooms::tests::prelude::*;

use super::{busy, received, send, settle_all};

#[actix::test]
async fn joins_are_slowed_to_the_rate_and_a_client_that_continues_is_closed_with_1008() {
    let settings = config().joins_per_second(2).max_rooms_per_socket(20).rate_patience(secs(3)).notify_interval(ms(0));
    let (node, mut socket, done) = busy(settings).await;
    let turns = |n: usize| if n.is_multiple_of(2) { "+lobby".to_owned() } else { "-lobby".to_owned() };
    send(&mut socket, 60, turns);
    pass(ms(200)).await;
    assert_eq!(done.0.get(), 40, "as many as it may have rooms at once");
    node.store.commits();
    pass(secs(2)).await;
    assert!(done.0.get().abs_diff(48) <= 1, "{}", done.0.get());
    pass(secs(5)).await;
    let mut last = None;
    while let Received::Frame(Frame::Text(text)) = socket.receive().await {
        last = Some(text).filter(|text| text.contains("too_fast")).or(last);
    }
    assert!(last.is_some(), "it was events first");
    assert_eq!(socket.close_reason(), Some("too many joins"));
    assert_eq!(node.rows(lobby()).await, NONE);
}

/// Leaves a hundred rooms and joins a hundred others, all at once, with each frame.
struct Mover(Rc<Cell<usize>>);

impl Consumer for Mover {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let set = std::str::from_utf8(frame.as_bytes()).expect("a test sends text").to_owned();
        socket.leave_all().await?;
        let rooms: Vec<_> = (0..100).map(|n| room(&format!("{set}{n}"))).collect();
        let joined = futures_util::future::join_all(rooms.iter().map(|room| socket.join(room))).await;
        joined.into_iter().collect::<Result<()>>()?;
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

#[actix::test]
async fn joins_that_wait_together_are_slowed_once_and_do_not_use_up_the_handler_timeout() {
    let node = node_with(config().handler_timeout(secs(5)).notify_interval(ms(0))).await;
    let done = Rc::<Cell<_>>::default();
    let mut socket =
        TestSocket::connect(TestSocket::upgrade(&node.rooms), Mover(done.clone())).await.expect("accepted");
    socket.send_text("a");
    settle_all().await;
    assert_eq!(done.get(), 1);
    socket.send_text("b");
    let mut events = Vec::new();
    for second in 0..11 {
        assert!(done.get() == 1 || second >= 10, "after {second} s: ten a second");
        pass(secs(1)).await;
        events.extend(received(&mut socket));
    }
    assert_eq!(done.get(), 2);
    let is_error = |one: &&Received| !matches!(one, Received::Frame(Frame::Text(text)) if text.contains("presence."));
    let events: Vec<_> = events.iter().filter(is_error).collect();
    assert!(matches!(&events[..], [Received::Frame(Frame::Text(text))] if text.contains("too_fast")), "{events:?}");
}

/// Joins and leaves while it connects, until a call fails.
struct Fickle;

impl Consumer for Fickle {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        loop {
            socket.join(lobby()).await?;
            socket.leave(lobby()).await?;
        }
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn a_client_that_joins_too_fast_while_it_connects_receives_a_close() {
    let settings = config().joins_per_second(2).max_rooms_per_socket(1).rate_patience(secs(3)).notify_interval(ms(0));
    let node = node_with(settings).await;
    let mut socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), Fickle).await.expect("accepted");
    assert_eq!(socket.receive().await, Received::Close(Some(CloseCode(1008))));
    assert_eq!(socket.close_reason(), Some("too many joins"));
    settle_all().await;
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn joining_again_does_not_use_up_the_rate() {
    let (_node, mut socket, done) = busy(config().joins_per_second(1).max_rooms_per_socket(1)).await;
    send(&mut socket, 100, |_| "+lobby".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 100);
}
