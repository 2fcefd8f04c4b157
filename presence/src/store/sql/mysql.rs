//! What MariaDB and MySQL have of their own.
//!
//! Transactions are READ COMMITTED, as on PostgreSQL: the default, REPEATABLE READ, would show a transaction the rooms as
//! they were before it got their locks, and lock gaps between rows besides.

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
        mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlPoolOptions},
    },
};

use tokio::time::timeout;
use tracing::warn;

use crate::name::{Epoch, NodeId, PresenceId, UserId};

use super::{
    super::StoreError,
    database::Settings,
    dialect::{CHANNEL_INDEX, Dialect, STATEMENTS, Trouble, bad_url, names_cache_capacity, seen_at, users_as_json},
    error::{of_connection, store_error},
};

/// Names are of the whole server, so the lock has that of the database in it. It has at most 64 characters.
const MIGRATIONS: &str = "CONCAT('presence.', MD5(DATABASE()))";

/// How long a node waits for others to migrate.
const MIGRATION: Duration = Duration::from_secs(600);

/// A connection that lay idle for longer than this is tried before it is used.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection that comes back to the pool may take to answer. A statement that its caller gave up, and which the
/// server still works on, takes longer; the connection is closed then.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) struct MySql {
    options: MySqlConnectOptions,
    /// It has been logged that several servers take writes.
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
            false => options.statement_cache_capacity(STATEMENTS),
        };
        Ok(Self { options: options.disable_statement_logging(), has_warned: AtomicBool::new(false) })
    }

    fn pool(&self, settings: &Settings, connections: u32) -> MySqlPool {
        let session = session(settings);
        let options = MySqlPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(settings.patience)
            .acquire_slow_threshold(Duration::MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            // A call that is dropped while it awaits an answer leaves this answer in the connection, and the driver would take it
            // for that to the next call: a commit would seem done before it is.
            .after_release(|connection, _| {
                Box::pin(async move { Ok(matches!(timeout(ANSWER, is_in_step(connection)).await, Ok(Ok(true)))) })
            })
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { connection.execute(AssertSqlSafe(session)).await.map(drop) })
            });
        options.connect_lazy_with(self.options.clone())
    }
}

/// How statements are understood, whatever the mode of the server: as the driver expects it, and strictly.
const SQL_MODE: &str = "PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION,STRICT_ALL_TABLES";

/// What is said first on each connection.
fn session(settings: &Settings) -> String {
    // What the server is set to by default must not change what a statement means, nor cut its answer: a list of presences that
    // ends early would be members who have gone. A text that is too long is an error and not cut. A node that sleeps in the
    // middle of a transaction has its locks taken away, or nobody could fence it; only MariaDB does that.
    let patience = settings.patience.as_secs().max(1);
    format!(
        "SET SESSION sql_mode = '{SQL_MODE}', sql_select_limit = {}, sql_big_selects = 1; \
         SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET SESSION innodb_lock_wait_timeout = {patience}; \
         /*M!100300 SET SESSION idle_transaction_timeout = {} */",
        u64::MAX,
        6 * patience
    )
}

/// Whether the next answer is that to the next question.
async fn is_in_step(connection: &mut MySqlConnection) -> Result<bool, SqlxError> {
    static QUESTIONS: AtomicI64 = AtomicI64::new(1 << 40);
    let question = QUESTIONS.fetch_add(1, Ordering::Relaxed);
    let row = connection.fetch_one(AssertSqlSafe(format!("SELECT {question}"))).await?;
    Ok(row.try_get::<i64, _>(0)? == question)
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

    async fn reach(&self, settings: &Settings) -> Result<(), StoreError> {
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

    /// Not by `UNIX_TIMESTAMP`, which depends on a time zone and ends in 2038 on some servers.
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
                "several servers of this database take writes, and locks of one hold on no other: connect all nodes to one \
                 and the same server, and change to another only when that one has failed"
            );
        }
        Ok(())
    }

    /// The statements that change the schema end a transaction, so it is a lock of the connection that excludes others. The
    /// connection is one of its own: whatever becomes of this, the lock does not outlive it in a pool.
    async fn begin_migration(&self, _writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        let alone: DatabaseConnection = self.pool(&Settings::default(), 1).into();
        let transaction = alone.begin().await?;
        let lock = format!("SELECT GET_LOCK({MIGRATIONS}, {})", MIGRATION.as_secs());
        let row = transaction.query_one_raw(Statement::from_string(DbBackend::MySql, lock)).await?;
        let locked = row.map(|row| row.try_get_by_index::<Option<i64>>(0)).transpose()?.flatten();
        match locked {
            Some(1) => Ok(transaction),
            _ => Err(DbErr::ConnectionAcquire(sea_orm::ConnAcquireErr::Timeout)),
        }
    }

    async fn end_migration(&self, transaction: DatabaseTransaction) -> Result<(), DbErr> {
        transaction.execute_unprepared(&format!("DO RELEASE_LOCK({MIGRATIONS})")).await?;
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

/// Galera, as MariaDB and Percona XtraDB Cluster have it: how many servers there are.
const CLUSTER: &str = "SHOW GLOBAL STATUS LIKE 'wsrep_cluster_size'";

/// Group Replication of MySQL: whether one server takes all writes.
const GROUP: &str = "SHOW GLOBAL VARIABLES LIKE 'group_replication_single_primary_mode'";

/// By what name several servers take writes, each of them with locks of its own.
fn several_writers(facts: &[(String, String)]) -> Option<&'static str> {
    facts.iter().find_map(|(name, value)| match name.to_ascii_lowercase().as_str() {
        "wsrep_cluster_size" => value.parse().is_ok_and(|size: u32| size > 1).then_some("Galera"),
        "group_replication_single_primary_mode" => {
            matches!(value.to_ascii_uppercase().as_str(), "OFF" | "0").then_some("Group Replication")
        }
        _ => None,
    })
}

/// Straight, or it may look for the node first, and compare all its presences with all touches.
const TOUCH: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (id CHAR(32) PATH '$[0]', seen BIGINT PATH '$[1]')) AS touch \
    STRAIGHT_JOIN presences ON presences.id = UNHEX(touch.id) SET presences.last_seen = touch.seen \
    WHERE presences.node_id = ? AND presences.last_seen < touch.seen";

const HAVE_MORE: &str = "SELECT CAST(place - 1 AS SIGNED) FROM JSON_TABLE(?, '$[*]' COLUMNS (place FOR ORDINALITY, \
    room CHAR(32) PATH '$[0]', user VARCHAR(255) PATH '$[1]', count BIGINT PATH '$[2]')) AS wanted \
    WHERE wanted.count < (\
    SELECT COUNT(*) FROM presences WHERE user_id = wanted.user AND room_id = UNHEX(wanted.room))";

/// By number, as <https://mariadb.com/kb/en/mariadb-error-code-reference/> lists them.
pub(super) fn trouble(error: &MySqlDatabaseError) -> Trouble {
    by_number(error.number(), error.code())
}

/// Whether a channel speaks for another presence of the room. The name of the index comes last, and MySQL puts that of the table
/// before it; what comes before that may be anything, such as a channel of this very name.
pub(super) fn is_channel_taken(error: &MySqlDatabaseError) -> bool {
    names_channel_index(error.number(), error.message())
}

fn names_channel_index(number: u16, message: &str) -> bool {
    let key = message.strip_suffix('\'').and_then(|message| message.rsplit(['\'', '.']).next());
    matches!(number, 1062 | 1586) && key == Some(CHANNEL_INDEX)
}

/// Whether the user is not let in, or lacks a right.
#[cfg(feature = "cli")]
pub(super) fn turns_away(error: &MySqlDatabaseError) -> bool {
    matches!(error.number(), 1044 | 1045 | 1698) || lacks_right(error)
}

/// Whether the user lacks a right.
pub(super) fn lacks_right(error: &MySqlDatabaseError) -> bool {
    matches!(error.number(), 1142 | 1143 | 1227 | 1370)
}

fn by_number(number: u16, state: Option<&str>) -> Trouble {
    match number {
        // Lock wait timeout, deadlock, and MariaDB's "record has changed since last read".
        1205 | 1213 | 1020 => Trouble::Conflict,
        1062 | 1586 => Trouble::Duplicate,
        1146 => Trouble::Unprepared,
        // The rights of the user and what it may use are for an operator to give back, and so are the database and columns.
        1044 | 1045 | 1049 | 1054 | 1142 | 1143 | 1203 | 1226 | 1227 | 1370 | 1461 => Trouble::Away,
        // Not a text of this character set; too large for `max_allowed_packet`.
        1366 | 1153 => Trouble::Senseless,
        _ => match state {
            Some(state) if ["22", "23", "42"].iter().any(|class| state.starts_with(class)) => Trouble::Senseless,
            _ => Trouble::Away,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Trouble::*, *};

    #[test]
    fn a_channel_that_is_taken_is_told_by_the_index_that_says_so() {
        for (number, message, is_taken) in [
            (1062, "Duplicate entry '\\x01-job 7' for key 'presences_room_channel'", true),
            (1062, "Duplicate entry '\\x01-job 7' for key 'presences.presences_room_channel'", true),
            (1586, "Duplicate entry '\\x01-job 7' for key 'presences_room_channel'", true),
            (1062, "Duplicate entry '\\x01-presences_room_channel' for key 'PRIMARY'", false),
            (1062, "Duplicate entry '\\x01-\\x02' for key 'presences_room_session'", false),
            (1213, "presences_room_channel'", false),
        ] {
            assert_eq!(names_channel_index(number, message), is_taken, "{message}");
        }
    }

    #[test]
    fn several_servers_that_take_writes_are_found_out() {
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

    #[test]
    fn each_number_says_what_to_do() {
        for (number, state, trouble, what) in [
            (1205, "HY000", Conflict, "lock wait timeout"),
            (1213, "40001", Conflict, "deadlock"),
            (1020, "HY000", Conflict, "record has changed"),
            (1062, "23000", Duplicate, "duplicate key"),
            (1586, "23000", Duplicate, "duplicate key, by name"),
            (1021, "HY000", Away, "disk full"),
            (1040, "08004", Away, "too many connections"),
            (1044, "42000", Away, "no right to the database"),
            (1045, "28000", Away, "wrong password"),
            (1049, "42000", Away, "no such database"),
            (1054, "42S22", Away, "no such column"),
            (1053, "08S01", Away, "shutting down"),
            (1142, "42000", Away, "no right to the table"),
            (1146, "42S02", Unprepared, "no such table"),
            (1461, "42000", Away, "too many prepared statements on the server"),
            (1290, "HY000", Away, "read-only server"),
            (1317, "70100", Away, "statement killed"),
            (1792, "25006", Away, "read-only transaction"),
            (1927, "70100", Away, "connection killed"),
            (4031, "HY000", Away, "idle for too long"),
            (1048, "23000", Senseless, "null where none may be"),
            (1064, "42000", Senseless, "syntax error"),
            (1153, "08S01", Senseless, "larger than a packet may be"),
            (1366, "22007", Senseless, "not a text"),
            (1406, "22001", Senseless, "text too long"),
            (1452, "23000", Senseless, "foreign key"),
        ] {
            assert_eq!(by_number(number, Some(state)), trouble, "{number}: {what}");
        }
    }
}
