//! Clients on slow lines: what they go on taking they get, however long that takes; who takes nothing is cut off.

use std::task::{Context, Poll, Waker};

use super::{
    bench::{Client, Node, config, lobby, ms, node, node_with, pass, secs, settle},
    unread::take,
};
use crate::{
    CloseCode, Consumer, Frame, Result, Socket,
    config::ConfigBuilder,
    delivery::{PIECE, ToConnection, wire},
    testing::{Received, TestSocket},
};

fn is_cut_off(client: &Client) -> bool {
    client.told().iter().any(|told| matches!(told, ToConnection::TooSlow))
}

/// A client that has fetched the answer to its handshake, and for which a frame of so many pieces waits.
fn waited_for(node: &Node, pieces: usize) -> Client {
    let ann = node.client("ann");
    assert_eq!(take(&ann), 0);
    ann.outbox.push_first(lobby(), (vec![0; pieces * PIECE].into(), None, None));
    ann
}

#[actix::test]
async fn who_goes_on_taking_a_large_frame_gets_it_however_long_that_takes() {
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
async fn who_takes_nothing_for_the_write_timeout_is_cut_off_then_whatever_was_taken_before() {
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

/// Whether a client that takes so many bytes a second gets all of 250 kB in frames of this size.
async fn gets_all(node: &Node, size: usize, rate: usize) -> bool {
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
async fn whoever_takes_a_piece_in_each_write_timeout_gets_all_and_who_takes_less_than_half_of_one_is_cut_off() {
    // A client that reads a byte now and then must not hold for ever what waits for it.
    let node = node().await;
    for size in [1000, 9000, 17_000, 100_000] {
        assert!(gets_all(&node, size, PIECE.div_ceil(9)).await, "frames of {size} bytes");
        assert!(!gets_all(&node, size, PIECE / 2 / 11).await, "frames of {size} bytes");
        assert!(!gets_all(&node, size, 1).await, "frames of {size} bytes");
    }
}

/// Says what it is asked to.
struct Sender;

impl Consumer for Sender {
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

/// As many seconds as a test wants before anybody is stale.
fn patient() -> ConfigBuilder {
    config().max_age(secs(3600))
}

async fn socket(node: &Node) -> TestSocket {
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(super::bench::user("ann")));
    let mut socket = TestSocket::connect(upgrade, Sender).await.expect("accepted");
    socket.stop_reading();
    assert!(matches!(socket.receive().await, Received::Frame(_)), "the first frame");
    socket
}

#[actix::test]
async fn a_ping_behind_a_large_frame_counts_from_when_it_is_written() {
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
    // Reads the text, and answers the ping behind it.
    assert!(matches!(ann.receive().await, Received::Frame(Frame::Text(text)) if text.len() == 60 * PIECE));
    assert!(ann.receive_nothing().await);
    pass(secs(9)).await;
    assert_eq!(node.names(lobby()).await, ["ann"]);
}

#[actix::test]
async fn who_takes_a_ping_and_does_not_answer_is_lost_a_pong_timeout_after_it_was_written() {
    let node = node_with(patient()).await;
    let mut ann = socket(&node).await;
    ann.send_text((10 * PIECE).to_string());
    settle().await;
    // The ping is due after 20 s, and taken after 33.
    for _ in 0..11 {
        pass(secs(3)).await;
        ann.read_once();
    }
    pass(ms(9_500)).await;
    assert_eq!(node.names(lobby()).await, ["ann"]);
    pass(ms(2_000)).await;
    assert_eq!(node.names(lobby()).await, Vec::<String>::new());
}

#[actix::test]
async fn a_ping_that_the_kernel_does_not_take_is_not_written_and_a_kernel_that_never_does_is_not_waited_for_in_vain() {
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
async fn a_close_behind_much_that_is_still_taken_reaches_its_client() {
    let node = node_with(patient()).await;
    let mut ann = socket(&node).await;
    ann.send_text((20 * PIECE).to_string());
    ann.send_text("close");
    settle().await;
    for piece in 0..20 {
        pass(secs(4)).await;
        assert_eq!(ann.read_once(), PIECE, "piece {piece}");
        assert_eq!(node.names(lobby()).await, Vec::<String>::new(), "she left at once");
    }
    assert!(matches!(ann.receive().await, Received::Frame(Frame::Text(_))));
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4001))));
    assert_eq!(ann.receive().await, Received::End);
}

#[actix::test]
async fn who_takes_nothing_of_what_is_before_its_close_is_cut_off_when_the_close_timeout_is_over() {
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
async fn a_response_whose_end_the_kernel_does_not_take_is_not_at_its_end() {
    // The connection was shut down for writing before the server had given all of it to the kernel.
    let node = node().await;
    let ann = node.client("ann");
    ann.outbox.push_close(wire::text("the end").bytes);
    ann.outbox.end();
    ann.takes.set(false);
    let end = |client: &Client| {
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
    assert!(ann.told().iter().any(|told| matches!(told, ToConnection::Flushed)));
}
