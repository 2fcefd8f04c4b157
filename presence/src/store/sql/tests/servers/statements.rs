//! How many statements calls send to a server.

use super::*;

/// A statement after which a connection to MariaDB or MySQL is known to be in step with its pool.
const CHECKS: i64 = 1;

/// How many statements the store has sent so far, and perhaps this question.
async fn sent(kind: ServerKind, database: &Database, store: &SqlStore) -> i64 {
    let number = async |connection: &sea_orm::DatabaseConnection, query: &str| {
        let query = Statement::from_string(connection.get_database_backend(), query);
        connection.query_one_raw(query).await.unwrap().unwrap().try_get_by_index::<i64>(0).unwrap()
    };
    match kind {
        ServerKind::Postgres => number(&database.connect().await, OF_DATABASE).await,
        ServerKind::MySql => {
            number(&store.once.database.writer, OF_SESSION).await
                + number(store.once.database.readers(), OF_SESSION).await
        }
    }
}

const OF_DATABASE: &str = "SELECT COALESCE(SUM(calls), 0)::bigint FROM pg_stat_statements AS s JOIN pg_database AS d \
    ON d.oid = s.dbid WHERE d.datname = current_database() AND s.query NOT LIKE '%pg_stat_statements%'";

const OF_SESSION: &str =
    "SELECT CAST(variable_value AS SIGNED) FROM information_schema.session_status WHERE variable_name = 'QUESTIONS'";

#[tokio::test]
async fn what_an_idle_node_does_again_and_again_is_one_statement_each() {
    const TIMES: i64 = 10;
    for &kind in KINDS {
        // A server that counts the statements of each database.
        let server = presence_test_servers::Server::start(kind, presence_test_servers::CommitSync::Full);
        let database = server.database().await;
        let (store, node) = joined(&database).await;
        let store = store.with_connections(1);
        if kind == ServerKind::Postgres {
            database.connect().await.execute_unprepared("CREATE EXTENSION pg_stat_statements").await.unwrap();
        }
        let round = async || {
            store.renew(node, LEASE).await.unwrap();
            store.survey(node).await.unwrap();
            store.recent_changes(node, Duration::ZERO, 10).await.unwrap();
        };
        // A new connection sets its session up first.
        round().await;
        let first = sent(kind, &database, &store).await;
        let before = sent(kind, &database, &store).await;
        for _ in 0..TIMES {
            round().await;
        }
        let each = if kind == ServerKind::Postgres { 1 } else { 1 + CHECKS };
        let after = sent(kind, &database, &store).await;
        assert_eq!(after - before - (before - first), 3 * each * TIMES, "{kind:?}");
    }
}
