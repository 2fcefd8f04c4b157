//! Why a call to a store failed.

use std::sync::Arc;

use crate::name::{NodeId, RoomName};

#[cfg(doc)]
use super::Store;

/// Why a call to a store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is away, too slow, full, locked, read-only or damaged, or its tables are gone. The change may or may not
    /// have happened. It is safe to repeat the call, and that may work.
    #[error("the presence store is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// Another node fenced this one because its lease had expired, or another process took its name. Nothing was written.
    #[error("node `{node}` may not write any more")]
    Fenced {
        /// The fenced incarnation.
        node: NodeId,
        /// A later incarnation has the name, so this one must stop and not register again.
        superseded: bool,
    },
    /// Other transactions have locked these rooms for longer than the [`Attempt`](super::Attempt) waits. Nothing was written, neither in
    /// these rooms nor in the others of the call.
    #[error("other transactions have locked {} of the rooms", rooms.len())]
    Busy {
        /// The rooms that are locked.
        rooms: Vec<RoomName>,
    },
    /// The database refused the data, or this version does not know its schema. Repeating the call does not help.
    #[error("the presence store refused the request")]
    Refused(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// A change was refused because the channel has another presence in the room.
#[derive(Debug, thiserror::Error)]
#[error("the channel has another presence in the room")]
pub(crate) struct ChannelTaken(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);

/// The tables do not exist, as in a new database.
#[derive(Debug, thiserror::Error)]
#[error("the tables of the store do not exist")]
struct TablesMissing(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A failure that lasts until an operator changes how the database is set up or reached.
#[cfg(feature = "sql")]
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NeedsOperator {
    pub(crate) what: std::borrow::Cow<'static, str>,
    /// The database answers, but its user lacks a right that a node needs.
    pub(crate) lacks_right: bool,
    #[source]
    pub(crate) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// [`Unavailable`](Self::Unavailable), because the tables do not exist. A node then calls [`prepare`](Store::prepare), which
    /// creates them, and begins a new incarnation. `source` is the error of the database.
    #[must_use]
    pub fn tables_missing(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::new(TablesMissing(source.into())))
    }

    /// Whether the tables do not exist.
    #[must_use]
    pub fn is_tables_missing(&self) -> bool {
        matches!(self, Self::Unavailable(source) if source.is::<TablesMissing>())
    }

    /// [`Refused`](Self::Refused), because the channel has another presence in the room. `source` is the error of the database.
    #[must_use]
    pub fn channel_taken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(Arc::new(ChannelTaken(source.into())))
    }

    /// Whether a change was refused because the channel has another presence in the room.
    #[must_use]
    pub fn is_channel_taken(&self) -> bool {
        matches!(self, Self::Refused(source) if source.is::<ChannelTaken>())
    }

    /// Whether the failure lasts until an operator changes how the database is set up or reached.
    pub(crate) fn needs_operator(&self) -> bool {
        self.remedy().is_some()
    }

    /// Whether the database answers, but its user lacks a right.
    #[cfg(feature = "sql")]
    pub(crate) fn lacks_right(&self) -> bool {
        self.operator_is_needed().is_some_and(|needs| needs.lacks_right)
    }

    #[cfg(not(feature = "sql"))]
    pub(crate) const fn lacks_right(&self) -> bool {
        false
    }

    /// What an operator has to change.
    #[cfg(feature = "sql")]
    pub(crate) fn remedy(&self) -> Option<String> {
        self.operator_is_needed().map(ToString::to_string)
    }

    #[cfg(not(feature = "sql"))]
    const fn remedy(&self) -> Option<&str> {
        None
    }

    #[cfg(feature = "sql")]
    fn operator_is_needed(&self) -> Option<&NeedsOperator> {
        let (Self::Unavailable(source) | Self::Refused(source)) = self else { return None };
        source.downcast_ref()
    }
}
