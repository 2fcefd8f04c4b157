//! Consumers whose clients speak JSON.

use super::bed::{bed, room};
use presence::testing::TestSocket;
use presence::{Event, JsonConsumer, JsonFrames, Outgoing, Result, Socket};

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
    let mut socket = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Speaker)).await.unwrap();
    socket.send_text(r#"{"type":"hello","name":"ann"}"#);
    assert_eq!(socket.receive_text().await, r#"{"hello":"ann"}"#);
}

// behaviour: 7 json-heartbeat
#[actix_web::test]
async fn a_json_consumer_swallows_the_heartbeat_before_it_decodes() {
    // Differs on purpose (W10): there the bare word reaches the handler.
    let bed = bed().await;
    let mut socket = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Speaker)).await.unwrap();
    socket.send_text("\"heartbeat\"");
    assert!(socket.receive_nothing().await);
}

// behaviour: 7 bad-json
#[actix_web::test]
async fn what_does_not_decode_is_answered_and_the_socket_lives() {
    // Differs on purpose (W12): there it kills the consumer.
    let bed = bed().await;
    let mut socket = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Speaker)).await.unwrap();
    for _ in 0..2 {
        socket.send_text("{");
        assert_eq!(socket.receive_json::<serde_json::Value>().await["code"], "bad_message");
        socket.send_binary(&b"{}"[..]);
        assert_eq!(socket.receive_json::<serde_json::Value>().await["code"], "bad_message");
    }
}

// behaviour: 7 json-codec
#[actix_web::test]
async fn how_a_message_is_spelt_is_up_to_its_type_and_what_is_too_much_is_ignored() {
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

// behaviour: 7 dispatch
#[actix_web::test]
async fn an_event_is_dispatched_by_its_name_to_the_variant_that_has_it_and_unknown_fields_are_ignored() {
    #[derive(serde::Serialize, serde::Deserialize)]
    enum Told {
        #[serde(rename = "chat.message")]
        ChatMessage {
            text: String,
        },
        Closing,
    }
    struct Hears;
    impl JsonConsumer for Hears {
        type Message = ();
        type Event = Told;
        async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
            socket.join(&room("lobby")).await
        }
        async fn receive(&mut self, _: &mut Socket, (): ()) -> Result<()> {
            Ok(())
        }
        async fn event(&mut self, socket: &mut Socket, told: Told) -> Result<()> {
            match told {
                Told::ChatMessage { text } => socket.send(text).await,
                Told::Closing => socket.send("closing").await,
            }
        }
    }
    let bed = bed().await;
    let mut socket = TestSocket::connect(TestSocket::upgrade(&bed.rooms), JsonFrames(Hears)).await.unwrap();
    let named =
        |name: &str, payload: serde_json::Value| Event::new(presence::EventName::new(name).unwrap(), &payload).unwrap();
    bed.rooms
        .send_event(&room("lobby"), named("chat.message", serde_json::json!({"text": "hi", "from": "ann"})))
        .unwrap();
    bed.rooms.send_event(&room("lobby"), named("ChatMessage", serde_json::json!({"text": "not its name"}))).unwrap();
    bed.rooms.send_event(&room("lobby"), Event::typed(&Told::Closing).unwrap()).unwrap();
    assert_eq!([socket.receive_text().await, socket.receive_text().await], ["hi", "closing"]);
    assert!(socket.receive_nothing().await);
}
