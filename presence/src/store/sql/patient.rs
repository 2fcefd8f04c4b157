//! The store that callers see: each call is tried again while other transactions are in its way.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::future::BoxFuture;
use sea_orm::DbBackend;
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use super::{
    super::{
        StoreError,
        forward::{Call, Forward},
    },
    Once,
    attempts::Attempts,
    database::{Database, Synchronous},
    dialect::{Dialect, Trouble},
    error::{store_error, trouble_of},
};

/// How often a call is tried while deadlocks and the like undo it, and for how long. Deadlocks are rare, since all take
/// their locks in one order; who loses so often is better off telling its caller.
const TRIES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// For how long a call goes on whose caller has given it up.
const UNHEARD: Duration = Duration::from_secs(2);

/// A [`Store`](crate::store::Store) in a database. Clones share its connections.
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
    pub(super) once: Once,
}

/// A URL of a database for which this build has no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a URL that begins with `{scheme}:` needs the feature `{feature}`, which this build is without")]
pub struct MissingFeature {
    /// How the URL begins.
    pub scheme: &'static str,
    /// The cargo feature of this crate that knows such databases.
    pub feature: &'static str,
}

/// A URL that names several hosts. The driver connects to one, and would not know which of them may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the URL of the database names several hosts, and may name one: a DNS name or a proxy that leads to the server which may \
     be written to"
)]
pub struct SeveralHosts;

/// A URL that names no database that this crate knows.
#[derive(Debug, thiserror::Error)]
#[error("the URL of the database does not begin with `sqlite:`, `postgres:` or `mysql:`")]
struct UnknownScheme;

impl SqlStore {
    /// The store in the database at `url`: `sqlite://presence.db` (a path; the file is made if it is missing),
    /// `sqlite::memory:`, `postgres://user:password@host/database` or `mysql://user:password@host/database`, each if the
    /// feature of that name is on.
    ///
    /// This looks at the URL, and for SQLite whether its folder is there. The database is opened when it is first needed, and
    /// again whenever it was lost, so one that is away makes calls fail while it is away, and no longer.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is not one that this build can use (its source is a [`MissingFeature`] if a feature
    /// would help), names several hosts (its source is [`SeveralHosts`]), or names a folder that is not there.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        Self::at(url, Missing::Make)
    }

    /// As [`connect`](Self::connect), but for a database that is there already: a SQLite file that is missing, or its folder,
    /// is not made, and every call fails as [`StoreError::Unavailable`] until it is there.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is not one that this build can use.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Self::at(url, Missing::Wait)
    }

    fn at(url: &str, missing: Missing) -> Result<Self, StoreError> {
        // Only SQLite has files.
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
                    Missing::Make => super::sqlite::Sqlite::new(url),
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
        let once = Once { database: Database::new(dialect), attempts: Attempts::default(), identity: identity(url) };
        Ok(Self { once })
    }

    fn with(self, change: impl FnOnce(Database) -> Database) -> Self {
        Self { once: Once { database: change(self.once.database), ..self.once } }
    }

    /// Sets when a commit is safe, for SQLite; a server has a setting of its own. To be called before the store is used or
    /// cloned.
    #[must_use]
    pub fn with_synchronous(self, synchronous: Synchronous) -> Self {
        self.with(|database| database.with_settings(|settings| settings.synchronous = synchronous))
    }

    /// Sets how many connections are open at most to write with, and as many again to read with: 4 by default, at least 1.
    /// SQLite has one that writes in any case. To be called before the store is used or cloned.
    #[must_use]
    pub fn with_connections(self, connections: u32) -> Self {
        self.with(|database| database.with_settings(|settings| settings.connections = connections.max(1)))
    }

    /// Sets how long a call waits for a connection, and a statement for a lock: 5 s by default, at least a second. What waits
    /// longer fails as [`StoreError::Unavailable`]. To be called before the store is used or cloned.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        let patience = patience.max(Duration::from_secs(1));
        self.with(|database| database.with_settings(|settings| settings.patience = patience))
    }

    /// Sets what tells the time, in milliseconds since 1970, instead of the database, or, for SQLite, which has no time of its
    /// own, instead of the system's clock. For tests.
    #[must_use]
    pub fn with_wall_clock(self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.with(|database| database.with_wall_clock(Arc::new(now)))
    }

    /// Brings the schema up to date, as [`prepare`](crate::store::Store::prepare) does, and names the migrations that this took.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.call(|once| async move { once.migrate().await }).await
    }

    /// Names the migrations that [`migrate`](Self::migrate) would apply: none, if the schema is that of this version. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        self.call(|once| async move { once.pending_migrations().await }).await
    }
}

impl SqlStore {
    /// Makes a call, and again while other transactions undo it.
    ///
    /// The driver of MySQL does not stand it that a future is dropped which awaits an answer of the server: what remains of that
    /// answer is then taken for the answer to the next question. So there the call goes on for a while if nobody waits, mostly to
    /// its end. Not for ever: a connection to a host that vanished never answers, and there are only so many.
    async fn call<T, F>(&self, call: impl Fn(Once) -> F + Send + 'static) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let once = self.once.clone();
        let is_mysql = once.database.dialect().backend() == DbBackend::MySql;
        let call = patiently(move || call(once.clone()));
        if is_mysql {
            let (mut tell, told) = oneshot::channel();
            tokio::spawn(async move {
                let outcome = tokio::select! {
                    outcome = call => outcome,
                    () = async { tell.closed().await; tokio::time::sleep(UNHEARD).await } => return,
                };
                let _ = tell.send(outcome);
            });
            // It panicked, or the runtime has ended.
            told.await.unwrap_or_else(|error| Err(StoreError::Unavailable(Arc::new(error))))
        } else {
            call.await
        }
    }
}

/// A number for the database at `url`.
fn identity(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    if url.starts_with("sqlite") && (url.contains(":memory:") || url.contains("mode=memory")) {
        // Each is a database of its own.
        Uuid::now_v7().hash(&mut hasher);
    }
    hasher.finish()
}

/// What to do about a file that is not there.
#[derive(Clone, Copy)]
enum Missing {
    Make,
    Wait,
}

/// As libpq and some drivers take it: a list in the place of the host, or as the parameter `host`.
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

/// Runs a call again while other transactions undo it.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let since = Instant::now();
    let mut pauses = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(2))
        .with_max_delay(Duration::from_millis(200))
        .with_max_times(TRIES)
        .with_jitter()
        .build();
    let mut duplicates = 0;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        match trouble_of(&error) {
            Some(Trouble::Conflict) => {}
            Some(Trouble::Duplicate) if duplicates == 0 => duplicates += 1,
            _ => return Err(error),
        }
        match pauses.next() {
            Some(pause) if since.elapsed() < PATIENCE => tokio::time::sleep(pause).await,
            _ => return Err(error),
        }
    }
}

#[async_trait]
impl Forward for SqlStore {
    type Inner = Once;

    fn inner(&self) -> &Once {
        &self.once
    }

    async fn forward<T: Send + 'static>(
        &self,
        call: Call,
        make: impl for<'a> Fn(&'a Once) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        // As long as the caller waits. The call may go on for longer.
        let _under_way = match call {
            Call::Commit { node, attempt, .. } => Some(self.once.attempts.begin(node, attempt)),
            _ => None,
        };
        let make = Arc::new(make);
        self.call(move |once| {
            let make = make.clone();
            async move { make(&once).await }
        })
        .await
    }
}
