//! Why a store did not do what it was asked.

use std::sync::Arc;

use crate::name::NodeId;

#[cfg(doc)]
use super::Store;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is away, too slow, full, locked, read-only or damaged, or its tables are gone. Whether the change happened
    /// is not known; asking again is safe and may work.
    #[error("the presence store is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// This node's lease ran out and somebody declared it dead, or another process took its name. Nothing was written.
    #[error("node `{node}` may not write any more")]
    Fenced {
        /// The life that is over.
        node: NodeId,
        /// A later life holds the same name, so this one must stop rather than register again.
        superseded: bool,
    },
    /// The database refused the data itself, or its schema is not one that this version knows. Asking again gives the
    /// same answer.
    #[error("the presence store refused the request")]
    Refused(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why a change was refused: the channel speaks for another presence of the room.
#[derive(Debug, thiserror::Error)]
#[error("the channel speaks for another presence of the room")]
pub(crate) struct ChannelTaken(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);

/// Why the database does nothing that it is asked: the tables are not there, as in a database that was made anew.
#[derive(Debug, thiserror::Error)]
#[error("the tables of the store are not there")]
struct TablesMissing(#[source] Box<dyn std::error::Error + Send + Sync>);

/// What lasts until somebody changes how the database is set up or reached.
#[cfg(feature = "sql")]
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NeedsOperator {
    pub(crate) what: std::borrow::Cow<'static, str>,
    /// The database answers, but does not let this user do what a node does.
    pub(crate) lacks_right: bool,
    #[source]
    pub(crate) source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// As [`Unavailable`](Self::Unavailable), because the tables are not there. A node then calls
    /// [`prepare`](Store::prepare), which makes them again, and begins anew. `source` is what the database says of it.
    #[must_use]
    pub fn tables_missing(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::new(TablesMissing(source.into())))
    }

    /// Whether the tables are not there.
    #[must_use]
    pub fn is_tables_missing(&self) -> bool {
        matches!(self, Self::Unavailable(source) if source.is::<TablesMissing>())
    }

    /// As [`Refused`](Self::Refused), because a channel speaks for another presence of the room. `source` is what the database
    /// says of it.
    #[must_use]
    pub fn channel_taken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(Arc::new(ChannelTaken(source.into())))
    }

    /// Whether it was refused because a channel speaks for another presence of the room.
    #[must_use]
    pub fn is_channel_taken(&self) -> bool {
        matches!(self, Self::Refused(source) if source.is::<ChannelTaken>())
    }

    /// Whether it lasts until somebody changes how the database is set up or reached.
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

    /// What somebody has to change.
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
