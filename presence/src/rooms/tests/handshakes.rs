//! Handshakes: the limits of their size, what is kept of them, and which time counts.

use super::prelude::*;
use crate::testing::upgrade_request;

/// Answers a frame with the session that it found in `connect`, and with what is left of the request.
#[derive(Default)]
struct HeaderReader(Option<String>);

impl Consumer for HeaderReader {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        self.0 = socket.handshake().header("x-session").map(str::to_owned);
        Ok(())
    }

    async fn receive(&mut self, socket: &mut Socket, _: Frame) -> Result<()> {
        let scope = socket.handshake();
        let left = format!("{} headers, {}?{}", scope.headers.len(), scope.path, scope.query);
        socket.send(format!("{:?}, {left}", self.0)).await
    }
}

#[actix::test]
async fn the_headers_of_a_request_are_available_in_connect_only() {
    let node = node_with(config()).await;
    let req = upgrade_request().uri("/ws/lobby?a=b").insert_header(("x-session", "secret"));
    let mut socket = TestSocket::connect_with(TestSocket::upgrade(&node.rooms), HeaderReader::default(), req)
        .await
        .expect("accepted");
    socket.send_text("x");
    assert_eq!(socket.receive_text().await, "Some(\"secret\"), 0 headers, /ws/lobby?a=b");
}

#[actix::test]
async fn headers_whose_memory_would_be_kept_are_bounded() {
    let node = node_with(config().max_header_bytes(10_000)).await;
    let own: usize = upgrade_request()
        .to_http_request()
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    for (more, status) in [(0, None), (1, Some(431))] {
        let cookie = "x".repeat(10_000 - own - "cookie: \r\n".len() + more);
        let req = upgrade_request().insert_header(("cookie", cookie));
        let connected = TestSocket::connect_with(TestSocket::upgrade(&node.rooms), HeaderReader::default(), req).await;
        assert_eq!(connected.err().map(|refused| refused.status.as_u16()), status);
    }
}

#[actix::test]
async fn a_path_that_would_be_kept_is_bounded() {
    let node = node_with(config()).await;
    let path = |bytes: usize| format!("/{}?{}", "x".repeat(100), "y".repeat(bytes - 102));
    for (bytes, status) in [(8192, None), (8193, Some(414))] {
        let req = upgrade_request().uri(&path(bytes));
        let connected = TestSocket::connect_with(TestSocket::upgrade(&node.rooms), HeaderReader::default(), req).await;
        assert_eq!(connected.err().map(|refused| refused.status.as_u16()), status);
    }
}

/// Joins two rooms when it connects.
struct InTwo;

impl Consumer for InTwo {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await?;
        socket.join(&room("attic")).await
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn the_wait_for_a_notice_of_a_busy_room_does_not_count_as_time_of_the_handshake() {
    // The handshake was answered with 500, and the log named the consumer as the cause.
    let node = node_with(config().notify_interval(secs(4)).handshake_timeout(secs(1))).await;
    for name in [lobby(), &room("attic")] {
        node.stir(name).await;
    }
    let began = node.rooms.this_node().now();
    let socket = TestSocket::connect(TestSocket::upgrade(&node.rooms), InTwo).await;
    let took = node.rooms.this_node().now().since(began);
    assert!(socket.is_ok() && took > secs(2), "{took:?}");
}

/// An error that panics when it is formatted, or when it is dropped.
#[derive(Debug)]
enum Panicking {
    Formatted,
    Dropped,
}

impl std::error::Error for Panicking {}

impl std::fmt::Display for Panicking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(matches!(self, Self::Dropped), "a test made this error panic");
        f.write_str("no")
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        assert!(matches!(self, Self::Formatted), "a test made this error panic");
    }
}

/// Fails in `connect`, when it is in the lobby.
struct FailsInLobby(Option<Panicking>);

impl Consumer for FailsInLobby {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        socket.join(lobby()).await?;
        self.0.take().map_or(Ok(()), |error| Err(Error::other(error)))
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

#[actix::test]
async fn a_handshake_that_fails_with_an_error_that_panics_is_answered_with_500() {
    // The panic ended the connection without an answer.
    let node = node_with(config()).await;
    for error in [Panicking::Formatted, Panicking::Dropped] {
        let consumer = FailsInLobby(Some(error));
        let refused = TestSocket::connect(TestSocket::upgrade(&node.rooms), consumer).await.err();
        assert_eq!(refused.map(|refused| refused.status.as_u16()), Some(500));
        settle().await;
        assert_eq!(node.names(lobby()).await, NONE);
    }
}
