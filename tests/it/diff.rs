//! The mode `diff`, the default: the state first, then what changed, in a chain of versions without holes.

use crate::support::frame::ReceivedFrame;
use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::ClientSocket;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The keys of a JSON object.
fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[tokio::test]
async fn the_state_has_the_keys_of_the_contract_and_no_other() {
    let server = ChatServer::start(&[]).await;
    let state = ClientSocket::open(&server, &path("lobby", "ann")).await.value().await;
    assert_eq!(keys(&state), ["anonymous", "epoch", "me", "members", "room", "type", "version"].into());
    assert_eq!(state["members"], json!([{"user": "ann", "presences": [{"id": state["me"], "meta": {}}]}]));
    assert_eq!((&state["room"], &state["anonymous"]), (&json!("lobby"), &json!(0)));
}

#[tokio::test]
async fn a_diff_has_the_keys_of_the_contract_and_names_the_id_that_joined_and_left() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let bob = RoomClient::join(&server, "lobby", "bob").await;
    let diff = ann.socket.value().await;
    let expected = ["anonymous", "epoch", "from", "joins", "leaves", "room", "type", "updates", "version"];
    assert_eq!(keys(&diff), expected.into());
    assert_eq!(diff["joins"], json!([{"user": "bob", "id": bob.roster.me, "meta": {}}]));
    assert_eq!((&diff["leaves"], &diff["updates"]), (&json!([]), &json!([])));
    let id = bob.roster.me.clone();
    bob.leave().await;
    assert_eq!(ann.socket.value().await["leaves"], json!([{"user": "bob", "id": id, "meta": {}}]));
}

#[tokio::test]
async fn the_joiner_is_in_its_own_first_frame_and_hears_no_diff_of_itself() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    assert_eq!(ann.roster.names(), ["ann"]);
    ann.sees_nothing_before(&server, "bob").await;
}

#[tokio::test]
async fn a_second_tab_is_a_second_presence_of_the_same_user() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let tab = RoomClient::join(&server, "lobby", "ann").await;
    assert_eq!((tab.roster.names(), tab.roster.tabs("ann")), (vec!["ann"], 2));
    assert_ne!(tab.roster.me, ann.roster.me);
    ann.sees_join("ann").await;
    assert_eq!(ann.roster.ids(), tab.roster.ids());
    tab.leave().await;
    ann.sees_leave("ann").await;
    assert_eq!(ann.roster.tabs("ann"), 1);
}

#[tokio::test]
async fn anonymous_sockets_change_the_count_alone() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let mut ghost = RoomClient::join(&server, "lobby", None).await;
    assert_eq!((ghost.roster.names(), ghost.roster.anonymous), (vec!["ann"], 1));
    ann.sees_anonymous(1).await;
    let second = RoomClient::join(&server, "lobby", None).await;
    ann.sees_anonymous(2).await;
    ghost.sees_anonymous(2).await;
    second.leave().await;
    ann.sees_anonymous(1).await;
    ghost.sees_anonymous(1).await;
}

#[tokio::test]
async fn an_anonymous_socket_has_an_id_of_its_own_that_no_list_holds() {
    let server = ChatServer::start(&[]).await;
    let ann = RoomClient::join(&server, "lobby", "ann").await;
    let ghost = RoomClient::join(&server, "lobby", None).await;
    assert!(!ghost.roster.me.is_empty());
    assert_ne!(ghost.roster.me, ann.roster.me);
    assert!(ghost.roster.users.values().all(|presences| !presences.contains_key(&ghost.roster.me)));
}

#[tokio::test]
async fn all_members_hold_the_same_version_after_the_same_news() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    ann.sees_join("bob").await;
    let mut carl = RoomClient::join(&server, "lobby", "carl").await;
    ann.sees_join("carl").await;
    bob.sees_join("carl").await;
    for roster in [&ann.roster, &bob.roster] {
        assert_eq!((roster.version, &roster.epoch), (carl.roster.version, &carl.roster.epoch));
        assert_eq!(roster.users, carl.roster.users);
    }
    carl.updates(json!({"typing": true})).await;
    for member in [&mut ann, &mut bob, &mut carl] {
        assert_eq!(member.diff().await.updated(), [("carl", &json!({"typing": true}))]);
    }
    assert_eq!((ann.roster.version, bob.roster.version), (carl.roster.version, carl.roster.version));
}

#[tokio::test]
async fn an_epoch_outlives_a_member_and_belongs_to_one_room() {
    let server = ChatServer::start(&[]).await;
    let ann = RoomClient::join(&server, "lobby", "ann").await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let elsewhere = RoomClient::join(&server, "kitchen", "ann").await;
    assert_ne!(elsewhere.roster.epoch, ann.roster.epoch, "each room has an epoch of its own");
    assert_eq!(elsewhere.roster.names(), ["ann"]);
    let epoch = ann.roster.epoch.clone();
    ann.leave().await;
    bob.sees_leave("ann").await;
    assert_eq!(RoomClient::join(&server, "lobby", "carl").await.roster.epoch, epoch);
}

#[tokio::test]
async fn names_that_javascript_or_json_might_trip_over_are_names_like_others() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    for user in ["__proto__", "constructor", "null", "\"quoted\" \\ back", "</script>", "😀 ünï", "0", "{}"] {
        let member = RoomClient::join(&server, "lobby", user).await;
        ann.sees_join(user).await;
        member.leave().await;
        ann.sees_leave(user).await;
    }
}

#[tokio::test]
async fn the_server_sends_text_frames_and_nothing_that_was_not_asked_for() {
    let server = ChatServer::start(&[]).await;
    let mut ann = ClientSocket::open(&server, &path("lobby", "ann")).await;
    assert!(matches!(ann.next().await, ReceivedFrame::Text(_)));
    ann.ping(b"fence").await;
    assert_eq!(ann.next().await, ReceivedFrame::Pong("fence".into()));
}
