//! Pruning without Celery: a countdown for each socket.

use super::bed::{Bed, ConsumerCall, LONE_LEAVE, bed, room, secs, user};
use actix_web::http::StatusCode;
use presence::testing::{Received, TestSocket};
use presence::{CloseCode, Consumer, Countdown, Error, Frame, Result, Socket};

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
    let upgrade = TestSocket::upgrade(&bed.rooms).user(Some(user("ann")));
    TestSocket::connect(upgrade, Countdown::new(secs(10), Lobby)).await.expect("accepted")
}

// behaviour: 6 silent-socket
#[actix_web::test]
async fn a_silent_socket_is_closed_and_leaves() {
    // Differs on purpose (W23): there its row stays until the disconnect.
    let mut bed = bed().await;
    let mut ann = counted(&bed).await;
    bed.leap(secs(11)).await;
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4408))));
    assert_eq!((bed.change().await, bed.change().await), ("+ann".into(), "-ann".into()));
}

// behaviour: 6 ping-pong
#[actix_web::test]
async fn a_ping_starts_anew_and_is_answered() {
    let bed = bed().await;
    let mut ann = counted(&bed).await;
    for _ in 0..3 {
        bed.leap(secs(7)).await;
        ann.send_text(r#"{"type":"ping"}"#);
        assert_eq!(ann.receive_text().await, r#"{"message":"pong"}"#);
    }
    assert_eq!(bed.here().await, 1);
}

/// Takes half a minute for each frame.
struct SlowConsumer;

impl Consumer for SlowConsumer {
    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        tokio::time::sleep(secs(25)).await;
        socket.send("done").await
    }
}

// behaviour: 6 ping-pong
#[actix_web::test]
async fn a_client_that_pings_is_not_closed_because_its_consumer_is_slow() {
    // Its pings waited behind the frame, and the countdown went on.
    let bed = bed().await;
    let slow = Countdown::new(secs(10), SlowConsumer);
    let mut ann = TestSocket::connect(TestSocket::upgrade(&bed.rooms), slow).await.expect("accepted");
    ann.send_text("work");
    for _ in 0..3 {
        bed.leap(secs(6)).await;
        ann.send_text(r#"{"type":"ping"}"#);
    }
    bed.leap(secs(8)).await;
    assert_eq!(ann.receive_text().await, "done");
    for _ in 0..3 {
        assert_eq!(ann.receive_text().await, r#"{"message":"pong"}"#);
    }
    bed.leap(secs(15) / 2).await;
    assert!(ann.receive_nothing().await, "the last ping started it anew");
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4408))));
}

// behaviour: 6 silent-socket
#[actix_web::test]
async fn a_countdown_stands_still_while_its_consumer_works_and_goes_on_after() {
    let bed = bed().await;
    let slow = Countdown::new(secs(10), SlowConsumer);
    let mut ann = TestSocket::connect(TestSocket::upgrade(&bed.rooms), slow).await.expect("accepted");
    ann.send_text("work");
    bed.leap(secs(26)).await;
    assert_eq!(ann.receive_text().await, "done");
    bed.leap(secs(8)).await;
    assert!(ann.receive_nothing().await);
    bed.leap(secs(2)).await;
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4408))));
}

// behaviour: 6 close-command
#[actix_web::test]
async fn the_close_command_closes_once_and_ends_the_timer() {
    let bed = bed().await;
    let mut ann = counted(&bed).await;
    ann.send_text(r#"{"type":"close"}"#);
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode::NORMAL)));
    assert_eq!(ann.receive().await, Received::End);
    bed.leap(LONE_LEAVE).await;
    assert_eq!(bed.here().await, 0);
}

// behaviour: 6 silent-socket
#[actix_web::test]
async fn a_countdown_may_be_longer_than_the_clock_reaches() {
    let bed = bed().await;
    let forever = Countdown::new(std::time::Duration::MAX, Lobby);
    let mut ann = TestSocket::connect(TestSocket::upgrade(&bed.rooms), forever).await.expect("accepted");
    ann.send_text(r#"{"type":"ping"}"#);
    assert_eq!(ann.receive_text().await, r#"{"message":"pong"}"#);
    bed.leap(secs(30)).await;
    assert_eq!(bed.here().await, 1);
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
    // Nor does it help to go on so.
    for _ in 0..19 {
        bed.leap(std::time::Duration::from_millis(500)).await;
        ann.send_text("{}");
        assert_eq!(ann.receive_text().await, "other");
    }
    bed.leap(std::time::Duration::from_millis(600)).await;
    bed.leap(LONE_LEAVE).await;
    assert_eq!(bed.here().await, 0);
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4408))));
}

// behaviour: 6 errors
#[actix_web::test]
async fn a_handler_that_fails_under_a_countdown_ends_its_socket_and_leaves() {
    // Differs on purpose (W12): there the client is sent the text of the error, and the socket goes on.
    let mut bed = bed().await;
    let mut ann = bed.wrapped("ann", |member| Countdown::new(secs(10), member)).await;
    ann.socket.send_text("fail");
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(1011))));
    assert_eq!((bed.change().await, bed.change().await), ("+ann".into(), "-ann".into()));
}

// behaviour: 6 disconnect
#[actix_web::test]
async fn a_socket_that_goes_by_itself_leaves_and_its_countdown_never_fires() {
    // Differs on purpose (W23): there the timer goes on, and closes the dead socket once more.
    let mut bed = bed().await;
    let ann = bed.wrapped("ann", |member| Countdown::new(secs(10), member)).await;
    bed.leap(secs(9)).await;
    ann.socket.disconnect(CloseCode(4123)).await;
    assert_eq!((bed.change().await, bed.change().await), ("+ann".into(), "-ann".into()));
    assert_eq!(bed.next_call().await, ConsumerCall::Disconnected(4123, false));
    bed.leap(secs(20)).await;
    bed.quiet().await;
    assert!(bed.calls.try_recv().is_err(), "it ended once");
}

// behaviour: 6 pings-touch
#[actix_web::test]
async fn a_ping_touches_and_other_frames_count_only_if_the_consumer_says_so() {
    let bed = bed().await;
    let mut ann = bed.wrapped("ann", |member| Countdown::new(secs(50), member)).await;
    for _ in 0..3 {
        bed.leap(secs(45)).await;
        ann.socket.send_text(r#"{"type":"ping"}"#);
        assert_eq!(ann.socket.receive_text().await, r#"{"message":"pong"}"#);
    }
    assert_eq!(bed.here().await, 1, "it would be stale after 60 s");
}

// behaviour: W23 countdown
#[actix_web::test]
async fn an_anonymous_visitor_whom_connect_denies_gets_no_presence_and_no_countdown() {
    struct NoStrangers;
    impl Consumer for NoStrangers {
        async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
            if socket.user().is_none() {
                return Err(Error::deny(StatusCode::UNAUTHORIZED, "log in first"));
            }
            socket.join(&room("lobby")).await
        }
        async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
            Ok(())
        }
    }
    let mut bed = bed().await;
    let refused = TestSocket::connect(TestSocket::upgrade(&bed.rooms), Countdown::new(secs(10), NoStrangers)).await;
    assert_eq!(refused.unwrap_err().status, StatusCode::UNAUTHORIZED);
    bed.leap(secs(20)).await;
    bed.quiet().await;
    assert_eq!((bed.here().await, bed.rooms.sockets()), (0, 0));
}

// behaviour: W23 prunes-presences
#[actix_web::test]
async fn presences_of_silent_sockets_go_without_any_countdown() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.leap(secs(61)).await;
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4408))));
    assert_eq!([bed.change().await, bed.change().await], ["+ann", "bulk ann"]);
}
