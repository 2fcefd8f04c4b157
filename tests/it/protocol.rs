//! RFC 6455 kept and broken: what the codec and we ourselves have to answer.

use crate::support::frame::{BINARY, CONTINUATION, PING, PONG, Raw, ReceivedFrame, TEXT};
use crate::support::witness::Scene;

#[tokio::test]
async fn an_unmasked_frame_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::text("x").unmasked()]).await;
    scene.closes_with(1002, &[Raw::binary("x").unmasked()]).await;
    scene.closes_with(1002, &[Raw::new(PING, "x").unmasked()]).await;
    scene.closes_with(1002, &[Raw::close(1000, b"").unmasked()]).await;
    scene.closes_with(1002, &[Raw::text("").unmasked()]).await;
}

#[tokio::test]
async fn a_reserved_bit_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    for bits in 1..=7 {
        scene.closes_with(1002, &[Raw::text("x").reserved(bits)]).await;
    }
    scene.closes_with(1002, &[Raw::new(PING, "x").reserved(4)]).await;
}

#[tokio::test]
async fn a_reserved_opcode_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        scene.closes_with(1002, &[Raw::new(opcode, "x")]).await;
    }
}

#[tokio::test]
async fn a_control_frame_in_pieces_or_too_long_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::new(PING, "x").unfinished()]).await;
    scene.closes_with(1002, &[Raw::new(PONG, "x").unfinished()]).await;
    scene.closes_with(1002, &[Raw::new(PING, [b'x'; 126])]).await;
    scene.closes_with(1002, &[Raw::new(PONG, [b'x'; 126])]).await;
    scene.closes_with(1002, &[Raw::close(1000, &[b'x'; 124])]).await;
}

#[tokio::test]
async fn a_continuation_of_nothing_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::more("x")]).await;
    scene.closes_with(1002, &[Raw::more("x").unfinished()]).await;
}

#[tokio::test]
async fn a_message_begun_inside_a_message_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::text("a").unfinished(), Raw::text("b")]).await;
    scene.closes_with(1002, &[Raw::binary("a").unfinished(), Raw::text("b").unfinished()]).await;
}

#[tokio::test]
async fn a_64_bit_length_with_the_high_bit_set_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::text("x").declaring(1 << 63)]).await;
    scene.closes_with(1002, &[Raw::binary("x").declaring(u64::MAX)]).await;
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_told_so() {
    let mut scene = Scene::set(&[]).await;
    for wrong in [&b"\xff"[..], b"\xc3", b"\xc3\x28", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"good \xce\xba\xe1\xbd"] {
        scene.closes_with(1007, &[Raw::text(wrong)]).await;
    }
}

#[tokio::test]
async fn a_text_is_checked_for_utf_8_across_its_fragments() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1007, &[Raw::text(*b"\xc3").unfinished(), Raw::more("x")]).await;
    scene.closes_with(1007, &[Raw::text("a").unfinished(), Raw::more(*b"\xe6\x97")]).await;
    scene.closes_with(1007, &[Raw::text("a").unfinished(), Raw::more("").unfinished(), Raw::more(*b"\xff")]).await;
    // A character may be cut at any of its bytes.
    let mut ann = scene.ann().await;
    let [a, b, c, d] = *"😀".as_bytes().first_chunk().unwrap();
    for frame in [Raw::text([a]).unfinished(), Raw::more([b, c]).unfinished(), Raw::more([d])] {
        ann.socket.send(frame).await;
    }
    ann.hears("ann", "😀").await;
    scene.bob.hears("ann", "😀").await;
}

#[tokio::test]
async fn binary_frames_may_hold_anything() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.binary(b"\xff\xfe\x00").await;
    ann.socket.send(Raw::binary(*b"\xc3").unfinished()).await;
    ann.socket.send(Raw::more(*b"\xff")).await;
    ann.says("fence").await;
    ann.hears("ann", "fence").await;
    scene.bob.hears("ann", "fence").await;
}

#[tokio::test]
async fn a_fragmented_text_is_one_message() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let frames = [
        Raw::text("").unfinished(),
        Raw::more("one ").unfinished(),
        Raw::more("").unfinished(),
        Raw::more("message").unfinished(),
        Raw::more(""),
    ];
    for frame in frames {
        ann.socket.send(frame).await;
    }
    ann.hears("ann", "one message").await;
    scene.bob.hears("ann", "one message").await;
}

#[tokio::test]
async fn a_command_or_a_heartbeat_in_fragments_is_what_it_says_as_a_whole() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.send(Raw::text("\"heart").unfinished()).await;
    ann.socket.send(Raw::more("beat\"")).await;
    ann.socket.send(Raw::text(r#"{"type":"#).unfinished()).await;
    ann.socket.send(Raw::more(r#""leave"}"#)).await;
    scene.bob_sees_only_the_leave().await;
}

#[tokio::test]
async fn control_frames_are_answered_between_the_fragments_of_a_message() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.send(Raw::text("before ").unfinished()).await;
    ann.socket.ping(b"between").await;
    assert_eq!(ann.socket.next().await, ReceivedFrame::Pong("between".into()));
    ann.socket.pong(b"nobody asked").await;
    ann.socket.send(Raw::more("and after")).await;
    ann.hears("ann", "before and after").await;
    scene.bob.hears("ann", "before and after").await;
}

#[tokio::test]
async fn a_ping_is_answered_by_a_pong_with_its_payload() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    for payload in [&b""[..], b"x", b"\xff\x00", &[b'x'; 125]] {
        ann.socket.ping(payload).await;
        assert_eq!(ann.socket.next().await, ReceivedFrame::Pong(payload.to_vec().into()));
    }
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_is_ignored() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.pong(b"").await;
    ann.socket.pong(&[b'x'; 125]).await;
    ann.says("fence").await;
    ann.hears("ann", "fence").await;
    scene.bob.hears("ann", "fence").await;
}

#[tokio::test]
async fn a_frame_that_comes_byte_by_byte_is_a_frame() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let text = "x".repeat(200);
    for byte in Raw::text(&text[..]).encode() {
        ann.socket.try_bytes(&[byte]).await.unwrap();
    }
    ann.hears("ann", &text).await;
    scene.bob.hears("ann", &text).await;
}

#[tokio::test]
async fn many_frames_in_one_segment_are_many_frames() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let bytes: Vec<_> = (0..100).flat_map(|n| Raw::text(n.to_string()).encode()).collect();
    ann.socket.try_bytes(&bytes).await.unwrap();
    for n in 0..100 {
        ann.hears("ann", &n.to_string()).await;
        scene.bob.hears("ann", &n.to_string()).await;
    }
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_the_socket_that_sent_them() {
    let mut scene = Scene::set(&[]).await;
    scene.bytes_close_with(1002, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    scene.bytes_close_with(1002, &[0xff; 64]).await;
}

#[tokio::test]
async fn what_follows_a_protocol_error_is_not_acted_upon() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::new(3, "x"), Raw::text("said too late")]).await;
    scene.closes_with(1007, &[Raw::text(*b"\xff"), Raw::text("said too late")]).await;
    scene.closes_with(1002, &[Raw::more("x"), Raw::new(BINARY, "y"), Raw::new(TEXT, "said too late")]).await;
    scene.closes_with(1002, &[Raw::new(CONTINUATION, "x"), Raw::close(1000, b"")]).await;
}
