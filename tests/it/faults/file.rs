//! The file of the database is moved away or replaced while the server has it open: all would go on, and be lost at the end.

use super::{BEAT, LogSince, NOTICED, is_healthy_but_not_ready, is_refused, serve};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::server::ChatServer;
use crate::support::{BOUND, eventually};
use std::path::Path;

/// Moves the file, with what SQLite keeps beside it.
fn moves(from: &Path, to: &Path) {
    for beside in ["", "-wal", "-shm"] {
        let name = |path: &Path| format!("{}{beside}", path.display());
        std::fs::rename(name(from), name(to)).unwrap_or_else(|error| panic!("{}: {error}", name(from)));
    }
}

/// The log has one error line, which names the file.
async fn is_logged(server: &ChatServer, log: &LogSince, file: &Path) {
    let file = file.display().to_string();
    let about = |lines: Vec<String>| lines.into_iter().filter(|line| line.contains(&file)).collect::<Vec<_>>();
    eventually(BOUND, "the line about the file", async || match &about(log.lines(server))[..] {
        [line] if line.contains("ERROR") && line.contains("removed or replaced") => Ok(()),
        lines => Err(format!("{lines:#?}")),
    })
    .await;
}

pub(super) async fn moved_away(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let (before, log) = (ann.seen().told.len(), LogSince::of(&server));
    let (file, aside) = (backend.file(), backend.file().with_file_name("aside.db"));

    moves(&file, &aside);
    is_healthy_but_not_ready(&server).await;
    is_logged(&server, &log, &file).await;
    is_refused(&server, "fay").await;
    dan.leaves().await;
    bob.says("still here");
    ann.hears("still here").await;
    assert_eq!(ann.seen().told.len(), before, "nobody is told of what is not written");
    assert!(!file.exists(), "no other is made in its place");

    moves(&aside, &file);
    ann.until("the leave of Dan", NOTICED, |seen| seen.told.contains(&"-dan".to_owned())).await;
    becomes(&server, "/readyz", 200, NOTICED).await;
    let _gus = Guest::join(&server, "lobby", "gus", BEAT).await;
    ann.until("Gus", BOUND, |seen| seen.told.contains(&"+gus".to_owned())).await;
    assert_eq!(ann.seen().told[before..], ["-dan", "+gus"]);
    backend.rows_become("presences", 3, BOUND).await;
    log.tells_one_outage(&server).await;
}

pub(super) async fn replaced(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let mut server = serve(&backend, &[]).await;
    let _ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let log = LogSince::of(&server);
    let file = backend.file();
    moves(&file, &file.with_file_name("aside.db"));
    // Another process makes one.
    let mut another = serve(&backend, &[]).await;
    is_healthy_but_not_ready(&server).await;
    is_logged(&server, &log, &file).await;
    is_refused(&server, "bob").await;
    assert_eq!(backend.rows("presences").await, 0, "what is in the other file is not touched");
    another.kill().await;
    // As the log recommends.
    server.kill().await;
    server.start_again().await;
    becomes(&server, "/readyz", 200, BOUND).await;
    let cid = Guest::join(&server, "lobby", "cid", BEAT).await;
    assert_eq!(cid.seen().roster.names(), ["cid"]);
    backend.rows_become("presences", 1, BOUND).await;
}
