//! What it takes from channels: consumers, the scope, and how a socket ends.

use super::bed::{Bed, Heard, bed, room, user};
use actix_web::{HttpRequest, http::StatusCode};
use presence::testing::{Received, Refused, TestSocket, upgrade_request};
use presence::{CloseCode, Consumer, Error, Frame, Outgoing, Result, Socket};
use std::cell::Cell;
use std::rc::Rc;

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
            "v1" => socket.set_subprotocol("v1"),
            _ => {
                let scope = socket.handshake();
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
    TestSocket::connect_with(TestSocket::upgrade(&bed.rooms), Door(what), request).await
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
    let refused = TestSocket::connect_with(TestSocket::upgrade(&bed.rooms), Door(""), request()).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let allowed = TestSocket::upgrade(&bed.rooms).allow_origin("http://evil.example");
    assert!(TestSocket::connect_with(allowed, Door(""), request()).await.is_ok());
}

// behaviour: 7 origin
#[actix_web::test]
async fn an_origin_that_is_none_is_a_mistake_which_everybody_is_told() {
    let bed = bed().await;
    let mistaken = || TestSocket::upgrade(&bed.rooms).allow_origin("https://app.example").allow_origin("app.example");
    let refused = TestSocket::connect(mistaken(), Door("")).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    let listed = presence::Origin::new("https://app.example").unwrap();
    let request = upgrade_request().insert_header(("origin", "https://app.example"));
    let allowed = TestSocket::upgrade(&bed.rooms).allow_origin(&listed);
    assert!(TestSocket::connect_with(allowed, Door(""), request).await.is_ok());
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

// behaviour: 7 send-then-close
#[actix_web::test]
async fn what_was_sent_before_a_close_comes_before_it() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("last words");
    assert_eq!(ann.socket.receive_text().await, "good bye");
    assert_eq!(ann.socket.receive().await, Received::Close(Some(CloseCode(4444))));
    assert_eq!(ann.socket.receive().await, Received::End);
}

// behaviour: 7 send-neither
#[actix_web::test]
async fn nothing_to_send_is_an_empty_frame_and_no_error() {
    // Differs on purpose (W12): there a send of neither a text nor bytes raises, and kills the consumer.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("echo ");
    assert_eq!(ann.socket.receive_text().await, "");
    bed.rooms.send_to(&ann.channel, Outgoing::binary([])).await.unwrap();
    assert_eq!(ann.socket.receive().await, Received::Frame(Frame::Binary(b""[..].into())));
}

// behaviour: 7 consumer-per-connection
#[actix_web::test]
async fn each_connection_has_a_consumer_and_a_channel_name_of_its_own() {
    let bed = bed().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let tab = bed.member("ann").await;
        assert!(names.insert(tab.channel.to_string()), "{:?} was used before", tab.channel);
        drop(tab);
    }
    assert!(names.iter().all(|name| name.len() <= presence::MAX_NAME_BYTES));
}

// behaviour: 7 identity
#[actix_web::test]
async fn the_user_is_known_from_the_handshake_on_and_stays() {
    let mut bed = bed().await;
    let log_out = Rc::new(Cell::new(false));
    let (rooms, session) = (bed.rooms.clone(), log_out.clone());
    let upgrade = || {
        let session = session.clone();
        TestSocket::upgrade(&rooms).authenticate(move |req: HttpRequest| {
            let log_out = session.get();
            async move {
                let cookie = req.headers().get("cookie").is_some_and(|cookie| cookie == "session=ann");
                Ok((cookie && !log_out).then(|| user("ann")))
            }
        })
    };
    let request = || upgrade_request().insert_header(("cookie", "session=ann"));
    let mut ann = TestSocket::connect_with(upgrade(), Named, request()).await.unwrap();
    log_out.set(true);
    ann.send_text("who?");
    assert_eq!(ann.receive_text().await, "ann");
    ann.send_text("join");
    assert_eq!(bed.told().await, "+ann");
    // Who comes later is nobody.
    let mut nobody = TestSocket::connect_with(upgrade(), Named, request()).await.unwrap();
    nobody.send_text("who?");
    assert_eq!(nobody.receive_text().await, "anonymous");
}

/// Says who it speaks for.
struct Named;

impl Consumer for Named {
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        if frame == Frame::Text("join".into()) {
            return socket.join(&room("lobby")).await;
        }
        let name = socket.user().map_or("anonymous", |user| user.as_str()).to_owned();
        socket.send(name).await
    }
}

// behaviour: 7 database-in-async
#[actix_web::test]
async fn adding_straight_in_an_async_handler_works() {
    // Differs on purpose (W11): there it raises, unless it is wrapped.
    let mut bed = bed().await;
    let upgrade = TestSocket::upgrade(&bed.rooms).user(Some(user("ann")));
    let mut ann = TestSocket::connect(upgrade, Named).await.unwrap();
    ann.send_text("join");
    assert_eq!(bed.told().await, "+ann");
    ann.send_text("who?");
    assert_eq!(ann.receive_text().await, "ann");
}
