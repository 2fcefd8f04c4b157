//! The mode `events`: one frame for each user that comes or goes.

use crate::support::member::path;
use crate::support::millis;
use crate::support::server::ChatServer;
use crate::support::socket::ClientSocket;
use serde_json::{Value, json};

async fn server() -> ChatServer {
    ChatServer::start(&["--notify", "events"]).await
}

fn list(members: &[&str], lurkers: u64) -> Value {
    json!({"type": "presence", "payload": {"channel_name": "lobby", "members": members, "lurkers": lurkers}})
}

fn event<'a>(kind: &str, user: impl Into<Option<&'a str>>) -> Value {
    json!({"type": kind, "user": user.into()})
}

/// Joins and reads the first frame, which must show these.
async fn join<'a>(
    server: &ChatServer,
    user: impl Into<Option<&'a str>>,
    members: &[&str],
    lurkers: u64,
) -> ClientSocket {
    let mut socket = ClientSocket::open(server, &path("lobby", user)).await;
    socket.hears(list(members, lurkers)).await;
    socket
}

// behaviour: W24 first-and-last
#[tokio::test]
async fn only_the_first_tab_joins_and_only_the_last_one_leaves() {
    let server = server().await;
    let mut ann = join(&server, "ann", &["ann"], 0).await;
    let tab = join(&server, "bob", &["ann", "bob"], 0).await;
    ann.hears(event("join", "bob")).await;
    let mut second = join(&server, "bob", &["ann", "bob"], 0).await;
    let _carl = join(&server, "carl", &["ann", "bob", "carl"], 0).await;
    ann.hears(event("join", "carl")).await;
    second.hears(event("join", "carl")).await;
    tab.leave().await;
    let _dan = join(&server, "dan", &["ann", "bob", "carl", "dan"], 0).await;
    ann.hears(event("join", "dan")).await;
    second.leave().await;
    ann.hears(event("leave", "bob")).await;
}

#[tokio::test]
async fn each_anonymous_socket_is_an_event_without_a_name() {
    let server = server().await;
    let mut ann = join(&server, "ann", &["ann"], 0).await;
    let mut first = join(&server, None, &["ann"], 1).await;
    ann.hears(event("join", None)).await;
    let second = join(&server, None, &["ann"], 2).await;
    ann.hears(event("join", None)).await;
    first.hears(event("join", None)).await;
    second.leave().await;
    ann.hears(event("leave", None)).await;
    first.hears(event("leave", None)).await;
}

#[tokio::test]
async fn an_update_is_not_told() {
    let server = server().await;
    let mut ann = join(&server, "ann", &["ann"], 0).await;
    ann.json(json!({"type": "update", "meta": {"away": true}})).await;
    ann.text("still here").await;
    ann.hears(json!({"type": "message", "from": "ann", "text": "still here"})).await;
    let _bob = join(&server, "bob", &["ann", "bob"], 0).await;
    ann.hears(event("join", "bob")).await;
}

#[tokio::test]
async fn who_left_and_comes_back_gets_the_list_and_the_others_both_events() {
    let server = server().await;
    let mut ann = join(&server, "ann", &["ann"], 0).await;
    let mut bob = join(&server, "bob", &["ann", "bob"], 0).await;
    ann.hears(event("join", "bob")).await;
    bob.json(json!({"type": "leave"})).await;
    ann.hears(event("leave", "bob")).await;
    bob.json(json!({"type": "join"})).await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(event("join", "bob")).await;
}

#[tokio::test]
async fn who_falls_silent_or_breaks_off_is_told_like_one_who_leaves() {
    let server = ChatServer::start(&["--notify", "events", "--max-age", "2s"]).await;
    let mut ann = join(&server, "ann", &["ann"], 0).await;
    ann.beats_every(millis(400));
    let mut silent = join(&server, "bob", &["ann", "bob"], 0).await;
    ann.hears(event("join", "bob")).await;
    ann.hears(event("leave", "bob")).await;
    assert_eq!(silent.closing().await, Some(4408));
    let broken = join(&server, None, &["ann"], 1).await;
    ann.hears(event("join", None)).await;
    broken.reset();
    ann.hears(event("leave", None)).await;
}
