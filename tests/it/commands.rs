//! What a client may send: commands, messages, and texts that are neither.

use crate::support::frame::ReceivedFrame;
use crate::support::member::RoomClient;
use crate::support::server::ChatServer;
use presence::{Config, NodeName, PruningSupervisor, RoomName, Rooms, SqlStore};
use serde_json::{Value, json};

/// A room with Ann in it and Bob watching.
async fn ann_and_bob() -> (ChatServer, RoomClient, RoomClient) {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let bob = RoomClient::join(&server, "lobby", "bob").await;
    ann.sees_join("bob").await;
    (server, ann, bob)
}

/// Both must receive this message of Ann, and nothing before it.
async fn fence(ann: &mut RoomClient, bob: &mut RoomClient, text: &str) {
    ann.says(text).await;
    ann.hears("ann", text).await;
    bob.hears("ann", text).await;
}

#[tokio::test]
async fn a_text_is_said_to_the_room_its_sender_included() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    fence(&mut ann, &mut bob, "hello, Bob").await;
    bob.says("hello, Ann").await;
    ann.hears("bob", "hello, Ann").await;
    bob.hears("bob", "hello, Ann").await;
}

#[tokio::test]
async fn an_anonymous_socket_says_it_from_null() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    let mut ghost = RoomClient::join(&server, "lobby", None).await;
    ann.sees_anonymous(1).await;
    bob.sees_anonymous(1).await;
    ghost.says("boo").await;
    for member in [&mut ann, &mut bob, &mut ghost] {
        member.hears(None, "boo").await;
    }
}

#[tokio::test]
async fn a_text_that_is_not_an_object_with_a_known_type_is_said_to_the_room() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    for text in [
        "",
        " ",
        "heartbeat",
        " \"heartbeat\"",
        "\"heartbeat\" ",
        "\"Heartbeat\"",
        "null",
        "5",
        "[]",
        "{}",
        "{",
        r#"{"type":"presence"}"#,
        r#"{"type":"Leave"}"#,
        r#"{"type":"message","text":"x"}"#,
        r#"{"type":"Heartbeat"}"#,
        r#"{"type":null}"#,
        r#"{"type":["leave"]}"#,
        r#"[{"type":"leave"}]"#,
        r#"{"kind":"leave"}"#,
        r#"{"type":"leave"} or not"#,
        "{\"type\":\"leave\"",
        "日本語 😀 \u{0} \u{7f} \" \\ / \n",
    ] {
        fence(&mut ann, &mut bob, text).await;
    }
}

#[tokio::test]
async fn messages_of_one_socket_arrive_once_and_in_order() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    for n in 0..200 {
        ann.says(&n.to_string()).await;
    }
    for n in 0..200 {
        ann.hears("ann", &n.to_string()).await;
        bob.hears("ann", &n.to_string()).await;
    }
}

#[tokio::test]
async fn a_heartbeat_is_swallowed() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    ann.socket.heartbeat().await;
    fence(&mut ann, &mut bob, "after the heartbeat").await;
    bob.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn a_binary_frame_does_nothing_that_anyone_hears() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    for payload in [&b""[..], b"\"heartbeat\"", br#"{"type":"leave"}"#, &[0xff; 65_536]] {
        ann.socket.binary(payload).await;
    }
    fence(&mut ann, &mut bob, "after the binary frames").await;
    bob.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn an_update_replaces_the_meta_and_is_told_to_all() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    for meta in [json!({"typing": true, "mood": "glad"}), json!({"away": {"since": [1, 2.5, null, "é"]}}), json!({})] {
        ann.updates(meta.clone()).await;
        assert_eq!(ann.diff().await.updated(), [("ann", &meta)]);
        assert_eq!(bob.diff().await.updated(), [("ann", &meta)]);
        let newcomer = RoomClient::join(&server, "lobby", "zoe").await;
        assert_eq!(newcomer.roster.users["ann"][&ann.roster.me], meta, "the first frame holds it too");
        for member in [&mut ann, &mut bob] {
            member.sees_join("zoe").await;
        }
        newcomer.leave().await;
        for member in [&mut ann, &mut bob] {
            member.sees_leave("zoe").await;
        }
    }
}

#[tokio::test]
async fn an_update_is_of_one_presence_not_of_its_user() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    let mut tab = RoomClient::join(&server, "lobby", "ann").await;
    ann.sees_join("ann").await;
    bob.sees_join("ann").await;
    tab.updates(json!({"tab": 2})).await;
    for member in [&mut ann, &mut bob, &mut tab] {
        assert_eq!(member.diff().await.updated(), [("ann", &json!({"tab": 2}))]);
    }
    assert_eq!(bob.roster.users["ann"][&tab.roster.me], json!({"tab": 2}));
    assert_eq!(bob.roster.users["ann"][&ann.roster.me], json!({}));
}

#[tokio::test]
async fn an_anonymous_update_is_not_news() {
    let (server, mut ann, _bob) = ann_and_bob().await;
    let mut ghost = RoomClient::join(&server, "lobby", None).await;
    ann.sees_anonymous(1).await;
    ghost.updates(json!({"typing": true})).await;
    ghost.says("after the update").await;
    ghost.hears(None, "after the update").await;
    ann.hears(None, "after the update").await;
    ann.sees_nothing_before(&server, "eve").await;
}

/// An `update` whose meta takes this many bytes as sent, spaces inside included.
fn update_of(bytes: usize, spaces: usize) -> String {
    let padding = bytes - spaces - r#"{"a":""}"#.len();
    let meta = format!(r#"{{{}"a":"{}"}}"#, " ".repeat(spaces), "x".repeat(padding));
    assert_eq!(meta.len(), bytes);
    format!(r#"{{"type":"update","meta":{meta}}}"#)
}

#[tokio::test]
async fn a_meta_of_4096_bytes_is_the_largest() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    ann.says(&update_of(4096, 0)).await;
    assert_eq!(ann.diff().await.updates.len(), 1);
    assert_eq!(bob.diff().await.updates.len(), 1);
    ann.says(&update_of(4097, 0)).await;
    ann.socket.refused("bad_command").await;
    fence(&mut ann, &mut bob, "the meta is as it was").await;
}

#[tokio::test]
async fn the_size_of_a_meta_is_counted_as_sent() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    ann.says(&update_of(4097, 4000)).await;
    ann.socket.refused("bad_command").await;
    fence(&mut ann, &mut bob, "spaces count").await;
}

#[tokio::test]
async fn a_meta_nested_32_deep_is_the_deepest() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    let update = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"type":"update","meta":{{"a":{open}{close}}}}}"#)
    };
    ann.says(&update(32)).await;
    assert_eq!(ann.diff().await.updates.len(), 1);
    assert_eq!(bob.diff().await.updates.len(), 1);
    ann.says(&update(33)).await;
    ann.socket.refused("bad_command").await;
    fence(&mut ann, &mut bob, "the meta is as it was").await;
}

#[tokio::test]
async fn an_update_beyond_the_precision_of_a_double_is_told() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    for n in ["0.1", "0.10000000000000000001"] {
        ann.says(&format!(r#"{{"type":"update","meta":{{"n":{n}}}}}"#)).await;
        for member in [&mut ann, &mut bob] {
            // As text, since the parser here makes a double of it too.
            let ReceivedFrame::Text(text) = member.socket.next().await else { panic!("a text") };
            let is_told = text.contains(r#""updates":[{"user":"ann","#) && text.contains(&format!(r#"{{"n":{n}}}"#));
            assert!(is_told, "{text}");
        }
    }
}

#[tokio::test]
async fn a_known_type_of_a_wrong_shape_is_a_bad_command_told_to_its_sender_alone() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    for meta in [json!(null), json!(5), json!("x"), json!([]), json!(true)] {
        ann.updates(meta).await;
        ann.socket.refused("bad_command").await;
    }
    ann.says(r#"{"type":"update"}"#).await;
    ann.socket.refused("bad_command").await;
    ann.says(r#"{"type":"update","Meta":{}}"#).await;
    ann.socket.refused("bad_command").await;
    fence(&mut ann, &mut bob, "and Bob has heard nothing of it").await;
    bob.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn extra_keys_and_space_round_a_command_are_ignored() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    ann.says(" {\"id\": 7, \"type\": \"update\", \"meta\": {\"a\": 1}, \"x\": [null]}\n").await;
    assert_eq!(ann.diff().await.updated(), [("ann", &json!({"a": 1}))]);
    assert_eq!(bob.diff().await.updated(), [("ann", &json!({"a": 1}))]);
    ann.says(r#"{"why":"tired","type":"leave"}"#).await;
    bob.sees_leave("ann").await;
}

#[tokio::test]
async fn a_leave_is_told_to_the_others_and_the_socket_stays_open_and_hears_nothing() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    ann.says(r#"{"type":"leave"}"#).await;
    bob.sees_leave("ann").await;
    bob.says("she cannot hear this").await;
    bob.hears("bob", "she cannot hear this").await;
    ann.socket.ping(b"still open").await;
    assert_eq!(ann.socket.next().await, ReceivedFrame::Pong("still open".into()));
    ann.says("hello?").await;
    ann.socket.refused("not_joined").await;
}

#[tokio::test]
async fn after_leave_each_command_gets_its_answer() {
    let (server, mut ann, mut bob) = ann_and_bob().await;
    ann.says(r#"{"type":"leave"}"#).await;
    bob.sees_leave("ann").await;
    ann.says(r#"{"type":"leave"}"#).await;
    ann.socket.refused("not_joined").await;
    ann.updates(json!({"a": 1})).await;
    ann.socket.refused("not_joined").await;
    ann.says("hello?").await;
    ann.socket.refused("not_joined").await;
    // A wrong shape is reported before the absence, and a heartbeat is swallowed all the same.
    ann.updates(json!(5)).await;
    ann.socket.refused("bad_command").await;
    ann.says(&update_of(4097, 0)).await;
    ann.socket.refused("bad_command").await;
    ann.socket.heartbeat().await;
    ann.socket.binary(b"anything").await;
    ann.socket.ping(b"fence").await;
    assert_eq!(ann.socket.next().await, ReceivedFrame::Pong("fence".into()));
    bob.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn one_who_leaves_and_comes_back_many_times_over_is_here_once() {
    let (_server, mut ann, mut bob) = ann_and_bob().await;
    for _ in 0..25 {
        ann.says(r#"{"type":"leave"}"#).await;
        ann.says(r#"{"type":"join"}"#).await;
        let first: Value = loop {
            // Diffs from before the leave took effect may still be under way.
            let frame = ann.socket.value().await;
            if frame["type"] == "presence.state" {
                break frame;
            }
        };
        ann.roster = crate::support::roster::ClientRoster::first(&first);
        assert_eq!(ann.roster.tabs("ann"), 1);
    }
    bob.until("the last of Ann's presences", |roster| {
        roster.users.get("ann").is_some_and(|presences| presences.keys().eq([&ann.roster.me]))
    })
    .await;
}

#[actix_web::test]
async fn one_whose_presence_another_process_removes_gets_the_error_removed_and_may_join_again() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    ann.sees_join("bob").await;
    let url = format!("sqlite://{}", server.folder().join("presence.db").display());
    let operator =
        Rooms::start(Config::default(), SqlStore::connect(&url).unwrap(), NodeName::new("operator").unwrap());
    PruningSupervisor::spawn(&operator);
    operator.ready().await;
    let (lobby, id) = (RoomName::new("lobby").unwrap(), serde_json::from_value(json!(ann.roster.me)).unwrap());
    assert!(operator.remove_presence(&lobby, id, None).await.unwrap(), "it was there");
    bob.sees_leave("ann").await;
    ann.socket.refused("removed").await;
    ann.says("still here?").await;
    ann.socket.refused("not_joined").await;
    ann.socket.json(json!({"type": "join"})).await;
    ann.first_again().await;
    assert_eq!(ann.roster.names(), ["ann", "bob"]);
    bob.sees_join("ann").await;
    operator.shutdown().await;
}

#[tokio::test]
async fn a_stale_socket_that_is_kept_gets_the_error_removed() {
    let server = ChatServer::start_with(&["--max-age", "1s"], &[("PRESENCE_ON_STALE", "keep")]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    ann.socket.refused("removed").await;
    ann.says("still here?").await;
    ann.socket.refused("not_joined").await;
}
