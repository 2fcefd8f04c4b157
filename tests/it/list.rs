//! The mode `list`: on every change the whole list, to every member.

use crate::support::member::path;
use crate::support::server::ChatServer;
use crate::support::socket::ClientSocket;
use serde_json::{Value, json};

async fn server() -> ChatServer {
    ChatServer::start(&["--notify", "list"]).await
}

fn list(members: &[&str], lurkers: u64) -> Value {
    json!({"type": "presence", "payload": {"channel_name": "lobby", "members": members, "lurkers": lurkers}})
}

async fn join<'a>(server: &ChatServer, user: impl Into<Option<&'a str>>) -> ClientSocket {
    ClientSocket::open(server, &path("lobby", user)).await
}

// behaviour: 2.7 anonymous-sockets; 3 documented-receiver; 3 first-frame; 3 joiner-sees-own-join
#[tokio::test]
async fn each_change_sends_every_member_the_whole_list_and_a_joiner_gets_it_first_with_itself_in_it() {
    let server = server().await;
    let mut ann = join(&server, "ann").await;
    ann.hears(list(&["ann"], 0)).await;
    let mut bob = join(&server, "bob").await;
    for client in [&mut ann, &mut bob] {
        client.hears(list(&["ann", "bob"], 0)).await;
    }
    // A second tab changes nothing in the list, which is sent all the same.
    let mut tab = join(&server, "ann").await;
    for client in [&mut ann, &mut bob, &mut tab] {
        client.hears(list(&["ann", "bob"], 0)).await;
    }
    let mut guest = join(&server, None).await;
    for client in [&mut ann, &mut bob, &mut tab, &mut guest] {
        client.hears(list(&["ann", "bob"], 1)).await;
    }
    let mut second = join(&server, None).await;
    for client in [&mut ann, &mut bob, &mut tab, &mut guest, &mut second] {
        client.hears(list(&["ann", "bob"], 2)).await;
    }
    tab.leave().await;
    for client in [&mut ann, &mut bob, &mut guest, &mut second] {
        client.hears(list(&["ann", "bob"], 2)).await;
    }
    second.leave().await;
    for client in [&mut ann, &mut bob, &mut guest] {
        client.hears(list(&["ann", "bob"], 1)).await;
    }
    ann.reset();
    for client in [&mut bob, &mut guest] {
        client.hears(list(&["bob"], 1)).await;
    }
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
