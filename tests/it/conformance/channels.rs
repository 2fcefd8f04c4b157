//! What it takes from channels: consumers, the scope, and how a socket ends.

use super::bed::{bed, room, user};
use actix_web::{HttpRequest, http::StatusCode};
use presence::testing::{Received, TestSocket, upgrade_request};
use presence::{Consumer, Frame, Outgoing, Result, Socket};
use std::cell::Cell;
use std::rc::Rc;

// behaviour: 7 origin
#[actix_web::test]
async fn an_origin_that_is_none_is_a_mistake_and_every_handshake_is_answered_500() {
    let bed = bed().await;
    let mistaken = || TestSocket::upgrade(&bed.rooms).allow_origin("https://app.example").allow_origin("app.example");
    let refused = TestSocket::connect(mistaken(), Named).await.unwrap_err();
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    let listed = presence::Origin::new("https://app.example").unwrap();
    let request = upgrade_request().insert_header(("origin", "https://app.example"));
    let allowed = TestSocket::upgrade(&bed.rooms).allow_origin(&listed);
    assert!(TestSocket::connect_with(allowed, Named, request).await.is_ok());
}

// behaviour: 7 send-neither; 7 send
#[actix_web::test]
async fn texts_and_bytes_are_sent_and_nothing_to_send_is_an_empty_frame_and_no_error() {
    // Differs on purpose (W12): there a send of neither a text nor bytes raises, and kills the consumer.
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    ann.socket.send_text("echo ");
    assert_eq!(ann.socket.receive_text().await, "");
    for bytes in [&b"abc"[..], b""] {
        bed.rooms.send_to(&ann.channel, Outgoing::binary(bytes)).await.unwrap();
        assert_eq!(ann.socket.receive().await, Received::Frame(Frame::Binary(bytes.into())));
    }
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

// behaviour: 7 identity; 7 database-in-async
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
    assert_eq!(bed.change().await, "+ann");
    // Who comes later is nobody.
    let mut nobody = TestSocket::connect_with(upgrade(), Named, request()).await.unwrap();
    nobody.send_text("who?");
    assert_eq!(nobody.receive_text().await, "anonymous");
}

/// Sends the name of its user.
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
