//! What is logged, and at which level.

use tokio::sync::watch;
use tracing::Level;

use super::prelude::*;
use crate::telemetry::LINE_INTERVAL;

/// Waits before it answers a frame and before it has handled an event.
struct WaitingConsumer(watch::Receiver<bool>);

impl Consumer for WaitingConsumer {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        let _ = self.0.wait_for(|may| *may).await;
        socket.send("an answer").await
    }

    async fn event(&mut self, _: &mut Socket, _: Event) -> Result<()> {
        let _ = self.0.wait_for(|may| *may).await;
        Ok(())
    }
}

/// A member whose consumer waits until the sender allows it to continue.
async fn slow(node: &TestNode) -> (TestSocket, watch::Sender<bool>) {
    let (may_go_on, may) = watch::channel(false);
    let mut socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), WaitingConsumer(may)).await.unwrap();
    assert!(matches!(socket.receive().await, Received::Frame(_)), "the first frame");
    (socket, may_go_on)
}

#[actix::test]
async fn a_client_that_disconnects_while_it_is_answered_logs_no_warning() {
    let node = node().await;
    let log = Log::of_warnings();
    let (mut ann, may_answer) = slow(&node).await;
    ann.send_text("a question");
    settle().await;
    ann.lose();
    settle().await;
    may_answer.send_replace(true);
    settle().await;
    assert_eq!(node.names(lobby()).await, NONE);
    let about_on_connect = |line: &String| line.contains("on_connect");
    assert_eq!(
        log.lines().into_iter().filter(|line| !about_on_connect(line)).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[actix::test]
async fn a_full_inbox_is_logged_at_the_level_trace() {
    let node = node_with(config().inbox_frames(2)).await;
    let log = Log::down_to(Level::TRACE);
    let (mut ann, may_answer) = slow(&node).await;
    let lines = || log.lines_with("nothing is read from a client until its consumer has handled a frame");
    ann.send_text("a question");
    settle().await;
    for _ in 0..2 {
        ann.send_text("a question");
    }
    settle().await;
    assert_eq!(lines(), NONE, "one is handled, and two may wait");
    ann.send_text("a question");
    settle().await;
    assert!(lines().len() == 1 && lines()[0].contains("TRACE"), "{:?}", lines());
    may_answer.send_replace(true);
    for _ in 0..4 {
        assert_eq!(ann.receive_text().await, "an answer");
    }
    assert_eq!(lines().len(), 1);
}

#[actix::test]
async fn a_consumer_that_loses_events_logs_one_warning_and_one_line_when_it_has_caught_up() {
    /// How many events may be queued.
    const MAX: usize = 1024;
    let node = node().await;
    let log = Log::down_to(Level::INFO);
    let (_ann, may_go_on) = slow(&node).await;
    let event = Event::new(EventName::new("news").unwrap(), &1).unwrap();
    let send = async |count| {
        for _ in 0..count {
            node.send_event(lobby(), event.clone()).unwrap();
        }
        settle().await;
    };
    let (lost, caught_up) = ("a consumer is too slow, and events are dropped", "events were dropped has caught up");
    send(1).await;
    send(MAX).await;
    assert_eq!(log.lines_with(lost), NONE, "one is handled, and the others may wait");
    send(1).await;
    send(9).await;
    let lines = log.lines_with(lost);
    assert!(lines.len() == 1 && lines[0].contains("WARN"), "{lines:?}");
    assert_eq!(log.lines_with(caught_up), NONE);
    may_go_on.send_replace(true);
    pass(secs(1)).await;
    let lines = log.lines_with(caught_up);
    assert!(lines.len() == 1 && lines[0].contains("INFO") && lines[0].contains("count=10"), "{lines:?}");
    may_go_on.send_replace(false);
    send(1).await;
    send(MAX + 1).await;
    assert_eq!(log.lines_with(lost).len(), 2, "it is behind again");
}

#[actix::test]
async fn changes_that_are_refused_as_too_many_are_pending_log_a_warning_with_their_number() {
    let node = node_with(config().max_pending_writes(1)).await;
    let bob = node.member("bob").await;
    let log = Log::of_warnings();
    let one_is_under_way_and_one_waits = async |metas: [&str; 2]| {
        node.store.hang_after_commit();
        for meta in metas {
            let _begun = bob.update(lobby(), meta).now_or_never();
            settle().await;
        }
    };
    one_is_under_way_and_one_waits([r#"{"n":1}"#, r#"{"n":2}"#]).await;
    let refused = async || {
        let refused = node.client("ann").join(lobby()).await;
        assert!(matches!(refused, Err(Error::Overloaded { limit: 1 })), "{refused:?}");
        log.lines_with("a change is refused: too many wait for the database")
    };
    let lines = refused().await;
    assert_eq!(lines.len(), 1);
    for part in ["WARN", "room=lobby", "limit=1"] {
        assert!(lines[0].contains(part), "{part:?} in {}", lines[0]);
    }
    assert!(!lines[0].contains("left_out"), "{}", lines[0]);
    assert_eq!([refused().await.len(), refused().await.len()], [1, 1]);
    node.store.release_commits();
    pass(LINE_INTERVAL).await;
    one_is_under_way_and_one_waits([r#"{"n":3}"#, r#"{"n":4}"#]).await;
    let lines = refused().await;
    assert!(lines.len() == 2 && lines[1].contains("left_out=2"), "{lines:?}");
    node.store.release_commits();
}

#[actix::test]
async fn after_the_first_line_of_a_cause_the_others_are_logged_in_full_at_the_level_debug() {
    // The lines had only the channel and the cause, so they did not show the user.
    let node = node().await;
    let log = Log::down_to(Level::DEBUG);
    let mut sockets = Vec::new();
    for name in ["ann", "bob", "cat", "dan"] {
        let (_, may) = watch::channel(true);
        let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user(name)));
        sockets.push(TestSocket::connect(upgrade, WaitingConsumer(may)).await.unwrap());
    }
    // The clients read nothing.
    pass(secs(70)).await;
    let lines = log.lines_with("a socket is cut off");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("DEBUG")), "{lines:?}");
    for user in ["ann", "bob", "cat", "dan"] {
        let is_full = |line: &&String| line.contains(&format!("user={user} rooms=\"lobby\""));
        assert_eq!(lines.iter().filter(is_full).count(), 1, "{lines:?}");
    }
}
