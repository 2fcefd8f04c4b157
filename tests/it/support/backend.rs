//! A database that a test may take away: a file of SQLite, or a server of the test's own with a proxy before it.

use super::database::DatabaseLock;
use super::proxy::Proxy;
use super::{Duration, eventually};
use presence_test_servers::{Bouncer, CommitSync, Database, Pooling, Server, ServerKind};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr, Statement};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BackendKind {
    Sqlite,
    Postgres,
    MySql,
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) kind: BackendKind,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Sqlite { folder: TempDir, lock: Option<DatabaseLock> },
    Server { server: Option<Arc<Server>>, database: Database, node: String, proxy: Proxy },
}

/// What a user of the database needs who migrates it and runs a node; `docs/configuration.md` says so. On PostgreSQL the tables
/// are then its own.
const RIGHTS_ON_POSTGRES: &str = "CREATE ON SCHEMA public";
const RIGHTS_ON_MYSQL: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, REFERENCES ON *";

impl Backend {
    /// A database of its own, on a server that other tests use too where there is one.
    pub(crate) async fn shared(kind: BackendKind) -> Self {
        let program = match kind {
            BackendKind::Sqlite => return Self::sqlite(),
            BackendKind::Postgres => ServerKind::Postgres,
            BackendKind::MySql => ServerKind::MySql,
        };
        Self::behind_a_proxy(kind, None, presence_test_servers::database(program).await).await
    }

    /// A database of its own on a server of its own.
    pub(crate) async fn own(kind: BackendKind) -> Self {
        let program = match kind {
            BackendKind::Sqlite => return Self::sqlite(),
            BackendKind::Postgres => ServerKind::Postgres,
            BackendKind::MySql => ServerKind::MySql,
        };
        // A crash of the server loses nothing of this either, and the disk of a busy machine may take longer to sync than a
        // node waits for its database.
        let start = tokio::task::spawn_blocking(move || Server::start(program, CommitSync::None));
        let server = start.await.expect("the server starts");
        let database = server.database().await;
        Self::behind_a_proxy(kind, Some(Arc::new(server)), database).await
    }

    fn sqlite() -> Self {
        Self { kind: BackendKind::Sqlite, inner: Inner::Sqlite { folder: super::folder(), lock: None } }
    }

    async fn behind_a_proxy(kind: BackendKind, server: Option<Arc<Server>>, database: Database) -> Self {
        let proxy = Proxy::before(address(&database.url())).await;
        let rights = if kind == BackendKind::Postgres { RIGHTS_ON_POSTGRES } else { RIGHTS_ON_MYSQL };
        let direct = database.user(&[rights]).await;
        let node = direct.replace(&address(&direct).to_string(), &proxy.address().to_string());
        Self { kind, inner: Inner::Server { server, database, node, proxy } }
    }

    /// What a node is given to find it.
    pub(crate) fn url(&self) -> String {
        match &self.inner {
            Inner::Sqlite { folder, .. } => format!("sqlite://{}", folder.path().join("presence.db").display()),
            Inner::Server { node, .. } => node.clone(),
        }
    }

    /// The way of the test itself, which nothing makes go wrong.
    pub(crate) fn direct(&self) -> String {
        match &self.inner {
            Inner::Sqlite { .. } => self.url(),
            Inner::Server { database, .. } => database.url(),
        }
    }

    /// The network before the server.
    pub(crate) fn proxy(&self) -> &Proxy {
        match &self.inner {
            Inner::Sqlite { .. } => panic!("there is no network before a file"),
            Inner::Server { proxy, .. } => proxy,
        }
    }

    /// Ends every connection to it, whatever it is doing.
    pub(crate) async fn kill_connections(&self) {
        match &self.inner {
            Inner::Sqlite { .. } => panic!("a file has no connections to kill"),
            Inner::Server { database, .. } => database.kill_connections().await,
        }
    }

    /// Takes it away: the server ends as in a crash, the file is locked by another.
    pub(crate) async fn goes_away(&mut self) {
        let url = self.url();
        match &mut self.inner {
            Inner::Sqlite { lock, .. } => *lock = Some(DatabaseLock::of(&url).await),
            Inner::Server { server, .. } => {
                let server = server.clone().expect("it is not a shared one");
                tokio::task::spawn_blocking(move || server.stop_hard()).await.expect("it stops");
            }
        }
    }

    /// Gives it back, with its data.
    pub(crate) async fn comes_back(&mut self) {
        match &mut self.inner {
            Inner::Sqlite { lock, .. } => lock.take().expect("it was away").release().await,
            Inner::Server { server, .. } => {
                let server = server.clone().expect("it is not a shared one");
                tokio::task::spawn_blocking(move || server.start_again()).await.expect("it starts");
            }
        }
    }

    /// Drops it and makes an empty one, whoever is connected. Of SQLite the file stays, and its tables are dropped.
    pub(crate) async fn is_made_anew(&self) {
        match &self.inner {
            Inner::Sqlite { .. } => {
                let session = self.connect().await;
                let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
                let tables = Statement::from_string(session.get_database_backend(), tables);
                let tables = session.query_all_raw(tables).await.expect("its tables are listed");
                let mut drop = "PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE;".to_owned();
                for table in tables {
                    let table: String = table.try_get_by_index(0).expect("a name is a text");
                    drop.push_str(&format!("DROP TABLE \"{table}\";"));
                }
                drop.push_str("COMMIT");
                session.execute_unprepared(&drop).await.unwrap_or_else(|error| panic!("{drop}: {error}"));
                session.close().await.expect("the database closes");
            }
            Inner::Server { database, .. } => database.make_anew("").await,
        }
    }

    /// Where the file of SQLite is.
    pub(crate) fn file(&self) -> PathBuf {
        match &self.inner {
            Inner::Sqlite { folder, .. } => folder.path().join("presence.db"),
            Inner::Server { .. } => panic!("a server has more than a file"),
        }
    }

    /// The URL through PgBouncer, as a user who may do everything.
    pub(crate) fn behind(&self, pooling: Pooling, settings: &[&str]) -> (Bouncer, String) {
        let direct = self.direct();
        let bouncer = Bouncer::start(&direct, pooling, settings);
        let url = bouncer.url(&direct);
        (bouncer, url)
    }

    /// A connection past the proxy.
    pub(crate) async fn connect(&self) -> DatabaseConnection {
        let mut options = ConnectOptions::new(self.direct());
        options.max_connections(1).sqlx_logging(false);
        sea_orm::Database::connect(options).await.expect("the database opens")
    }

    pub(crate) async fn execute(&self, statement: &str) {
        let database = self.connect().await;
        database.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        database.close().await.expect("the database closes");
    }

    /// How many rows `table` has.
    pub(crate) async fn rows(&self, table: &str) -> i64 {
        self.count(table).await.unwrap_or_else(|error| panic!("rows of {table}: {error}"))
    }

    async fn count(&self, table: &str) -> Result<i64, DbErr> {
        let database = self.connect().await;
        let backend = database.get_database_backend();
        let count = Statement::from_string(backend, format!("SELECT COUNT(*) AS count FROM {table}"));
        let row = database.query_one_raw(count).await?;
        let count = row.expect("a count is one row").try_get("", "count").expect("a count is a number");
        database.close().await.expect("the database closes");
        Ok(count)
    }

    /// Waits until `table` is there and has just so many rows.
    pub(crate) async fn rows_become(&self, table: &str, expected: i64, bound: Duration) {
        eventually(bound, &format!("{expected} rows in {table}"), async || match self.count(table).await {
            Ok(now) if now == expected => Ok(()),
            Ok(now) => Err(format!("{now} rows")),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}

/// The part of a URL between the password and the path.
fn address(url: &str) -> SocketAddr {
    let after = url.rsplit_once('@').expect("a name and a password").1;
    let end = after.find('/').unwrap_or(after.len());
    after[..end].parse().expect("an address and a port")
}
