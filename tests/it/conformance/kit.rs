//! The test kit: what a test of a consumer can do, and what it cannot trip over.

use super::bed::{ConsumerCall, bed, room, secs, user};
use presence::testing::{Probe, Received, TestSocket, upgrade_request};
use presence::{CloseCode, Consumer, Frame, Result, Socket};

// behaviour: 7 communicator
#[actix_web::test]
async fn a_consumer_is_tested_without_a_network() {
    let mut bed = bed().await;
    let mut lobby = Probe::of(&bed.rooms, &room("lobby"));
    let mut ann = bed.member("ann").await;
    assert_eq!(lobby.added().await.user, Some(user("ann")));
    ann.socket.send_json(&serde_json::json!({"a": 1}));
    assert_eq!(bed.next_call().await, ConsumerCall::Frame(Frame::Text(r#"{"a":1}"#.into())));
    ann.socket.send_text("echo [1, 2]");
    assert_eq!(ann.socket.receive_json::<Vec<u8>>().await, [1, 2]);
    assert!(ann.socket.receive_nothing().await && lobby.nothing().await);
    assert_eq!(ann.socket.disconnect(CloseCode::NORMAL).await, [Received::Close(Some(CloseCode::NORMAL))]);
    assert_eq!(lobby.removed().await.user, Some(user("ann")));
}

// behaviour: 7 waiting-in-vain
#[actix_web::test]
async fn waiting_in_vain_cancels_nothing_and_what_came_meanwhile_is_kept() {
    // Differs on purpose (W19): there a receive that times out cancels the application.
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    assert_eq!(bed.change().await, "+ann");
    for _ in 0..3 {
        assert!(ann.socket.receive_nothing().await);
    }
    bed.quiet().await;
    ann.socket.send_text("echo 1");
    assert!(!ann.socket.receive_nothing().await);
    assert_eq!(ann.socket.receive_text().await, "1");
}

// behaviour: 7 communicator
#[actix_web::test]
async fn a_test_sees_the_headers_of_the_answer_and_the_reason_of_a_close() {
    struct Greeter;
    impl Consumer for Greeter {
        async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
            socket.append_header("set-cookie", "seat=4")
        }

        async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
            socket.close(CloseCode(4001), "the party is over")
        }
    }
    let bed = bed().await;
    let mut ann = TestSocket::connect(TestSocket::upgrade(&bed.rooms), Greeter).await.unwrap();
    assert_eq!((ann.header("set-cookie"), ann.header("set-cake")), (Some("seat=4"), None));
    assert_eq!(ann.close_reason(), None);
    ann.send_text("hello");
    assert_eq!(ann.receive().await, Received::Close(Some(CloseCode(4001))));
    assert_eq!(ann.close_reason(), Some("the party is over"));
}

// behaviour: 7 communicator
#[actix_web::test]
async fn a_test_closes_with_any_code_and_with_none() {
    let mut bed = bed().await;
    // What is sent in a Close, what comes back, and what the consumer is told.
    for (code, answer, told) in [
        (CloseCode(4123), Some(CloseCode(4123)), 4123),
        (CloseCode::NONE, None, 1005),
        (CloseCode(999), Some(CloseCode(1002)), 1002),
        (CloseCode::LOST, Some(CloseCode(1002)), 1002),
    ] {
        let ann = bed.member("ann").await;
        assert_eq!(ann.socket.disconnect(code).await, [Received::Close(answer)], "{code}");
        assert_eq!(bed.next_call().await, ConsumerCall::Disconnected(told, false), "{code}");
    }
}

// behaviour: 7 testing-scope
#[actix_web::test]
async fn path_query_headers_and_user_of_a_test_are_those_of_its_request() {
    #[derive(Default)]
    struct Echo {
        tab: String,
    }
    impl Consumer for Echo {
        async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
            self.tab = socket.handshake().header("x-tab").unwrap_or("?").to_owned();
            Ok(())
        }

        async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
            let scope = socket.handshake();
            let room = scope.params.get("room").map_or("", String::as_str);
            let peer = scope.peer.map_or(String::new(), |peer| peer.to_string());
            let user = socket.user().map_or("", |user| user.as_str());
            let parts = [&scope.path, &scope.query, room, &self.tab, &peer, user];
            socket.send(parts.map(|part| part.to_owned()).join("|")).await
        }
    }
    let bed = bed().await;
    let request = upgrade_request().uri("/ws/a%20room?tab=2").param("room", "a room");
    let request = request.insert_header(("x-tab", "two")).peer_addr("192.0.2.1:9".parse().unwrap());
    let upgrade = TestSocket::upgrade(&bed.rooms).user(Some(user("ann")));
    let mut socket = TestSocket::connect_with(upgrade, Echo::default(), request).await.unwrap();
    // An empty text is a text; there it cannot be sent.
    socket.send_text("");
    assert_eq!(socket.receive_text().await, "/ws/a%20room|tab=2|a room|two|192.0.2.1:9|ann");
}

// behaviour: 7 testing-time
#[actix_web::test]
async fn an_hour_of_heartbeats_takes_a_test_no_time() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    for _ in 0..60 {
        bed.leap(secs(59)).await;
        ann.socket.send_text("\"heartbeat\"");
        bed.settle().await;
    }
    assert_eq!(bed.here().await, 1);
    bed.leap(secs(61)).await;
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4408))));
}
