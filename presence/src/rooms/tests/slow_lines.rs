//! Clients on slow lines: they receive everything as long as they read, and are cut off when they read nothing.

use std::task::{Context, Poll, Waker};

use super::first_frames::take;
use super::prelude::*;
use crate::delivery::wire;

fn is_cut_off(client: &FakeClient) -> bool {
    client.connection_messages().iter().any(|message| matches!(message, ToConnection::TooSlow))
}

/// A client that has read the answer to its handshake, with a frame of so many pieces in its outbox.
fn waited_for(node: &TestNode, pieces: usize) -> FakeClient {
    let ann = node.client("ann");
    assert_eq!(take(&ann), 0);
    ann.outbox.push_first(lobby(), (vec![0; pieces * PIECE].into(), None, None));
    ann
}

#[actix::test]
async fn a_client_that_continues_to_read_receives_a_large_frame_however_long_it_takes() {
    let node = node().await;
    let ann = waited_for(&node, 20);
    for _ in 0..20 {
        pass(secs(9)).await;
        assert_eq!((take(&ann), is_cut_off(&ann)), (PIECE, false));
    }
    pass(secs(60)).await;
    assert_eq!((take(&ann), is_cut_off(&ann)), (0, false), "nothing waits, so nothing need be taken");
}

#[actix::test]
async fn a_client_that_reads_nothing_for_write_timeout_is_cut_off() {
    let node = node().await;
    let ann = waited_for(&node, 20);
    for taken in 0..3 {
        pass(ms(9_900)).await;
        assert!(!is_cut_off(&ann), "{taken} pieces were taken");
        pass(ms(200)).await;
        assert!(is_cut_off(&ann), "{taken} pieces were taken");
        take(&ann);
    }
}

/// Whether a client that reads this number of bytes a second receives all of 250 kB in frames of this size.
async fn gets_all(node: &TestNode, size: usize, rate: usize) -> bool {
    let ann = node.client("ann");
    assert_eq!(take(&ann), 0);
    let frame = wire::text(&"x".repeat(size));
    (0..250_000 / size).for_each(|_| ann.outbox.push(&frame, None));
    let (mut taken, mut allowed) = (0, 0);
    while !is_cut_off(&ann) {
        if taken <= allowed {
            match take(&ann) {
                0 => return true,
                bytes => taken += bytes,
            }
        }
        pass(secs(1)).await;
        allowed += rate;
    }
    false
}

#[actix::test]
async fn a_client_that_reads_one_piece_in_each_write_timeout_receives_all_and_a_slower_one_is_cut_off() {
    // A client that reads one byte now and then must not hold its queued frames for ever.
    let node = node().await;
    for size in [1000, 9000, 17_000, 100_000] {
        assert!(gets_all(&node, size, PIECE.div_ceil(9)).await, "frames of {size} bytes");
        assert!(!gets_all(&node, size, PIECE / 2 / 11).await, "frames of {size} bytes");
        assert!(!gets_all(&node, size, 1).await, "frames of {size} bytes");
    }
}

/// Sends its client a text of the size that a frame names, or closes.
struct SizedSender;

impl Consumer for SizedSender {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match std::str::from_utf8(frame.as_bytes()) {
            Ok("close") => socket.close(CloseCode(4001), "enough")?,
            text => {
                let size = text.expect("a test sends text").parse().expect("a size");
                socket.send("x".repeat(size)).await?;
            }
        }
        Ok(())
    }
}

/// Nobody becomes stale within a test.
fn patient() -> ConfigBuilder {
    config().max_age(secs(3600))
}

async fn socket(node: &TestNode) -> TestSocket {
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann")));
    let mut socket = TestSocket::connect(upgrade, SizedSender).await.expect("accepted");
    socket.stop_reading();
    assert!(matches!(socket.receive().await, Received::Frame(_)), "the first frame");
    socket
}

#[actix::test]
async fn the_time_of_a_ping_behind_a_large_frame_begins_when_it_is_written() {
    let node = node_with(patient()).await;
    let mut ann = socket(&node).await;
    ann.send_text((60 * PIECE).to_string());
    settle().await;
    // 240 s, in which several pings are due.
    for piece in 0..60 {
        pass(secs(4)).await;
        assert_eq!(ann.read_once(), PIECE, "piece {piece}");
    }
    pass(secs(9)).await;
    assert_eq!(node.names(lobby()).await, ["ann"]);
    // The client reads the text, and answers the ping after it.
    assert!(matches!(ann.receive().await, Received::Frame(Frame::Text(text)) if text.len() == 60 * PIECE));
    assert!(ann.receive_nothing().await);
    pass(secs(9)).await;
    assert_eq!(node.names(lobby()).await, ["ann"]);
}

#[actix::test]
async fn a_client_that_reads_a_ping_and_does_not_answer_is_lost_after_pong_timeout() {
    let node = node_with(patient()).await;
    let mut ann = socket(&node).await;
    ann.send_text((10 * PIECE).to_string());
    settle().await;
    // The ping is due after 20 s, and is read after 33 s.
    for _ in 0..11 {
        pass(secs(3)).await;
        ann.read_once();
    }
    pass(ms(9_500)).await;
    assert_eq!(node.names(lobby()).await, ["ann"]);
    pass(ms(2_000)).await;
    assert_eq!(node.names(lobby()).await, NONE);
}

#[actix::test]
async fn a_ping_counts_as_written_when_the_kernel_accepts_it_or_at_the_latest_after_write_timeout() {
    let node = node().await;
    let ann = node.client("ann");
    let ping = wire::text("ping");
    ann.takes.set(false);
    ann.outbox.push_ping(&ping);
    assert!(take(&ann) > 0);
    pass(secs(5)).await;
    assert_eq!(ann.outbox.written(), None);
    ann.takes.set(true);
    pass(ms(200)).await;
    assert!(ann.outbox.written().is_some());
    ann.takes.set(false);
    ann.outbox.push_ping(&ping);
    assert_eq!(ann.outbox.written(), None, "of two the last counts");
    assert!(take(&ann) > 0);
    pass(secs(11)).await;
    assert!(ann.outbox.written().is_some(), "at the latest after `write_timeout`");
}

#[actix::test]
async fn a_close_behind_many_frames_reaches_a_client_that_still_reads() {
    let node = node_with(patient()).await;
    let mut ann = socket(&node).await;
    ann.send_text((20 * PIECE).to_string());
    ann.send_text("close");
    settle().await;
    for piece in 0..20 {
        pass(secs(4)).await;
        assert_eq!(ann.read_once(), PIECE, "piece {piece}");
        assert_eq!(node.names(lobby()).await, NONE, "she left at once");
    }
    assert!(matches!(ann.receive().await, Received::Frame(Frame::Text(_))));
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4001))));
    assert_eq!(ann.receive().await, Received::End);
}

#[actix::test]
async fn a_client_that_reads_nothing_before_its_close_is_cut_off_after_close_timeout() {
    let node = node_with(patient()).await;
    let mut ann = socket(&node).await;
    ann.send_text((20 * PIECE).to_string());
    ann.send_text("close");
    settle().await;
    for _ in 0..3 {
        pass(ms(4_900)).await;
        assert_eq!(ann.read_once(), PIECE);
    }
    pass(ms(5_200)).await;
    assert_eq!(ann.receive().await, Received::End);
}

#[actix::test]
async fn a_response_ends_only_when_the_kernel_has_accepted_its_last_bytes() {
    // The connection was shut down for writing before the server had given all of it to the kernel.
    let node = node().await;
    let ann = node.client("ann");
    ann.outbox.push_close(wire::text("the end").bytes);
    ann.outbox.end();
    ann.takes.set(false);
    let end = |client: &FakeClient| {
        let cx = Context::from_waker(Waker::noop());
        (0..100).any(|_| matches!(client.outbox.poll(&cx), Poll::Ready(None)))
    };
    assert!(!end(&ann));
    pass(secs(1)).await;
    assert!(!end(&ann));
    ann.takes.set(true);
    pass(secs(1)).await;
    assert!(end(&ann));
    settle().await;
    assert!(ann.connection_messages().iter().any(|message| matches!(message, ToConnection::Flushed)));
}

#[actix::test]
async fn a_response_that_is_polled_only_when_all_is_written_ends_at_once() {
    // Each further poll runs the task of the HTTP server once more.
    let node = node().await;
    let ann = node.client("ann");
    ann.kernel.accepts.set(Some(usize::MAX));
    ann.outbox.push_close(wire::text("the end").bytes);
    ann.outbox.end();
    let cx = Context::from_waker(Waker::noop());
    assert!(matches!(ann.outbox.poll(&cx), Poll::Ready(Some(Ok(_)))));
    assert!(matches!(ann.outbox.poll(&cx), Poll::Ready(None)));
    settle().await;
    assert!(ann.connection_messages().iter().any(|message| matches!(message, ToConnection::Flushed)));
}
