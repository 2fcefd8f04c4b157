//! The change log: what the last transactions changed in each room, kept for some seconds. So a node that misses a few changes of a room reads
//! these, and not the whole room.

use std::time::Duration;

use crate::{
    model::Delta,
    name::{NodeId, Version},
};

/// How long a change stays in the log at least. A node that compares its rooms less often
/// than that finds gaps, and reads whole rooms.
pub(crate) const KEEP_CHANGES_FOR: Duration = Duration::from_secs(10);

/// How many changes a node reads at most. If more are missing, it reads the room.
pub(super) const MAX_MISSING: u64 = 256;

/// How large the text of a change may be, in bytes. A larger one is not kept.
#[cfg(feature = "sql")]
pub(super) const MAX_CHANGE_BYTES: usize = 256 * 1024;

/// A change of a room in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The version that it gave the room.
    pub version: Version,
    /// The incarnation that made it.
    pub by: NodeId,
    /// What changed. Holds are not among the changes, so no presence in it is marked as held.
    pub delta: Delta,
}

/// The changes, if none is missing between `known` and the `current` version of the room.
pub(super) fn without_gaps(known: Version, current: Version, changes: Vec<RoomChange>) -> Option<Vec<RoomChange>> {
    let mut next = known;
    for change in &changes {
        next = next.next();
        if change.version != next {
            return None;
        }
    }
    (next == current).then_some(changes)
}
