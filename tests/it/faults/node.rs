//! The database is away for longer than a lease, and what nodes do about one another; and for a node that is to end.

use super::{BEAT, LogSince, NOTICED, serve};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::{BOUND, Duration, secs};
use tokio::time::Instant;

const LEASE: Duration = secs(3);
const SHORT: [(&str, &str); 3] =
    [("PRESENCE_LEASE", "3s"), ("PRESENCE_SWEEP_INTERVAL", "500ms"), ("PRESENCE_RECONCILE_INTERVAL", "1s")];

/// Both leases run out. Whoever is back first must not take the other for dead.
pub(super) async fn two_nodes(kind: BackendKind) {
    let mut backend = Backend::own(kind).await;
    let (one, other) = (serve(&backend, &SHORT).await, serve(&backend, &SHORT).await);
    let mut ann = Guest::join(&one, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&other, "lobby", "bob", BEAT).await;
    let both = |seen: &crate::support::guest::GuestView| seen.roster.users.len() == 2;
    ann.until("Bob, who is on the other node", BOUND, both).await;
    bob.until("Ann", BOUND, both).await;
    let (before, logs) = ((ann.seen().told, bob.seen().told), (LogSince::of(&one), LogSince::of(&other)));

    for _ in 0..3 {
        backend.goes_away().await;
        becomes(&one, "/readyz", 503, LEASE + BOUND).await;
        becomes(&other, "/readyz", 503, LEASE + BOUND).await;
        let begun = Instant::now();
        // A node that nobody can ask anything sees the outage by its renewals alone, of which this is more than three.
        while begun.elapsed() < LEASE + secs(1) {
            becomes(&one, "/readyz", 503, BOUND).await;
            tokio::time::sleep_until(begun + LEASE + secs(1)).await;
        }
        backend.comes_back().await;
        becomes(&one, "/readyz", 200, NOTICED).await;
        becomes(&other, "/readyz", 200, NOTICED).await;
    }
    // Until both may judge again, and have: then each would have removed the other's.
    let judged = Instant::now() + LEASE * 3;
    tokio::time::sleep_until(judged).await;
    assert_eq!((ann.seen().told, bob.seen().told), before, "nobody leaves, and so nobody comes back");
    for (server, log) in [(&one, logs.0), (&other, logs.1)] {
        // A connection that is just being opened when the database goes is the driver's own line.
        let lines: Vec<_> = log.lines(server).into_iter().filter(|line| !line.contains("sqlx_core::pool")).collect();
        let strange = lines.iter().filter(|line| !line.contains("store is away") && !line.contains("store is back"));
        assert_eq!(strange.count(), 0, "{lines:#?}");
        assert_eq!(lines.len(), 6, "three outages: {lines:#?}");
    }
}

/// The log says what could not be written, and the process ends in time nevertheless. Its next incarnation cleans up what it left.
pub(super) async fn told_to_stop(kind: BackendKind) {
    let mut backend = Backend::own(kind).await;
    let mut server = serve(&backend, &[]).await;
    let ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    backend.goes_away().await;
    ann.leaves().await;
    becomes(&server, "/readyz", 503, BOUND).await;
    let log = LogSince::of(&server);
    server.signal("TERM").await;
    let status = server.exit(secs(10)).await;
    assert_eq!(status.code(), Some(0), "{status}\n{}", server.log());
    bob.until("its close", BOUND, |seen| seen.end.is_some()).await;
    let lines = log.lines(&server);
    let left = lines.iter().filter(|line| line.contains("WARN") && line.contains("could not be written"));
    assert_eq!(left.count(), 1, "it says what it could not write: {lines:#?}");
    backend.comes_back().await;
    server.start_again().await;
    let mut eve = Guest::join(&server, "lobby", "eve", BEAT).await;
    eve.until("the others to leave", secs(12) + BOUND, |seen| seen.roster.names() == ["eve"]).await;
    backend.rows_become("presences", 1, BOUND).await;
}
