//! The server is there, and ends connections, or takes no writes.

use super::{BEAT, Log, NOTICED, is_healthy_but_not_ready, is_refused, serve};
use crate::support::backend::{Backend, Kind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::{BOUND, millis, secs};
use sea_orm::ConnectionTrait;
use serde_json::json;
use tokio::time::Instant;

/// What waits for a lock is in the middle of a transaction.
pub(super) async fn killed(kind: Kind) {
    let backend = Backend::shared(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let (before, log) = (ann.seen().told.len(), Log::of(&server));
    let lock = backend.connect().await;
    lock.execute_unprepared("BEGIN").await.unwrap();
    lock.execute_unprepared("SELECT id FROM rooms FOR UPDATE").await.unwrap();
    bob.asks(json!({"type": "update", "meta": {"n": 0}}));
    let waits = match kind {
        Kind::Postgres => "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        _ => {
            "information_schema.innodb_trx AS t JOIN information_schema.processlist AS p \
              ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()"
        }
    };
    backend.rows_become(waits, 1, BOUND).await;
    backend.kill_connections().await;
    // It is tried again, and nobody is refused for it.
    bob.until("his own change", BOUND, is(&bob, 0)).await;
    ann.until("his change", BOUND, is(&bob, 0)).await;
    log.tells_one_outage(&server).await;

    // And at moments of any kind, while all go on.
    dan.leaves().await;
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < secs(10) {
        let kill = async {
            tokio::time::sleep(millis(fastrand::u64(0..40))).await;
            backend.kill_connections().await;
        };
        let changes = async {
            for _ in 0..20 {
                n += 1;
                bob.asks(json!({"type": "update", "meta": {"n": n}}));
                bob.until("his own change", BOUND, is(&bob, n)).await;
            }
        };
        tokio::join!(kill, changes);
    }
    println!("{kind:?}: {n} changes");
    ann.until("the last of them", BOUND, is(&bob, n)).await;
    becomes(&server, "/readyz", 200, NOTICED).await;
    let told = ann.seen().told.split_off(before);
    assert_eq!(told.into_iter().filter(|told| *told != "~bob").collect::<Vec<_>>(), ["-dan"]);
    assert_eq!(bob.seen().refused, Vec::<String>::new());
    backend.rows_become(&format!("presences WHERE meta LIKE '%{n}%'"), 1, BOUND).await;
}

fn is(bob: &Guest, n: i32) -> impl Fn(&crate::support::guest::Seen) -> bool + use<> {
    let me = bob.seen().roster.me;
    move |seen| seen.roster.users["bob"][&me]["n"] == n
}

/// As a server that was made a standby of another.
pub(super) async fn read_only(kind: Kind) {
    // On MariaDB that is a setting of the whole server.
    let backend = if kind == Kind::MySql { Backend::own(kind).await } else { Backend::shared(kind).await };
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let (before, log) = (ann.seen().told.len(), Log::of(&server));
    may_only_be_read(&backend, true).await;
    dan.leaves().await;
    let begun = Instant::now();
    for turn in 0.. {
        is_refused(&server, "fay").await;
        bob.says(&format!("{turn}"));
        ann.hears(&format!("{turn}")).await;
        if turn == 0 {
            is_healthy_but_not_ready(&server).await;
        }
        // Longer than a lease.
        if begun.elapsed() >= secs(12) {
            break;
        }
    }
    assert_eq!(ann.seen().told.len(), before, "nobody is told of what is not committed");
    may_only_be_read(&backend, false).await;
    ann.until("the leave of Dan", NOTICED, |seen| seen.told.contains(&"-dan".to_owned())).await;
    becomes(&server, "/readyz", 200, NOTICED).await;
    let _gus = Guest::join(&server, "lobby", "gus", BEAT).await;
    ann.until("Gus", BOUND, |seen| seen.told.contains(&"+gus".to_owned())).await;
    assert_eq!(ann.seen().told[before..], ["-dan", "+gus"]);
    backend.rows_become("presences", 3, BOUND).await;
    log.tells_one_outage(&server).await;
}

async fn may_only_be_read(backend: &Backend, only_read: bool) {
    if backend.kind == Kind::MySql {
        return backend.execute(&format!("SET GLOBAL read_only = {only_read}")).await;
    }
    let session = backend.connect().await;
    session.execute_unprepared("SET default_transaction_read_only = off").await.unwrap();
    let set = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = ";
    session.execute_unprepared(&format!("{set}{only_read}', current_database()); END $$")).await.unwrap();
    session.close().await.unwrap();
    // A session has the setting that it began with, and keeps it, as one with a server that is a standby now.
    if only_read {
        backend.kill_connections().await;
    }
}
