//! The database is dropped and created again, empty, while nodes use it.

use super::{BEAT, NOTICED, serve};
use crate::support::BOUND;
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::server::ChatServer;

/// It was 503 until somebody migrated it by hand.
pub(super) async fn made_anew(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let (one, other) = (serve(&backend, &[]).await, serve(&backend, &[]).await);
    let mut ann = Guest::join(&one, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&other, "lobby", "bob", BEAT).await;
    let mut cid = Guest::join(&one, "lobby", "cid", BEAT).await;
    for guest in [&mut ann, &mut bob, &mut cid] {
        guest.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    }
    let before = ann.seen().told.len();

    backend.is_made_anew().await;
    backend.rows_become("presences", 3, NOTICED).await;
    becomes(&one, "/readyz", 200, NOTICED).await;
    becomes(&other, "/readyz", 200, NOTICED).await;
    let eve = Guest::join(&one, "lobby", "eve", BEAT).await;
    let everybody = ["ann", "bob", "cid", "eve"];
    for guest in [&mut ann, &mut bob, &mut cid] {
        guest.until("everybody", BOUND, |seen| seen.roster.names() == everybody).await;
    }
    assert_eq!(eve.seen().roster.names(), everybody);
    let told = ann.seen().told.split_off(before);
    // The room has a new epoch, so there may be a new first frame, with everybody who has joined again by then.
    assert!(!told.iter().any(|told| told == "-cid"), "nobody of this node leaves: {told:?}");
    // Whoever comes second finds the tables, and not itself in them.
    let gone = |server: &ChatServer| server.log().matches("the tables of the database are gone").count();
    assert!(gone(&one).max(gone(&other)) == 1, "each says it once at most:\n{}\n{}", one.log(), other.log());
}
