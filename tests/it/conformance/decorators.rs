//! The decorators, as attributes.

use super::bed::{Heard, bed, secs};
use presence::{CloseCode, Frame};

// behaviour: 4 heartbeat-literal
#[actix_web::test]
async fn the_heartbeat_literal_touches_and_is_swallowed_and_all_else_reaches_the_method() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("\"heartbeat\"");
    for other in [" \"heartbeat\"", "heartbeat", "'heartbeat'", "\"Heartbeat\"", "\"\\u0068eartbeat\"", ""] {
        ann.socket.send_text(other);
        assert_eq!(bed.hears().await, Heard::Frame(Frame::Text(other.into())));
    }
    assert!(ann.socket.receive_nothing().await);
}

// behaviour: 4 every-frame-touches
#[actix_web::test]
async fn every_frame_touches() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    for text in ["\"heartbeat\"", "hello", "\"heartbeat\""] {
        bed.leap(secs(40)).await;
        ann.socket.send_text(text);
        bed.settle().await;
    }
    assert_eq!(bed.here().await, 1);
}

// behaviour: 4 binary-frames
#[actix_web::test]
async fn a_binary_frame_touches_and_reaches_the_method() {
    // Differs on purpose (W10): there it kills the consumer.
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_binary(&b"bytes"[..]);
    assert_eq!(bed.hears().await, Heard::Frame(Frame::Binary(b"bytes"[..].into())));
    assert_eq!(bed.here().await, 1);
}

// behaviour: 4 removed-before-the-body
#[actix_web::test]
async fn the_presence_is_removed_before_the_body_of_disconnect() {
    let mut bed = bed().await;
    let ann = bed.member("ann").await;
    ann.socket.disconnect(CloseCode::NORMAL).await;
    assert_eq!(bed.hears().await, Heard::Disconnected(1000, false));
    assert_eq!(bed.here().await, 0);
}
