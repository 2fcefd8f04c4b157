//! Maps database errors to store errors.

use std::{borrow::Cow, fmt, io, sync::Arc};

use sea_orm::{DbErr, RuntimeErr, SqlxError};

use super::{
    super::{ChannelTaken, NeedsOperator, StoreError},
    dialect::Trouble,
    transaction::Vanished,
};

/// Decides whether a call that failed with this error may be repeated.
pub(super) fn store_error(error: DbErr) -> StoreError {
    if let Some(right) = missing_right(&error) {
        return lacks_right(right, Some(error));
    }
    if let Some(remedy) = remedy(&error) {
        return needs_operator(remedy, Some(error));
    }
    match trouble(&error) {
        Trouble::TablesMissing => StoreError::tables_missing(error),
        Trouble::Away | Trouble::Conflict => StoreError::Unavailable(Arc::new(error)),
        Trouble::Duplicate | Trouble::Permanent if is_channel_taken(&error) => StoreError::channel_taken(error),
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

/// The message of the database if its user lacks a right.
fn missing_right(error: &DbErr) -> Option<String> {
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    if let Some(SqlxError::Database(error)) = source(error) {
        #[cfg(feature = "postgres")]
        if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>() {
            return super::postgres::lacks_right(error).then(|| error.message().to_owned());
        }
        #[cfg(feature = "mysql")]
        if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::mysql::MySqlDatabaseError>() {
            return super::mysql::lacks_right(error).then(|| error.message().to_owned());
        }
    }
    let _ = error;
    None
}

/// What an operator has to change, if the message of the database does not say it.
fn remedy(error: &DbErr) -> Option<&'static str> {
    #[cfg(feature = "postgres")]
    if let Some(SqlxError::Database(error)) = source(error)
        && let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>()
    {
        return super::postgres::remedy(error);
    }
    let _ = error;
    None
}

/// The kind of a store error that came from the database.
pub(super) fn trouble_of(error: &StoreError) -> Option<Trouble> {
    let (StoreError::Unavailable(source) | StoreError::Refused(source)) = error else { return None };
    if source.is::<Vanished>() {
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
        SqlxError::Database(error) => of_database(&**error),
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

fn of_database(error: &dyn sea_orm::sqlx::error::DatabaseError) -> Trouble {
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::sqlite::SqliteError>() {
        return super::sqlite::trouble(error);
    }
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>() {
        return super::postgres::trouble(error);
    }
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::mysql::MySqlDatabaseError>() {
        return super::mysql::trouble(error);
    }
    let _ = error;
    Trouble::Away
}

/// Whether the unique index on room and channel was violated.
fn is_channel_taken(error: &DbErr) -> bool {
    let Some(SqlxError::Database(error)) = source(error) else { return false };
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::sqlite::SqliteError>() {
        return super::sqlite::is_channel_taken(error);
    }
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>() {
        return super::postgres::is_channel_taken(error);
    }
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::mysql::MySqlDatabaseError>() {
        return super::mysql::is_channel_taken(error);
    }
    let _ = error;
    false
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
    let Some(error) = database_error(error) else { return false };
    #[cfg(feature = "postgres")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>() {
        return super::postgres::is_access_denied(error);
    }
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sea_orm::sqlx::mysql::MySqlDatabaseError>() {
        return super::mysql::is_access_denied(error);
    }
    let _ = error;
    false
}

#[cfg(feature = "cli")]
fn database_error(error: &StoreError) -> Option<&dyn sea_orm::sqlx::error::DatabaseError> {
    let (StoreError::Unavailable(cause) | StoreError::Refused(cause)) = error else { return None };
    let mut causes =
        std::iter::successors(Some(&**cause as &(dyn std::error::Error + 'static)), |cause| cause.source());
    match source(causes.find_map(|cause| cause.downcast_ref())?)? {
        SqlxError::Database(error) => Some(&**error),
        _ => None,
    }
}

/// Whether the connection was lost.
pub(super) fn is_lost(error: &DbErr) -> bool {
    match source(error) {
        // While the server is away, the pool itself retries until the caller gives up.
        Some(SqlxError::Io(error)) => error.kind() != io::ErrorKind::ConnectionRefused,
        Some(SqlxError::Protocol(_)) => true,
        #[cfg(feature = "postgres")]
        Some(SqlxError::Database(error)) => error
            .try_downcast_ref::<sea_orm::sqlx::postgres::PgDatabaseError>()
            .is_some_and(super::postgres::closes_connection),
        _ => false,
    }
}
