//! The dialect of MariaDB and MySQL.
//!
//! Transactions are READ COMMITTED, as on PostgreSQL. The default, REPEATABLE READ, would show a transaction the rooms as they were
//! before it got their locks, and it locks gaps between rows.

use std::{
    fmt::{self, Write},
    str::FromStr,
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel, SqlxError,
    Statement, TransactionOptions, TransactionTrait,
    sea_query::{Expr, SimpleExpr},
    sqlx::{
        AssertSqlSafe, ConnectOptions, Connection, Executor, Row,
        mysql::{MySqlConnectOptions, MySqlConnection, MySqlPool},
    },
};

use tokio::time::timeout;
use tracing::warn;

use crate::name::{Epoch, NodeId, PresenceId, UserId};

use super::{
    super::StoreError,
    dialect::{
        CACHED_STATEMENTS, Dialect, RELEASE_CHECK_TIMEOUT, bad_url, names_cache_capacity, seen_at, server_pool,
        users_as_json,
    },
    error::{of_connection, store_error},
    settings::{IDLE_TRANSACTION_TIMEOUT, MAX_LANES, Settings},
};

/// The name of the lock for migrations. Lock names are global in the server, so it contains the database. It may have 64 characters.
const MIGRATION_LOCK: &str = "CONCAT('presence.', MD5(DATABASE()))";

/// How long a node waits for the migration of another node.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) struct MySql {
    options: MySqlConnectOptions,
    /// The warning about several servers that accept writes has been logged.
    has_warned: AtomicBool,
}

impl fmt::Debug for MySql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let database = options.get_database().unwrap_or_default();
        write!(f, "MySql({}:{}/{database})", options.get_host(), options.get_port())
    }
}

impl MySql {
    pub(super) fn new(url: &str) -> Result<Self, DbErr> {
        let options = MySqlConnectOptions::from_str(url).map_err(bad_url)?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(bad_url("the URL of the database names no database"));
        }
        let options = match names_cache_capacity(url) {
            true => options,
            false => options.statement_cache_capacity(CACHED_STATEMENTS),
        };
        Ok(Self { options: options.disable_statement_logging(), has_warned: AtomicBool::new(false) })
    }

    fn pool(&self, settings: &Settings, connections: u32) -> MySqlPool {
        let lock_timeout = lock_timeout(settings.wait_timeout);
        server_pool(settings, connections, session(settings))
            // A call that is dropped while it awaits an answer leaves this answer in the connection. The driver would take it for the
            // answer to the next call, and a commit would seem done before it is.
            .after_release(move |connection: &mut MySqlConnection, _| {
                Box::pin(async move {
                    Ok(matches!(
                        timeout(RELEASE_CHECK_TIMEOUT, is_in_sync(connection, lock_timeout)).await,
                        Ok(Ok(true))
                    ))
                })
            })
            .connect_lazy_with(self.options.clone())
    }
}

/// The SQL mode, whatever the server's default is: strict, and as the driver expects it.
const SQL_MODE: &str = "PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION,STRICT_ALL_TABLES";

/// The first statements of each connection.
fn session(settings: &Settings) -> String {
    // Defaults of the server must not change the meaning of a statement, or truncate its result: a truncated list of presences
    // would look as if members had left. A text that is too long must be an error. A node that is suspended within a transaction
    // loses its locks, since other nodes could neither fence it nor use its rooms otherwise. Only MariaDB supports that.
    format!(
        "SET SESSION sql_mode = '{SQL_MODE}', sql_select_limit = {}, sql_big_selects = 1; \
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; {}; \
         /*M!100300 SET SESSION idle_transaction_timeout = {} */",
        u64::MAX,
        set_lock_timeout(lock_timeout(settings.wait_timeout)),
        IDLE_TRANSACTION_TIMEOUT.as_secs()
    )
}

/// How long a statement waits for a lock, in seconds.
fn lock_timeout(timeout: Duration) -> u64 {
    timeout.as_secs().max(1)
}

fn set_lock_timeout(seconds: u64) -> String {
    format!("SET SESSION innodb_lock_wait_timeout = {seconds}")
}

/// Whether the next answer belongs to the next statement. If so, the connection waits for locks as long as it did at first.
async fn is_in_sync(connection: &mut MySqlConnection, lock_timeout: u64) -> Result<bool, SqlxError> {
    static NUMBERS: AtomicI64 = AtomicI64::new(1 << 40);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let query = format!("SELECT {number}, @@innodb_lock_wait_timeout <> {lock_timeout}");
    let row = connection.fetch_one(AssertSqlSafe(query)).await?;
    let is_in_sync = row.try_get::<i64, _>(0)? == number;
    if is_in_sync && row.try_get::<i64, _>(1)? != 0 {
        connection.execute(AssertSqlSafe(set_lock_timeout(lock_timeout))).await?;
    }
    Ok(is_in_sync)
}

#[async_trait]
impl Dialect for MySql {
    fn backend(&self) -> DbBackend {
        DbBackend::MySql
    }

    fn connect(&self, settings: &Settings) -> (DatabaseConnection, DatabaseConnection) {
        let pool = || self.pool(settings, settings.connections).into();
        (pool(), pool())
    }

    fn connect_lanes(&self, settings: &Settings) -> Option<DatabaseConnection> {
        Some(self.pool(settings, MAX_LANES.into()).into())
    }

    fn max_lanes(&self) -> u16 {
        MAX_LANES
    }

    async fn check_connection(&self, settings: &Settings) -> Result<(), StoreError> {
        let reach = async {
            let mut connection = self.options.connect().await?;
            connection.execute(AssertSqlSafe(session(settings))).await?;
            connection.close().await
        };
        reach.await.map_err(of_connection)
    }

    fn to_read(&self) -> TransactionOptions {
        TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        }
    }

    fn set_lock_timeout(&self, timeout: Duration) -> Option<String> {
        Some(set_lock_timeout(lock_timeout(timeout)))
    }

    /// The limit of InnoDB is in whole seconds. MariaDB ends a statement also while it waits for a lock; MySQL takes this for a comment.
    fn limit_wait(&self, mut statement: Statement, patience: Duration) -> Statement {
        let limit = format!("/*M!100601 SET STATEMENT max_statement_time = {:.3} FOR */ ", patience.as_secs_f64());
        statement.sql.insert_str(0, &limit);
        statement
    }

    /// `UNIX_TIMESTAMP` depends on a time zone, and ends in 2038 on some servers.
    fn now(&self) -> Option<SimpleExpr> {
        Some(Expr::cust("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000"))
    }

    async fn examine(&self, _writer: &DatabaseConnection, readers: &DatabaseConnection) -> Result<(), StoreError> {
        let mut facts = Vec::new();
        for query in [CLUSTER, GROUP] {
            let rows =
                readers.query_all_raw(Statement::from_string(DbBackend::MySql, query)).await.map_err(store_error)?;
            for row in rows {
                facts.push((
                    row.try_get_by_index::<String>(0).map_err(store_error)?,
                    row.try_get_by_index::<String>(1).map_err(store_error)?,
                ));
            }
        }
        if let Some(cluster) = several_writers(&facts)
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            warn!(
                cluster,
                "several servers of this database accept writes, and the locks of one have no effect on the others: connect all nodes to \
                 the same server, and change to another one only when it has failed"
            );
        }
        Ok(())
    }

    /// Statements that change the schema end a transaction, so the lock belongs to the connection. This connection is in a pool of
    /// its own, so that the lock never stays in a pool, whatever happens.
    async fn begin_migration(&self, _writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        let alone: DatabaseConnection = self.pool(&Settings::default(), 1).into();
        let transaction = alone.begin().await?;
        let lock = format!("SELECT GET_LOCK({MIGRATION_LOCK}, {})", MIGRATION_TIMEOUT.as_secs());
        let row = transaction.query_one_raw(Statement::from_string(DbBackend::MySql, lock)).await?;
        let locked = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten();
        match locked {
            Some(1) => Ok(transaction),
            _ => Err(DbErr::ConnectionAcquire(sea_orm::ConnAcquireErr::Timeout)),
        }
    }

    async fn end_migration(&self, transaction: DatabaseTransaction) -> Result<(), DbErr> {
        transaction.execute_unprepared(&format!("DO RELEASE_LOCK({MIGRATION_LOCK})")).await?;
        transaction.commit().await
    }

    fn touch(&self, node: NodeId, now: i64, seen: &[(PresenceId, Duration)]) -> Statement {
        let mut json = String::with_capacity(56 * seen.len());
        for (id, ago) in seen {
            let separator = if json.is_empty() { '[' } else { ',' };
            write!(json, "{separator}[\"{}\",{}]", id.as_uuid().simple(), seen_at(now, *ago))
                .expect("a string takes every text");
        }
        json.push(']');
        Statement::from_sql_and_values(DbBackend::MySql, TOUCH, [json.into(), node.as_uuid().into()])
    }

    fn have_more(&self, users: &[(Epoch, &UserId, i64)]) -> Statement {
        Statement::from_sql_and_values(DbBackend::MySql, HAVE_MORE, [users_as_json(users).into()])
    }
}

/// The number of servers of Galera, which MariaDB and Percona XtraDB Cluster use.
const CLUSTER: &str = "SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'";

/// Whether one server of MySQL Group Replication accepts all writes.
const GROUP: &str = "SHOW GLOBAL VARIABLES LIKE 'group_replication_single_primary_mode'";

/// The kind of cluster in which several servers accept writes, each with its own locks.
fn several_writers(facts: &[(String, String)]) -> Option<&'static str> {
    facts.iter().find_map(|(name, value)| match name.to_ascii_lowercase().as_str() {
        "wsrep_cluster_size" => value.parse().is_ok_and(|size: u32| size > 1).then_some("Galera"),
        "group_replication_single_primary_mode" => {
            matches!(value.to_ascii_uppercase().as_str(), "OFF" | "0").then_some("Group Replication")
        }
        _ => None,
    })
}

/// `STRAIGHT_JOIN` keeps MySQL from using the index on the node: it would compare all presences of the node with all touches.
const TOUCH: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$[0]', seen BIGINT PATH '$[1]')) AS touch \
    STRAIGHT_JOIN presences ON presences.id = UNHEX(touch.id) SET presences.last_seen = touch.seen \
    WHERE presences.node_id = ? AND presences.last_seen < touch.seen";

const HAVE_MORE: &str = "SELECT CAST(place - 1 AS SIGNED) FROM JSON_TABLE(?, '$[*]' COLUMNS (place FOR ORDINALITY, \
    room CHAR(32) PATH '$[0]', user VARCHAR(255) PATH '$[1]', count BIGINT PATH '$[2]')) AS wanted \
    WHERE wanted.count < (\
    SELECT COUNT(*) FROM presences WHERE user_id = wanted.user AND room_id = UNHEX(wanted.room))";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_in_which_several_servers_accept_writes_are_recognized() {
        for (name, value, found) in [
            ("wsrep_cluster_size", "0", None),
            ("wsrep_cluster_size", "1", None),
            ("wsrep_cluster_size", "3", Some("Galera")),
            ("wsrep_cluster_size", "", None),
            ("group_replication_single_primary_mode", "ON", None),
            ("group_replication_single_primary_mode", "OFF", Some("Group Replication")),
        ] {
            assert_eq!(several_writers(&[(name.to_owned(), value.to_owned())]), found, "{name} {value}");
        }
        assert_eq!(several_writers(&[]), None);
    }
}
