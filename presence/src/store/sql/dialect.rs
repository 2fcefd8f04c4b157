//! What differs between databases.

use std::{fmt, time::Duration};

use async_trait::async_trait;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use sea_orm::sqlx::{AssertSqlSafe, Connection, Executor};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqlxError, Statement, TransactionOptions,
    sea_query::SimpleExpr,
    sqlx::{self, pool::PoolOptions},
};

use crate::name::{ChannelName, Epoch, NodeId, PresenceId, UserId};

use super::{
    super::StoreError,
    commit::{CommitKeys, CommitWrite},
    settings::Settings,
    statement,
};

/// One kind of database, with the address of the database.
#[async_trait]
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    fn backend(&self) -> DbBackend;

    /// The connections for writing and for reading. They are opened when they are needed.
    fn connect(&self, settings: &Settings) -> (DatabaseConnection, DatabaseConnection);

    /// The connections for commits and touches, one for each lane. `None` if the database has one writer, which has one lane.
    fn connect_lanes(&self, _settings: &Settings) -> Option<DatabaseConnection> {
        None
    }

    /// In how many lanes one node may commit at most.
    fn max_lanes(&self) -> u16 {
        1
    }

    /// Opens a connection, checks that its user has the rights of a node, and closes it. A file needs no check, because its pool
    /// reports errors at once.
    async fn check_connection(&self, _settings: &Settings) -> Result<(), StoreError> {
        Ok(())
    }

    /// The options of a transaction that writes.
    fn to_write(&self) -> TransactionOptions {
        TransactionOptions::default()
    }

    /// The options of a transaction that reads the database at one moment.
    fn to_read(&self) -> TransactionOptions {
        TransactionOptions::default()
    }

    /// A statement that sets how long the statements after it wait for a lock, until the connection returns to its pool. `None` if
    /// [`transaction_limits`](Self::transaction_limits) does it, or if there are no such locks.
    fn set_lock_timeout(&self, _timeout: Duration) -> Option<String> {
        None
    }

    /// Lets a statement wait for locks for this long at most, if the database can limit one statement, and
    /// [`transaction_limits`](Self::transaction_limits) does not limit all of them.
    fn limit_wait(&self, statement: Statement, _patience: Duration) -> Statement {
        statement
    }

    /// An expression that sets for its transaction: how long a statement waits for a lock, how long the transaction may do nothing, and how
    /// long it may last. So these hold also if a pooler gives the transaction a session without the settings of this node. `None` if the
    /// database has no such expression.
    fn transaction_limits(
        &self,
        _lock_timeout: Duration,
        _transaction_timeout: Option<Duration>,
    ) -> Option<SimpleExpr> {
        None
    }

    /// An expression that waits within a transaction until it is its turn to lock the row of a node: whoever comes after one that wants it
    /// `exclusively` waits for that one. `None` if the row locks of the database have such a queue themselves, or if there are none.
    fn queue_for_node(&self, _node: NodeId, _exclusively: bool) -> Option<SimpleExpr> {
        None
    }

    /// The time of the database, in milliseconds since 1970. `None` if it has no clock of its own.
    fn now(&self) -> Option<SimpleExpr>;

    /// Prepares the database for the first migration.
    async fn prepare(&self, _writer: &DatabaseConnection) -> Result<(), DbErr> {
        Ok(())
    }

    /// Checks for settings that would make calls fail later or do harm. Changes nothing.
    async fn examine(&self, _writer: &DatabaseConnection, _readers: &DatabaseConnection) -> Result<(), StoreError> {
        Ok(())
    }

    /// Checks that the database is still the one that was opened. It is called before each transaction, so it must be quick.
    fn check_in_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Begins a transaction that excludes other migrations, in all processes.
    async fn begin_migration(&self, writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr>;

    /// Ends a transaction of [`begin_migration`](Self::begin_migration).
    async fn end_migration(&self, transaction: DatabaseTransaction) -> Result<(), DbErr> {
        transaction.commit().await
    }

    /// One page of the presences of a room, after a channel name, in the order of an index. The columns are those of a
    /// `PresenceRow`.
    fn page(&self, room: Epoch, after: &str, limit: u64) -> Statement {
        statement::page(room.as_uuid(), after, limit).into_statement(self.backend())
    }

    /// Records when presences of `node` were last seen. The text is the same for any number of them, so that the statement is
    /// prepared once.
    fn touch(&self, node: NodeId, now: i64, seen: &[(PresenceId, Duration)]) -> Statement;

    /// Deletes those of the presences that are in this room under this channel, and returns their rows. `None` if the database
    /// cannot do that in one statement.
    fn delete_returning(&self, _leaves: &[(PresenceId, Epoch, &ChannelName)]) -> Option<Statement> {
        None
    }

    /// Reads what a commit has to know, by one message to the database. `None` if the database has row locks, which are taken step by step.
    ///
    /// The first column of each row is a number. 0: the node may be written for, with the time at which it was fenced and the name that it
    /// lost. 1: a `RoomRow`. 2: a `SessionRow`.
    fn read_commit(&self, _keys: &CommitKeys<'_>) -> Option<Statement> {
        None
    }

    /// Writes what nearly every commit changes, by one message to the database. `None` if the database needs a message for each statement.
    fn write_commit(&self, _write: &CommitWrite<'_>) -> Option<Statement> {
        None
    }

    /// Which of these users have more presences in a room than this number: their indexes in the list. The text is the same for
    /// any number of users.
    fn have_more(&self, users: &[(Epoch, &UserId, i64)]) -> Statement;
}

/// The users as a JSON list of lists: the room in hexadecimal, the user, and the number.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
pub(super) fn users_as_json(users: &[(Epoch, &UserId, i64)]) -> String {
    let rows = users.iter().map(|(room, user, count)| (room.as_uuid().simple(), user, count));
    serde_json::Value::from_iter(rows.map(|(room, user, count)| serde_json::json!([room.to_string(), user, count])))
        .to_string()
}

/// A pool that keeps its connections open.
pub(super) fn pool<DB: sqlx::Database>(settings: &Settings, connections: u32) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(settings.wait_timeout)
        // An outage is logged once, by `Health`.
        .acquire_slow_threshold(Duration::MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// A connection that was idle for longer than this is checked before it is used.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const PING_AFTER_IDLE: Duration = Duration::from_secs(30);

/// How long a connection may take to answer when it is returned to the pool. If the server still executes a statement that its
/// caller dropped, it takes longer, and the connection is closed.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const RELEASE_CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// As [`pool`], for a server. `session` has the first statements of each connection.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn server_pool<DB: sqlx::Database>(settings: &Settings, connections: u32, session: String) -> PoolOptions<DB>
where
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
{
    pool(settings, connections)
        .before_acquire(|connection: &mut DB::Connection, meta| {
            Box::pin(async move {
                if meta.idle_for > PING_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_connect(move |connection: &mut DB::Connection, _| {
            let session = session.clone();
            Box::pin(async move { connection.execute(AssertSqlSafe(session)).await.map(drop) })
        })
}

/// How many prepared statements each connection to a server keeps, unless the URL sets it. Lists of keys and of rows come in
/// powers of two, and each length is another statement.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const CACHED_STATEMENTS: usize = 400;

/// Whether a URL sets how many statements are kept.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn names_cache_capacity(url: &str) -> bool {
    url.split_once('?').is_some_and(|(_, options)| {
        options.split('&').any(|option| option.split('=').next() == Some("statement-cache-capacity"))
    })
}

/// The error for a URL that this crate does not understand.
pub(super) fn bad_url(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(SqlxError::Configuration(why.into()).into()))
}

/// When a presence was seen, in the time of the database.
pub(super) fn seen_at(now: i64, ago: Duration) -> i64 {
    now.saturating_sub(super::super::millis(ago))
}
