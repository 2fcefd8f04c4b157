//! Clients that send messages faster than the rate. Their updates and joins are in the files of the folder.

mod joins;
mod updates;

use super::prelude::*;

/// Counts the texts that it has handled. `+ROOM` joins, `-ROOM` leaves, `ROOM=N` updates.
#[derive(Clone, Default)]
struct Busy(Rc<Cell<usize>>);

impl Consumer for Busy {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let text = std::str::from_utf8(frame.as_bytes()).expect("a test sends text");
        if let Some(name) = text.strip_prefix('+') {
            socket.join(&room(name)).await?;
        } else if let Some(name) = text.strip_prefix('-') {
            socket.leave(&room(name)).await?;
        } else if let Some((name, n)) = text.split_once('=') {
            socket.update(&room(name), Meta::from_json(&format!(r#"{{"n":{n}}}"#))?).await?;
        }
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

async fn busy(settings: ConfigBuilder) -> (TestNode, TestSocket, Busy) {
    let node = node_with(settings).await;
    let (socket, consumer) = busy_on(&node).await;
    (node, socket, consumer)
}

/// A socket of ann with her token.
async fn busy_on(node: &TestNode) -> (TestSocket, Busy) {
    let consumer = Busy::default();
    let token = ResumeToken::new("the-token-of-this-tab").unwrap();
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann"))).resume_token(Some(token));
    (TestSocket::connect(upgrade, consumer.clone()).await.expect("accepted"), consumer)
}

fn send(socket: &mut TestSocket, count: usize, text: impl Fn(usize) -> String) {
    for n in 0..count {
        socket.send_text(text(n));
    }
}

async fn settle_all() {
    for _ in 0..100 {
        settle().await;
    }
}

#[actix::test]
async fn a_flood_of_messages_is_slowed_to_the_rate_after_a_burst_and_its_sender_receives_one_error() {
    let (_node, mut socket, done) = busy(config()).await;
    send(&mut socket, 1200, |_| "x".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 500, "five seconds' worth at once");
    let events: Value = socket.receive_json().await;
    assert_eq!((&events["type"], &events["code"]), (&Value::from("error"), &Value::from("too_fast")), "{events}");
    for (after, handled) in [(secs(1), 600), (secs(2), 800), (secs(4), 1200)] {
        pass(after).await;
        assert!(done.0.get().abs_diff(handled) <= 2, "{} and not {handled}", done.0.get());
    }
    assert!(socket.receive_nothing().await, "nothing else, and no Close");
}

#[actix::test]
async fn heartbeats_that_arrive_together_count_one_by_one() {
    let (_node, mut socket, done) = busy(config()).await;
    socket.send_texts_together([crate::HEARTBEAT; 1200]);
    settle_all().await;
    assert_eq!(done.0.get(), 500, "five seconds' worth at once");
}

#[actix::test]
async fn a_client_that_continues_to_send_too_much_is_closed_with_1008_and_one_that_rests_is_not() {
    let (node, mut socket, done) = busy(config().rate_patience(secs(3))).await;
    for rounds in 1..4 {
        send(&mut socket, 700, |_| "x".to_owned());
        pass(secs(10)).await;
        assert_eq!(done.0.get(), 700 * rounds, "slowed for 2 s, and then it rested");
        let events: Value = socket.receive_json().await;
        assert_eq!(events["code"], "too_fast");
    }
    // This client leaves nothing of its rate unused.
    let done = Busy::default();
    let mut socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), done.clone()).await.expect("accepted");
    send(&mut socket, 2000, |_| "x".to_owned());
    pass(secs(3) - ms(100)).await;
    let events: Value = socket.receive_json().await;
    assert_eq!(events["code"], "too_fast");
    assert!(socket.receive_nothing().await || socket.close_reason().is_some());
    pass(secs(1)).await;
    assert_eq!(socket.receive().await, Received::Close(Some(CloseCode(1008))));
    assert_eq!(socket.close_reason(), Some("too many messages"));
    assert!(done.0.get() < 500 + 400, "{}", done.0.get());
}

/// The frames so far.
fn received(socket: &mut TestSocket) -> Vec<Received> {
    let mut all = Vec::new();
    while let Some(one) = socket.receive().now_or_never() {
        let is_last = !matches!(one, Received::Frame(_));
        all.push(one);
        if is_last {
            break;
        }
    }
    all
}

/// The client need not answer pings while time passes.
fn without_pings() -> ConfigBuilder {
    config().ping_interval(secs(3600))
}

#[actix::test]
async fn messages_that_were_sent_during_a_standstill_are_not_slowed() {
    let (_node, mut socket, done) = busy(without_pings()).await;
    pass(secs(5)).await;
    for rounds in 1..3 {
        tokio::time::advance(secs(62)).await;
        send(&mut socket, 62 * 99, |_| "x".to_owned());
        settle_all().await;
        assert_eq!(done.0.get(), 62 * 99 * rounds);
        assert!(socket.receive_nothing().await, "nobody notices it");
        pass(secs(5)).await;
    }
    pass(secs(62)).await;
    send(&mut socket, 700, |_| "x".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 62 * 99 * 2 + 500, "it is not kept");
}

#[actix::test]
async fn messages_after_a_pause_of_the_network_are_slowed_and_their_sender_is_not_closed() {
    let (_node, mut socket, done) = busy(without_pings()).await;
    let mut events = Vec::new();
    for second in 0..120 {
        // All messages of the pause arrive together.
        let count = if second == 24 { 80 * 20 } else { 80 };
        if !(5..24).contains(&second) {
            send(&mut socket, count, |_| "x".to_owned());
        }
        pass(secs(1)).await;
        events.extend(received(&mut socket));
    }
    let [Received::Frame(Frame::Text(text))] = &events[..] else { panic!("{events:?}") };
    assert!(text.contains("too_fast"), "{text}");
    assert_eq!(done.0.get(), 80 * 120);
}

#[actix::test]
async fn a_rate_of_zero_is_no_limit() {
    let (_node, mut socket, done) =
        busy(config().messages_per_second(0).joins_per_second(0).updates_per_second(0)).await;
    send(&mut socket, 5000, |_| "x".to_owned());
    settle_all().await;
    assert_eq!(done.0.get(), 5000);
}
