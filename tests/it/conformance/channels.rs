//! What it takes from channels: consumers, JSON, groups, the scope, and how a socket ends.

use super::bed::{Bed, Heard, bed, room};
use actix_web::http::StatusCode;
use presence::name::{EventName, GroupName};
use presence::testing::{Received, Refused, TestSocket, upgrade_request};
use presence::{CloseCode, Consumer, Error, Event, Frame, Json, JsonConsumer, Outgoing, Result, Socket, Upgrade};

/// Does in `connect` what its field says.
struct Door(&'static str);

impl Consumer for Door {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        match self.0 {
            "deny" => {
                socket.join(&room("lobby")).await?;
                return Err(Error::deny(StatusCode::FORBIDDEN, "not you"));
            }
            "close" => socket.close(CloseCode(4001), "")?,
            "v1" => socket.accept("v1"),
            _ => {
                let scope = socket.scope();
                let said =
                    [&scope.path, &scope.query, scope.header("x-from").unwrap_or("")].map(|part| part.to_owned());
                socket.send(said.join(" ")).await?;
            }
        }
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        socket.send(Outgoing::binary(frame.as_bytes())).await
    }
}

async fn knock(bed: &Bed, what: &'static str) -> Result<TestSocket, Refused> {
    let request = upgrade_request().uri("/ws/lobby?a=b").insert_header(("x-from", "here"));
    let request = request.insert_header(("sec-websocket-protocol", "v0, v1"));
    TestSocket::connect_with(Upgrade::new(&bed.rooms), Door(what), request).await
}

// behaviour: 7 deny
#[actix_web::test]
async fn a_denied_socket_gets_a_status_and_has_left_what_it_joined() {
    let bed = bed().await;
    let refused = knock(&bed, "deny").await.unwrap_err();
    assert_eq!((refused.status, &*refused.reason), (StatusCode::FORBIDDEN, "not you"));
    assert_eq!(bed.here().await, 0);
}

// behaviour: 7 close-in-connect
#[actix_web::test]
async fn a_close_in_connect_reaches_the_client_with_its_code() {
    // Differs on purpose (W23): there it is a rejection, whose code a browser cannot read.
    let bed = bed().await;
    let mut socket = knock(&bed, "close").await.unwrap();
    assert_eq!(socket.receive().await, Received::Close(Some(CloseCode(4001))));
}

// behaviour: 7 subprotocol
#[actix_web::test]
async fn a_socket_is_accepted_with_a_subprotocol() {
    let bed = bed().await;
    assert_eq!(knock(&bed, "v1").await.unwrap().subprotocol(), Some("v1"));
    assert_eq!(knock(&bed, "").await.unwrap().subprotocol(), None);
}

// behaviour: 7 scope
#[actix_web::test]
async fn the_scope_has_the_path_the_query_and_the_headers() {
    let bed = bed().await;
    assert_eq!(knock(&bed, "").await.unwrap().receive_text().await, "/ws/lobby a=b here");
}

// behaviour: 7 origin
#[actix_web::test]
async fn another_origin_is_turned_away() {
    let bed = bed().await;
    let request = || upgrade_request().insert_header(("origin", "http://evil.example"));
    let refused = TestSocket::connect_with(Upgrade::new(&bed.rooms), Door(""), request()).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let allowed = Upgrade::new(&bed.rooms).allow_origin("http://evil.example");
    assert!(TestSocket::connect_with(allowed, Door(""), request()).await.is_ok());
}

// behaviour: 7 send
#[actix_web::test]
async fn texts_and_bytes_are_sent() {
    let bed = bed().await;
    let mut socket = knock(&bed, "").await.unwrap();
    socket.receive_text().await;
    socket.send_text("abc");
    assert_eq!(socket.receive().await, Received::Frame(Frame::Binary(b"abc"[..].into())));
}

// behaviour: 7 close-with-code
#[actix_web::test]
async fn a_consumer_closes_with_a_code_of_its_own() {
    let mut bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("close");
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4444))));
    bed.hears().await;
    assert!(matches!(bed.hears().await, Heard::Disconnected(4444, _)));
}

// behaviour: 7 disconnect-code
#[actix_web::test]
async fn disconnect_is_told_the_peers_code_and_1006_for_a_lost_socket() {
    let mut bed = bed().await;
    let ann = bed.member("ann").await;
    ann.socket.disconnect(CloseCode(4123)).await;
    assert_eq!(bed.hears().await, Heard::Disconnected(4123, false));
    let ann = bed.member("ann").await;
    ann.socket.lose();
    assert_eq!(bed.hears().await, Heard::Disconnected(1006, false));
}

// behaviour: 7 groups
#[actix_web::test]
async fn a_group_reaches_its_members_the_sender_included_and_nobody_is_told_of_it() {
    let mut bed = bed().await;
    let (mut ann, mut bob) = (bed.member("ann").await, bed.member("bob").await);
    bed.told().await;
    bed.told().await;
    ann.socket.send_text("group");
    ann.socket.send_text("group");
    super::bed::settle().await;
    let team = GroupName::new("team").unwrap();
    bed.rooms.group_send(&team, "hello team").await;
    assert_eq!(ann.socket.receive_text().await, "hello team");
    assert!(ann.socket.receive_nothing().await && bob.socket.receive_nothing().await);
    ann.socket.send_text("ungroup");
    super::bed::settle().await;
    bed.rooms.group_send(&team, "too late").await;
    assert!(ann.socket.receive_nothing().await);
    bed.quiet().await;
}

// behaviour: 7 send-to-channel
#[actix_web::test]
async fn one_channel_is_sent_to_by_name_and_an_unknown_one_is_silent() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    bed.rooms.send_to(&ann.channel, "you").await;
    bed.rooms.send_to(&super::bed::channel("nobody"), "you").await;
    assert_eq!(ann.socket.receive_text().await, "you");
}

/// Knows one message.
#[derive(serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    Hello { name: String },
}

struct Speaker;

impl JsonConsumer for Speaker {
    type Message = Said;
    type Event = ();

    async fn receive(&mut self, socket: &mut Socket, Said::Hello { name }: Said) -> Result<()> {
        socket.send(Outgoing::json(&serde_json::json!({ "hello": name }))?).await
    }
}

// behaviour: 7 json-consumer
#[actix_web::test]
async fn a_json_consumer_gets_values_and_sends_values() {
    let bed = bed().await;
    let mut socket = TestSocket::connect(Upgrade::new(&bed.rooms), Json(Speaker)).await.unwrap();
    socket.send_text(r#"{"type":"hello","name":"ann"}"#);
    assert_eq!(socket.receive_text().await, r#"{"hello":"ann"}"#);
}

// behaviour: 7 json-heartbeat
#[actix_web::test]
async fn a_json_consumer_swallows_the_heartbeat_before_it_decodes() {
    // Differs on purpose (W10): there the bare word reaches the handler.
    let bed = bed().await;
    let mut socket = TestSocket::connect(Upgrade::new(&bed.rooms), Json(Speaker)).await.unwrap();
    socket.send_text("\"heartbeat\"");
    assert!(socket.receive_nothing().await);
}

// behaviour: 7 bad-json
#[actix_web::test]
async fn what_does_not_decode_is_answered_and_the_socket_lives() {
    // Differs on purpose (W12): there it kills the consumer.
    let bed = bed().await;
    let mut socket = TestSocket::connect(Upgrade::new(&bed.rooms), Json(Speaker)).await.unwrap();
    for _ in 0..2 {
        socket.send_text("{");
        assert_eq!(socket.receive_json::<serde_json::Value>().await["code"], "bad_message");
        socket.send_binary(&b"{}"[..]);
        assert_eq!(socket.receive_json::<serde_json::Value>().await["code"], "bad_message");
    }
}

// behaviour: 7 unknown-event
#[actix_web::test]
async fn an_event_that_a_consumer_does_not_know_is_dropped() {
    // Differs on purpose (W12, W13): there it kills every member's consumer, or runs any method of that name.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    for name in ["send", "close", "websocket.receive", "_hidden"] {
        bed.rooms.send_event(&room("lobby"), Event::new(EventName::new(name).unwrap(), &()).unwrap());
    }
    ann.socket.send_text("echo alive");
    assert_eq!(ann.socket.receive_text().await, "alive");
}

// behaviour: 7 unhandled-exception
#[actix_web::test]
async fn a_handler_that_fails_ends_its_socket_and_disconnect_still_runs() {
    // Differs on purpose (W12): there `disconnect` does not run, and the row stays.
    let mut bed = bed().await;
    for fault in ["fail", "panic"] {
        let mut ann = bed.member("ann").await;
        ann.socket.send_text(fault);
        assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(1011))));
        bed.hears().await;
        assert!(matches!(bed.hears().await, Heard::Disconnected(_, false)));
        assert_eq!(bed.here().await, 0);
    }
}
