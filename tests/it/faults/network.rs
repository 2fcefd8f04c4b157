//! The server is there, and the way to it is slow, or dead.

use super::{BEAT, serve, suffers};
use crate::support::backend::{Backend, Kind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::{BOUND, secs};

/// A call takes several statements, and so longer than a call may take.
pub(super) async fn slow(kind: Kind) {
    let backend = Backend::shared(kind).await;
    let network = backend.proxy();
    suffers(&backend, async || network.slow(secs(2)), async || network.open()).await;
}

/// Connections stay, and nothing comes of them.
pub(super) async fn dead(kind: Kind) {
    let backend = Backend::shared(kind).await;
    let network = backend.proxy();
    suffers(&backend, async || network.die(), async || network.open()).await;
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
