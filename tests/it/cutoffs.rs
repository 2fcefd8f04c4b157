//! What the log contains, at its default level, about sockets that are cut off.

use crate::support::frame::Raw;
use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, eventually, millis, secs, within};

/// As small as the kernel lets it be.
const TINY: u32 = 4096;

/// The lines about sockets that were cut off, once there are so many.
async fn lines(server: &ChatServer, count: usize) -> Vec<String> {
    eventually(BOUND, &format!("{count} lines about sockets that were cut off"), async || {
        let log = server.log();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("a socket is cut off")).map(str::to_owned).collect();
        if lines.len() == count { Ok(lines) } else { Err(log) }
    })
    .await
}

/// The one line names the user, the room, the address and the cause.
async fn says(server: &ChatServer, socket: &ClientSocket, level: &str, user: &str, cause: &str) {
    let line = lines(server, 1).await.remove(0);
    let peer = format!("peer={}", socket.local());
    for part in [level, &format!("user={user} "), "rooms=\"lobby\"", "channel=ws.", &peer, cause] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}

#[tokio::test]
async fn one_who_falls_silent_is_logged_with_user_room_address_and_cause() {
    let server = ChatServer::start(&["--max-age", "1s"]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    assert_eq!(ann.socket.closing().await, Some(4408));
    says(&server, &ann.socket, "INFO", "ann", "cause=stale").await;
}

#[tokio::test]
async fn one_who_does_not_answer_a_ping_is_logged_with_user_room_address_and_cause() {
    let quick = [("PRESENCE_PING_INTERVAL", "300ms"), ("PRESENCE_PONG_TIMEOUT", "300ms")];
    let server = ChatServer::start_with(&[], &quick).await;
    let ann = RoomClient::join(&server, "lobby", "ann").await;
    says(&server, &ann.socket, "INFO", "ann", "cause=no answer to a ping").await;
}

#[tokio::test]
async fn one_who_breaks_the_protocol_is_logged_with_user_room_address_and_cause() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    ann.socket.send(Raw::new(3, "x")).await;
    assert_eq!(ann.socket.closing().await, Some(1002));
    says(&server, &ann.socket, "WARN", "ann", "cause=protocol violation").await;
}

#[tokio::test]
async fn one_who_sends_too_much_is_logged_with_user_room_address_and_cause() {
    let server = ChatServer::start(&[]).await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    ann.socket.send(Raw::text("").declaring(1 << 30)).await;
    assert_eq!(ann.socket.closing().await, Some(1009));
    says(&server, &ann.socket, "WARN", "ann", "cause=over a limit: frame too large (1009)").await;
}

#[tokio::test]
async fn one_who_does_not_read_is_logged_with_user_room_address_and_cause() {
    let quick = [("PRESENCE_OUTBOX_BYTES", "65536"), ("PRESENCE_WRITE_TIMEOUT", "1s")];
    let server = ChatServer::start_with(&[], &quick).await;
    let upgrade = HandshakeRequest::to(path("lobby", "ann")).receive_buffer(TINY);
    let ann = RoomClient::begin(upgrade.open(server.address()).await.unwrap()).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let text = "x".repeat(30 * 1024);
    within(secs(60), "ann to be cut off", async {
        while bob.roster.tabs("ann") == 1 {
            bob.says(&text).await;
            bob.told().await;
        }
    })
    .await;
    says(&server, &ann.socket, "WARN", "ann", "cause=too slow").await;
}

#[tokio::test]
async fn one_who_floods_is_slowed_and_told_then_closed_with_1008_and_logged_and_hurts_nobody() {
    let rates = [("PRESENCE_MESSAGES_PER_SECOND", "50"), ("PRESENCE_RATE_PATIENCE", "300ms")];
    let server = ChatServer::start_with(&[], &rates).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    bob.sees_join("ann").await;
    // Five seconds' worth goes at once. For the rest she is slowed by 300 ms, and ten times what she had left unused by now: 6 s at most.
    ann.socket.try_bytes(&Raw::text("\"heartbeat\"").encode().repeat(2000)).await.unwrap();
    ann.socket.refused("too_fast").await;
    bob.says("meanwhile").await;
    bob.hears("bob", "meanwhile").await;
    ann.hears("bob", "meanwhile").await;
    assert_eq!(ann.socket.closing().await, Some(1008));
    bob.sees_leave("ann").await;
    says(&server, &ann.socket, "WARN", "ann", "cause=over a rate for longer than `rate_patience`: messages (1008)")
        .await;
}

#[tokio::test]
async fn many_who_go_at_once_for_one_cause_are_one_line() {
    let server = ChatServer::start(&["--max-age", "1s"]).await;
    let mut silent = Vec::new();
    for n in 0..20 {
        silent.push(RoomClient::join(&server, "lobby", &format!("user{n}")[..]).await);
    }
    for one in &mut silent {
        assert_eq!(one.socket.closing().await, Some(4408));
    }
    lines(&server, 1).await;
}

#[tokio::test]
async fn clients_that_go_while_they_are_answered_are_no_warning() {
    let server = ChatServer::start(&[]).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    for n in 0..30 {
        let user = format!("user{n}");
        let mut ann = RoomClient::join(&server, "lobby", &user[..]).await;
        bob.sees_join(&user).await;
        // Commands that are answered or refused, each of which is handled while the connection ends.
        let command = Raw::text(r#"{"type":"update","meta":{"n":1}}"#).encode();
        drop(ann.socket.try_bytes(&command.repeat(8)).await);
        ann.socket.reset();
        bob.until("the one who is gone", |roster| roster.tabs(&user) == 0).await;
    }
    bob.socket.ping(b"fence").await;
    within(millis(20_000), "the fence", bob.socket.next_frame()).await;
    let warnings: Vec<_> = server.log().lines().filter(|line| line.contains("WARN")).map(str::to_owned).collect();
    assert_eq!(warnings, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_client_is_refused_is_a_line_at_debug() {
    let variables = [
        ("RUST_LOG", "info,presence=debug,chat=debug"),
        ("PRESENCE_CLOSE_TIMEOUT", "300ms"),
        ("PRESENCE_UPDATES_PER_SECOND", "1"),
        ("PRESENCE_MAX_ROOMS_PER_SOCKET", "1"),
    ];
    let server = ChatServer::start_with(&["--max-age", "2s"], &variables).await;
    let says = async |what: &str| {
        eventually(BOUND, what, async || {
            let log = server.log();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await;
    };
    for (path, status, line) in [
        (format!("/ws/lobby?user=ann&rest={}", "x".repeat(8_192)), 414, "a handshake is refused: its path is too long"),
        (path("lobby", &*"x".repeat(256)), 400, "a handshake is refused error=a user id has at most 255 bytes"),
    ] {
        let answer = HandshakeRequest::to(path).open(server.address()).await;
        assert_eq!(answer.err().map(|answer| answer.status), Some(status));
        says(line).await;
    }
    let mut ann = RoomClient::join(&server, "lobby", "ann").await;
    let deep = format!("{{\"type\":\"update\",\"meta\":{{\"a\":{}1{}}}}}", "[".repeat(40), "]".repeat(40));
    ann.socket.text(&deep).await;
    ann.socket.refused("bad_command").await;
    says("a command is refused channel=").await;
    ann.socket.text(&"\u{1}".repeat(10_000)).await;
    ann.socket.refused("too_large").await;
    says("code=\"too_large\"").await;
    for n in 0..10 {
        ann.updates(serde_json::json!({ "n": n })).await;
    }
    says("updates come faster than they may be written").await;
    assert_eq!(ann.socket.closing().await, Some(4408));
    says("a Close is not answered in time").await;
}
