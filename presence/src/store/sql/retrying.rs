//! The public SQL store. It repeats a call that other transactions undo.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use futures_util::future::BoxFuture;
use sea_orm::DbBackend;
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        forward::{Call, Forward},
    },
    SingleTryStore,
    attempts::Attempts,
    database::Database,
    dialect::Dialect,
    error::{Trouble, store_error, trouble_of},
    settings::{ABANDONED_CALL_TIMEOUT, Synchronous},
};

/// How often a call is repeated after deadlocks and other conflicts. They are rare, since all transactions take their locks in
/// one order. A call that fails more often is returned to its caller.
const MAX_RETRIES: usize = 20;
/// For how long a call is repeated.
const RETRY_FOR: Duration = Duration::from_secs(5);

/// How often the patience of a commit is doubled at most.
const MAX_DOUBLINGS: u32 = 5;

/// A [`Store`](crate::store::Store) in a database. Clones share the connections.
///
/// ```
/// # async fn run() -> Result<(), presence::store::StoreError> {
/// use presence::{SqlStore, store::Store};
///
/// let store = SqlStore::connect("sqlite://presence.db")?;
/// store.prepare().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SqlStore {
    pub(super) once: SingleTryStore,
}

/// The URL of a database for which this build has no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a URL that begins with `{scheme}:` needs the feature `{feature}`, which this build does not have")]
pub struct MissingFeature {
    /// How the URL begins.
    pub scheme: &'static str,
    /// The cargo feature of this crate for such databases.
    pub feature: &'static str,
}

/// A URL that names several hosts. The driver would connect to any of them, and not only to the one that accepts writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the URL of the database names several hosts, but it may name only one: a DNS name or a proxy that leads to the server \
     which accepts writes"
)]
pub struct SeveralHosts;

/// A URL with an unknown scheme.
#[derive(Debug, thiserror::Error)]
#[error("the URL of the database does not begin with `sqlite:`, `postgres:` or `mysql:`")]
struct UnknownScheme;

impl SqlStore {
    /// The store in the database at `url`: `sqlite://presence.db` (a path; a missing file is created), `sqlite::memory:`,
    /// `postgres://user:password@host/database` or `mysql://user:password@host/database`. Each needs the feature of its name.
    ///
    /// This only checks the URL, and for SQLite that the folder exists. A connection is opened when it is first needed, and
    /// again after it was lost. So calls fail while the database is away, and work again when it is back.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if this build cannot use the URL (the source is [`MissingFeature`] if a feature would help), if it
    /// names several hosts (the source is [`SeveralHosts`]), or if its folder does not exist.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        Self::at(url, Missing::Create)
    }

    /// As [`connect`](Self::connect), but for an existing database: a missing SQLite file is not created, and calls fail as
    /// [`StoreError::Unavailable`] until the file exists.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if this build cannot use the URL.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::at(url, Missing::Wait)
    }

    fn at(url: &str, missing: Missing) -> Result<Self, StoreError> {
        // Only SQLite uses it.
        #[cfg(not(feature = "sqlite"))]
        let _ = missing;
        let scheme = url.split(':').next().unwrap_or_default();
        if scheme != "sqlite" && names_several_hosts(url) {
            return Err(StoreError::Refused(Arc::new(SeveralHosts)));
        }
        let dialect: Arc<dyn Dialect> = match scheme {
            #[cfg(feature = "sqlite")]
            "sqlite" => Arc::new(
                match missing {
                    Missing::Create => super::sqlite::Sqlite::new(url),
                    Missing::Wait => super::sqlite::Sqlite::existing(url),
                }
                .map_err(store_error)?,
            ),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Arc::new(super::postgres::Postgres::new(url).map_err(store_error)?),
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Arc::new(super::mysql::MySql::new(url).map_err(store_error)?),
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => return Err(without("sqlite", "sqlite")),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => return Err(without("postgres", "postgres")),
            #[cfg(not(feature = "mysql"))]
            "mysql" | "mariadb" => return Err(without("mysql", "mysql")),
            _ => return Err(StoreError::Refused(Arc::new(UnknownScheme))),
        };
        let once = SingleTryStore {
            database: Database::new(dialect),
            attempts: Attempts::default(),
            identity: identity(url),
            patience_factor: 1,
        };
        Ok(Self { once })
    }

    fn with(self, change: impl FnOnce(Database) -> Database) -> Self {
        Self { once: SingleTryStore { database: change(self.once.database), ..self.once } }
    }

    /// Sets what a commit survives, for SQLite; a server has its own setting. Call it before the store is used or cloned.
    #[must_use]
    pub fn with_synchronous(self, synchronous: Synchronous) -> Self {
        self.with(|database| database.with_settings(|settings| settings.synchronous = synchronous))
    }

    /// Sets how many connections may be open for leases and for removals that concern other nodes, and as many for reading: 4 by default, at
    /// least 1. Each lane of the node has one more ([`Config::store_lanes`](crate::Config::store_lanes)). SQLite always has one for writing.
    /// Call it before the store is used or cloned.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use presence::SqlStore;
    /// # fn settings(url: &str) -> Result<SqlStore, presence::store::StoreError> {
    /// let store = SqlStore::connect(url)?.with_connections(8).with_wait_timeout(Duration::from_secs(2));
    /// # Ok(store) }
    /// ```
    #[must_use]
    pub fn with_connections(self, connections: u32) -> Self {
        self.with(|database| database.with_settings(|settings| settings.connections = connections.max(1)))
    }

    /// Sets how long a call waits for a connection, and a statement for a lock: 5 s by default, at least 1 s. Then the call fails
    /// as [`StoreError::Unavailable`]. Call it before the store is used or cloned.
    #[must_use]
    pub fn with_wait_timeout(self, wait_timeout: Duration) -> Self {
        let wait_timeout = wait_timeout.max(Duration::from_secs(1));
        self.with(|database| database.with_settings(|settings| settings.wait_timeout = wait_timeout))
    }

    /// Sets the clock, in milliseconds since 1970, for tests. By default it is the clock of the database server, and for SQLite
    /// the clock of the system.
    #[must_use]
    pub fn with_wall_clock(self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.with(|database| database.with_wall_clock(Arc::new(now)))
    }

    /// Brings the schema up to date, as [`prepare`](crate::store::Store::prepare) does. Returns the names of the migrations that
    /// it applied.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.call(RETRY_FOR, |once| async move { once.migrate().await }).await
    }

    /// The names of the migrations that [`migrate`](Self::migrate) would apply: none if the schema is up to date. Changes
    /// nothing.
    ///
    /// ```
    /// # async fn run(url: &str) -> Result<(), presence::store::StoreError> {
    /// let store = presence::SqlStore::open(url)?;
    /// for migration in store.pending_migrations().await? {
    ///     println!("{migration} is not applied yet");
    /// }
    /// store.migrate().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        self.call(RETRY_FOR, |once| async move { once.pending_migrations().await }).await
    }
}

impl SqlStore {
    /// Makes a call, and repeats it while other transactions undo it.
    ///
    /// The MySQL driver does not support dropping a future that awaits an answer of the server: it would take the rest of that
    /// answer for the answer to the next statement. So a call to MySQL continues for a while when its caller has dropped it,
    /// nearly always to its end. The time is bounded, because a host that vanished never answers and connections are few.
    async fn call<T, F>(
        &self,
        retry_for: Duration,
        call: impl Fn(SingleTryStore) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let once = self.once.clone();
        let is_mysql = once.database.dialect().backend() == DbBackend::MySql;
        let call = with_retries(retry_for, move || call(once.clone()));
        if is_mysql {
            let (mut sender, receiver) = oneshot::channel();
            tokio::spawn(async move {
                let outcome = tokio::select! {
                    outcome = call => outcome,
                    () = async { sender.closed().await; tokio::time::sleep(ABANDONED_CALL_TIMEOUT).await } => return,
                };
                let _ = sender.send(outcome);
            });
            // The call panicked, or the runtime has stopped.
            receiver.await.unwrap_or_else(|error| Err(StoreError::Unavailable(Arc::new(error))))
        } else {
            call.await
        }
    }
}

/// A number that identifies the database at `url` in this process.
fn identity(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    if url.starts_with("sqlite") && (url.contains(":memory:") || url.contains("mode=memory")) {
        // Each store in memory is another database.
        Uuid::now_v7().hash(&mut hasher);
    }
    hasher.finish()
}

/// What to do if the database file does not exist.
#[derive(Clone, Copy)]
enum Missing {
    Create,
    Wait,
}

/// Whether the URL has a list of hosts, in the place of the host or in the parameter `host`, as libpq accepts it.
fn names_several_hosts(url: &str) -> bool {
    let Some((_, after_scheme)) = url.split_once("://") else { return false };
    let end = after_scheme.find(['/', '?', '#']).unwrap_or(after_scheme.len());
    let authority = &after_scheme[..end];
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let query = after_scheme.split_once('?').map_or("", |(_, query)| query);
    let parameters = query.split('&').filter_map(|parameter| parameter.split_once('='));
    let mut lists = parameters.filter(|(name, _)| matches!(*name, "host" | "hostaddr" | "port")).map(|(_, list)| list);
    let is_list = |text: &str| text.contains(',') || text.to_ascii_lowercase().contains("%2c");
    is_list(hosts) || lists.any(is_list)
}

#[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")))]
fn without(scheme: &'static str, feature: &'static str) -> StoreError {
    StoreError::Refused(Arc::new(MissingFeature { scheme, feature }))
}

/// Repeats a call while other transactions undo it.
async fn with_retries<T, F>(retry_for: Duration, call: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let since = Instant::now();
    let pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(2))
        .with_max_delay(Duration::from_millis(200))
        .with_max_times(MAX_RETRIES)
        .with_jitter();
    let mut had_duplicate = false;
    let is_retryable = |error: &StoreError| {
        let is_transient = match trouble_of(error) {
            Some(Trouble::Conflict) => true,
            Some(Trouble::Duplicate) => !std::mem::replace(&mut had_duplicate, true),
            _ => false,
        };
        is_transient && since.elapsed() < retry_for
    };
    call.retry(pauses).sleep(tokio::time::sleep).when(is_retryable).await
}

#[async_trait]
impl Forward for SqlStore {
    type Inner = SingleTryStore;

    fn inner(&self) -> &SingleTryStore {
        &self.once
    }

    async fn forward<T: Send + 'static>(
        &self,
        call: Call,
        make: impl for<'a> Fn(&'a SingleTryStore) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        // Dropped with this future, although the call may continue for longer.
        let _in_progress = match call {
            Call::Commit { node, attempt, .. } => Some(self.once.attempts.begin(node, attempt)),
            _ => None,
        };
        let retry_for = match call {
            // A lock that was not free is no reason to wait for it longer than intended.
            Call::Fence | Call::Clear | Call::Sweep => RETRY_FOR.min(self.once.database.limits().cleaning()),
            _ => RETRY_FOR,
        };
        let commit = match call {
            Call::Commit { attempt, rooms, .. } => Some((attempt, rooms)),
            _ => None,
        };
        let (make, tries) = (Arc::new((make, commit)), AtomicU32::new(0));
        self.call(retry_for, move |mut once| {
            let make = make.clone();
            // A server that is slow may need more time than the first try has, although no lock is in its way.
            once.patience_factor = 1 << tries.fetch_add(1, Ordering::Relaxed).min(MAX_DOUBLINGS);
            async move {
                let (make, commit) = &*make;
                match (make(&once).await, commit) {
                    (Err(error), Some((attempt, rooms))) => Err(once.explain(*attempt, rooms, error).await),
                    (outcome, _) => outcome,
                }
            }
        })
        .await
    }
}
