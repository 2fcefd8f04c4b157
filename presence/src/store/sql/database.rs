//! The connections to one database.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, TransactionTrait,
    sea_query::{Expr, Query, SimpleExpr},
};
use tokio::time::timeout;

use super::{
    super::StoreError,
    change_log::ChangeLog,
    dialect::Dialect,
    error::{is_lost, store_error},
    settings::{Settings, WaitLimits},
};

#[derive(Clone)]
pub(super) struct Database {
    dialect: Arc<dyn Dialect>,
    settings: Settings,
    limits: Arc<WaitLimits>,
    /// How long a transaction that writes waits for a lock, if that is less than what the connections are set to.
    lock_timeout: Option<Duration>,
    /// How long a transaction in a lane waits for the locks of rooms, if that is less.
    patience: Option<Duration>,
    pub(super) writer: DatabaseConnection,
    /// The connections of the lanes. They are not those of the writer, so that a lease is renewed and other nodes are cleaned up after while
    /// all lanes wait.
    lanes: Option<DatabaseConnection>,
    readers: DatabaseConnection,
    /// Replaces the clock of the database.
    wall_clock: Option<Arc<dyn Fn() -> i64 + Send + Sync>>,
    /// Whether commits report the users who go online and offline. Counting them is a good part of a large commit.
    pub(super) tracks_online: Arc<AtomicBool>,
    pub(super) change_log: Arc<ChangeLog>,
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
        let lanes = dialect.connect_lanes(&settings);
        Self {
            dialect,
            settings,
            limits: Arc::default(),
            lock_timeout: None,
            patience: None,
            writer,
            lanes,
            readers,
            wall_clock: None,
            tracks_online: Arc::default(),
            change_log: Arc::default(),
        }
    }

    pub(super) fn with_settings(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings;
        change(&mut settings);
        let (writer, readers) = self.dialect.connect(&settings);
        let lanes = self.dialect.connect_lanes(&settings);
        Self { settings, writer, lanes, readers, ..self }
    }

    pub(super) fn with_wall_clock(self, wall_clock: Arc<dyn Fn() -> i64 + Send + Sync>) -> Self {
        Self { wall_clock: Some(wall_clock), ..self }
    }

    pub(super) fn dialect(&self) -> &Arc<dyn Dialect> {
        &self.dialect
    }

    pub(super) fn limits(&self) -> &WaitLimits {
        &self.limits
    }

    /// The same database, for transactions that clean up after other nodes.
    pub(super) fn for_cleaning(&self) -> Self {
        let lock_timeout = self.limits.cleaning();
        Self { lock_timeout: (lock_timeout < self.settings.wait_timeout).then_some(lock_timeout), ..self.clone() }
    }

    /// The same database, for a transaction in a lane that waits this long for the locks of rooms.
    pub(super) fn for_lane(&self, patience: Option<Duration>) -> Self {
        let writer = self.lanes.as_ref().unwrap_or(&self.writer).clone();
        Self { writer, patience, ..self.clone() }
    }

    /// Where transactions keep what they change, if they do.
    pub(super) fn change_log(&self) -> Option<Arc<ChangeLog>> {
        self.change_log.is_on.load(Ordering::Acquire).then(|| self.change_log.clone())
    }

    /// How long a transaction waits for the locks of rooms, if that is less than what the connections are set to.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// Begins a transaction that writes. If it is dropped without a commit, it changes nothing.
    pub(super) async fn write(&self) -> Result<DatabaseTransaction, StoreError> {
        let transaction = self.on_live_connection(|| self.writer.begin_with_options(self.dialect.to_write())).await?;
        if let Some(set) = self.lock_timeout.and_then(|timeout| self.dialect.set_lock_timeout(timeout)) {
            transaction.execute_unprepared(&set).await.map_err(store_error)?;
        }
        Ok(transaction)
    }

    /// An expression that sets the time limits of the transaction in which it is evaluated, for databases that do so by an expression. It is
    /// part of the first query of a transaction, so it costs no message.
    pub(super) fn transaction_limits(&self) -> Option<SimpleExpr> {
        let lock_timeout = self.patience.or(self.lock_timeout).unwrap_or(self.settings.wait_timeout);
        self.dialect.transaction_limits(lock_timeout, self.limits.transaction())
    }

    /// Sets the time limits of a transaction whose first query does not.
    pub(super) async fn limit(&self, transaction: &DatabaseTransaction) -> Result<(), StoreError> {
        if let Some(limits) = self.transaction_limits() {
            transaction.query_one(Query::select().expr(limits)).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Begins a transaction in which all queries see the database at the moment of the first one.
    pub(super) async fn read(&self) -> Result<DatabaseTransaction, StoreError> {
        self.on_live_connection(|| self.readers.begin_with_options(self.dialect.to_read())).await
    }

    /// The connections for queries without a transaction.
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

    /// The time. Needs a query if the clock is that of the database.
    pub(super) async fn time(&self, connection: &impl ConnectionTrait) -> Result<i64, StoreError> {
        let now = match self.now() {
            SimpleExpr::Value(sea_orm::Value::BigInt(Some(now))) => return Ok(now),
            now => Query::select().expr(now).take(),
        };
        let row = connection.query_one(&now).await.map_err(store_error)?;
        let row = row.ok_or_else(|| store_error(DbErr::RecordNotFound("the time".to_owned())))?;
        row.try_get_by_index(0).map_err(store_error)
    }

    /// Prepares the database for migrations.
    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        self.dialect.check_in_place()?;
        self.dialect.prepare(&self.writer).await.map_err(store_error)
    }

    /// Checks that the database can be used.
    pub(super) async fn examine(&self) -> Result<(), StoreError> {
        self.dialect.examine(&self.writer, &self.readers).await
    }

    /// Opens a connection outside of the pools. While a server is away, the pools retry until their callers give up, and then
    /// only report that the time is up.
    pub(super) async fn check_connection(&self) -> Result<(), StoreError> {
        let wait_timeout = self.settings.wait_timeout;
        match timeout(wait_timeout, self.dialect.check_connection(&self.settings)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(StoreError::Unavailable(Arc::new(NoAnswer { wait_timeout }))),
        }
    }

    /// Runs the first statement of a call, which has changed nothing yet. Connections may have been lost while they were in the
    /// pool; all of them are when a server was restarted. So a lost connection is no reason to fail: the next one is new.
    pub(super) async fn on_live_connection<T, F>(&self, run: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, DbErr>>,
    {
        self.dialect.check_in_place()?;
        for _ in 0..self.settings.connections.max(self.limits.lanes().into()) {
            match run().await {
                Err(error) if is_lost(&error) => {}
                outcome => return outcome.map_err(store_error),
            }
        }
        run().await.map_err(store_error)
    }
}

/// Nothing answers at the address, or something that is not a database.
#[derive(Debug, thiserror::Error)]
#[error("a new connection had no answer within {wait_timeout:?}")]
struct NoAnswer {
    wait_timeout: Duration,
}

fn utc() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    super::super::millis(since_1970)
}
