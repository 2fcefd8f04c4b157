//! The dialect of SQLite: connections, the lock, time, errors and special statements.
//!
//! One connection writes, since SQLite has one writer anyway and waits for a lock by sleeping. The others read, and in WAL mode
//! they never wait for the writer. A write transaction takes the lock when it begins (`BEGIN IMMEDIATE`). A transaction that
//! reads first and writes later would fail if another one wrote in between, whatever the busy timeout is.

use std::{
    fmt::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, SqlxError,
    Statement, TransactionOptions, TransactionTrait,
    sea_query::SimpleExpr,
    sqlx::{
        ConnectOptions, Connection,
        sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteSynchronous},
    },
};

use crate::name::{Epoch, NodeId, PresenceId, UserId};

mod commit;

use super::{
    super::StoreError,
    commit::{CommitKeys, CommitWrite},
    dialect::{Dialect, bad_url, pool, seen_at, users_as_json},
    error::{Trouble, needs_operator, trouble},
    settings::{Settings, Synchronous},
};

/// How long the switch to WAL mode is repeated while another process does the same.
const WAL_SWITCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of the file the writing connection may cache, in KiB. SQLite's default is 2,000. The indexes of 100,000 presences
/// are many times larger, and each transaction read them again.
const CACHE_KIB: u32 = 65_536;

/// The page size of a new file, in bytes; an existing file keeps its own. A transaction writes each page that it changes, and a
/// lone join changes seven. SQLite's default of 4,096 wrote four times as many bytes. With 512, loads and touches are slow, since
/// usual names and metas do not fit into a page.
const PAGE_BYTES: u32 = 1_024;

/// After how many pages SQLite copies its log into the file: 40 MiB. With the default of 1,000, each transaction with many joins
/// did that, and flushed both files. Now a page that many transactions change is copied once.
const CHECKPOINT_PAGES: u32 = 40_000;

/// How many prepared statements each connection keeps. The driver's default is 100. Commits have some hundred texts at most, since they
/// differ in the numbers of rows.
const CACHED_STATEMENTS: usize = 200;

pub(super) struct Sqlite {
    options: SqliteConnectOptions,
    /// `None` for a database in memory.
    file: Option<Arc<File>>,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.options.get_filename()).finish()
    }
}

impl Sqlite {
    /// Checks the URL. The database is opened when it is first needed, and created if it does not exist.
    pub(super) fn new(url: &str) -> Result<Self, DbErr> {
        let options = options(url)?;
        // A missing file is created, but a missing folder is a mistake.
        let folder = options.get_filename().parent().filter(|folder| *folder != Path::new(""));
        if folder.is_some_and(|folder| !folder.is_dir()) && !url.contains("mode=memory") {
            return Err(bad_url("the folder of the database file does not exist"));
        }
        let options = if url.contains("mode=") { options } else { options.create_if_missing(true) };
        Ok(Self::with(options, url))
    }

    /// Checks the URL of a database that is never created, even if the URL says so.
    pub(super) fn existing(url: &str) -> Result<Self, DbErr> {
        Ok(Self::with(options(url)?.create_if_missing(false), url))
    }

    fn with(options: SqliteConnectOptions, url: &str) -> Self {
        if is_in_memory(url) {
            return Self { options, file: None };
        }
        // A connection may be opened after the process has changed its working directory.
        let path = std::path::absolute(options.get_filename()).unwrap_or_else(|_| options.get_filename().to_owned());
        Self { options: options.filename(&path), file: Some(Arc::new(File::at(&path))) }
    }

    fn pool(&self, settings: &Settings, connections: u32) -> SqlitePoolOptions {
        let file = self.file.clone();
        pool(settings, connections)
            // SQLite may roll a transaction back by itself when a disk is full or fails. The driver does not notice, and begins later
            // transactions inside the old one, without the lock. Such a connection is replaced.
            .before_acquire(|connection: &mut SqliteConnection, _| {
                Box::pin(async move { Ok(!connection.is_in_transaction()) })
            })
            .after_connect(move |_, _| {
                let opened = file.as_deref().map_or(Ok(()), File::check_opened);
                Box::pin(async move { opened.map_err(|moved| SqlxError::Io(std::io::Error::other(moved))) })
            })
    }
}

/// The file of the database, as it was when the first connection was opened.
///
/// A file that is removed or replaced stays open without a name. Writes would go on, but no other process would see them, and
/// they would be lost when this process ends.
#[derive(Debug)]
struct File {
    path: PathBuf,
    opened: OnceLock<FileId>,
}

impl File {
    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), opened: OnceLock::new() }
    }

    /// Checks that a new connection has opened the same file as the first one.
    fn check_opened(&self) -> Result<(), Moved> {
        match file_id(&self.path) {
            Some(now) if *self.opened.get_or_init(|| now) == now => Ok(()),
            _ => Err(Moved(self.path.clone())),
        }
    }

    /// Checks that the path still leads to the open file, if one is open.
    fn check_in_place(&self) -> Result<(), Moved> {
        match self.opened.get() {
            Some(opened) if file_id(&self.path) != Some(*opened) => Err(Moved(self.path.clone())),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the database file `{}` was removed or replaced while it is open, and what is written to it now would be lost: move the \
     same file back, or restart the process to begin with what is there now",
    .0.display()
)]
struct Moved(PathBuf);

/// Identifies a file independently of its name: the device and the inode.
type FileId = (u64, u64);

fn file_id(path: &Path) -> Option<FileId> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[async_trait]
impl Dialect for Sqlite {
    fn backend(&self) -> DbBackend {
        DbBackend::Sqlite
    }

    fn connect(&self, settings: &Settings) -> (DatabaseConnection, DatabaseConnection) {
        let options =
            self.options.clone().busy_timeout(settings.wait_timeout).synchronous(match settings.synchronous {
                Synchronous::Normal => SqliteSynchronous::Normal,
                Synchronous::Full => SqliteSynchronous::Full,
            });
        let writes = options
            .clone()
            .pragma("cache_size", format!("-{CACHE_KIB}"))
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string());
        let writer: DatabaseConnection = self.pool(settings, 1).connect_lazy_with(writes).into();
        // A database in memory belongs to one connection, so the writer is also the reader.
        let readers = if self.file.is_none() {
            writer.clone()
        } else {
            self.pool(settings, settings.connections).connect_lazy_with(options.pragma("query_only", "ON")).into()
        };
        (writer, readers)
    }

    fn to_write(&self) -> TransactionOptions {
        let immediate = Some(SqliteTransactionMode::Immediate);
        TransactionOptions { sqlite_transaction_mode: immediate, ..TransactionOptions::default() }
    }

    fn now(&self) -> Option<SimpleExpr> {
        None
    }

    fn check_in_place(&self) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        file.check_in_place().map_err(|moved| needs_operator(moved.to_string(), None))
    }

    /// Switches the file to WAL mode. The file keeps the mode.
    async fn prepare(&self, writer: &DatabaseConnection) -> Result<(), DbErr> {
        let since = tokio::time::Instant::now();
        loop {
            match writer.execute_unprepared("PRAGMA journal_mode = WAL").await {
                // Unlike all other statements, this one does not wait for a lock. Several processes may start at once.
                Err(error) if trouble(&error) == Trouble::Conflict && since.elapsed() < WAL_SWITCH_TIMEOUT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => return other.map(drop),
            }
        }
    }

    async fn begin_migration(&self, writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        writer.begin_with_options(self.to_write()).await
    }

    fn touch(&self, node: NodeId, now: i64, seen: &[(PresenceId, Duration)]) -> Statement {
        Statement::from_sql_and_values(DbBackend::Sqlite, TOUCH, [touches(now, seen).into(), node.as_uuid().into()])
    }

    fn read_commit(&self, keys: &CommitKeys<'_>) -> Option<Statement> {
        Some(commit::read(keys))
    }

    fn write_commit(&self, write: &CommitWrite<'_>) -> Option<Statement> {
        Some(commit::write(write))
    }

    fn have_more(&self, users: &[(Epoch, &UserId, i64)]) -> Statement {
        Statement::from_sql_and_values(DbBackend::Sqlite, HAVE_MORE, [users_as_json(users).into()])
    }
}

fn options(url: &str) -> Result<SqliteConnectOptions, DbErr> {
    let options = SqliteConnectOptions::from_str(url).map_err(bad_url)?;
    if options.get_filename() == Path::new("") {
        // SQLite would create a temporary file for each connection.
        return Err(bad_url("the URL of the database names no file"));
    }
    // A load reads up to 10,000 rows, and each is passed from the thread of the connection to that of the caller.
    let options = options.row_buffer_size(1024).statement_cache_capacity(CACHED_STATEMENTS);
    Ok(options.page_size(PAGE_BYTES).disable_statement_logging())
}

fn is_in_memory(url: &str) -> bool {
    url.contains(":memory:") || url.contains("mode=memory")
}

/// The `+` keeps SQLite from using the index on the node: it would compare all presences of the node with all touches.
pub(super) const TOUCH: &str = "UPDATE presences SET last_seen = touch.seen \
    FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS seen FROM json_each(?)) AS touch \
    WHERE presences.id = touch.id AND +presences.node_id = ? AND presences.last_seen < touch.seen";

const HAVE_MORE: &str = "SELECT key FROM json_each(?) WHERE value ->> 2 < (\
    SELECT COUNT(*) FROM presences WHERE user_id = value ->> 1 AND room_id = unhex(value ->> 0))";

fn touches(now: i64, seen: &[(PresenceId, Duration)]) -> String {
    let mut json = String::with_capacity(56 * seen.len());
    for (id, ago) in seen {
        let separator = if json.is_empty() { '[' } else { ',' };
        let at = seen_at(now, *ago);
        write!(json, "{separator}[\"{}\",{at}]", id.as_uuid().simple()).expect("a string takes every text");
    }
    json.push(']');
    json
}
