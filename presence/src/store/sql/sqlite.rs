//! What SQLite has of its own: connections, its one lock, time, errors, and statements that others spell otherwise.
//!
//! One connection writes, since SQLite has one writer anyway and waits for a lock by sleeping; some others read, and in
//! WAL mode they never wait for the writer. A write transaction takes the lock when it begins (`BEGIN IMMEDIATE`): one
//! that read first and wrote later would fail, whatever the busy timeout, if somebody else wrote in between.

use std::{
    fmt::{self, Write},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode,
    SqlxError, Statement, TransactionOptions, TransactionTrait,
    sqlx::{
        ConnectOptions, Connection,
        error::DatabaseError,
        pool::PoolOptions,
        sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteSynchronous},
    },
};

use crate::name::{NodeId, PresenceId};

/// How many connections read.
const READERS: u32 = 4;

/// How long a statement waits for a lock that another process has, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many touches one statement takes.
const TOUCHES: usize = 10_000;

/// When a commit is safe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Synchronous {
    /// It survives the end of the process at once, and a loss of power some moments later: the last transactions may be
    /// lost then, but the file stays sound. Several times faster.
    #[default]
    Normal,
    /// It survives a loss of power at once.
    Full,
}

#[derive(Clone)]
pub(super) struct Sqlite {
    options: SqliteConnectOptions,
    in_memory: bool,
    pub(super) writer: DatabaseConnection,
    readers: DatabaseConnection,
    wall_clock: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.options.get_filename()).finish()
    }
}

impl Sqlite {
    /// Checks the address of a database. It is opened when it is first needed, and made if it is missing.
    pub(super) fn new(url: &str) -> Result<Self, DbErr> {
        let options = options(url)?;
        // A file that is not there is made; a folder that is not there is a mistake.
        let folder = options.get_filename().parent().filter(|folder| *folder != Path::new(""));
        if folder.is_some_and(|folder| !folder.is_dir()) && !url.contains("mode=memory") {
            return Err(bad_url("the folder of the database file is not there"));
        }
        let options = if url.contains("mode=") { options } else { options.create_if_missing(true) };
        Ok(Self::open(options, is_in_memory(url), Synchronous::default(), Arc::new(utc)))
    }

    /// Checks the address of a database that is never made here, whatever the address says.
    pub(super) fn existing(url: &str) -> Result<Self, DbErr> {
        let options = options(url)?.create_if_missing(false);
        Ok(Self::open(options, is_in_memory(url), Synchronous::default(), Arc::new(utc)))
    }

    fn open(
        options: SqliteConnectOptions,
        in_memory: bool,
        synchronous: Synchronous,
        wall_clock: Arc<dyn Fn() -> i64 + Send + Sync>,
    ) -> Self {
        let options = options.synchronous(match synchronous {
            Synchronous::Normal => SqliteSynchronous::Normal,
            Synchronous::Full => SqliteSynchronous::Full,
        });
        let writer: DatabaseConnection = pool(1).connect_lazy_with(options.clone()).into();
        // A database in memory lives in its connection, and has no room for a reader beside the writer.
        let readers = if in_memory {
            writer.clone()
        } else {
            pool(READERS).connect_lazy_with(options.clone().pragma("query_only", "ON")).into()
        };
        Self { options, in_memory, writer, readers, wall_clock }
    }

    pub(super) fn with_synchronous(self, synchronous: Synchronous) -> Self {
        Self::open(self.options, self.in_memory, synchronous, self.wall_clock)
    }

    pub(super) fn with_wall_clock(self, wall_clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self { wall_clock, ..self }
    }

    /// Begins a transaction that writes. Dropped without a commit, it has never been.
    pub(super) async fn write(&self) -> Result<DatabaseTransaction, DbErr> {
        let immediate = Some(SqliteTransactionMode::Immediate);
        let options = TransactionOptions { sqlite_transaction_mode: immediate, ..TransactionOptions::default() };
        self.writer.begin_with_options(options).await
    }

    /// Begins a transaction that sees the database as it is at its first query.
    pub(super) async fn read(&self) -> Result<DatabaseTransaction, DbErr> {
        self.readers.begin().await
    }

    /// For queries that stand alone.
    pub(super) fn readers(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// The time in milliseconds since 1970. SQLite has no clock but its process's.
    pub(super) fn now(&self) -> i64 {
        (self.wall_clock)()
    }

    /// Puts the file into WAL mode, which it keeps.
    pub(super) async fn prepare(&self) -> Result<(), DbErr> {
        let since = tokio::time::Instant::now();
        loop {
            match self.writer.execute_unprepared("PRAGMA journal_mode = WAL").await {
                // Alone of all statements this one does not wait for a lock, and four processes may start at once.
                Err(error) if is_busy(&error) && since.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other.map(drop),
            }
        }
    }
}

fn options(url: &str) -> Result<SqliteConnectOptions, DbErr> {
    if !url.starts_with("sqlite:") {
        return Err(bad_url("the URL of the database does not begin with `sqlite:`"));
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|error| DbErr::Conn(sqlx_error(error)))?;
    if options.get_filename() == Path::new("") {
        // SQLite would make a private file for each connection, and delete it afterwards.
        return Err(bad_url("the URL of the database names no file"));
    }
    // Loads read some 10,000 rows in a row, and hand each from the thread of the connection to that of the caller.
    Ok(options.busy_timeout(PATIENCE).row_buffer_size(1024).disable_statement_logging())
}

fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

fn pool(connections: u32) -> SqlitePoolOptions {
    PoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(PATIENCE)
        // An outage is logged once, by those who know that it is one.
        .acquire_slow_threshold(Duration::MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // SQLite may end a transaction by itself when a disk is full or fails. The driver does not notice, and begins
        // every later one as if it were within that: without the lock. Such a connection is replaced.
        .before_acquire(|connection: &mut SqliteConnection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
}

fn utc() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    super::super::millis(since_1970)
}

fn bad_url(why: &'static str) -> DbErr {
    DbErr::Conn(sqlx_error(SqlxError::Configuration(why.into())))
}

fn sqlx_error(error: SqlxError) -> RuntimeErr {
    RuntimeErr::SqlxError(Arc::new(error))
}

/// The primary result code, which <https://www.sqlite.org/rescode.html> lists.
fn code(error: &dyn DatabaseError) -> Option<u32> {
    let extended: u32 = error.code()?.parse().ok()?;
    Some(extended & 0xff)
}

fn is_busy(error: &DbErr) -> bool {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    error.as_database_error().and_then(code).is_some_and(|code| matches!(code, BUSY | LOCKED))
}

/// Whether the request itself is at fault, so that asking again gives the same answer. What is wrong with the database, its
/// file or its schema is not: it may be mended.
pub(super) fn is_permanent(error: &dyn DatabaseError) -> bool {
    const ERROR: u32 = 1;
    const TOO_BIG: u32 = 18;
    const CONSTRAINT: u32 = 19;
    const MISMATCH: u32 = 20;
    const MISUSE: u32 = 21;
    const RANGE: u32 = 25;
    match code(error) {
        // Of all that goes by this code, only the text tells a table that is not there.
        Some(ERROR) => {
            let says = |text| error.message().contains(text);
            !(says("no such table") || says("no such column") || says("has no column named"))
        }
        code => code.is_some_and(|code| [TOO_BIG, CONSTRAINT, MISMATCH, MISUSE, RANGE].contains(&code)),
    }
}

/// The `+` keeps SQLite from looking for the node first: it would compare all its presences with all touches.
pub(super) const TOUCH: &str = "UPDATE presences SET last_seen = touch.seen \
    FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS seen FROM json_each(?)) AS touch \
    WHERE presences.id = touch.id AND +presences.node_id = ? AND presences.last_seen < touch.seen";

/// Notes when presences of `node` were seen last, each at a time of its own. One parameter serves any number of them, so
/// the statement is prepared once.
pub(super) async fn touch(
    transaction: &DatabaseTransaction,
    node: NodeId,
    now: i64,
    seen: &[(PresenceId, Duration)],
) -> Result<(), DbErr> {
    for seen in seen.chunks(TOUCHES) {
        let values = [touches(now, seen).into(), node.as_uuid().into()];
        transaction.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, TOUCH, values)).await?;
    }
    Ok(())
}

fn touches(now: i64, seen: &[(PresenceId, Duration)]) -> String {
    let mut json = String::with_capacity(56 * seen.len());
    for (id, ago) in seen {
        let separator = if json.is_empty() { '[' } else { ',' };
        let at = now.saturating_sub(super::super::millis(*ago));
        write!(json, "{separator}[\"{}\",{at}]", id.as_uuid().simple()).expect("a string takes every text");
    }
    json.push(']');
    json
}
