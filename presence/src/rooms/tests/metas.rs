//! Metas: with the join, by updates of the socket and of other callers, and answers to clients that make mistakes.

use serde::{Deserialize, Serialize};

use super::prelude::*;
use crate::{
    JsonConsumer, JsonFrames,
    actor::{Update, UpdateUser},
};

/// What the client of an agent sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum AgentMessage {
    Status { meta: Meta },
    Text { status: String },
    Join { room: String },
    Within { limit: usize },
    Forward { text: String },
    Leave,
    Fail,
}

/// Joins as free, and sends its client whether it resumed a presence.
struct Agent;

impl JsonConsumer for Agent {
    type Message = AgentMessage;
    type Event = ();

    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join_with(lobby(), JoinOptions::new().meta(meta("free"))).await?;
        socket.send(if socket.has_resumed(lobby()) { "\"back\"" } else { "\"new\"" }).await
    }

    async fn receive(&mut self, socket: &mut Socket, said: AgentMessage) -> Result<()> {
        match said {
            AgentMessage::Status { meta } => socket.update(lobby(), meta).await,
            AgentMessage::Text { status } => socket.update(lobby(), Meta::new(&json!({ "status": status }))?).await,
            AgentMessage::Join { room } => socket.join(&room.parse()?).await,
            AgentMessage::Within { limit } => {
                let options = JoinOptions::new().meta(meta("seated")).grace(secs(30)).limit(limit);
                socket.join_with(&room("small"), options).await?;
                let mut rooms = socket.joined_rooms();
                rooms.sort();
                socket.send(Outgoing::json(&rooms)?).await
            }
            AgentMessage::Forward { text } => socket.rooms().check_size(&Outgoing::text(text)),
            AgentMessage::Leave => socket.leave(lobby()).await,
            AgentMessage::Fail => Err(Error::other("the agent's own failure")),
        }
    }
}

fn meta(status: &str) -> Meta {
    Meta::try_from(json!({ "status": status })).unwrap()
}

async fn agent(rooms: &Rooms) -> TestSocket {
    let token = ResumeToken::new("the-token-of-this-tab").unwrap();
    let upgrade = TestSocket::upgrade(rooms).user(Some(user("ann"))).resume_token(Some(token));
    TestSocket::connect(upgrade, JsonFrames(Agent)).await.expect("accepted")
}

/// Ann's meta in the first frame, and the text of the agent after it.
async fn first(agent: &mut TestSocket) -> (Value, String) {
    let state: Value = agent.receive_json().await;
    (state["members"][0]["presences"][0]["meta"].clone(), agent.receive_text().await)
}

async fn channel_of(node: &TestNode) -> ChannelName {
    let snapshot = node.store.database().load(lobby().clone()).await.unwrap().unwrap();
    let ann = snapshot.presences.iter().find(|one| one.user == Some(user("ann"))).unwrap();
    ann.channel.clone()
}

#[actix::test]
async fn a_first_meta_comes_with_the_join_and_a_resumed_presence_keeps_its_last_one() {
    let node = node().await;
    let bob = node.member("bob").await;
    let mut changes = node.changes();
    let mut ann = agent(&node.rooms).await;
    assert_eq!(first(&mut ann).await, (json!({ "status": "free" }), "\"new\"".to_owned()));
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["+ann"], "there is no update");
    assert!(bob.view().here.values().any(|(_, meta)| meta["status"] == "free"));
    ann.send_json(&json!({ "type": "status", "meta": { "status": "busy" } }));
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["~ann"]);
    ann.lose();
    pass(secs(2)).await;
    let mut ann = agent(&node.rooms).await;
    assert_eq!(first(&mut ann).await, (json!({ "status": "busy" }), "\"back\"".to_owned()));
    assert_eq!(published(&mut changes), NONE);
    ann.disconnect(CloseCode::NORMAL).await;
    pass(secs(1)).await;
    let mut ann = agent(&node.rooms).await;
    assert_eq!(first(&mut ann).await, (json!({ "status": "free" }), "\"new\"".to_owned()), "it had left");
}

#[actix::test]
async fn a_presence_that_is_resumed_on_another_node_keeps_its_meta_and_its_socket_has_resumed() {
    let [here, there] = nodes(config).await;
    let mut ann = agent(&here.rooms).await;
    assert_eq!(first(&mut ann).await.1, "\"new\"");
    ann.send_json(&json!({ "type": "text", "status": "busy" }));
    pass(secs(1)).await;
    ann.lose();
    pass(secs(1)).await;
    let mut ann = agent(&there.rooms).await;
    assert_eq!(first(&mut ann).await, (json!({ "status": "busy" }), "\"back\"".to_owned()));
}

#[actix::test]
async fn the_meta_of_a_channel_of_this_process_is_set_by_call_by_message_and_by_handle() {
    let node = node().await;
    let mut ann = agent(&node.rooms).await;
    first(&mut ann).await;
    let job = channel("job 7");
    node.add(lobby(), &job, Some(&user("bot"))).await.unwrap();
    pass(secs(1)).await;
    let mut changes = node.changes();
    let ann_is = channel_of(&node).await;
    node.rooms.update(lobby(), &ann_is, meta("called")).await.unwrap();
    let update = Update { room: lobby().clone(), channel: job.clone(), meta: meta("busy") };
    node.addr().send(update).await.unwrap().unwrap();
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["~ann", "~bot"]);
    node.room(lobby()).update(&job, meta("away")).await.unwrap();
    node.room(lobby()).update(&job, meta("away")).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["~bot"], "one that is equal changes nothing");
    let away = room("away");
    for (room, channel) in [(&away, &job), (lobby(), &channel("unknown"))] {
        assert!(matches!(node.rooms.update(room, channel, meta("busy")).await, Err(Error::NotInRoom { .. })));
    }
    ann.lose();
    pass(secs(1)).await;
    let held = node.rooms.update(lobby(), &ann_is, meta("busy")).await;
    assert!(matches!(held, Err(Error::NotInRoom { .. })), "{held:?}");
}

#[actix::test]
async fn the_meta_of_a_socket_of_another_process_is_not_set_here() {
    let [here, there] = nodes(config).await;
    let _ann = agent(&here.rooms).await;
    let channel = channel_of(&here).await;
    let refused = there.rooms.update(lobby(), &channel, meta("busy")).await;
    assert!(matches!(&refused, Err(Error::SocketElsewhere { channel: named }) if *named == channel), "{refused:?}");
}

#[actix::test]
async fn the_meta_of_all_tabs_of_a_user_is_set_but_for_held_ones_and_those_on_other_nodes() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let here = node_on(&database, "here", config().reconcile_interval(secs(1)).updates_per_second(1)).await;
    let there = node_on(&database, "there", config()).await;
    let tab = async |node: &TestNode, name: &str| {
        node.add(lobby(), &channel(name), Some(&user("ann"))).await.unwrap();
    };
    let lost = agent(&here.rooms).await;
    tab(&here, "phone").await;
    tab(&here, "laptop").await;
    tab(&there, "desk").await;
    here.add(lobby(), &channel("bob"), Some(&user("bob"))).await.unwrap();
    lost.lose();
    pass(secs(3)).await;
    let mut changes = here.changes();
    assert_eq!(here.rooms.update_user(lobby(), &user("ann"), meta("away")).await.unwrap(), 2);
    assert_eq!(published(&mut changes), ["~ann", "~ann"], "at once");
    assert_eq!(here.room(lobby()).update_user(&user("ann"), meta("busy")).await.unwrap(), 2);
    let metas = here.presences_of(lobby(), &user("ann")).await.unwrap();
    let metas: Vec<_> = metas.iter().map(|presence| (presence.channel.as_str(), presence.meta.clone())).collect();
    for (channel, now) in metas {
        let expected = match channel {
            "phone" | "laptop" => meta("busy"),
            "desk" => Meta::default(),
            _ => meta("free"),
        };
        assert_eq!(now, expected, "{channel}");
    }
    let update = UpdateUser { room: lobby().clone(), user: user("cid"), meta: meta("busy") };
    assert_eq!(here.addr().send(update).await.unwrap().unwrap(), 0, "nobody of this name is there");
}

#[actix::test]
async fn an_update_by_another_caller_replaces_pending_updates_of_the_socket() {
    let node = node_with(config().updates_per_second(1).max_rooms_per_socket(2)).await;
    let mut ann = agent(&node.rooms).await;
    first(&mut ann).await;
    for n in 0..8 {
        ann.send_json(&json!({ "type": "text", "status": n.to_string() }));
    }
    pass(ms(50)).await;
    let now = async || node.members(lobby()).await.unwrap()[0].presences()[0].meta.clone();
    assert_eq!(now().await, meta("4"), "five at once, and the others wait");
    node.rooms.update(lobby(), &channel_of(&node).await, meta("called")).await.unwrap();
    pass(secs(10)).await;
    assert_eq!(now().await, meta("called"));
}

// behaviour: 7 testing-failures
#[actix::test]
async fn a_mistake_of_a_client_is_answered_and_only_a_failure_of_the_consumer_closes_its_socket() {
    let node = node_with(config().max_rooms_per_socket(1).max_frame_sent(6_000)).await;
    let mut ann = agent(&node.rooms).await;
    first(&mut ann).await;
    let large = "x".repeat(5000);
    let mistakes = [
        (json!({ "type": "status", "meta": { "status": large } }), "bad_message"),
        (json!({ "type": "text", "status": large }), "bad_meta"),
        (json!({ "type": large }), "bad_message"),
        (json!({ "type": "join", "room": "" }), "bad_name"),
        (json!({ "type": "join", "room": "attic" }), "too_many_rooms"),
        (json!({ "type": "forward", "text": large.repeat(2) }), "too_large"),
        (json!({ "type": "leave" }), ""),
        (json!({ "type": "text", "status": "busy" }), "not_joined"),
        (json!({ "type": "within", "limit": 0 }), "room_full"),
    ];
    for (mistake, code) in mistakes {
        ann.send_json(&mistake);
        if code.is_empty() {
            continue;
        }
        let answer: Value = ann.receive_json().await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
        assert!(answer["message"].as_str().unwrap().len() <= 500);
    }
    ann.send_json(&json!({ "type": "fail" }));
    assert!(matches!(ann.receive().await, crate::testing::Received::Close(Some(CloseCode(1011)))));
}

/// The code of the error frame that the client of the agent receives.
async fn code_of_answer(agent: &mut TestSocket) -> Value {
    let answer: Value = agent.receive_json().await;
    assert_eq!(answer["type"], "error", "{answer}");
    answer["code"].clone()
}

#[actix::test]
async fn during_an_outage_a_client_receives_an_error_and_its_socket_stays_open() {
    // The socket was closed with 1011, and its presence left although it had a token.
    let node = node().await;
    let mut ann = agent(&node.rooms).await;
    first(&mut ann).await;
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.faults.hang();
    for message in [json!({ "type": "text", "status": "busy" }), json!({ "type": "join", "room": "attic" })] {
        ann.send_json(&message);
        pass(secs(6)).await;
        assert_eq!(code_of_answer(&mut ann).await, "unavailable", "{message}");
    }
    node.store.faults.release();
    pass(secs(5)).await;
    assert_eq!(ann.receive_json::<Value>().await["type"], "presence.diff");
    assert_eq!((published(&mut changes), node.rows(lobby()).await), (vec!["~ann".to_owned()], vec!["ann".to_owned()]));
    node.store.faults.hang();
    ann.send_json(&json!({ "type": "leave" }));
    pass(secs(6)).await;
    assert_eq!(code_of_answer(&mut ann).await, "unavailable");
    node.store.faults.release();
    pass(secs(5)).await;
    assert_eq!(published(&mut changes), ["-ann"], "a leave happens all the same");
    ann.send_json(&json!({ "type": "join", "room": "lobby" }));
    assert_eq!(ann.receive_json::<Value>().await["type"], "presence.state", "the socket is open");
}

/// Sets its meta to each event. When it is removed, it joins again with a limit that no room satisfies.
struct StatusConsumer;

#[derive(Serialize, Deserialize)]
enum Shown {
    Status { status: String },
}

impl JsonConsumer for StatusConsumer {
    type Message = ();
    type Event = Shown;

    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await
    }

    async fn receive(&mut self, socket: &mut Socket, (): ()) -> Result<()> {
        socket.send("\"open\"").await
    }

    async fn event(&mut self, socket: &mut Socket, Shown::Status { status }: Shown) -> Result<()> {
        socket.update(lobby(), Meta::new(&json!({ "status": status }))?).await
    }

    async fn removed(&mut self, socket: &mut Socket, room: RoomName) -> Result<()> {
        socket.join_with(&room, JoinOptions::new().limit(0)).await
    }
}

/// The code of the next error frame.
async fn next_error(socket: &mut TestSocket) -> Value {
    loop {
        let frame: Value = socket.receive_json().await;
        if frame["type"] == "error" {
            return frame["code"].clone();
        }
    }
}

#[actix::test]
async fn an_outage_during_an_event_or_a_full_room_after_a_removal_is_answered_and_the_socket_stays() {
    // The socket was closed with 1011, and its presence left.
    let node = node().await;
    let upgrade = TestSocket::upgrade(&node.rooms).user(Some(user("ann")));
    let mut ann = TestSocket::connect(upgrade, JsonFrames(StatusConsumer)).await.expect("accepted");
    pass(secs(1)).await;
    let show = |status: &str| Event::typed(&Shown::Status { status: status.to_owned() }).unwrap();
    node.store.faults.hang();
    node.send_event(lobby(), show("busy")).unwrap();
    pass(secs(6)).await;
    assert_eq!(next_error(&mut ann).await, "unavailable");
    node.store.faults.release();
    pass(secs(5)).await;
    assert_eq!(node.remove_user_from(lobby(), &user("ann"), None).await.unwrap(), 1);
    pass(secs(1)).await;
    assert_eq!(next_error(&mut ann).await, "room_full");
    ann.send_text("null");
    while ann.receive_text().await != "\"open\"" {}
}

#[actix::test]
async fn a_mistake_of_the_application_in_an_event_closes_the_socket() {
    let node = node().await;
    let upgrade = TestSocket::upgrade(&node.rooms);
    let ann = TestSocket::connect(upgrade, JsonFrames(StatusConsumer)).await.expect("accepted");
    let status = "x".repeat(5000);
    node.send_event(lobby(), Event::typed(&Shown::Status { status }).unwrap()).unwrap();
    pass(secs(1)).await;
    assert_eq!(ann.close_code(), Some(CloseCode::INTERNAL_ERROR));
}

#[actix::test]
async fn a_client_that_is_removed_while_it_joins_receives_the_error_removed() {
    let node = node().await;
    let mut ann = agent(&node.rooms).await;
    first(&mut ann).await;
    node.store.commits_take(ms(500));
    ann.send_json(&json!({ "type": "join", "room": "attic" }));
    pass(ms(100)).await;
    assert_eq!(node.remove_user_from(&room("attic"), &user("ann"), None).await.unwrap(), 1);
    assert_eq!(code_of_answer(&mut ann).await, "removed");
    assert!(ann.receive_nothing().await);
}

/// The metas in a room, by user.
async fn metas(node: &TestNode, room: &RoomName) -> Vec<(String, Value)> {
    let members = node.members(room).await.unwrap();
    let presences = members.iter().flat_map(|member| member.presences().to_vec());
    presences.map(|one| (one.user.as_ref().unwrap().to_string(), json!(one.meta.to_object()))).collect()
}

#[actix::test]
async fn one_join_can_have_a_first_meta_a_grace_and_a_limit() {
    let node = node().await;
    let mut ann = agent(&node.rooms).await;
    first(&mut ann).await;
    ann.send_json(&json!({ "type": "within", "limit": 1 }));
    pass(secs(1)).await;
    let state: Value = ann.receive_json().await;
    assert_eq!(state["room"], "small");
    assert_eq!(ann.receive_json::<Value>().await, json!(["lobby", "small"]), "the rooms of this socket");
    let seated = vec![("ann".to_owned(), json!({ "status": "seated" }))];
    assert_eq!(metas(&node, &room("small")).await, seated);
    let bot = channel("bot");
    let options = JoinOptions::new().limit(1);
    let full = node.add_with(&room("small"), &bot, Some(&user("bot")), options).await;
    assert!(matches!(full, Err(Error::RoomFull { limit: 1, .. })), "{full:?}");
    let too_long = node.add_with(lobby(), &bot, None, JoinOptions::new().grace(secs(61))).await;
    assert!(matches!(too_long, Err(Error::GraceTooLong { .. })), "{too_long:?}");
    ann.lose();
    pass(secs(20)).await;
    assert_eq!(node.names(lobby()).await, NONE, "after the grace of the settings");
    assert_eq!(metas(&node, &room("small")).await, seated);
    pass(secs(15)).await;
    assert_eq!(node.names(&room("small")).await, NONE);
}

#[actix::test]
async fn a_channel_is_added_with_its_first_meta_in_one_event() {
    let node = node().await;
    let mut changes = node.changes();
    let (bot, options) = (channel("bot"), JoinOptions::new().meta(meta("busy")));
    node.add_with(lobby(), &bot, Some(&user("bot")), options.clone()).await.unwrap();
    node.room(lobby()).add_with(&bot, Some(&user("bot")), options).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["+bot"]);
    assert_eq!(metas(&node, lobby()).await, [("bot".to_owned(), json!({ "status": "busy" }))]);
}
