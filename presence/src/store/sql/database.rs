//! The connections to one database.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait,
    sea_query::{Expr, Query, SimpleExpr},
};
use tokio::time::timeout;

use super::{
    super::StoreError,
    dialect::Dialect,
    error::{is_lost, store_error},
};

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

/// How a store uses its database.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) synchronous: Synchronous,
    /// How many connections write, and how many read, where a database has more than one writer.
    pub(super) connections: u32,
    /// How long a statement waits for a lock, and a caller for a connection.
    pub(super) patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { synchronous: Synchronous::default(), connections: 4, patience: Duration::from_secs(5) }
    }
}

#[derive(Clone)]
pub(super) struct Database {
    dialect: Arc<dyn Dialect>,
    settings: Settings,
    pub(super) writer: DatabaseConnection,
    readers: DatabaseConnection,
    /// Tells the time instead of the database.
    wall_clock: Option<Arc<dyn Fn() -> i64 + Send + Sync>>,
    /// Whether anybody wants to know who comes online and who goes offline. Counting them is a good part of a large commit.
    pub(super) tells_turns: Arc<AtomicBool>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dialect.fmt(f)
    }
}

impl Database {
    pub(super) fn new(dialect: Arc<dyn Dialect>) -> Self {
        let settings = Settings::default();
        let (writer, readers) = dialect.connect(&settings);
        Self { dialect, settings, writer, readers, wall_clock: None, tells_turns: Arc::default() }
    }

    pub(super) fn with_settings(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings;
        change(&mut settings);
        let (writer, readers) = self.dialect.connect(&settings);
        Self { settings, writer, readers, ..self }
    }

    pub(super) fn with_wall_clock(self, wall_clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self { wall_clock: Some(wall_clock), ..self }
    }

    pub(super) fn dialect(&self) -> &Arc<dyn Dialect> {
        &self.dialect
    }

    /// Begins a transaction that writes. Dropped without a commit, it has never been.
    pub(super) async fn write(&self) -> Result<DatabaseTransaction, StoreError> {
        self.surely(|| self.writer.begin_with_options(self.dialect.to_write())).await
    }

    /// Begins a transaction that sees the database as it is at its first query.
    pub(super) async fn read(&self) -> Result<DatabaseTransaction, StoreError> {
        self.surely(|| self.readers.begin_with_options(self.dialect.to_read())).await
    }

    /// For queries that stand alone.
    pub(super) fn readers(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// The time in milliseconds since 1970.
    pub(super) fn now(&self) -> SimpleExpr {
        match (&self.wall_clock, self.dialect.now()) {
            (Some(wall_clock), _) => Expr::val(wall_clock()),
            (None, Some(now)) => now,
            (None, None) => Expr::val(utc()),
        }
    }

    /// Asks for the time, if it takes asking.
    pub(super) async fn time(&self, connection: &impl ConnectionTrait) -> Result<i64, StoreError> {
        let now = match self.now() {
            SimpleExpr::Value(sea_orm::Value::BigInt(Some(now))) => return Ok(now),
            now => Query::select().expr(now).take(),
        };
        let row = connection.query_one(&now).await.map_err(store_error)?;
        let row = row.ok_or_else(|| store_error(DbErr::RecordNotFound("the time".to_owned())))?;
        row.try_get_by_index(0).map_err(store_error)
    }

    /// Puts the database into the state that migrations expect.
    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        self.dialect.is_in_place()?;
        self.dialect.prepare(&self.writer).await.map_err(store_error)
    }

    /// Looks whether the database can be used.
    pub(super) async fn examine(&self) -> Result<(), StoreError> {
        self.dialect.examine(&self.writer, &self.readers).await
    }

    /// Makes a connection beside the pools, which, while a server is not there, try again for as long as a caller waits, and then
    /// know no more than that time is up.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        let patience = self.settings.patience;
        match timeout(patience, self.dialect.reach(&self.settings)).await {
            Ok(reached) => reached,
            Err(_) => Err(StoreError::Unavailable(Arc::new(Silent { patience }))),
        }
    }

    /// Runs what has changed nothing yet. A connection may have been lost while it lay in the pool, each of them when a
    /// server was started anew; that is no reason to fail, since the next one is new.
    pub(super) async fn surely<T, F>(&self, run: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        self.dialect.is_in_place()?;
        for _ in 0..self.settings.connections {
            match run().await {
                Err(error) if is_lost(&error) => {}
                outcome => return outcome.map_err(store_error),
            }
        }
        run().await.map_err(store_error)
    }
}

/// Nobody answers, or somebody who does not speak as a database does.
#[derive(Debug, thiserror::Error)]
#[error("a new connection had no answer within {patience:?}")]
struct Silent {
    patience: Duration,
}

fn utc() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    super::super::millis(since_1970)
}
