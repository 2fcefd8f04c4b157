//! JSON consumers, countdowns and groups, with clients on a network.

use super::{Host, open, room, serving, text};
use crate::support::socket::ClientSocket;
use crate::support::{BOUND, eventually, secs};
use presence::{
    ChannelName, CloseCode, Consumer, Countdown, Frame, GroupName, JsonConsumer, JsonFrames, Outgoing, Result, Socket,
};

#[derive(serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Greeting {
    Hello { name: String },
}

struct Speaker;

impl JsonConsumer for Speaker {
    type Message = Greeting;
    type Event = ();

    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(&room("lobby")).await
    }

    async fn receive(&mut self, socket: &mut Socket, Greeting::Hello { name }: Greeting) -> Result<()> {
        socket.send(Outgoing::json(&serde_json::json!({ "hello": name }))?).await
    }
}

// behaviour: 7 json-consumer; 7 json-heartbeat; 7 bad-json
#[tokio::test]
async fn a_client_that_sends_what_does_not_decode_is_answered_each_time_and_goes_on() {
    // Differs on purpose (W10, W12): there each of these kills the consumer, and the heartbeat reaches the handler.
    let host = Host::plan().route(serving(|_| JsonFrames(Speaker))).start().await;
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    let deep = "[".repeat(10_000);
    for bad in ["", "{", "null", "\"hello\"", "{}", r#"{"type":"goodbye"}"#, r#"{"type":"hello","name":5}"#, &deep] {
        ann.text(bad).await;
        ann.refused("bad_message").await;
    }
    for bad in [&b""[..], br#"{"type":"hello","name":"ann"}"#, b"\"heartbeat\"", b"\xff\x00"] {
        ann.binary(bad).await;
        ann.refused("bad_message").await;
    }
    ann.heartbeat().await;
    ann.text(r#"{"type":"heartbeat"}"#).await;
    assert_eq!(text(&mut ann).await, r#"{"type":"heartbeat"}"#, "it asks for an answer");
    ann.heartbeat().await;
    ann.text(r#"{"name":"ann","type":"hello","more":1}"#).await;
    assert_eq!(text(&mut ann).await, r#"{"hello":"ann"}"#, "the heartbeat was not answered");
    ann.leave().await;
}

#[tokio::test]
async fn a_heartbeat_that_asks_for_an_answer_gets_it_through_a_countdown() {
    let host = Host::plan().route(serving(|_| Countdown::new(secs(60), JsonFrames(Speaker)))).start().await;
    let mut ann = open(&host, "/chat/lobby?user=ann").await;
    ann.text(r#"{"type":"heartbeat"}"#).await;
    assert_eq!(text(&mut ann).await, r#"{"type":"heartbeat"}"#);
    ann.leave().await;
}

/// Is in the team, and does what its client requests.
struct Player;

fn team() -> GroupName {
    GroupName::new("team").unwrap()
}

impl Consumer for Player {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join_group(&team())?;
        socket.send(socket.channel().as_str()).await
    }

    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        match std::str::from_utf8(frame.as_bytes()).unwrap_or_default() {
            "leave" => {
                socket.leave_group(&team());
                socket.send("left").await
            }
            "end" => socket.close(CloseCode::NORMAL, ""),
            said => {
                socket.rooms().send_to_group(&team(), said).await?;
                Ok(())
            }
        }
    }
}

/// A client, and the name of its channel.
async fn player(host: &Host) -> (ClientSocket, ChannelName) {
    let mut client = open(host, "/chat/any").await;
    let channel = text(&mut client).await;
    (client, ChannelName::new(channel).unwrap())
}

// behaviour: 7 groups; 7 groups-attribute; 7 send-to-channel; 7 order-of-messages
#[tokio::test]
async fn a_group_whose_members_are_on_four_threads_hears_each_message_once_and_in_order() {
    // Differs on purpose (W17): there a membership may end before its socket, and a full channel loses messages.
    let host = Host::plan().workers(4).route(serving(|_| Player)).start().await;
    let mut changes = host.rooms.changes();
    let mut players = Vec::new();
    for _ in 0..8 {
        players.push(player(&host).await);
    }
    for n in 0..20 {
        players[0].0.text(&n.to_string()).await;
    }
    for (client, _) in &mut players {
        for n in 0..20 {
            assert_eq!(text(client).await, n.to_string(), "the sender hears itself, too");
        }
    }
    let (mut leaver, _) = players.pop().unwrap();
    leaver.text("leave").await;
    assert_eq!(text(&mut leaver).await, "left");
    let (mut ended, gone) = players.pop().unwrap();
    ended.text("end").await;
    assert_eq!(ended.closing().await, Some(1000));
    ended.close(1000).await;
    eventually(BOUND, "the socket to end", async || match host.rooms.sockets() {
        7 => Ok(()),
        open => Err(format!("{open} are open")),
    })
    .await;
    host.rooms.send_to_group(&team(), "to six").await.unwrap();
    host.rooms.send_to(&gone, "to nobody").await.unwrap();
    let (third, name) = &mut players[3];
    host.rooms.send_to(name, "to you").await.unwrap();
    assert_eq!([text(third).await, text(third).await], ["to six", "to you"]);
    host.rooms.send_to_group(&team(), "again").await.unwrap();
    for (n, (client, _)) in players.iter_mut().enumerate() {
        if n != 3 {
            assert_eq!(text(client).await, "to six");
        }
        assert_eq!(text(client).await, "again");
    }
    let mut last = leaver;
    last.text("from outside").await;
    for (client, _) in &mut players {
        assert_eq!(text(client).await, "from outside", "a group may be sent to by who is not in it");
    }
    last.text("leave").await;
    assert_eq!(text(&mut last).await, "left", "and it heard nothing of the team since it left");
    use futures_util::FutureExt;
    assert!(changes.next().now_or_never().is_none(), "of a group nobody is told");
}
