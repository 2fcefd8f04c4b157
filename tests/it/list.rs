//! The mode `list`: on every change the whole list, to every member.

use crate::support::member::path;
use crate::support::millis;
use crate::support::server::Server;
use crate::support::socket::Socket;
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(&["--notify", "list"]).await
}

fn list(members: &[&str], lurkers: u64) -> Value {
    json!({"type": "presence", "payload": {"channel_name": "lobby", "members": members, "lurkers": lurkers}})
}

async fn join<'a>(server: &Server, user: impl Into<Option<&'a str>>) -> Socket {
    Socket::open(server, &path("lobby", user)).await
}

// behaviour: 3 joiner-sees-own-join
// behaviour: 3 first-frame
#[tokio::test]
async fn the_joiner_first_gets_the_list_with_itself_in_it() {
    let server = server().await;
    join(&server, "ann").await.hears(list(&["ann"], 0)).await;
}

#[tokio::test]
async fn a_join_gives_every_member_the_whole_list() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = join(&server, "bob").await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
}

#[tokio::test]
async fn a_leave_gives_those_who_stay_the_whole_list() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = join(&server, "bob").await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
    bob.leave().await;
    ann.hears(list(&["ann"], 0)).await;
}

#[tokio::test]
async fn a_second_tab_is_a_change_that_tells_the_same_list_again() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut tab = join(&server, "ann").await;
    tab.hears(list(&["ann"], 0)).await;
    ann.hears(list(&["ann"], 0)).await;
    tab.leave().await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = join(&server, "bob").await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
}

// behaviour: 2.7 anonymous-sockets
#[tokio::test]
async fn anonymous_sockets_are_counted_and_get_the_list_too() {
    let server = server().await;
    let mut first = join(&server, None).await;
    first.hears(list(&[], 1)).await;
    let mut second = join(&server, None).await;
    second.hears(list(&[], 2)).await;
    first.hears(list(&[], 2)).await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 2)).await;
    first.hears(list(&["ann"], 2)).await;
    second.hears(list(&["ann"], 2)).await;
    second.leave().await;
    first.hears(list(&["ann"], 1)).await;
    ann.hears(list(&["ann"], 1)).await;
}

#[tokio::test]
async fn names_are_sorted_by_bytes() {
    let server = server().await;
    let mut first = join(&server, "b").await;
    first.hears(list(&["b"], 0)).await;
    let sorted = ["10", "9", "Z", "_", "a", "b", "ä", "日本", "😀"];
    let mut here = vec!["b"];
    let mut sockets = Vec::new();
    for user in ["😀", "a", "ä", "Z", "9", "10", "日本", "_"] {
        here.push(user);
        let expected: Vec<_> = sorted.into_iter().filter(|name| here.contains(name)).collect();
        let mut socket = join(&server, user).await;
        socket.hears(list(&expected, 0)).await;
        first.hears(list(&expected, 0)).await;
        sockets.push(socket);
    }
}

#[tokio::test]
async fn an_update_is_not_told() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    ann.json(json!({"type": "update", "meta": {"away": true}})).await;
    // Frames of one socket are handled in order: when this is heard, the update has been.
    ann.text("still here").await;
    ann.hears(json!({"type": "message", "from": "ann", "text": "still here"})).await;
    let mut bob = join(&server, "bob").await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
}

#[tokio::test]
async fn who_left_and_comes_back_gets_the_list_and_so_do_the_others() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = join(&server, "bob").await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
    bob.json(json!({"type": "leave"})).await;
    ann.hears(list(&["ann"], 0)).await;
    bob.json(json!({"type": "join"})).await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
}

#[tokio::test]
async fn rooms_do_not_hear_of_one_another() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut elsewhere = Socket::open(&server, &path("kitchen", "zoe")).await;
    let payload = json!({"channel_name": "kitchen", "members": ["zoe"], "lurkers": 0});
    elsewhere.hears(json!({"type": "presence", "payload": payload})).await;
    elsewhere.text("anyone?").await;
    elsewhere.hears(json!({"type": "message", "from": "zoe", "text": "anyone?"})).await;
    elsewhere.leave().await;
    let mut bob = join(&server, "bob").await;
    bob.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
}

#[tokio::test]
async fn who_falls_silent_or_breaks_off_is_gone_from_the_list_like_one_who_leaves() {
    let server = Server::start(&["--notify", "list", "--max-age", "2s"]).await;
    let mut ann = join(&server, "ann").await;
    ann.beats_every(millis(400));
    ann.hears(list(&["ann"], 0)).await;
    let mut silent = join(&server, "bob").await;
    silent.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann", "bob"], 0)).await;
    ann.hears(list(&["ann"], 0)).await;
    assert_eq!(silent.closing().await, Some(4408));
    let mut broken = join(&server, "carl").await;
    broken.hears(list(&["ann", "carl"], 0)).await;
    ann.hears(list(&["ann", "carl"], 0)).await;
    broken.reset();
    ann.hears(list(&["ann"], 0)).await;
}
