//! `kill -9` at random moments under load, and a start on the same database: what was acknowledged is there, and no more.

mod ledger;
mod visitor;

use crate::support::backend::{Backend, BackendKind};
use crate::support::http::becomes;
use crate::support::member::RoomClient;
use crate::support::server::ChatServer;
use crate::support::{BOUND, Duration, SLACK, millis, secs, within};
use ledger::{Checked, Ledger};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::Instant;

const VISITORS: usize = 24;
const ROOMS: [&str; 3] = ["lobby", "kitchen", "attic"];
/// What is past its grace is removed by a sweep, and sweeps come this often.
const SWEEP: Duration = secs(2);

/// The moments of a test, from a seed that is printed and can be given.
fn seed() -> u64 {
    let given = std::env::var("RECOVERY_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("RECOVERY_SEED={seed}");
    seed
}

/// Loads the server, and kills it after a random number of acknowledgements.
async fn load_and_kill(server: &mut ChatServer, round: usize, random: &mut fastrand::Rng) -> Arc<Ledger> {
    let ledger = Arc::new(Ledger::new());
    let rooms: Vec<_> = ROOMS.iter().map(|room| (*room).to_owned()).collect();
    let mut visitors = JoinSet::new();
    for n in 0..VISITORS {
        let name = format!("v{round}.{n}");
        visitors.spawn(visitor::visits(server.address(), ledger.clone(), rooms.clone(), name, random.u64(..)));
    }
    let moment = random.u64(1..3_000);
    println!("round {round}: a kill after {moment} acknowledgements");
    within(BOUND * 3, "the moment of the kill", ledger.reached(moment)).await;
    server.kill().await;
    // What had come to them before is read and counts.
    within(BOUND, "the end of every visit", visitors.join_all()).await;
    ledger
}

/// A newcomer in each room, whose first frame is what the database held.
async fn newcomers(server: &ChatServer, round: usize, ledger: &Ledger) -> Vec<RoomClient> {
    let mut newcomers = Vec::new();
    let mut all = Checked::default();
    for room in ROOMS {
        let newcomer = RoomClient::join(server, room, &format!("newcomer{round}")[..]).await;
        let checked = ledger.check(&newcomer.roster);
        all = Checked {
            there: all.there + checked.there,
            gone: all.gone + checked.gone,
            unknown: all.unknown + checked.unknown,
        };
        newcomers.push(newcomer);
    }
    println!("round {round}: {all:?}");
    newcomers
}

/// All who were held leave, each once, after the grace and not much later.
async fn the_held_ones_leave(mut newcomers: Vec<RoomClient>, killed: Instant, listening: Instant, grace: Duration) {
    for newcomer in &mut newcomers {
        let mut alone = newcomer.roster.users.len() == 1 && newcomer.roster.anonymous == 0;
        within(grace + BOUND, "the held ones to leave", async {
            while !alone {
                let diff = newcomer.diff().await;
                assert_eq!((diff.joins.len(), diff.updates.len()), (0, 0));
                assert!(killed.elapsed() >= grace, "not before the grace: {:?}", killed.elapsed());
                alone = newcomer.roster.users.len() == 1 && newcomer.roster.anonymous == 0;
            }
        })
        .await;
    }
    assert!(listening.elapsed() <= grace + SWEEP + SLACK, "at the first sweep: {:?}", listening.elapsed());
}

/// A server on a database of its own, whose presences are held for so many seconds.
async fn serve(kind: BackendKind, grace: &str) -> (Backend, ChatServer) {
    let backend = Backend::shared(kind).await;
    let server = ChatServer::start(&["--grace", grace, "--database-url", &backend.url()]).await;
    becomes(&server, "/readyz", 200, BOUND).await;
    (backend, server)
}

async fn what_was_acknowledged_is_there(kind: BackendKind) {
    const GRACE: Duration = secs(4);
    let mut random = fastrand::Rng::with_seed(seed());
    let (backend, mut server) = serve(kind, "4s").await;
    for round in 0..3 {
        let ledger = load_and_kill(&mut server, round, &mut random).await;
        let killed = Instant::now();
        server.start_again().await;
        let listening = Instant::now();
        let newcomers = newcomers(&server, round, &ledger).await;
        the_held_ones_leave(newcomers, killed, listening, GRACE).await;
        backend.rows_become("presences", 0, BOUND).await;
    }
}

async fn a_second_kill_loses_nothing(kind: BackendKind) {
    let mut random = fastrand::Rng::with_seed(seed());
    let (_backend, mut server) = serve(kind, "30s").await;
    let ledger = load_and_kill(&mut server, 0, &mut random).await;
    for life in 0..6 {
        server.start_and_kill(millis(random.u64(..100))).await;
        if life % 2 == 1 {
            server.start_again().await;
            drop(newcomers(&server, life, &ledger).await);
            server.kill().await;
        }
    }
}

/// Both on one kind of database.
macro_rules! on {
    ($($kind:ident: $module:ident),*) => {
        $(
            mod $module {
                use crate::support::backend::BackendKind::$kind;

                #[tokio::test]
                async fn what_was_acknowledged_before_a_kill_is_there_after_it_and_leaves_after_the_grace() {
                    super::what_was_acknowledged_is_there($kind).await;
                }

                #[tokio::test]
                async fn a_kill_during_the_recovery_from_a_kill_loses_nothing() {
                    super::a_second_kill_loses_nothing($kind).await;
                }
            }
        )*
    };
}

on! { Sqlite: sqlite, Postgres: postgres, MySql: mysql }
