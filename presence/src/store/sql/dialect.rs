//! What databases do not have in common.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqlxError, Statement, TransactionOptions,
    sea_query::SimpleExpr,
};

use crate::name::{ChannelName, Epoch, NodeId, PresenceId, UserId};

use super::{super::StoreError, database::Settings, statement};

/// A kind of database, and where one of it is.
#[async_trait]
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    fn backend(&self) -> DbBackend;

    /// Connections to write with and to read with. Nothing is opened before it is needed.
    fn connect(&self, settings: &Settings) -> (DatabaseConnection, DatabaseConnection);

    /// Makes a connection, looks whether its user has the rights of a node, and lets go of it. A file needs none: what stands in its
    /// way, its pool says at once.
    async fn reach(&self, _settings: &Settings) -> Result<(), StoreError> {
        Ok(())
    }

    /// How a transaction begins that writes.
    fn to_write(&self) -> TransactionOptions {
        TransactionOptions::default()
    }

    /// How a transaction begins that sees the database as of one moment.
    fn to_read(&self) -> TransactionOptions {
        TransactionOptions::default()
    }

    /// The time of the database, in milliseconds since 1970. `None` if it has no other clock than this process.
    fn now(&self) -> Option<SimpleExpr>;

    /// Gets a database ready in which migrations have not run yet.
    async fn prepare(&self, _writer: &DatabaseConnection) -> Result<(), DbErr> {
        Ok(())
    }

    /// Looks for what would make calls fail later, or do harm, once the database is in use. Changes nothing.
    async fn examine(&self, _writer: &DatabaseConnection, _readers: &DatabaseConnection) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the database is where it was when it was opened. Called before each transaction, so it must be quick.
    fn is_in_place(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Begins a transaction that excludes every other of this kind, in whatever process.
    async fn begin_migration(&self, writer: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr>;

    /// Ends it.
    async fn end_migration(&self, transaction: DatabaseTransaction) -> Result<(), DbErr> {
        transaction.commit().await
    }

    /// One page of who is in a room, after a channel name, in the order of an index: the columns of a `PresenceRow`.
    fn page(&self, room: Epoch, after: &str, limit: u64) -> Statement {
        statement::page(room.as_uuid(), after, limit).into_statement(self.backend())
    }

    /// Notes when presences of `node` were seen last, each at a time of its own. The text is the same for any number of
    /// them, so that the statement is prepared once.
    fn touch(&self, node: NodeId, now: i64, seen: &[(PresenceId, Duration)]) -> Statement;

    /// Deletes those of the presences that are in this room under this channel, and tells all of each, where that is one
    /// statement.
    fn take_out(&self, _leaves: &[(PresenceId, Epoch, &ChannelName)]) -> Option<Statement> {
        None
    }

    /// Which of these users have more presences in a room than so many: their places in the list, counted from 0. One text for
    /// any number of them, too.
    fn have_more(&self, users: &[(Epoch, &UserId, i64)]) -> Statement;
}

/// The users as a list of lists, for a database that takes JSON: the room in hexadecimal, the user, and how many.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
pub(super) fn users_as_json(users: &[(Epoch, &UserId, i64)]) -> String {
    let rows = users.iter().map(|(room, user, count)| (room.as_uuid().simple(), user, count));
    serde_json::Value::from_iter(rows.map(|(room, user, count)| serde_json::json!([room.to_string(), user, count])))
        .to_string()
}

/// What an error of a database comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may work later: the database is away, full, read-only, or will not let us in.
    Away,
    /// The tables are not there. It works when they are made.
    Unprepared,
    /// Another transaction was in the way, and this one is undone. It may work at once.
    Conflict,
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(dead_code, reason = "SQLite has one writer at a time")
    )]
    /// There is such a row already. If another transaction made it just now, the next try will find it.
    Duplicate,
    /// Asking again gives the same answer.
    Senseless,
}

/// How many statements each connection to a server keeps prepared, if the URL does not say. Lists of keys and of rows come in
/// powers of two, each of which is a statement.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const STATEMENTS: usize = 400;

/// Whether a URL says how many statements are kept.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn names_cache_capacity(url: &str) -> bool {
    url.split_once('?').is_some_and(|(_, options)| {
        options.split('&').any(|option| option.split('=').next() == Some("statement-cache-capacity"))
    })
}

/// The index by which a channel is in a room once.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const CHANNEL_INDEX: &str = "presences_room_channel";

/// A URL that this crate does not understand.
pub(super) fn bad_url(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(SqlxError::Configuration(why.into()).into()))
}

/// When a presence was seen, in the database's time.
pub(super) fn seen_at(now: i64, ago: Duration) -> i64 {
    now.saturating_sub(super::super::millis(ago))
}
