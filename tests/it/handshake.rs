//! Before the upgrade: what is accepted, what is refused, and with which status.

use crate::support::http::Response;
use crate::support::member::{Member, path};
use crate::support::server::Server;
use crate::support::socket::Upgrade;

/// The response to a handshake that must not succeed.
async fn refusal(server: &Server, upgrade: Upgrade) -> Response {
    match upgrade.open(server.address()).await {
        Ok(socket) => panic!("{socket:?} was accepted"),
        Err(response) => response,
    }
}

async fn is_client_error(server: &Server, upgrade: Upgrade) {
    let response = refusal(server, upgrade).await;
    assert!((400..500).contains(&response.status), "{response:?}");
}

#[tokio::test]
async fn a_right_request_is_upgraded_with_the_proof_of_the_rfc() {
    let server = Server::start(&[]).await;
    let socket = Upgrade::to("/ws/lobby?user=ann").open(server.address()).await;
    Member::begin(socket.expect("an upgrade, with the Sec-WebSocket-Accept that the client checks")).await;
}

#[tokio::test]
async fn header_names_and_values_are_matched_as_http_matches_them() {
    let server = Server::start(&[]).await;
    let upgrade = Upgrade::to("/ws/lobby?user=ann")
        .with("Connection", "keep-alive, upgrade")
        .with("Upgrade", "WebSocket")
        .open(server.address())
        .await;
    upgrade.expect("what Firefox sends");
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_the_clients_error() {
    let server = Server::start(&[]).await;
    let right = || Upgrade::to("/ws/lobby?user=ann");
    is_client_error(&server, right().without("Upgrade")).await;
    is_client_error(&server, right().without("Connection")).await;
    is_client_error(&server, right().without("Sec-WebSocket-Key")).await;
    is_client_error(&server, right().without("Sec-WebSocket-Version")).await;
    is_client_error(&server, right().with("Upgrade", "h2c")).await;
    is_client_error(&server, right().with("Connection", "close")).await;
    is_client_error(&server, right().with("Sec-WebSocket-Version", "12")).await;
    is_client_error(&server, right().method("POST").with("Content-Length", "0")).await;
}

#[tokio::test]
async fn a_refused_handshake_is_noticed_by_nobody() {
    let server = Server::start(&[]).await;
    let mut ann = Member::join(&server, "lobby", "ann").await;
    is_client_error(&server, Upgrade::to("/ws/lobby?user=bob").without("Sec-WebSocket-Key")).await;
    is_client_error(&server, Upgrade::to("/ws/lobby?user=bob").with("Origin", "http://evil.example")).await;
    is_client_error(&server, Upgrade::to("/ws/lobby?user=bob&user=bob")).await;
    ann.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn frames_sent_together_with_the_handshake_are_not_lost() {
    let server = Server::start(&[]).await;
    let mut socket = Upgrade::to(path("lobby", "ann")).send(server.address()).await.unwrap();
    socket.text("early").await;
    let mut ann = Member::begin(socket.answered().await.expect("an upgrade")).await;
    ann.hears("ann", "early").await;
}

/// What a page of `origin` gets that opens a socket to the server by the name `host`.
async fn status_from(server: &Server, host: Option<&str>, origin: &str) -> u16 {
    let mut upgrade = Upgrade::to("/ws/lobby?user=ann").with("Origin", origin);
    if let Some(host) = host {
        upgrade = upgrade.with("Host", host);
    }
    upgrade.open(server.address()).await.map_or_else(|response| response.status, |_| 101)
}

#[tokio::test]
async fn a_page_of_the_servers_own_may_open_a_socket() {
    let server = Server::start(&[]).await;
    let address = server.address();
    assert_eq!(status_from(&server, None, &format!("http://{address}")).await, 101);
    let port = address.port();
    let host = format!("localhost:{port}");
    assert_eq!(status_from(&server, Some(&host), &format!("http://localhost:{port}")).await, 101);
    assert_eq!(status_from(&server, Some("chat.example"), "http://chat.example").await, 101);
}

#[tokio::test]
async fn a_page_of_another_origin_may_not() {
    let server = Server::start(&[]).await;
    let address = server.address();
    let port = address.port();
    for origin in [
        "http://evil.example".to_owned(),
        format!("https://{address}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        "http://127.0.0.1".to_owned(),
        format!("http://localhost:{port}"),
        format!("http://{address}.evil.example"),
        format!("http://evil.example/{address}"),
        "null".to_owned(),
        "file://".to_owned(),
        "garbage".to_owned(),
        String::new(),
    ] {
        assert_eq!(status_from(&server, None, &origin).await, 403, "from {origin:?}");
    }
}

#[tokio::test]
async fn a_listed_origin_may_and_only_as_listed() {
    let server =
        Server::start(&["--allow-origin", "https://a.example, http://b.example:8443,tauri://localhost,"]).await;
    let own = format!("http://{}", server.address());
    for (origin, status) in [
        ("https://a.example", 101),
        ("http://b.example:8443", 101),
        ("tauri://localhost", 101),
        (&own, 101),
        ("http://a.example", 403),
        ("https://a.example:8443", 403),
        ("http://b.example", 403),
        ("https://c.a.example", 403),
        ("https://a.example.evil.example", 403),
    ] {
        assert_eq!(status_from(&server, None, origin).await, status, "from {origin:?}");
    }
}
