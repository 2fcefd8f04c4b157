//! The dialect of PostgreSQL.
//!
//! Transactions are READ COMMITTED: each locks what it changes, in the order that all transactions use, and a statement after the
//! lock sees what others committed before.

use std::{
    fmt::{self, Write},
    str::FromStr,
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel, SqlxError,
    Statement, TransactionOptions, TransactionTrait,
    prelude::Uuid,
    sea_query::{Expr, SimpleExpr},
    sqlx::{
        AssertSqlSafe, ConnectOptions, Connection, Executor, Row,
        postgres::{PgConnectOptions, PgConnection, PgPool},
    },
};

use tokio::time::timeout;

use crate::name::{ChannelName, Epoch, NodeId, PresenceId, UserId};

use super::{
    super::StoreError,
    dialect::{CACHED_STATEMENTS, Dialect, RELEASE_CHECK_TIMEOUT, bad_url, names_cache_capacity, seen_at, server_pool},
    error::{NO_STATEMENTS, has_refused_writes, lacks_right, needs_operator, of_connection, refused, store_error},
    settings::{IDLE_TRANSACTION_TIMEOUT, MAX_LANES, Settings},
};

/// The key of the advisory lock for migrations: `presence` in ASCII.
const MIGRATION_LOCK: i64 = 0x7072_6573_656e_6365;

pub(super) struct Postgres {
    options: PgConnectOptions,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = &self.options;
        let database = options.get_database().unwrap_or_default();
        write!(f, "Postgres({}:{}/{database})", options.get_host(), options.get_port())
    }
}

impl Postgres {
    pub(super) fn new(url: &str) -> Result<Self, DbErr> {
        let options = PgConnectOptions::from_str(url).map_err(bad_url)?;
        let options = match names_cache_capacity(url) {
            true => options,
            false => options.statement_cache_capacity(CACHED_STATEMENTS),
        };
        let options = options.disable_statement_logging();
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("presence"),
        };
        Ok(Self { options })
    }

    fn pool(&self, settings: &Settings, connections: u32, purpose: Purpose) -> PgPool {
        server_pool(settings, connections, session(settings))
            // The pool waits until a returned connection answers. A connection to a host that vanished never does.
            .after_release(move |connection: &mut PgConnection, _| {
                Box::pin(async move {
                    let check = async {
                        match purpose {
                            // It costs a statement, so it is not done after each call.
                            Purpose::Write if has_refused_writes() => may_write(connection).await,
                            _ => connection.ping().await.map(|()| true),
                        }
                    };
                    Ok(matches!(timeout(RELEASE_CHECK_TIMEOUT, check).await, Ok(Ok(true))))
                })
            })
            .connect_lazy_with(self.options.clone())
    }
}

/// The first statements of each connection.
fn session(settings: &Settings) -> String {
    // A node that is suspended within a transaction loses its locks. Otherwise other nodes could neither fence it nor use its rooms. Each
    // transaction that writes sets these again for itself: see `transaction_limits`.
    format!(
        "SET default_transaction_isolation = 'read committed'; SET lock_timeout = {}; \
         SET idle_in_transaction_session_timeout = {}",
        settings.wait_timeout.as_millis(),
        IDLE_TRANSACTION_TIMEOUT.as_millis()
    )
}

/// The purpose of a connection.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Write,
    Read,
}

/// Whether a connection accepts writes. A connection to a server that has become a standby never will, but a new connection may
/// lead to another server.
async fn may_write(connection: &mut PgConnection) -> Result<bool, SqlxError> {
    let row = connection.fetch_one("SELECT current_setting('transaction_read_only') = 'off'").await?;
    row.try_get(0)
}

#[async_trait]
impl Dialect for Postgres {
    fn backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    fn connect(&self, settings: &Settings) -> (DatabaseConnection, DatabaseConnection) {
        let pool = |purpose| self.pool(settings, settings.connections, purpose).into();
        (pool(Purpose::Write), pool(Purpose::Read))
    }

    fn connect_lanes(&self, settings: &Settings) -> Option<DatabaseConnection> {
        Some(self.pool(settings, MAX_LANES.into(), Purpose::Write).into())
    }

    fn max_lanes(&self) -> u16 {
        MAX_LANES
    }

    async fn check_connection(&self, settings: &Settings) -> Result<(), StoreError> {
        let reach = async {
            let mut connection = self.options.connect().await?;
            connection.execute(AssertSqlSafe(session(settings))).await?;
            let missing: Option<String> = connection.fetch_one(MISSING_RIGHTS).await?.try_get(0)?;
            connection.close().await?;
            Ok(missing)
        };
        match reach.await.map_err(of_connection)? {
            Some(missing) => {
                Err(lacks_right(format_args!("the user of the database lacks the rights {missing}"), None))
            }
            None => Ok(()),
        }
    }

    fn to_read(&self) -> TransactionOptions {
        TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        }
    }

    fn transaction_limits(&self, lock_timeout: Duration, transaction_timeout: Option<Duration>) -> Option<SimpleExpr> {
        let (lock, idle) = (lock_timeout.as_millis(), IDLE_TRANSACTION_TIMEOUT.as_millis());
        let mut limits = format!(
            "set_config('lock_timeout', '{lock}', true), set_config('idle_in_transaction_session_timeout', '{idle}', true)"
        );
        // Earlier versions do not have this setting, and refuse its name.
        if let Some(timeout) = transaction_timeout.map(|timeout| timeout.as_millis()) {
            write!(
                limits,
                ", CASE WHEN current_setting('server_version_num')::int >= 170000 \
                 THEN set_config('transaction_timeout', '{timeout}', true) END"
            )
            .expect("a string takes every text");
        }
        Some(Expr::cust(format!("concat({limits})")))
    }

    /// PostgreSQL shares the lock of a row with all who ask while others share it, however long somebody waits to have it exclusively. With
    /// several lanes there is always one that shares it. Advisory locks are given in turn. The one of a row is taken before the row is locked,
    /// also within one query, because the query locks what its inner part has returned.
    fn queue_for_node(&self, node: NodeId, exclusively: bool) -> Option<SimpleExpr> {
        let (high, low) = node.as_uuid().as_u64_pair();
        let lock = if exclusively { "pg_advisory_xact_lock" } else { "pg_advisory_xact_lock_shared" };
        Some(Expr::cust(format!("{lock}({})", (high ^ low).cast_signed())))
    }

    fn now(&self) -> Option<SimpleExpr> {
        Some(Expr::cust("(extract(epoch from clock_timestamp()) * 1000)::bigint"))
    }

    async fn examine(&self, writer: &DatabaseConnection, readers: &DatabaseConnection) -> Result<(), StoreError> {
        let required =
            |text: Option<String>| text.ok_or_else(|| store_error(DbErr::RecordNotFound("an answer".to_owned())));
        // Each connection numbers its prepared statements, so these two have the same name. A pooler without support for prepared
        // statements gives both connections the same session of the server in turn.
        for (connection, text) in [(writer, "of the writer"), (readers, "of the reader"), (writer, "of the writer")] {
            let answer = query_text(connection, &format!("SELECT '{text}'")).await.map_err(store_error)?;
            if required(answer)? != text {
                return Err(needs_operator(NO_STATEMENTS, None));
            }
        }
        let encoding =
            required(query_text(readers, "SELECT current_setting('server_encoding')").await.map_err(store_error)?)?;
        match takes_every_text(&encoding) {
            true => Ok(()),
            false => Err(refused(format!(
                "the encoding of the database is {encoding}, which does not have every character: make one with \
                 CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            ))),
        }
    }

    async fn begin_migration(&self, writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
        let transaction = writer.begin().await?;
        // Another node may be migrating a large table.
        transaction.execute_unprepared("SET LOCAL lock_timeout = 0").await?;
        transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
        Ok(transaction)
    }

    fn page(&self, room: Epoch, after: &str, limit: u64) -> Statement {
        let values = [room.as_uuid().into(), after.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()];
        Statement::from_sql_and_values(DbBackend::Postgres, PAGE, values)
    }

    fn touch(&self, node: NodeId, now: i64, seen: &[(PresenceId, Duration)]) -> Statement {
        let ids: Vec<Uuid> = seen.iter().map(|(id, _)| id.as_uuid()).collect();
        let seen: Vec<i64> = seen.iter().map(|(_, ago)| seen_at(now, *ago)).collect();
        let values = [ids.into(), seen.into(), node.as_uuid().into()];
        Statement::from_sql_and_values(DbBackend::Postgres, TOUCH, values)
    }

    fn delete_returning(&self, leaves: &[(PresenceId, Epoch, &ChannelName)]) -> Option<Statement> {
        let ids: Vec<Uuid> = leaves.iter().map(|(id, ..)| id.as_uuid()).collect();
        let rooms: Vec<Uuid> = leaves.iter().map(|(_, room, _)| room.as_uuid()).collect();
        let channels: Vec<String> = leaves.iter().map(|(.., channel)| channel.as_str().to_owned()).collect();
        let values = [ids.into(), rooms.into(), channels.into()];
        Some(Statement::from_sql_and_values(DbBackend::Postgres, DELETE_RETURNING, values))
    }

    fn have_more(&self, users: &[(Epoch, &UserId, i64)]) -> Statement {
        let rooms: Vec<Uuid> = users.iter().map(|(room, ..)| room.as_uuid()).collect();
        let names: Vec<String> = users.iter().map(|(_, user, _)| user.as_str().to_owned()).collect();
        let counts: Vec<i64> = users.iter().map(|(.., count)| *count).collect();
        Statement::from_sql_and_values(DbBackend::Postgres, HAVE_MORE, [rooms.into(), names.into(), counts.into()])
    }
}

/// The text that a prepared query returns.
async fn query_text(connection: &DatabaseConnection, query: &str) -> Result<Option<String>, DbErr> {
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, query)).await?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}

/// SQL_ASCII stores all bytes unchanged.
fn takes_every_text(server_encoding: &str) -> bool {
    matches!(server_encoding, "UTF8" | "SQL_ASCII")
}

/// The subquery hides the limit from the planner. Otherwise, if it estimates that the room has fewer rows, as it does for each new
/// room, it sorts the rows for each page instead of using the index.
const PAGE: &str = "SELECT id, room_id, channel_name, user_id, meta, node_id, held_until FROM presences \
    WHERE room_id = $1 AND channel_name > $2 ORDER BY channel_name LIMIT (SELECT $3)";

/// `coalesce` keeps PostgreSQL from using the index on the node.
const TOUCH: &str = "UPDATE presences SET last_seen = touch.seen FROM unnest($1, $2) AS touch (id, seen) \
    WHERE presences.id = touch.id AND coalesce(presences.node_id = $3, false) AND presences.last_seen < touch.seen";

/// `IN`, because a join read the whole table. `||` keeps PostgreSQL from using the index on room and channel.
const DELETE_RETURNING: &str = "DELETE FROM presences WHERE (id, room_id, channel_name || '') IN (SELECT * FROM unnest($1, $2, $3)) \
    RETURNING id, room_id, channel_name, user_id, meta, node_id, held_until";

/// The error messages of PostgreSQL name the table, but not the missing right. A table that does not exist is left out.
const MISSING_RIGHTS: &str = "SELECT string_agg(privilege || ' ON ' || name, ', ' ORDER BY name, privilege) \
    FROM unnest(ARRAY['rooms', 'presences', 'nodes', 'leases', 'prune_requests', 'last_commits', \
    'shared_counts']) AS name, \
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege \
    WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name), privilege)";

const HAVE_MORE: &str = "SELECT place - 1 FROM unnest($1, $2, $3) WITH ORDINALITY AS wanted (room, name, count, place) \
    WHERE wanted.count < (SELECT COUNT(*) FROM presences WHERE user_id = wanted.name AND room_id = wanted.room)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encodings_with_every_character_are_accepted() {
        for (encoding, will_do) in [("UTF8", true), ("SQL_ASCII", true), ("LATIN1", false), ("EUC_JP", false)] {
            assert_eq!(takes_every_text(encoding), will_do, "{encoding}");
        }
    }
}
