//! Consumers whose clients send JSON.

use super::bed::{bed, room, secs, user};
use presence::testing::TestSocket;
use presence::{CloseCode, Event, EventName, GroupName, JsonConsumer, JsonFrames, Result, Socket};

fn team() -> GroupName {
    GroupName::new("team").unwrap()
}

#[derive(serde::Serialize, serde::Deserialize)]
enum TeamEvent {
    #[serde(rename = "chat.message")]
    ChatMessage {
        text: String,
    },
    Closing,
}

/// A member of the lobby and of the team, which has one message and two events.
struct Forwards;

impl JsonConsumer for Forwards {
    type Message = ();
    type Event = TeamEvent;

    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await?;
        socket.join_group(&team())
    }

    async fn receive(&mut self, socket: &mut Socket, (): ()) -> Result<()> {
        socket.send("received").await
    }

    async fn event(&mut self, socket: &mut Socket, news: TeamEvent) -> Result<()> {
        match news {
            TeamEvent::ChatMessage { text } => socket.send(text).await,
            TeamEvent::Closing => socket.send("closing").await,
        }
    }

    async fn disconnect(&mut self, socket: &mut Socket, _: CloseCode) -> Result<()> {
        socket.send("disconnected").await
    }
}

// behaviour: W10 any-frame
#[actix_web::test]
async fn texts_bytes_and_typed_messages_touch_alike_and_a_heartbeat_is_found_before_it_is_decoded() {
    let bed = bed().await;
    let mut ann = bed.member("ann").await;
    let upgrade = TestSocket::upgrade(&bed.rooms).user(Some(user("bob")));
    let mut bob = TestSocket::connect(upgrade, JsonFrames(Forwards)).await.unwrap();
    // Of each pair the first frame keeps Ann in, the second Bob.
    for round in 0..4 {
        bed.leap(secs(40)).await;
        match round {
            0 => ann.socket.send_binary(&b"bytes"[..]),
            1 => ann.socket.send_text(""),
            _ => ann.socket.send_text("\"heartbeat\""),
        }
        match round {
            0 => bob.send_text("\"heartbeat\""),
            1 => bob.send_binary(&b"bytes"[..]),
            2 => bob.send_text("{"),
            _ => bob.send_text("null"),
        }
        bed.settle().await;
    }
    assert_eq!(bed.here().await, 2);
    assert_eq!(bob.receive_json::<serde_json::Value>().await["code"], "bad_message", "of the bytes");
    assert_eq!(bob.receive_json::<serde_json::Value>().await["code"], "bad_message", "of the brace");
    assert_eq!(bob.receive_text().await, "received", "of the message; the heartbeat was swallowed");
}

// behaviour: 7 json-codec
#[actix_web::test]
async fn the_type_of_a_message_says_how_it_is_decoded_and_unknown_fields_are_ignored() {
    // Differs on purpose (W12): there a method decodes, and whatever it lets through reaches the handler.
    #[derive(serde::Deserialize)]
    struct Point(#[serde(deserialize_with = "halves")] f64);
    fn halves<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
        let Twice { twice } = serde::Deserialize::deserialize(deserializer)?;
        Ok(twice / 2.0)
    }
    #[derive(serde::Deserialize)]
    struct Twice {
        twice: f64,
    }
    struct Halver;
    impl JsonConsumer for Halver {
        type Message = Point;
        type Event = ();
        async fn receive(&mut self, socket: &mut Socket, Point(half): Point) -> Result<()> {
            socket.send(half.to_string()).await
        }
    }
    let bed = bed().await;
    let mut socket = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Halver)).await.unwrap();
    socket.send_text(r#"{"twice": 5, "colour": "red"}"#);
    assert_eq!(socket.receive_text().await, "2.5");
}

// behaviour: 7 dispatch; 7 unknown-event; W12 no-dead-sockets; W13 declared-only
#[actix_web::test]
async fn an_event_reaches_the_variant_of_its_name_and_one_of_another_name_or_shape_reaches_nothing() {
    // Differs on purpose (W12, W13): there it kills every member's consumer, or runs any method of that name.
    let bed = bed().await;
    let mut ann = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Forwards)).await.unwrap();
    bed.settle().await;
    let named = |name: &str, payload: serde_json::Value| Event::new(EventName::new(name).unwrap(), &payload).unwrap();
    for name in ["receive", "disconnect", "connect", "send", "close", "websocket.receive", "_private", "ChatMessage"] {
        bed.rooms.send_event_to_group(&team(), named(name, serde_json::json!({"text": "not its name"}))).unwrap();
    }
    bed.rooms.send_event_to_group(&team(), named("chat.message", serde_json::json!(5))).unwrap();
    let message = named("chat.message", serde_json::json!({"text": "hi", "from": "ann"}));
    bed.rooms.send_event_to_group(&team(), message).unwrap();
    bed.rooms.send_event(&room("lobby"), Event::typed(&TeamEvent::Closing).unwrap()).unwrap();
    assert_eq!([ann.receive_text().await, ann.receive_text().await], ["hi", "closing"]);
    assert!(ann.receive_nothing().await);
}
