//! Before the upgrade: what is accepted, what is refused, and with which status.

use crate::support::frame::Raw;
use crate::support::http::Response;
use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;

/// The response to a handshake that must not succeed.
async fn refusal(server: &ChatServer, upgrade: HandshakeRequest) -> Response {
    match upgrade.open(server.address()).await {
        Ok(socket) => panic!("{socket:?} was accepted"),
        Err(response) => response,
    }
}

async fn is_client_error(server: &ChatServer, upgrade: HandshakeRequest) {
    let response = refusal(server, upgrade).await;
    assert!((400..500).contains(&response.status), "{response:?}");
}

#[tokio::test]
async fn a_right_request_is_upgraded_with_the_proof_of_the_rfc() {
    let server = ChatServer::start(&[]).await;
    let socket = HandshakeRequest::to("/ws/lobby?user=ann").open(server.address()).await;
    RoomClient::begin(socket.expect("an upgrade, with the Sec-WebSocket-Accept that the client checks")).await;
}

#[tokio::test]
async fn header_names_and_values_are_matched_as_http_matches_them() {
    let server = ChatServer::start(&[]).await;
    let upgrade = HandshakeRequest::to("/ws/lobby?user=ann")
        .with("Connection", "keep-alive, upgrade")
        .with("Upgrade", "WebSocket")
        .open(server.address())
        .await;
    upgrade.expect("what Firefox sends");
}

#[tokio::test]
async fn a_request_that_is_no_handshake_is_the_clients_error() {
    let server = ChatServer::start(&[]).await;
    let right = || HandshakeRequest::to("/ws/lobby?user=ann");
    is_client_error(&server, right().without("Upgrade")).await;
    is_client_error(&server, right().without("Connection")).await;
    is_client_error(&server, right().without("Sec-WebSocket-Key")).await;
    is_client_error(&server, right().without("Sec-WebSocket-Version")).await;
    is_client_error(&server, right().with("Upgrade", "h2c")).await;
    is_client_error(&server, right().with("Connection", "close")).await;
    is_client_error(&server, right().with("Sec-WebSocket-Version", "12")).await;
    is_client_error(&server, right().method("POST").with("Content-Length", "0")).await;
}

/// The status and the body of a refusal that names the version which is spoken here.
async fn reason(server: &ChatServer, upgrade: HandshakeRequest) -> (u16, String) {
    let Response { status, body, headers } = refusal(server, upgrade).await;
    let version = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-version"));
    assert_eq!(version.map(|(_, value)| &**value), Some("13"), "{status} {body}");
    (status, body)
}

#[tokio::test]
async fn what_rfc_6455_refuses_is_refused_with_a_status_and_a_reason() {
    let server = ChatServer::start(&[]).await;
    let right = || HandshakeRequest::to("/ws/lobby?user=ann");
    let key = "Sec-WebSocket-Key";
    for version in ["7", "8", "12", "25", "0", "13, 8", "13.0", "thirteen"] {
        let response = refusal(&server, right().with("Sec-WebSocket-Version", version)).await;
        let named = (response.header("sec-websocket-version"), response.header("upgrade"));
        assert_eq!((response.status, named), (426, (Some("13"), Some("websocket"))), "version {version}");
    }
    for wrong in
        ["", "abc", "AAAAAAAAAAAAAAAAAAAAAAAA", "dGhlIHNhbXBsZSBub25jZQ", "!Ghl!HNhbXBsZSBub25jZQ==", &"A".repeat(200)]
    {
        assert_eq!(reason(&server, right().with(key, wrong)).await, (400, "unknown WebSocket key".into()), "{wrong:?}");
    }
    for (upgrade, word) in [
        (right().and(key, "AQIDBAUGBwgJCgsMDQ4PEA=="), key),
        (right().and("Sec-WebSocket-Version", "13"), "Sec-WebSocket-Version"),
        (right().with("Origin", "http://a.example").and("Origin", "http://a.example"), "Origin"),
        (right().version("HTTP/1.0"), "HTTP/1.1"),
        (right().with("Upgrade", "h2c, websocket"), "Upgrade"),
        (right().with("Upgrade", "foo/1, websocket"), "Upgrade"),
        (right().with("Upgrade", "websocketx"), "Upgrade"),
    ] {
        let (status, body) = reason(&server, upgrade).await;
        assert!(status == 400 && body.contains(word), "{word}: {status} {body}");
    }
    assert!(!server.log().contains("WARN"), "{}", server.log());
}

#[tokio::test]
async fn a_foreign_origin_behind_the_own_one_is_refused() {
    let server = ChatServer::start(&["--allow-origin", "*"]).await;
    let own = format!("http://{}", server.address());
    let both = HandshakeRequest::to("/ws/lobby?user=ann").with("Origin", own).and("Origin", "http://evil.example");
    assert_eq!(reason(&server, both).await.0, 400);
}

#[tokio::test]
async fn what_comes_before_the_answer_and_is_no_frame_is_answered_and_leaves_nobody_in_the_room() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let bob = || HandshakeRequest::to(path("lobby", "bob"));
    for early in [
        b"GET /healthz HTTP/1.1\r\nHost: chat.example\r\n\r\n".to_vec(),
        b"\xff\xff\xff\xff".to_vec(),
        Raw::close(1000, b"").encode(),
        Raw::close(1001, b"").encode(),
    ] {
        let response = refusal(&server, bob().followed_by(early.clone())).await;
        assert_eq!((response.status, response.body.is_empty()), (400, false), "{early:?}");
    }
    // A client that ends its half of the connection, as a client does that sends nothing more.
    let mut socket = bob().send(server.address()).await.unwrap();
    socket.end_writing().await;
    let response = socket.answered().await.expect_err("a status");
    assert_eq!((response.status, response.body.is_empty()), (400, false));
    let eve = RoomClient::join(&server, "lobby", "eve").await;
    assert_eq!(eve.roster.users.keys().collect::<Vec<_>>(), ["ann", "eve"]);
    ann.until("eve", |roster| roster.users.contains_key("eve")).await;
    assert_eq!(ann.roster.users.len(), 2);
    assert!(!server.log().contains("WARN"), "{}", server.log());
}

#[tokio::test]
async fn a_refused_handshake_is_noticed_by_nobody() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    is_client_error(&server, HandshakeRequest::to("/ws/lobby?user=bob").without("Sec-WebSocket-Key")).await;
    is_client_error(&server, HandshakeRequest::to("/ws/lobby?user=bob").with("Origin", "http://evil.example")).await;
    is_client_error(&server, HandshakeRequest::to("/ws/lobby?user=bob&user=bob")).await;
    ann.sees_nothing_before(&server, "eve").await;
}

#[tokio::test]
async fn frames_sent_together_with_the_handshake_are_not_lost() {
    let server = ChatServer::start(&[]).await;
    let mut socket = HandshakeRequest::to(path("lobby", "ann")).send(server.address()).await.unwrap();
    socket.text("early").await;
    let mut ann = RoomClient::begin(socket.answered().await.expect("an upgrade")).await;
    ann.hears("ann", "early").await;
}

/// What a page of `origin` gets that opens a socket to the server by the name `host`.
async fn status_from(server: &ChatServer, host: Option<&str>, origin: &str) -> u16 {
    let mut upgrade = HandshakeRequest::to("/ws/lobby?user=ann").with("Origin", origin);
    if let Some(host) = host {
        upgrade = upgrade.with("Host", host);
    }
    upgrade.open(server.address()).await.map_or_else(|response| response.status, |_| 101)
}

#[tokio::test]
async fn a_page_of_the_servers_own_may_open_a_socket() {
    let server = ChatServer::start(&[]).await;
    let address = server.address();
    assert_eq!(status_from(&server, None, &format!("http://{address}")).await, 101);
    let port = address.port();
    let host = format!("localhost:{port}");
    assert_eq!(status_from(&server, Some(&host), &format!("http://localhost:{port}")).await, 101);
    assert_eq!(status_from(&server, Some("chat.example"), "http://chat.example").await, 101);
}

#[tokio::test]
async fn a_page_of_another_origin_may_not() {
    let server = ChatServer::start(&[]).await;
    let address = server.address();
    let port = address.port();
    for origin in [
        "http://evil.example".to_owned(),
        format!("https://127.0.0.1:{}", port ^ 1),
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
async fn a_page_behind_a_proxy_that_ends_tls_may_if_the_proxy_shows_the_host() {
    let server = ChatServer::start(&[]).await;
    let status = async |host: &str, headers: &[(&'static str, &str)], origin: &str| {
        let upgrade = HandshakeRequest::to("/ws/lobby?user=ann").with("Host", host).with("Origin", origin);
        let upgrade = headers.iter().fold(upgrade, |upgrade, (name, value)| upgrade.with(name, *value));
        upgrade.open(server.address()).await.map_or_else(|response| response.status, |_| 101)
    };
    let (page, proto) = ("https://chat.example", "X-Forwarded-Proto");
    // HAProxy; Traefik; Apache; a chain; RFC 7239; nginx with `$host`, with and without the port beside it.
    assert_eq!(status("chat.example", &[], page).await, 101);
    assert_eq!(status("chat.example", &[(proto, "wss"), ("X-Forwarded-Port", "443")], page).await, 101);
    assert_eq!(status("10.0.0.1:8080", &[("X-Forwarded-Host", "chat.example")], page).await, 101);
    assert_eq!(status("inner", &[(proto, "https,http"), ("X-Forwarded-Host", "chat.example, inner")], page).await, 101);
    assert_eq!(status("inner", &[("Forwarded", "for=192.0.2.1;host=chat.example;proto=https")], page).await, 101);
    let page = "https://chat.example:8443";
    assert_eq!(status("chat.example", &[(proto, "https"), ("X-Forwarded-Port", "8443")], page).await, 101);
    // A page on another port of the same machine sends the very same request.
    assert_eq!(status("chat.example", &[(proto, "https")], page).await, 403);
    // What an attacker on the line can change gets nowhere.
    assert_eq!(status("chat.example", &[(proto, "https")], "http://chat.example").await, 403);
    assert_eq!(status("chat.example", &[(proto, "wss")], "http://chat.example").await, 403);
}

#[tokio::test]
async fn a_refused_origin_is_a_warning_that_says_what_would_have_been_right_and_whence() {
    let server = ChatServer::start(&[]).await;
    let upgrade =
        HandshakeRequest::to("/ws/lobby?user=ann&session=secret-secret-secret").with("Host", "127.0.0.1:3000");
    let response = refusal(&server, upgrade.with("Origin", "https://chat.example")).await;
    assert_eq!(response.status, 403);
    let log = server.log();
    let warned: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    let [line] = warned[..] else { panic!("one warning: {log}") };
    for part in [
        "https://chat.example",
        "http://127.0.0.1:3000 or https://127.0.0.1:3000",
        "Host, no X-Forwarded-Proto",
        "/ws/lobby",
        "peer=127.0.0.1:",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(!line.contains("secret"), "{line}");
}

#[tokio::test]
async fn a_listed_origin_may_and_only_as_listed() {
    let server =
        ChatServer::start(&["--allow-origin", "https://a.example, http://b.example:8443,tauri://localhost,"]).await;
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
