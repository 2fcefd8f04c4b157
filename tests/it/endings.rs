//! How a connection ends, and whether its presence leaves or is held: each row of the table in `docs/wire.md`.

use crate::support::frame::{CLOSE, Raw};
use crate::support::member::{RoomClient, path};
use crate::support::process::connection_gone;
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use crate::support::{BOUND, millis, secs};

const TOKEN: &str = "ann-s_token_0123456789";

/// A server that holds for longer than any test lasts, and Bob, who looks on.
async fn scene() -> (ChatServer, RoomClient) {
    let server = ChatServer::start(&["--grace", "60s"]).await;
    let bob = RoomClient::join(&server, "lobby", "bob").await;
    (server, bob)
}

async fn ann(server: &ChatServer) -> RoomClient {
    RoomClient::begin(ClientSocket::open(server, &format!("{}&session={TOKEN}", path("lobby", "ann"))).await).await
}

/// How the client's end of the connection ends after its last bytes.
#[derive(Debug, Clone, Copy)]
enum ClientEnd {
    /// It waits for the server's answer.
    Waits,
    /// It sends the end of the stream right after them.
    Eof,
    /// It resets the connection when it has read the server's answer.
    ResetsAfterTheAnswer,
}

const ENDS: [ClientEnd; 3] = [ClientEnd::Waits, ClientEnd::Eof, ClientEnd::ResetsAfterTheAnswer];

/// Ann sends these bytes, and her connection ends so.
async fn ends(mut ann: RoomClient, bytes: &[u8], end: ClientEnd) {
    ann.socket.try_bytes(bytes).await.unwrap();
    match end {
        // Dropped with something unread in it, a connection would be reset.
        ClientEnd::Eof => {
            ann.socket.end_writing().await;
            ann.socket.drained().await;
        }
        ClientEnd::Waits => drop(ann.socket.closing().await),
        ClientEnd::ResetsAfterTheAnswer => {
            ann.socket.closing().await;
            ann.socket.reset();
        }
    }
}

/// Bytes that end Ann's connection hold her presence, however the connection ends then, and whatever she sent before.
async fn are_a_loss(bytes: &[&[u8]]) {
    let (server, mut bob) = scene().await;
    let mut before = ann(&server).await;
    bob.sees_join("ann").await;
    for bytes in bytes {
        for end in ENDS {
            let id = before.roster.me.clone();
            ends(before, bytes, end).await;
            before = ann(&server).await;
            assert_eq!(before.roster.me, id, "held: {end:?} after {bytes:02x?}");
        }
    }
    bob.sees_nothing_before(&server, "fence").await;
}

/// Bytes that end Ann's connection make her leave, however it ends then.
async fn are_a_leave(bytes: &[&[u8]]) {
    let (server, mut bob) = scene().await;
    for bytes in bytes {
        for end in ENDS {
            let ann = ann(&server).await;
            bob.sees_join("ann").await;
            ends(ann, bytes, end).await;
            bob.sees_leave("ann").await;
        }
    }
}

#[tokio::test]
async fn a_close_1001_without_a_mask_is_a_loss_every_time() {
    // As some proxies end their connections to backends when they load their configuration again.
    let unmasked = Raw::close(1001, b"").unmasked().encode();
    let tries = vec![&unmasked[..]; 10];
    are_a_loss(&tries).await;
}

#[tokio::test]
async fn whoever_breaks_the_protocol_in_a_close_is_lost() {
    let closes = [
        Raw::close(1000, b"").unmasked(),
        Raw::new(CLOSE, "").unmasked(),
        Raw::close(1001, b"").reserved(4),
        Raw::close(1001, b"").unfinished(),
        Raw::close(1001, &[b'x'; 124]),
        Raw::close(1001, b"\xff"),
        Raw::close(1005, b""),
        Raw::new(CLOSE, "x"),
    ];
    let closes: Vec<_> = closes.iter().map(Raw::encode).collect();
    are_a_loss(&closes.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_close_1001_is_a_loss_and_any_other_a_leave_however_the_connection_ends_then() {
    are_a_loss(&[&Raw::close(1001, b"").encode(), &Raw::close(1001, b"going away").encode()]).await;
    are_a_leave(&[&Raw::close(1000, b"").encode(), &Raw::new(CLOSE, "").encode(), &Raw::close(3000, b"").encode()])
        .await;
}

#[tokio::test]
async fn whoever_breaks_the_protocol_or_a_limit_in_the_middle_of_traffic_leaves() {
    let frames = [Raw::text("x").unmasked(), Raw::new(3, "x"), Raw::text(*b"\xff"), Raw::text("").declaring(1 << 30)];
    let frames: Vec<_> = frames.iter().map(Raw::encode).collect();
    are_a_leave(&frames.iter().map(|bytes| &bytes[..]).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn a_connection_that_ends_without_a_close_is_lost_also_in_the_middle_of_a_frame() {
    let (server, mut bob) = scene().await;
    let mut before = ann(&server).await;
    bob.sees_join("ann").await;
    let half = &Raw::text("half a frame").encode()[..9];
    for (bytes, reset) in [(&b""[..], false), (b"", true), (half, false), (half, true)] {
        let id = before.roster.me.clone();
        before.socket.try_bytes(bytes).await.unwrap();
        if reset {
            before.socket.reset();
        } else {
            drop(before);
        }
        before = ann(&server).await;
        assert_eq!(before.roster.me, id, "reset: {reset}, after {bytes:02x?}");
    }
    bob.sees_nothing_before(&server, "fence").await;
}

#[tokio::test]
async fn a_close_of_the_servers_counts_by_its_cause_whether_it_is_answered_or_not() {
    let quick = [("PRESENCE_CLOSE_TIMEOUT", "300ms")];
    let server = ChatServer::start_with(&["--grace", "5s", "--max-age", "5s"], &quick).await;
    let mut bob = RoomClient::join(&server, "lobby", "bob").await;
    bob.socket.beats_every(millis(500));
    for answer in ["none", "the end", "a reset"] {
        let mut silent = ann(&server).await;
        bob.sees_join("ann").await;
        let seen = tokio::time::Instant::now();
        let (code, ()) = tokio::join!(silent.socket.closing(), bob.sees_leave("ann"));
        assert_eq!(code, Some(4408));
        match answer {
            "the end" => drop(silent),
            "a reset" => silent.socket.reset(),
            _ => silent.socket.drained().await,
        }
        assert!(seen.elapsed() < secs(10), "no grace besides: {:?}", seen.elapsed());
    }
    bob.sees_nothing_before(&server, "fence").await;
}

#[tokio::test]
async fn who_is_cut_off_since_it_does_not_read_is_held() {
    let (server, mut bob) = scene().await;
    let upgrade = HandshakeRequest::to(format!("{}&session={TOKEN}", path("lobby", "ann"))).receive_buffer(4096);
    let before = RoomClient::begin(upgrade.open(server.address()).await.unwrap()).await;
    bob.sees_join("ann").await;
    // 8 MB, far more than may wait for her, and than the kernels hold.
    let text = "x".repeat(20_000);
    for _ in 0..400 {
        bob.says(&text).await;
        bob.hears("bob", &text).await;
    }
    connection_gone(&server, before.socket.local(), secs(5) + BOUND).await;
    assert_eq!(ann(&server).await.roster.me, before.roster.me);
    bob.sees_nothing_before(&server, "fence").await;
}
