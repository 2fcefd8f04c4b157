//! A node that is suspended within a transaction, as the database sees it.

use crate::support::backend::BackendKind;
use crate::support::server::ChatServer;
use crate::support::{Duration, millis};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use tokio::time::Instant;

/// A session that has not answered for so long within a transaction is of a node that is suspended.
const SILENT: Duration = millis(100);
/// How often a node is stopped until that is within a transaction.
const TRIES: usize = 40;

/// Stops the process at a moment at which it has a transaction: at any moment, and if it has none, goes on and tries again. Returns how
/// often that was, and when it stopped.
pub(super) async fn within_a_transaction(
    node: &ChatServer,
    kind: BackendKind,
    session: &DatabaseConnection,
) -> (usize, Instant) {
    for tries in 1..=TRIES {
        tokio::time::sleep(millis(fastrand::u64(..100))).await;
        node.signal("STOP").await;
        let stopped = Instant::now();
        // MariaDB looks anew at its transactions only if nobody has asked for them for 100 ms.
        tokio::time::sleep(SILENT + millis(50)).await;
        if count(session, silent(kind)).await > 0 {
            return (tries, stopped);
        }
        node.signal("CONT").await;
    }
    panic!("{TRIES} times it was in no transaction: that is too little load");
}

/// How many other sessions wait for a lock at this moment.
pub(super) async fn waiting(kind: BackendKind, session: &DatabaseConnection) -> i64 {
    count(session, blocked(kind)).await
}

fn silent(kind: BackendKind) -> String {
    let silent = SILENT.as_millis();
    match kind {
        BackendKind::Postgres => format!(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%' \
             AND state_change < clock_timestamp() - interval '{silent} ms'"
        ),
        _ => format!(
            "SELECT COUNT(*) FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p \
             ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND p.command = 'Sleep' AND p.time_ms > {silent}"
        ),
    }
}

fn blocked(kind: BackendKind) -> String {
    match kind {
        BackendKind::Postgres => "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock'"
            .to_owned(),
        _ => "SELECT COUNT(*) FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p \
             ON p.id = t.trx_mysql_thread_id WHERE p.db = DATABASE() AND t.trx_state = 'LOCK WAIT'"
            .to_owned(),
    }
}

async fn count(session: &DatabaseConnection, query: String) -> i64 {
    let query = Statement::from_string(session.get_database_backend(), query);
    let row = session.query_one_raw(query).await.expect("the database answers").expect("a count is one row");
    row.try_get_by_index(0).expect("a count is a number")
}
