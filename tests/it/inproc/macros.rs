//! The attributes on a consumer of the real crate.

use super::host::{Host, room};
use crate::support::frame::ReceivedFrame;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, Duration, eventually, millis, within};
use actix_web::{HttpRequest, HttpResponse, web};
use presence::{CloseCode, Consumer, Frame, Result, Rooms, Socket, remove_presence, touch_presence};

/// What the bodies saw.
async fn note(socket: &Socket, what: &str) {
    let here = socket.rooms().count(&room("lobby")).await.unwrap().presences;
    let said = format!("{what}: in {}, {here} here", socket.is_in(&room("lobby")));
    socket.rooms().send(&room("witness"), said).await.unwrap();
}

/// Speaks to the room `witness` of what it does.
struct Plain;

impl Consumer for Plain {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        let Frame::Text(text) = frame else { return Ok(()) };
        if &*text == "leave" {
            socket.leave(&room("lobby")).await?;
        }
        note(socket, &text).await;
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        note(socket, &format!("ended with {code}")).await;
        Ok(())
    }
}

/// The shortest consumer that there can be: everything but `receive` is left as it is.
struct Silent;

impl Consumer for Silent {
    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

async fn plain(req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>) -> HttpResponse {
    presence::Upgrade::new(&rooms, &req, body).start(Plain).await
}

async fn silent(req: HttpRequest, body: web::Payload, rooms: web::Data<Rooms>) -> HttpResponse {
    presence::Upgrade::new(&rooms, &req, body).start(Silent).await
}

/// Five beats, so that a busy machine does not miss all of them.
const MAX_AGE: Duration = millis(1500);
const BEAT: Duration = millis(300);

async fn host() -> Host {
    let routes = |services: &mut web::ServiceConfig| {
        services.route("/plain", web::get().to(plain)).route("/silent", web::get().to(silent));
    };
    Host::plan().config(|config| config.max_age(MAX_AGE)).route(routes).start().await
}

/// A member of the room `witness`, who is kept from going stale.
async fn witness(host: &Host) -> ClientSocket {
    let mut witness = host.open("witness", "join witness").await;
    witness.beats_every(BEAT);
    witness
}

/// A host, the witness and a client of a [`Plain`].
async fn client() -> (Host, ClientSocket, ClientSocket) {
    let host = host().await;
    let witness = witness(&host).await;
    let client = HandshakeRequest::to("/plain").open(host.address).await.unwrap();
    (host, witness, client)
}

// behaviour: 4 removed-before-the-body
#[tokio::test]
async fn remove_presence_leaves_every_room_before_the_body_of_disconnect() {
    let (_host, mut witness, client) = client().await;
    client.leave().await;
    assert_eq!(witness.next().await, ReceivedFrame::Text("ended with 1000: in false, 0 here".into()));
}

// behaviour: 4 heartbeat-literal
#[tokio::test]
async fn the_heartbeat_is_swallowed_and_any_other_frame_runs_the_body() {
    let (_host, mut witness, mut client) = client().await;
    client.heartbeat().await;
    client.text("heartbeat").await;
    client.text("\"heartbeat\" ").await;
    assert_eq!(witness.next().await, ReceivedFrame::Text("heartbeat: in true, 1 here".into()));
    assert_eq!(witness.next().await, ReceivedFrame::Text("\"heartbeat\" : in true, 1 here".into()));
}

const ANSWERED: &str = r#"{"type":"heartbeat"}"#;

// behaviour: 4 no-answer
#[tokio::test]
async fn the_heartbeat_that_asks_for_an_answer_is_answered_to_its_sender_alone_also_after_a_leave() {
    let (host, mut witness, mut client) = client().await;
    for heartbeat in [ANSWERED, "{ \"type\" : \"heartbeat\" }\n"] {
        client.text(heartbeat).await;
        assert_eq!(client.next().await, ReceivedFrame::Text(ANSWERED.into()));
    }
    client.heartbeat().await;
    client.text("leave").await;
    assert_eq!(
        witness.next().await,
        ReceivedFrame::Text("leave: in false, 0 here".into()),
        "and no heartbeat before it"
    );
    assert_eq!(host.rooms.count(&room("lobby")).await.unwrap().presences, 0);
    client.text(ANSWERED).await;
    assert_eq!(client.next().await, ReceivedFrame::Text(ANSWERED.into()), "and nothing for the plain one");
    client.text(r#"{"type":"heartbeat","n":1}"#).await;
    let ran = ReceivedFrame::Text(r#"{"type":"heartbeat","n":1}: in false, 0 here"#.into());
    assert_eq!(witness.next().await, ran);
}

#[tokio::test]
async fn a_heartbeat_that_asks_for_an_answer_touches() {
    let (host, _witness, mut client) = client().await;
    let mut pace = tokio::time::interval(BEAT);
    // As long as three deadlines.
    for _ in 0..15 {
        pace.tick().await;
        client.text(ANSWERED).await;
        assert_eq!(client.next().await, ReceivedFrame::Text(ANSWERED.into()));
    }
    assert_eq!(host.rooms.count(&room("lobby")).await.unwrap().presences, 1);
}

// behaviour: 4 every-frame-touches
#[tokio::test]
async fn every_frame_touches_and_pings_do_not() {
    let (host, _witness, mut client) = client().await;
    let mut pace = tokio::time::interval(BEAT);
    // As long as three deadlines.
    for n in 0..15 {
        pace.tick().await;
        match n % 2 {
            0 => client.binary(b"still here").await,
            _ => client.heartbeat().await,
        }
    }
    assert_eq!(host.rooms.count(&room("lobby")).await.unwrap().presences, 1);
    let stale = async {
        while client.frame_within(millis(100)).await.is_none() {
            client.ping(b"").await;
            // The answer.
            client.frame().await;
        }
    };
    within(BOUND, "the socket to go stale", stale).await;
    eventually(BOUND, "an empty lobby", async || match host.rooms.count(&room("lobby")).await.unwrap().presences {
        0 => Ok(()),
        n => Err(format!("{n} presences")),
    })
    .await;
}

// behaviour: 7 accept-by-default
#[tokio::test]
async fn a_consumer_of_one_method_is_enough_and_drops_events() {
    let host = host().await;
    let mut client = HandshakeRequest::to("/silent").open(host.address).await.unwrap();
    client.text("into the void").await;
    client.ping(b"x").await;
    assert_eq!(client.next().await, ReceivedFrame::Pong("x".into()));
    client.leave().await;
    host.empty().await;
}
