//! What the database holds, read from outside the server.

use super::server::Server;
use super::{Duration, eventually};
use sea_orm::{ConnectionTrait, Database, DatabaseBackend, Statement};

/// How many rows `table` has. `rooms`, `presences` and `nodes` are the tables that the operator's guide names.
pub(crate) async fn rows(server: &Server, table: &str) -> i64 {
    let url = format!("sqlite://{}", server.folder().join("presence.db").display());
    let database = Database::connect(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    let count = Statement::from_string(DatabaseBackend::Sqlite, format!("SELECT COUNT(*) AS count FROM {table}"));
    let row = database.query_one_raw(count).await.unwrap_or_else(|error| panic!("rows of {table}: {error}"));
    let count = row.expect("a count is one row").try_get("", "count").expect("a count is a number");
    database.close().await.expect("the database closes");
    count
}

/// Waits until `table` has just so many rows.
pub(crate) async fn rows_become(server: &Server, table: &str, expected: i64, bound: Duration) {
    eventually(bound, &format!("{expected} rows in {table}"), async || match rows(server, table).await {
        now if now == expected => Ok(()),
        now => Err(format!("{now} rows")),
    })
    .await;
}
