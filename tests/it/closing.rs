//! The closing handshake: which code, how often, and which frames still count after it.

use crate::support::frame::{CLOSE, Raw, ReceivedFrame};
use crate::support::process::connection_gone;
use crate::support::witness::Scene;
use crate::support::{BOUND, secs};

#[tokio::test]
async fn a_close_is_echoed_with_its_code_and_ends_the_connection() {
    let mut scene = Scene::set(&[]).await;
    for code in [1000, 1001, 3000, 3999, 4000, 4999] {
        let mut ann = scene.ann().await;
        ann.socket.close(code).await;
        assert_eq!(ann.socket.closing().await, Some(code));
        ann.socket.ended().await;
        scene.bob_sees_only_the_leave().await;
    }
}

#[tokio::test]
async fn a_close_with_a_reason_is_echoed_with_its_code() {
    let mut scene = Scene::set(&[]).await;
    for reason in ["bye", "tschüß 😀", &"x".repeat(123)] {
        let mut ann = scene.ann().await;
        ann.socket.send(Raw::close(1000, reason.as_bytes())).await;
        assert_eq!(ann.socket.closing().await, Some(1000));
        ann.socket.ended().await;
        scene.bob_sees_only_the_leave().await;
    }
}

#[tokio::test]
async fn an_empty_close_is_answered_by_an_empty_one() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.close_empty().await;
    assert_eq!(ann.socket.next().await, ReceivedFrame::Close(None, String::new()));
    ann.socket.ended().await;
    scene.bob_sees_only_the_leave().await;
}

#[tokio::test]
async fn a_close_code_that_may_not_be_sent_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535] {
        scene.closes_with(1002, &[Raw::close(code, b"")]).await;
    }
}

#[tokio::test]
async fn a_close_of_one_byte_is_a_protocol_error() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1002, &[Raw::new(CLOSE, "x")]).await;
}

#[tokio::test]
async fn a_close_reason_that_is_not_utf_8_is_told_so() {
    let mut scene = Scene::set(&[]).await;
    scene.closes_with(1007, &[Raw::close(1000, b"\xff")]).await;
    scene.closes_with(1007, &[Raw::close(4000, b"caf\xc3")]).await;
}

#[tokio::test]
async fn a_second_close_gets_no_second_answer() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.try_bytes(&[Raw::close(1000, b"").encode(), Raw::close(3000, b"").encode()].concat()).await.unwrap();
    assert_eq!(ann.socket.closing().await, Some(1000));
    ann.socket.ended().await;
    scene.bob_sees_only_the_leave().await;
}

#[tokio::test]
async fn what_is_sent_after_a_close_is_not_heard() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let frames =
        [Raw::close(1000, b""), Raw::text("too late"), Raw::text(r#"{"type":"update","meta":{"too":"late"}}"#)];
    ann.socket.try_bytes(&frames.iter().flat_map(Raw::encode).collect::<Vec<_>>()).await.unwrap();
    assert_eq!(ann.socket.closing().await, Some(1000));
    ann.socket.ended().await;
    scene.bob_sees_only_the_leave().await;
}

#[tokio::test]
async fn what_was_sent_before_a_close_is_heard() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let frames = [Raw::text("one"), Raw::text("two"), Raw::close(1000, b"")];
    ann.socket.try_bytes(&frames.iter().flat_map(Raw::encode).collect::<Vec<_>>()).await.unwrap();
    scene.bob.hears("ann", "one").await;
    scene.bob.hears("ann", "two").await;
    scene.bob_sees_only_the_leave().await;
    assert_eq!(ann.socket.closing().await, Some(1000));
}

#[tokio::test]
async fn a_close_inside_a_fragmented_message_ends_it_unheard() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.socket.send(Raw::text("half a ").unfinished()).await;
    ann.socket.close(1000).await;
    assert_eq!(ann.socket.closing().await, Some(1000));
    ann.socket.ended().await;
    scene.bob_sees_only_the_leave().await;
}

#[tokio::test]
async fn a_connection_that_ends_without_a_close_is_a_leave() {
    let mut scene = Scene::set(&[]).await;
    let ann = scene.ann().await;
    drop(ann);
    scene.bob_sees_only_the_leave().await;
    let ann = scene.ann().await;
    ann.socket.reset();
    scene.bob_sees_only_the_leave().await;
    let mut ann = scene.ann().await;
    ann.socket.try_bytes(&Raw::text("half a frame").encode()[..9]).await.unwrap();
    drop(ann);
    scene.bob_sees_only_the_leave().await;
}

#[tokio::test]
async fn a_client_that_never_answers_a_close_is_cut_off() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    let address = ann.socket.local();
    ann.socket.send(Raw::new(3, "a protocol error")).await;
    // The leave does not wait for the answer; the connection does, for `close_timeout` (5 s).
    scene.bob_sees_only_the_leave().await;
    assert_eq!(ann.socket.closing().await, Some(1002));
    connection_gone(&scene.server, address, secs(5) + BOUND).await;
}

#[tokio::test]
async fn a_socket_that_left_its_room_closes_like_any_other() {
    let mut scene = Scene::set(&[]).await;
    let mut ann = scene.ann().await;
    ann.says(r#"{"type":"leave"}"#).await;
    scene.bob_sees_only_the_leave().await;
    ann.socket.close(4000).await;
    assert_eq!(ann.socket.closing().await, Some(4000));
    ann.socket.ended().await;
    scene.bob.sees_nothing_before(&scene.server, "eve").await;
}
