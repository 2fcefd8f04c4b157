//! How many writes of an incarnation the database has confirmed.

use parking_lot::Mutex;

use crate::name::NodeId;

/// The commits and the renewals of the current incarnation that were confirmed. The database counts them, too. If it has fewer than were
/// confirmed before it was asked, then it has lost some, however many followed.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites(Mutex<Option<(NodeId, u64)>>);

impl OwnWrites {
    /// An incarnation begins, and the count with it.
    pub(crate) fn begin(&self, node: NodeId) {
        *self.0.lock() = Some((node, 0));
    }

    /// The database has confirmed a write of this incarnation.
    pub(crate) fn confirm(&self, node: NodeId) {
        if let Some((_, confirmed)) = self.0.lock().as_mut().filter(|(current, _)| *current == node) {
            *confirmed += 1;
        }
    }

    /// How many were confirmed by now. 0 if the incarnation is not the current one.
    pub(crate) fn confirmed(&self, node: NodeId) -> u64 {
        self.0.lock().filter(|(current, _)| *current == node).map_or(0, |(_, confirmed)| confirmed)
    }

    /// The database has lost this number of writes. From now on, only a further loss counts.
    pub(crate) fn lose(&self, node: NodeId, lost: u64) {
        if let Some((_, confirmed)) = self.0.lock().as_mut().filter(|(current, _)| *current == node) {
            *confirmed = confirmed.saturating_sub(lost);
        }
    }
}
