//! The server is there, and ends connections, or takes no writes.

use super::{BEAT, LogSince, NOTICED, serve, suffers};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::{BOUND, eventually, millis, secs};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use serde_json::json;
use tokio::time::Instant;

/// Stops transactions at their last statement before the commit, when they have written all else.
struct Gate {
    session: DatabaseConnection,
    kind: BackendKind,
}

impl Gate {
    async fn closed(backend: &Backend) -> Self {
        let gate = Self { session: backend.connect().await, kind: backend.kind };
        let statements: &[&str] = match gate.kind {
            BackendKind::Postgres => &[
                "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END'",
                "CREATE TRIGGER gate BEFORE UPDATE ON rooms FOR EACH ROW EXECUTE FUNCTION gate()",
                "SELECT pg_advisory_lock(1)",
            ],
            _ => &[
                "CREATE TRIGGER gate BEFORE UPDATE ON rooms FOR EACH ROW DO GET_LOCK(DATABASE(), 60)",
                "DO GET_LOCK(DATABASE(), 0)",
            ],
        };
        for statement in statements {
            gate.executes(statement).await;
        }
        gate
    }

    async fn executes(&self, statement: &str) {
        self.session.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// The connection of the one that waits, which has written.
    async fn waiting(&self) -> i64 {
        let find = match self.kind {
            BackendKind::Postgres => {
                "SELECT pid::bigint FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event = 'advisory' AND query LIKE 'UPDATE \"rooms\"%' AND backend_xid IS NOT NULL"
            }
            _ => {
                "SELECT CAST(p.id AS SIGNED) FROM information_schema.processlist AS p \
                 JOIN information_schema.innodb_trx AS t ON t.trx_mysql_thread_id = p.id WHERE p.db = DATABASE() \
                 AND p.state = 'User lock' AND t.trx_rows_modified > 0"
            }
        };
        eventually(BOUND, "a transaction at the gate", async || {
            // MariaDB looks anew at its transactions only if nobody has asked for them for 100 ms.
            tokio::time::sleep(millis(150)).await;
            let find = Statement::from_string(self.session.get_database_backend(), find);
            match &self.session.query_all_raw(find).await.unwrap()[..] {
                [one] => Ok(one.try_get_by_index(0).unwrap()),
                others => Err(format!("{} of them", others.len())),
            }
        })
        .await
    }

    async fn kills(&self, connection: i64) {
        match self.kind {
            BackendKind::Postgres => self.executes(&format!("SELECT pg_terminate_backend({connection})")).await,
            _ => self.executes(&format!("KILL {connection}")).await,
        }
    }

    async fn opens(self) {
        match self.kind {
            BackendKind::Postgres => {
                self.executes("SELECT pg_advisory_unlock(1)").await;
                self.executes("DROP TRIGGER gate ON rooms").await;
            }
            _ => {
                self.executes("DO RELEASE_LOCK(DATABASE())").await;
                self.executes("DROP TRIGGER gate").await;
            }
        }
    }
}

/// A transaction that has written all it had to, and is not committed; then some at any moment.
pub(super) async fn killed(kind: BackendKind) {
    let backend = Backend::shared(kind).await;
    let server = serve(&backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let mut bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let (before, log) = (ann.seen().told.len(), LogSince::of(&server));
    let gate = Gate::closed(&backend).await;
    bob.asks(json!({"type": "update", "meta": {"n": 0}}));
    let first = gate.waiting().await;
    gate.kills(first).await;
    // It is tried again, as nothing of it is there.
    assert_ne!(gate.waiting().await, first);
    assert_eq!(backend.rows("presences WHERE meta LIKE '%\"n\"%'").await, 0);
    gate.opens().await;
    bob.until("his own change", BOUND, is(&bob, 0)).await;
    ann.until("his change", BOUND, is(&bob, 0)).await;
    let changes = |told: &[String]| told.iter().filter(|told| *told == "~bob").count();
    assert_eq!((changes(&ann.seen().told), bob.seen().refused.len()), (1, 0), "told once, and nobody is refused");
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

fn is(bob: &Guest, n: i32) -> impl Fn(&crate::support::guest::GuestView) -> bool + use<> {
    let me = bob.seen().roster.me;
    move |seen| seen.roster.users["bob"][&me]["n"] == n
}

/// As a server that was made a standby of another.
pub(super) async fn read_only(kind: BackendKind) {
    // On MariaDB that is a setting of the whole server.
    let backend = if kind == BackendKind::MySql { Backend::own(kind).await } else { Backend::shared(kind).await };
    suffers(
        &backend,
        async || may_only_be_read(&backend, true).await,
        async || may_only_be_read(&backend, false).await,
    )
    .await;
}

async fn may_only_be_read(backend: &Backend, only_read: bool) {
    if backend.kind == BackendKind::MySql {
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
