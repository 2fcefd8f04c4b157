//! The database is away for a while: what works without it, what is refused, and which notices are sent when it is back.

use crate::support::database::DatabaseLock;
use crate::support::http::{becomes, get};
use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, SLACK, secs};
use serde_json::json;
use tokio::time::Instant;

/// A join or an update gives up after `store_timeout`.
const STORE_TIMEOUT: u64 = 5;

#[tokio::test]
async fn sockets_and_messages_go_on_and_a_leave_is_told_when_the_database_is_back() {
    let server = ChatServer::start(&[]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut carl = RoomClient::join(&server, "lobby", "carl").await;
    bob.sees_join("carl").await;
    let ann = RoomClient::join(&server, "lobby", "ann").await;
    bob.sees_join("ann").await;
    carl.sees_join("ann").await;

    let lock = DatabaseLock::take(&server).await;
    ann.leave().await;
    for n in 0..10 {
        bob.says(&n.to_string()).await;
        bob.hears("bob", &n.to_string()).await;
        carl.hears("bob", &n.to_string()).await;
    }
    lock.release().await;
    bob.sees_leave("ann").await;
    carl.sees_leave("ann").await;
}

#[tokio::test]
async fn a_new_socket_is_told_when_to_try_again_and_is_served_when_the_database_is_back() {
    let server = ChatServer::start(&[]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let lock = DatabaseLock::take(&server).await;
    let begun = Instant::now();
    let response = HandshakeRequest::to(path("lobby", "ann")).open(server.address()).await.expect_err("a refusal");
    assert_eq!(response.status, 503, "{response:?}");
    assert!(begun.elapsed() <= secs(STORE_TIMEOUT) + SLACK, "after {:?}", begun.elapsed());
    let again = response.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(again.is_some_and(|seconds| seconds > 0), "{response:?}");
    lock.release().await;
    // Whatever of that join was under way: it is not announced, or it is and its leave follows.
    let ann = RoomClient::join(&server, "lobby", "ann").await;
    bob.until("the one Ann", |roster| roster.tabs("ann") == 1 && roster.users["ann"].contains_key(&ann.roster.me))
        .await;
}

#[tokio::test]
async fn a_join_and_an_update_are_refused_as_unavailable_and_the_socket_stays() {
    let server = ChatServer::start(&[]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    bob.sees_join("ann").await;
    ann.socket.json(json!({"type": "leave"})).await;
    bob.sees_leave("ann").await;
    let lock = DatabaseLock::take(&server).await;
    bob.updates(json!({"a": 1})).await;
    ann.socket.json(json!({"type": "join"})).await;
    bob.socket.refused("unavailable").await;
    ann.socket.refused("unavailable").await;
    lock.release().await;
    ann.socket.json(json!({"type": "join"})).await;
    ann.first_again().await;
    bob.until("Ann's return", |roster| roster.tabs("ann") == 1).await;
}

#[tokio::test]
async fn readiness_goes_and_comes_back_with_the_database_and_health_stays() {
    let server = ChatServer::start(&[]).await;
    becomes(&server, "/readyz", 200, BOUND).await;
    let lock = DatabaseLock::take(&server).await;
    // Noticed at the latest when the lease (10 s) could not be renewed.
    becomes(&server, "/readyz", 503, secs(10) + BOUND).await;
    assert_eq!(get(server.address(), "/healthz").await.status, 200);
    lock.release().await;
    becomes(&server, "/readyz", 200, secs(10) + BOUND).await;
}

#[tokio::test]
async fn an_outage_longer_than_a_lease_makes_nobody_leave() {
    let server = ChatServer::start(&[]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let _ann = RoomClient::join(&server, "lobby", "ann").await;
    bob.sees_join("ann").await;
    let lock = DatabaseLock::take(&server).await;
    becomes(&server, "/readyz", 503, secs(10) + BOUND).await;
    lock.release().await;
    becomes(&server, "/readyz", 200, secs(10) + BOUND).await;
    bob.sees_nothing_before(&server, "eve").await;
    assert_eq!(bob.roster.names(), ["ann", "bob", "eve"]);
}
