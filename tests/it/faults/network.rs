//! The server is there, and the way to it is slow, or dead.

use super::{BEAT, Log, NOTICED, is_healthy_but_not_ready, is_refused, serve};
use crate::support::backend::{Backend, Kind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::proxy::Proxy;
use crate::support::{BOUND, Duration, secs};
use tokio::time::Instant;

/// Longer than a lease.
const TROUBLE: Duration = secs(15);

/// A call takes several statements, and so longer than a call may take.
pub(super) async fn slow(kind: Kind) {
    suffers(kind, |network| network.slow(secs(2)), Proxy::open).await;
}

/// Connections stay, and nothing comes of them.
pub(super) async fn dead(kind: Kind) {
    suffers(kind, Proxy::die, Proxy::open).await;
}

async fn suffers(kind: Kind, begin: impl Fn(&Proxy), end: impl Fn(&Proxy)) {
    let backend = Backend::shared(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let (before, log) = (ann.seen().told.len(), Log::of(&server));

    begin(backend.proxy());
    let begun = Instant::now();
    dan.leaves().await;
    for turn in 0.. {
        is_refused(&server, "fay").await;
        bob.says(&format!("{turn}"));
        ann.hears(&format!("{turn}")).await;
        if turn == 0 {
            is_healthy_but_not_ready(&server).await;
        }
        if begun.elapsed() >= TROUBLE {
            break;
        }
    }
    assert_eq!(ann.seen().told.len(), before, "nobody is told of what is not committed");
    end(backend.proxy());
    let ended = Instant::now();
    ann.until("the leave of Dan", NOTICED, |seen| seen.told.contains(&"-dan".to_owned())).await;
    println!("{kind:?}: a leave is told {:?} after the end", ended.elapsed());
    becomes(&server, "/readyz", 200, NOTICED).await;
    let _gus = Guest::join(&server, "lobby", "gus", BEAT).await;
    ann.until("Gus", BOUND, |seen| seen.told.contains(&"+gus".to_owned())).await;
    assert_eq!(ann.seen().told[before..], ["-dan", "+gus"]);
    backend.rows_become("presences", 3, BOUND).await;
    log.tells_one_outage(&server).await;
}

/// As when another machine takes over the address of the server: nobody says of the old connections that they are over.
pub(super) async fn lost(kind: Kind) {
    let backend = Backend::shared(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    for turn in 0..3 {
        let name = format!("dan{turn}");
        let dan = Guest::join(&server, "lobby", &name[..], BEAT).await;
        ann.until("Dan", BOUND, |seen| seen.roster.users.contains_key(&name)).await;
        backend.proxy().lose();
        dan.leaves().await;
        // Each connection is found out by what is asked of it, and given up when the answer does not come.
        let left = format!("-{name}");
        ann.until("the leave of Dan", secs(30) + BOUND, |seen| seen.told.contains(&left)).await;
        becomes(&server, "/readyz", 200, secs(30)).await;
    }
    assert_eq!(ann.seen().told, ["+dan0", "-dan0", "+dan1", "-dan1", "+dan2", "-dan2"]);
    backend.rows_become("presences", 1, BOUND).await;
}
