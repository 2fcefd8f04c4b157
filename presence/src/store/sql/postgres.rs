//! What PostgreSQL has of its own.
//!
//! Transactions are READ COMMITTED: whatever one changes it has locked, in an order that all keep, and a statement after the
//! lock sees what others did before.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, IsolationLevel, SqlxError,
    Statement, TransactionOptions, TransactionTrait,
    prelude::Uuid,
    sea_query::{Expr, SimpleExpr},
    sqlx::{
        AssertSqlSafe, ConnectOptions, Connection, Executor, Row,
        postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions},
    },
};

use tokio::time::timeout;

use crate::name::{ChannelName, Epoch, NodeId, PresenceId, UserId};

use super::{
    super::StoreError,
    database::Settings,
    dialect::{CHANNEL_INDEX, Dialect, STATEMENTS, Trouble, bad_url, names_cache_capacity, seen_at},
    error::{lacks_right as lacks_rights, needs_operator, of_connection, refused, store_error},
};

/// Which lock nodes take to migrate: `presence` in ASCII.
const MIGRATIONS: i64 = 0x7072_6573_656e_6365;

/// A connection that lay idle for longer than this is tried before it is used.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection that comes back to the pool may take to answer. A statement that its caller gave up, and which the
/// server still works on, takes longer; the connection is closed then.
const ANSWER: Duration = Duration::from_secs(2);

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
            false => options.statement_cache_capacity(STATEMENTS),
        };
        let options = options.disable_statement_logging();
        let options = match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("presence"),
        };
        Ok(Self { options })
    }

    fn pool(&self, settings: &Settings, purpose: Purpose) -> PgPool {
        let session = session(settings);
        let options = PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(settings.patience)
            .acquire_slow_threshold(Duration::MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            // The pool waits for a connection that comes back until it answers, which one to a host that vanished never does.
            .after_release(move |connection, _| {
                Box::pin(async move {
                    Ok(match purpose {
                        Purpose::Write => matches!(timeout(ANSWER, may_write(connection)).await, Ok(Ok(true))),
                        Purpose::Read => matches!(timeout(ANSWER, connection.ping()).await, Ok(Ok(()))),
                    })
                })
            })
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { connection.execute(AssertSqlSafe(session)).await.map(drop) })
            });
        options.connect_lazy_with(self.options.clone())
    }
}

/// What is said first on each connection.
fn session(settings: &Settings) -> String {
    // A node that sleeps in the middle of a transaction has its locks taken away, or nobody could fence it.
    let patience = settings.patience.as_millis();
    format!(
        "SET default_transaction_isolation = 'read committed'; SET lock_timeout = {patience}; \
         SET idle_in_transaction_session_timeout = {}",
        6 * patience
    )
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Write,
    Read,
}

/// Whether a connection that answers may write. One to a server that is a standby now, or that began while nobody might write,
/// never will, and a new one may lead elsewhere.
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
        (self.pool(settings, Purpose::Write).into(), self.pool(settings, Purpose::Read).into())
    }

    async fn reach(&self, settings: &Settings) -> Result<(), StoreError> {
        let reach = async {
            let mut connection = self.options.connect().await?;
            connection.execute(AssertSqlSafe(session(settings))).await?;
            let missing: Option<String> = connection.fetch_one(MISSING_RIGHTS).await?.try_get(0)?;
            connection.close().await?;
            Ok(missing)
        };
        match reach.await.map_err(of_connection)? {
            Some(missing) => {
                Err(lacks_rights(format_args!("the user of the database lacks the rights {missing}"), None))
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

    fn now(&self) -> Option<SimpleExpr> {
        Some(Expr::cust("(extract(epoch from clock_timestamp()) * 1000)::bigint"))
    }

    async fn examine(&self, writer: &DatabaseConnection, readers: &DatabaseConnection) -> Result<(), StoreError> {
        let surely =
            |text: Option<String>| text.ok_or_else(|| store_error(DbErr::RecordNotFound("an answer".to_owned())));
        // Each connection numbers its statements by itself, so these two have one name. A pooler that knows nothing of
        // statements gives both connections one session of the server by turns.
        for (connection, text) in [(writer, "of the writer"), (readers, "of the reader"), (writer, "of the writer")] {
            let answer = ask(connection, &format!("SELECT '{text}'")).await.map_err(store_error)?;
            if surely(answer)? != text {
                return Err(needs_operator(NO_STATEMENTS, None));
            }
        }
        let encoding = surely(ask(readers, "SELECT current_setting('server_encoding')").await.map_err(store_error)?)?;
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
        // Somebody else may migrate a large table.
        transaction.execute_unprepared("SET LOCAL lock_timeout = 0").await?;
        transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({MIGRATIONS})")).await?;
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

    fn take_out(&self, leaves: &[(PresenceId, Epoch, &ChannelName)]) -> Option<Statement> {
        let ids: Vec<Uuid> = leaves.iter().map(|(id, ..)| id.as_uuid()).collect();
        let rooms: Vec<Uuid> = leaves.iter().map(|(_, room, _)| room.as_uuid()).collect();
        let channels: Vec<String> = leaves.iter().map(|(.., channel)| channel.as_str().to_owned()).collect();
        let values = [ids.into(), rooms.into(), channels.into()];
        Some(Statement::from_sql_and_values(DbBackend::Postgres, TAKE_OUT, values))
    }

    fn have_more(&self, users: &[(Epoch, &UserId, i64)]) -> Statement {
        let rooms: Vec<Uuid> = users.iter().map(|(room, ..)| room.as_uuid()).collect();
        let names: Vec<String> = users.iter().map(|(_, user, _)| user.as_str().to_owned()).collect();
        let counts: Vec<i64> = users.iter().map(|(.., count)| *count).collect();
        Statement::from_sql_and_values(DbBackend::Postgres, HAVE_MORE, [rooms.into(), names.into(), counts.into()])
    }
}

/// The text that a query returns, by a statement that is prepared.
async fn ask(connection: &DatabaseConnection, query: &str) -> Result<Option<String>, DbErr> {
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, query)).await?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}

/// SQL_ASCII takes all bytes as they are.
fn takes_every_text(server_encoding: &str) -> bool {
    matches!(server_encoding, "UTF8" | "SQL_ASCII")
}

/// The limit is hidden from PostgreSQL. Where it believes that all who are left in the room are fewer, as of each new room, it
/// sorts these for each page, instead of going by the index.
const PAGE: &str = "SELECT id, room_id, channel_name, user_id, meta, node_id, held_until FROM presences \
    WHERE room_id = $1 AND channel_name > $2 ORDER BY channel_name LIMIT (SELECT $3)";

/// `coalesce` keeps PostgreSQL from looking for the node first.
const TOUCH: &str = "UPDATE presences SET last_seen = touch.seen FROM unnest($1, $2) AS touch (id, seen) \
    WHERE presences.id = touch.id AND coalesce(presences.node_id = $3, false) AND presences.last_seen < touch.seen";

/// `IN`, since a join was done by reading the whole table; `||` keeps PostgreSQL from looking for room and channel instead.
const TAKE_OUT: &str = "DELETE FROM presences WHERE (id, room_id, channel_name || '') IN (SELECT * FROM unnest($1, $2, $3)) \
    RETURNING id, room_id, channel_name, user_id, meta, node_id, held_until";

/// What PostgreSQL says of a right that is missing names the table, and not the right. A table that is not there has none.
const MISSING_RIGHTS: &str = "SELECT string_agg(privilege || ' ON ' || name, ', ' ORDER BY name, privilege) \
    FROM unnest(ARRAY['rooms', 'presences', 'nodes', 'prune_requests', 'last_commits']) AS name, \
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege \
    WHERE to_regclass(name) IS NOT NULL AND NOT has_table_privilege(to_regclass(name), privilege)";

const HAVE_MORE: &str = "SELECT place - 1 FROM unnest($1, $2, $3) WITH ORDINALITY AS wanted (room, name, count, place) \
    WHERE wanted.count < (SELECT COUNT(*) FROM presences WHERE user_id = wanted.name AND room_id = wanted.room)";

/// By the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn trouble(error: &PgDatabaseError) -> Trouble {
    by_code(error.code())
}

fn by_code(code: &str) -> Trouble {
    match code {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => Trouble::Conflict,
        "23505" => Trouble::Duplicate,
        "42P01" => Trouble::Unprepared,
        // The rights of the user and columns that are not there are for an operator to give back. Prepared statements that are
        // there already are those of another client.
        "42501" | "42703" | "42P05" => Trouble::Away,
        code if ["22", "23", "42", "0A"].iter().any(|class| code.starts_with(class)) => Trouble::Senseless,
        _ => Trouble::Away,
    }
}

const NO_STATEMENTS: &str = "a pooler is in between that does not keep the prepared statements of its clients apart: let it pool \
    sessions (PgBouncer: pool_mode = session), or transactions by PgBouncer 1.21 or later with max_prepared_statements above 0";

const STARTUP_PARAMETER: &str =
    "a pooler refuses a parameter of the connection: set ignore_startup_parameters = extra_float_digits in PgBouncer";

const NO_TRANSACTIONS: &str = "a pooler allows no transactions: let it pool sessions (PgBouncer: pool_mode = session)";

/// What has to be changed in a pooler, whose own words do not say it.
pub(super) fn remedy(error: &PgDatabaseError) -> Option<&'static str> {
    remedy_of(error.code(), error.message())
}

fn remedy_of(code: &str, message: &str) -> Option<&'static str> {
    match code {
        // There is such a statement already, or there is none.
        "42P05" | "26000" => Some(NO_STATEMENTS),
        // Protocol violation: what PgBouncer says has this code, and so has a statement of others that takes other parameters.
        "08P01" if message.contains("startup parameter") => Some(STARTUP_PARAMETER),
        "08P01" if message.contains("statement pooling") => Some(NO_TRANSACTIONS),
        "08P01" if message.contains("prepared statement") => Some(NO_STATEMENTS),
        _ => None,
    }
}

/// Whether a channel speaks for another presence of the room.
pub(super) fn is_channel_taken(error: &PgDatabaseError) -> bool {
    error.constraint() == Some(CHANNEL_INDEX)
}

/// Whether the user is not let in, or lacks a right.
#[cfg(feature = "cli")]
pub(super) fn turns_away(error: &PgDatabaseError) -> bool {
    error.code().starts_with("28") || lacks_right(error)
}

/// Whether the user lacks a right.
pub(super) fn lacks_right(error: &PgDatabaseError) -> bool {
    error.code() == "42501"
}

/// Whether this is the last that the connection said.
pub(super) fn is_goodbye(error: &PgDatabaseError) -> bool {
    // Idle in a transaction for too long, ended by an operator, crashed.
    matches!(error.code(), "25P03" | "57P01" | "57P02")
}

#[cfg(test)]
mod tests {
    use super::{Trouble::*, *};

    #[test]
    fn what_comes_of_a_pooler_says_what_to_change_in_it() {
        for (code, message, remedy) in [
            ("42P05", "prepared statement \"sqlx_s_1\" already exists", Some(NO_STATEMENTS)),
            ("26000", "prepared statement \"sqlx_s_3\" does not exist", Some(NO_STATEMENTS)),
            (
                "08P01",
                "bind message supplies 2 parameters, but prepared statement \"sqlx_s_3\" requires 1",
                Some(NO_STATEMENTS),
            ),
            ("08P01", "unsupported startup parameter: extra_float_digits", Some(STARTUP_PARAMETER)),
            ("08P01", "transaction blocks not allowed in statement pooling mode", Some(NO_TRANSACTIONS)),
            ("08P01", "server conn crashed?", None),
            ("42P01", "relation \"nodes\" does not exist", None),
        ] {
            assert_eq!(remedy_of(code, message), remedy, "{code}: {message}");
        }
    }

    #[test]
    fn only_an_encoding_that_has_every_character_will_do() {
        for (encoding, will_do) in [("UTF8", true), ("SQL_ASCII", true), ("LATIN1", false), ("EUC_JP", false)] {
            assert_eq!(takes_every_text(encoding), will_do, "{encoding}");
        }
    }

    #[test]
    fn each_code_says_what_to_do() {
        for (code, trouble, what) in [
            ("40001", Conflict, "serialization failure"),
            ("40P01", Conflict, "deadlock"),
            ("55P03", Conflict, "lock timeout"),
            ("23505", Duplicate, "unique violation"),
            ("25006", Away, "read-only transaction"),
            ("25P03", Away, "idle in a transaction for too long"),
            ("08006", Away, "connection failure"),
            ("28P01", Away, "wrong password"),
            ("3D000", Away, "no such database"),
            ("42501", Away, "no right"),
            ("42P01", Unprepared, "no such table"),
            ("42P05", Away, "a prepared statement of another client"),
            ("26000", Away, "no such prepared statement"),
            ("42703", Away, "no such column"),
            ("53100", Away, "disk full"),
            ("53300", Away, "too many connections"),
            ("57014", Away, "statement cancelled"),
            ("57P01", Away, "ended by an operator"),
            ("57P03", Away, "starting up"),
            ("58030", Away, "input or output error"),
            ("XX000", Away, "internal error"),
            ("0A000", Senseless, "not supported"),
            ("22001", Senseless, "text too long"),
            ("22021", Senseless, "not a text"),
            ("23502", Senseless, "null where none may be"),
            ("23503", Senseless, "foreign key"),
            ("42601", Senseless, "syntax error"),
        ] {
            assert_eq!(by_code(code), trouble, "{code}: {what}");
        }
    }
}
