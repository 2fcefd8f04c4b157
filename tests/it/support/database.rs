//! What the database holds, read from outside the server.

use super::server::ChatServer;
use super::{BOUND, Duration, eventually};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseBackend, DatabaseConnection, Statement};

async fn open(server: &ChatServer) -> DatabaseConnection {
    let url = format!("sqlite://{}", server.folder().join("presence.db").display());
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    Database::connect(options).await.expect("the server's database opens")
}

/// How many rows `table` has. `rooms`, `presences` and `nodes` are the tables that the operator's guide names.
pub(crate) async fn rows(server: &ChatServer, table: &str) -> i64 {
    let database = open(server).await;
    let count = Statement::from_string(DatabaseBackend::Sqlite, format!("SELECT COUNT(*) AS count FROM {table}"));
    let row = database.query_one_raw(count).await.unwrap_or_else(|error| panic!("rows of {table}: {error}"));
    let count = row.expect("a count is one row").try_get("", "count").expect("a count is a number");
    database.close().await.expect("the database closes");
    count
}

/// Waits until `table` has just so many rows.
pub(crate) async fn rows_become(server: &ChatServer, table: &str, expected: i64, bound: Duration) {
    eventually(bound, &format!("{expected} rows in {table}"), async || match rows(server, table).await {
        now if now == expected => Ok(()),
        now => Err(format!("{now} rows")),
    })
    .await;
}

/// Nobody else can write while this is held: to the server its database is away.
#[derive(Debug)]
pub(crate) struct DatabaseLock(DatabaseConnection);

impl DatabaseLock {
    pub(crate) async fn take(server: &ChatServer) -> Self {
        Self::over(open(server).await).await
    }

    /// The lock of the file that a URL names, which is made if it is missing.
    pub(crate) async fn of(url: &str) -> Self {
        let mut options = ConnectOptions::new(format!("{url}?mode=rwc"));
        options.max_connections(1).sqlx_logging(false);
        Self::over(Database::connect(options).await.expect("the database opens")).await
    }

    async fn over(database: DatabaseConnection) -> Self {
        eventually(BOUND, "the lock of the database", async || {
            database.execute_unprepared("BEGIN IMMEDIATE").await.map_err(|error| error.to_string())
        })
        .await;
        Self(database)
    }

    pub(crate) async fn release(self) {
        self.0.execute_unprepared("ROLLBACK").await.expect("the transaction was begun");
        self.0.close().await.expect("the database closes");
    }
}
