//! Pruning without Celery: a countdown for each socket.

use super::bed::{Bed, bed, leap, room, secs, user};
use presence::testing::{Received, TestSocket};
use presence::{CloseCode, Consumer, Countdown, Frame, Result, Socket, Upgrade};

struct Lobby;

impl Consumer for Lobby {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        socket.send("other").await
    }
}

async fn counted(bed: &Bed) -> TestSocket {
    let upgrade = Upgrade::new(&bed.rooms).user(Some(user("ann")));
    TestSocket::connect(upgrade, Countdown::new(secs(10), Lobby)).await.expect("accepted")
}

// behaviour: 6 silent-socket
#[actix_web::test]
async fn a_silent_socket_is_closed_and_leaves() {
    // Differs on purpose (W23): there its row stays until the disconnect.
    let mut bed = bed().await;
    let mut ann = counted(&bed).await;
    leap(secs(11)).await;
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4408))));
    assert_eq!((bed.told().await, bed.told().await), ("+ann".into(), "-ann".into()));
}

// behaviour: 6 ping-pong
#[actix_web::test]
async fn a_ping_starts_anew_and_is_answered() {
    let bed = bed().await;
    let mut ann = counted(&bed).await;
    for _ in 0..3 {
        leap(secs(7)).await;
        ann.send_text(r#"{"type":"ping"}"#);
        assert_eq!(ann.receive_text().await, r#"{"message":"pong"}"#);
    }
    assert_eq!(bed.here().await, 1);
}

// behaviour: 6 close-command
#[actix_web::test]
async fn the_close_command_closes_once_and_ends_the_timer() {
    let bed = bed().await;
    let mut ann = counted(&bed).await;
    ann.send_text(r#"{"type":"close"}"#);
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode::NORMAL)));
    assert_eq!(ann.receive().await, Received::End);
    assert_eq!(bed.here().await, 0);
}

// behaviour: 6 other-texts
#[actix_web::test]
async fn any_other_text_reaches_the_wrapped_consumer_without_starting_anew() {
    // Differs on purpose (W23): there a missing or unknown type closes the socket.
    let bed = bed().await;
    let mut ann = counted(&bed).await;
    for other in ["{}", "5", "no json"] {
        ann.send_text(other);
        assert_eq!(ann.receive_text().await, "other");
    }
    leap(secs(11)).await;
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4408))));
}
