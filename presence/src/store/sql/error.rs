//! Maps database errors to store errors.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::{borrow::Cow, fmt, io, sync::Arc};

use sea_orm::{DbErr, RuntimeErr, SqlxError, sqlx::error::DatabaseError};

use crate::name::RoomName;

use super::super::{ChannelTaken, NeedsOperator, StoreError};

#[cfg(feature = "postgres")]
pub(super) use self::postgres::{NO_STATEMENTS, has_refused_writes};

/// The unique index on room and channel.
#[cfg(any(feature = "postgres", feature = "mysql"))]
const CHANNEL_INDEX: &str = "presences_room_channel";

/// The kinds of database errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may work later: the database is away, full, read-only, or denies access.
    Away,
    /// The tables do not exist. It works when they are created.
    TablesMissing,
    /// A conflict with another transaction undid this one. It may work at once.
    Conflict,
    #[cfg_attr(
        not(any(feature = "postgres", feature = "mysql")),
        expect(dead_code, reason = "SQLite has one writer at a time")
    )]
    /// The row exists already. If another transaction has just inserted it, the next attempt finds it.
    Duplicate,
    /// Repeating it does not help.
    Permanent,
}

/// Another node created a room and removed it between two statements of a transaction.
#[derive(Debug, thiserror::Error)]
#[error("room `{0}` was removed while it was being changed")]
struct Vanished(RoomName);

pub(super) fn vanished(room: RoomName) -> StoreError {
    StoreError::Unavailable(Arc::new(Vanished(room)))
}

/// A lock was not free in time, and is free now.
#[derive(Debug, thiserror::Error)]
#[error("a lock was not free in time")]
struct Freed(#[source] StoreError);

pub(super) fn freed(error: StoreError) -> StoreError {
    StoreError::Unavailable(Arc::new(Freed(error)))
}

/// What an error of a database means. Each driver has its own type of errors.
trait Classify {
    fn trouble(&self) -> Trouble;

    /// Whether the unique index on room and channel was violated: the channel has another presence in the room.
    fn is_channel_taken(&self) -> bool;

    /// Whether the statement waited for a lock for too long.
    fn is_lock_timeout(&self) -> bool {
        false
    }

    /// Whether the user lacks a right. The message names it.
    fn lacks_right(&self) -> bool {
        false
    }

    /// Whether the user is denied access, or lacks a right.
    #[cfg(feature = "cli")]
    fn is_access_denied(&self) -> bool {
        false
    }

    /// What an operator has to change, if the message of the database does not say it.
    fn remedy(&self) -> Option<&'static str> {
        None
    }

    /// Remembers what the pool of connections has to know of this error.
    fn note(&self) {}

    /// Whether the server has closed the connection with this error.
    fn closes_connection(&self) -> bool {
        false
    }
}

fn classified(error: &dyn DatabaseError) -> Option<&dyn Classify> {
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::sqlite::SqliteError>() {
        return Some(error);
    }
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>() {
        return Some(error);
    }
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::mysql::MySqlDatabaseError>() {
        return Some(error);
    }
    let _ = error;
    None
}

/// Decides whether a call that failed with this error may be repeated.
pub(super) fn store_error(error: DbErr) -> StoreError {
    let mut is_channel_taken = false;
    if let Some(SqlxError::Database(of_database)) = source(&error)
        && let Some(classified) = classified(&**of_database)
    {
        classified.note();
        if classified.lacks_right() {
            return lacks_right(of_database.message().to_owned(), Some(error));
        }
        if let Some(remedy) = classified.remedy() {
            return needs_operator(remedy, Some(error));
        }
        is_channel_taken = classified.is_channel_taken();
    }
    match trouble(&error) {
        Trouble::TablesMissing => StoreError::tables_missing(error),
        Trouble::Away | Trouble::Conflict => StoreError::Unavailable(Arc::new(error)),
        Trouble::Duplicate | Trouble::Permanent if is_channel_taken => StoreError::channel_taken(error),
        Trouble::Duplicate | Trouble::Permanent => StoreError::Refused(Arc::new(error)),
    }
}

/// The error of a new connection.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) fn of_connection(error: SqlxError) -> StoreError {
    store_error(DbErr::Conn(RuntimeErr::SqlxError(error.into())))
}

/// The database works again when an operator has done `what`.
pub(super) fn needs_operator(what: impl Into<Cow<'static, str>>, source: Option<DbErr>) -> StoreError {
    StoreError::Unavailable(Arc::new(NeedsOperator {
        what: what.into(),
        lacks_right: false,
        source: source.map(Into::into),
    }))
}

/// The database user lacks a right that a node needs. `message` names it.
pub(super) fn lacks_right(message: impl fmt::Display, source: Option<DbErr>) -> StoreError {
    let what = format!("{message}; the page on configuration lists the rights that a node needs").into();
    StoreError::Unavailable(Arc::new(NeedsOperator { what, lacks_right: true, source: source.map(Into::into) }))
}

/// The database cannot be used.
#[cfg(feature = "postgres")]
pub(super) fn refused(what: impl Into<Cow<'static, str>>) -> StoreError {
    StoreError::Refused(Arc::new(NeedsOperator { what: what.into(), lacks_right: false, source: None }))
}

/// The kind of a store error that came from the database.
pub(super) fn trouble_of(error: &StoreError) -> Option<Trouble> {
    let (StoreError::Unavailable(source) | StoreError::Refused(source)) = error else { return None };
    if source.is::<Vanished>() || source.is::<Freed>() {
        return Some(Trouble::Conflict);
    }
    match source.downcast_ref::<ChannelTaken>() {
        Some(ChannelTaken(source)) => source.downcast_ref().map(trouble),
        None => source.downcast_ref().map(trouble),
    }
}

fn source(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(source))
        | DbErr::Exec(RuntimeErr::SqlxError(source))
        | DbErr::Query(RuntimeErr::SqlxError(source)) => Some(source),
        _ => None,
    }
}

pub(super) fn trouble(error: &DbErr) -> Trouble {
    match (source(error), error) {
        (Some(source), _) => of_driver(source),
        (None, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) => Trouble::Away,
        (None, _) => Trouble::Permanent,
    }
}

fn of_driver(error: &SqlxError) -> Trouble {
    match error {
        SqlxError::Database(error) => classified(&**error).map_or(Trouble::Away, Classify::trouble),
        SqlxError::Configuration(_)
        | SqlxError::InvalidArgument(_)
        | SqlxError::TypeNotFound { .. }
        | SqlxError::ColumnIndexOutOfBounds { .. }
        | SqlxError::ColumnNotFound(_)
        | SqlxError::ColumnDecode { .. }
        | SqlxError::Encode(_)
        | SqlxError::Decode(_) => Trouble::Permanent,
        _ => Trouble::Away,
    }
}

/// The message of the database, without the text that the driver adds.
#[cfg(feature = "cli")]
pub(crate) fn database_message(error: &StoreError) -> Option<&str> {
    Some(database_error(error)?.message())
}

/// Whether the database denied this user the access or a right. Nodes wait until an operator mends it; a person who typed the URL
/// needs to know.
#[cfg(feature = "cli")]
pub(crate) fn is_access_denied(error: &StoreError) -> bool {
    database_error(error).and_then(classified).is_some_and(Classify::is_access_denied)
}

#[cfg(feature = "cli")]
fn database_error(error: &StoreError) -> Option<&dyn DatabaseError> {
    let (StoreError::Unavailable(cause) | StoreError::Refused(cause)) = error else { return None };
    let mut causes =
        std::iter::successors(Some(&**cause as &(dyn std::error::Error + 'static)), |cause| cause.source());
    match source(causes.find_map(|cause| cause.downcast_ref())?)? {
        SqlxError::Database(error) => Some(&**error),
        _ => None,
    }
}

/// Whether a statement waited for a lock for too long.
pub(super) fn is_lock_timeout(error: &StoreError) -> bool {
    let StoreError::Unavailable(cause) = error else { return false };
    match cause.downcast_ref().and_then(source) {
        Some(SqlxError::Database(error)) => classified(&**error).is_some_and(Classify::is_lock_timeout),
        _ => false,
    }
}

/// Whether the connection was lost.
pub(super) fn is_lost(error: &DbErr) -> bool {
    match source(error) {
        // While the server is away, the pool itself retries until the caller gives up.
        Some(SqlxError::Io(error)) => error.kind() != io::ErrorKind::ConnectionRefused,
        Some(SqlxError::Protocol(_)) => true,
        Some(SqlxError::Database(error)) => classified(&**error).is_some_and(Classify::closes_connection),
        _ => false,
    }
}
