//! What the server has done so far, by its own counters.

use sea_orm::ConnectionTrait as _;

use super::super::Place;

pub(super) struct Counters {
    /// Statements of all sessions, `BEGIN` and `COMMIT` included. Each is a round trip.
    pub(super) statements: f64,
    /// Commits.
    pub(super) transactions: f64,
    /// Presences.
    rows: f64,
}

impl Counters {
    /// Makes the counters of a new database readable.
    pub(super) async fn prepare(place: &Place) {
        if place.url.starts_with("postgres") {
            let connection = sea_orm::Database::connect(&place.url).await.expect("the database is there");
            connection.execute_unprepared("CREATE EXTENSION pg_stat_statements").await.expect("it is installed");
        }
    }

    pub(super) async fn read(place: &Place) -> Self {
        let query = if place.url.starts_with("postgres") { POSTGRES } else { MYSQL };
        let row = place.ask(query).await;
        let number = |at| row.try_get_by_index::<i64>(at).expect("a count") as f64;
        Self { statements: number(0), transactions: number(1), rows: number(2) }
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            statements: self.statements - before.statements,
            transactions: self.transactions - before.transactions,
            rows: self.rows - before.rows,
        }
    }

    /// How many joins there were, if nobody has left.
    pub(super) fn joins(&self) -> f64 {
        self.rows
    }
}

/// `pg_stat_database` counts transactions a little late, so the commits are counted as statements, too.
const POSTGRES: &str = "SELECT \
    (SELECT SUM(calls)::bigint FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = current_database()), \
    (SELECT COALESCE(SUM(calls), 0)::bigint FROM pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid \
     WHERE d.datname = current_database() AND s.query = 'COMMIT'), \
    (SELECT COUNT(*) FROM presences)";

const MYSQL: &str = "SELECT \
    (SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status WHERE variable_name = 'QUESTIONS'), \
    (SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status WHERE variable_name = 'COM_COMMIT'), \
    (SELECT COUNT(*) FROM presences)";
