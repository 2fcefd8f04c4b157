//! Sizes: what just fits, and the answer to what does not.

use crate::support::frame::{Raw, ReceivedFrame};
use crate::support::process::resident;
use crate::support::server::ChatServer;
use crate::support::socket::ClientSocket;
use crate::support::witness::Scene;

const FRAME: usize = 64 * 1024;
const MESSAGE: usize = 256 * 1024;
/// So that such a message is passed on too.
const PASSED_ON: [&str; 2] = ["--max-frame-sent", "300000"];

#[tokio::test]
async fn a_frame_of_64_kib_is_the_largest() {
    let mut scene = Scene::set(&PASSED_ON).await;
    let mut ann = scene.ann().await;
    let text = "x".repeat(FRAME);
    ann.says(&text).await;
    ann.hears("ann", &text).await;
    scene.bob.hears("ann", &text).await;
    ann.leave().await;
    scene.bob_sees_only_the_leave().await;
    scene.closes_with(1009, &[Raw::text("x".repeat(FRAME + 1))]).await;
    scene.closes_with(1009, &[Raw::binary("x".repeat(FRAME + 1))]).await;
}

#[tokio::test]
async fn a_frame_that_only_declares_to_be_too_large_is_refused_before_it_has_come() {
    let mut scene = Scene::set(&[]).await;
    for declared in [FRAME as u64 + 1, 1 << 24, 1 << 40, (1 << 63) - 1] {
        scene.closes_with(1009, &[Raw::text("and then nothing").declaring(declared)]).await;
    }
    scene.closes_with(1009, &[Raw::binary("").declaring(FRAME as u64 + 1)]).await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_refused_while_it_comes() {
    let mut scene = Scene::set(&[]).await;
    // Twice what is allowed, of a thousand times as much.
    scene.closes_with(1009, &[Raw::text(vec![b'x'; 2 * FRAME]).declaring(1000 * FRAME as u64)]).await;
}

#[tokio::test]
async fn a_length_may_be_written_in_64_bits_though_it_is_small() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.send(Raw::text("small").declaring(5)).await;
    ann.hears("ann", "small").await;
}

/// A text of this many bytes, in fragments of at most 64 KiB.
fn fragments(bytes: usize) -> Vec<Raw> {
    let text = vec![b'x'; bytes];
    let last = bytes.div_ceil(FRAME) - 1;
    let frame = |(n, chunk): (usize, &[u8])| {
        let frame = if n == 0 { Raw::text(chunk) } else { Raw::more(chunk) };
        if n == last { frame } else { frame.unfinished() }
    };
    text.chunks(FRAME).enumerate().map(frame).collect()
}

#[tokio::test]
async fn a_message_of_256_kib_in_fragments_is_the_largest() {
    let mut scene = Scene::set(&PASSED_ON).await;
    let mut ann = scene.ann().await;
    for frame in fragments(MESSAGE) {
        ann.socket.send(frame).await;
    }
    let text = "x".repeat(MESSAGE);
    ann.hears("ann", &text).await;
    scene.bob.hears("ann", &text).await;
    ann.leave().await;
    scene.bob_sees_only_the_leave().await;
    scene.closes_with(1009, &fragments(MESSAGE + 1)).await;
}

#[tokio::test]
async fn a_message_that_never_ends_is_refused_when_it_is_too_large() {
    let mut scene = Scene::set(&[]).await;
    let mut frames = vec![Raw::text("x").unfinished()];
    frames.extend((0..5).map(|_| Raw::more(vec![b'x'; FRAME]).unfinished()));
    scene.closes_with(1009, &frames).await;
}

#[tokio::test]
async fn a_binary_message_has_the_same_limit() {
    let mut scene = Scene::set(&[]).await;
    let mut frames = vec![Raw::binary("x").unfinished()];
    frames.extend((0..4).map(|_| Raw::more(vec![0xff; FRAME]).unfinished()));
    frames.push(Raw::more("x"));
    scene.closes_with(1009, &frames).await;
}

#[tokio::test]
async fn a_crowd_of_tiny_fragments_is_one_message_or_refused_and_hurts_nobody_else() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let mut bytes = Raw::text("x").unfinished().encode();
    for _ in 0..10_000 {
        bytes.extend(Raw::more("x").unfinished().encode());
    }
    bytes.extend(Raw::more("x").encode());
    ann.socket.try_bytes(&bytes).await.unwrap();
    let text = "x".repeat(10_002);
    ann.hears("ann", &text).await;
    scene.bob.hears("ann", &text).await;
}

#[tokio::test]
async fn messages_that_are_not_whole_take_little_more_memory_than_their_size() {
    const SOCKETS: usize = 100;
    let server = ChatServer::start(&[]).await;
    let mut sockets = Vec::new();
    for n in 0..SOCKETS {
        sockets.push(ClientSocket::open(&server, &format!("/ws/room-{n}?user=ann")).await);
    }
    let idle = resident(&server);
    let mut bytes = Raw::text("x").unfinished().encode();
    for _ in 0..4 {
        bytes.extend(Raw::more(vec![b'x'; 60_000]).unfinished().encode());
    }
    for socket in &mut sockets {
        socket.try_bytes(&bytes).await.unwrap();
        socket.ping(b"is it read?").await;
        while !matches!(socket.next().await, ReceivedFrame::Pong(_)) {}
    }
    // Of each what the allocator keeps besides may be as much as 0.2 of it; it was 2.6 to 3.6 times its size in all.
    let (held, size) = (resident(&server).saturating_sub(idle), SOCKETS * bytes.len());
    assert!(held < size * 3 / 2, "{held} bytes for {size}");
}

#[tokio::test]
async fn a_flood_of_pings_slows_its_sender_alone() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let pings: Vec<_> = (0..2_000_u32).flat_map(|n| Raw::new(9, n.to_be_bytes()).encode()).collect();
    ann.socket.try_bytes(&pings).await.unwrap();
    scene.bob.says("meanwhile").await;
    scene.bob.hears("bob", "meanwhile").await;
    // A server may answer only the latest of several pings, but none twice and none out of order.
    let mut last = None;
    while last != Some(1999) {
        match ann.socket.next().await {
            ReceivedFrame::Pong(payload) => {
                let n = u32::from_be_bytes(*payload.first_chunk().unwrap());
                assert!(last < Some(n), "{n} after {last:?}");
                last = Some(n);
            }
            frame => assert!(matches!(frame, ReceivedFrame::Text(_)), "{frame:?}"),
        }
    }
}
