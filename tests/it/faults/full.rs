//! A file that may not grow, and one that may only be read.
//!
//! The limit is the operating system's on the size of files, which an ordinary user may set and lift again: to SQLite the
//! disk fails to take what it writes.

use super::{BEAT, LogSince, NOTICED, is_healthy_but_not_ready, is_refused, serve};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::member::{RoomClient, path};
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, eventually, secs};
use serde_json::json;
use std::process::Command;
use tokio::time::Instant;

/// How large a file of the server may become from now on.
fn limit(server: &ChatServer, bytes: &str) {
    let pid = server.pid().to_string();
    let limited = Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit of util-linux sets a limit");
}

pub(super) async fn full(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let log = LogSince::of(&server);
    // The log of the database ends within what it has, and so soon nothing can be appended to it.
    limit(&server, "200000");
    let meta = json!({"text": "x".repeat(4000)});
    for n in 0.. {
        let mut meta = meta.clone();
        meta["n"] = n.into();
        bob.asks(json!({"type": "update", "meta": meta}));
        let answered = eventually(BOUND, "an answer", async || match bob.seen() {
            seen if !seen.refused.is_empty() => Ok(true),
            seen if seen.roster.users["bob"].values().any(|meta| meta["n"] == n) => Ok(false),
            _ => Err("nothing yet".to_owned()),
        });
        if answered.await {
            break;
        }
        assert!(n < 1000, "the file was to be full by now");
    }
    assert_eq!(bob.seen().refused, ["unavailable"]);
    let before = ann.seen().told.len();
    dan.leaves().await;
    is_healthy_but_not_ready(&server).await;
    let begun = Instant::now();
    for turn in 0.. {
        is_refused(&server, "fay").await;
        bob.says(&format!("{turn}"));
        ann.hears(&format!("{turn}")).await;
        if begun.elapsed() >= secs(12) {
            break;
        }
    }
    limit(&server, "unlimited");
    ann.until("the leave of Dan", NOTICED, |seen| seen.told.contains(&"-dan".to_owned())).await;
    becomes(&server, "/readyz", 200, NOTICED).await;
    let told: Vec<_> = ann.seen().told[before..].iter().filter(|told| **told != "~bob").cloned().collect();
    assert_eq!(told, ["-dan"]);
    let _gus = Guest::join(&server, "lobby", "gus", BEAT).await;
    backend.rows_become("presences", 3, BOUND).await;
    log.tells_one_outage(&server).await;
}

/// A file that this process may only read: its content is not changed.
pub(super) async fn read_only(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let mut writer = serve(&backend, &[]).await;
    let _ann = RoomClient::join(&writer, "lobby", "ann").await;
    writer.kill().await;
    let url = format!("{}?mode=ro", backend.url());
    let server = ChatServer::start(&["--database-url", &url]).await;
    is_healthy_but_not_ready(&server).await;
    is_refused(&server, "bob").await;
    let lines = LogSince(0).lines(&server);
    assert_eq!(lines.iter().filter(|line| line.contains("WARN")).count(), 1, "{lines:#?}");
    assert_eq!(backend.rows("presences").await, 1);
    let refused = HandshakeRequest::to(path("attic", "eve")).open(server.address()).await;
    assert_eq!(refused.expect_err("a refusal").status, 503);
}
