//! What a failure of the database means to a caller.

use std::sync::Arc;

use sea_orm::{DbErr, RuntimeErr, SqlxError};

use super::{super::StoreError, sqlite};

/// Sorts an error into "ask again" and "asking again gives the same answer".
pub(super) fn store_error(error: DbErr) -> StoreError {
    let permanent = match &error {
        DbErr::Conn(RuntimeErr::SqlxError(source))
        | DbErr::Exec(RuntimeErr::SqlxError(source))
        | DbErr::Query(RuntimeErr::SqlxError(source)) => is_permanent(source),
        DbErr::Conn(_) | DbErr::ConnectionAcquire(_) => false,
        _ => true,
    };
    if permanent { StoreError::Refused(Arc::new(error)) } else { StoreError::Unavailable(Arc::new(error)) }
}

fn is_permanent(error: &SqlxError) -> bool {
    match error {
        SqlxError::Database(error) => sqlite::is_permanent(&**error),
        SqlxError::Configuration(_)
        | SqlxError::InvalidArgument(_)
        | SqlxError::TypeNotFound { .. }
        | SqlxError::ColumnIndexOutOfBounds { .. }
        | SqlxError::ColumnNotFound(_)
        | SqlxError::ColumnDecode { .. }
        | SqlxError::Encode(_)
        | SqlxError::Decode(_) => true,
        _ => false,
    }
}
