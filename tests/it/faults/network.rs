//! The server is there, and the way to it is slow, or dead.

use super::{BEAT, serve, suffers};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::member::RoomClient;
use crate::support::server::ChatServer;
use crate::support::{BOUND, Duration, eventually, millis, secs};
use tokio::time::Instant;

/// A call takes several statements, and so longer than a call may take. Each comes before the server ends an idle transaction, after 2 s.
pub(super) async fn slow(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let network = backend.proxy();
    suffers(&backend, async || network.slow(secs(1)), async || network.open()).await;
}

/// Connections stay, and nothing comes of them.
pub(super) async fn dead(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let network = backend.proxy();
    suffers(&backend, async || network.die(), async || network.open()).await;
}

/// As when another machine takes over the address of the server: nothing shows that the old connections are over.
pub(super) async fn lost(kind: BackendKind) {
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

/// How late each packet of a reading is: as of a database in another zone, or of a large room.
const READ_DELAY: Duration = millis(20);
/// How many sockets come and go at once, and for how long.
const VISITORS: usize = 60;
const VISITS: Duration = secs(5);
/// Within this a node learns of what other nodes did.
const RECONCILE: Duration = secs(5);

/// Sockets come and go on two nodes, and rooms take long to read: then nobody is there who has left.
pub(super) async fn slow_readings(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let (one, other) = (serve(&backend, &[]).await, serve(&backend, &[]).await);
    let mut ann = Guest::join(&one, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&other, "lobby", "bob", BEAT).await;
    backend.proxy().slow_readings(READ_DELAY);
    let visits = (0..VISITORS).map(|n| visit(if n % 2 == 0 { &one } else { &other }, n));
    let visits: usize = futures_util::future::join_all(visits).await.into_iter().sum();
    println!("{kind:?}: {visits} visits");
    let names = ["ann", "bob"];
    for guest in [&mut ann, &mut bob] {
        guest.until("that all have left", RECONCILE + BOUND, |seen| seen.roster.names() == names).await;
    }
    for node in [&one, &other] {
        eventually(RECONCILE + BOUND, "a first frame without ghosts", async || {
            let look = RoomClient::join(node, "lobby", None).await;
            let seen = look.roster.names().join(" ");
            if look.roster.names() == names { Ok(()) } else { Err(seen) }
        })
        .await;
        let log = node.log();
        assert!(!log.contains("a live presence was removed"), "{log}");
    }
}

/// Comes, stays for a while, and goes, again and again; every fifth time without a word. Returns how often.
async fn visit(node: &ChatServer, n: usize) -> usize {
    let (begun, name) = (Instant::now(), format!("u{n}"));
    for turn in 1.. {
        let mut visitor = RoomClient::join(node, "lobby", &name[..]).await;
        let reads = async {
            loop {
                visitor.told().await;
            }
        };
        // As long as a reading or several, and so that visits end at any moment of the readings that others cause.
        let stay = READ_DELAY * u32::try_from(5 + (7 * turn + 3 * n) % 20).expect("few");
        let _: Result<(), _> = tokio::time::timeout(stay, reads).await;
        if (turn + n).is_multiple_of(5) {
            visitor.socket.reset()
        } else {
            visitor.leave().await
        }
        if begun.elapsed() >= VISITS {
            return turn;
        }
    }
    0
}
