//! What has changed in a database since a node last asked.

use std::time::Duration;

use crate::name::{Epoch, RoomName, Version};

/// The answer to [`RoomStore::recent_changes`](super::RoomStore::recent_changes), at one moment. Times are those of the database since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentChanges {
    /// The time now.
    pub time: Duration,
    /// The time to ask with next, so that no change is left out. It is earlier than `time`, by as long as a transaction may last from the
    /// moment at which it records its time until others see it. So a change may be in several answers.
    pub next: Duration,
    /// The rooms that have received a version since the time that was asked for, in no particular order.
    pub rooms: Vec<ChangedRoom>,
    /// Whether these are all. They are not if there are more than the limit, or while a node of an earlier version of this crate is alive,
    /// which does not record when it changes a room.
    pub is_complete: bool,
    /// The writes of the asking incarnation that the database has. `None` if it does not have the incarnation.
    pub own_writes: Option<WriteCounts>,
    /// How many incarnations other than the asking one have a lease.
    pub others: u64,
    /// How many times empty rooms were removed so far. A room that is removed is not among those that have changed.
    pub prunes: u64,
    /// How many times a node has [reported](super::NodeStore::report_set_back) that the database has lost changes.
    pub set_backs: u64,
}

/// How many writes of an incarnation a database has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteCounts {
    /// Renewals of its lease.
    pub renewals: u64,
    /// Commits, also those that changed nothing.
    pub commits: u64,
}

impl WriteCounts {
    /// These and one more renewal.
    pub(super) const fn renewed(self) -> Self {
        Self { renewals: self.renewals.saturating_add(1), ..self }
    }

    /// All writes.
    pub(crate) const fn total(self) -> u64 {
        self.renewals.saturating_add(self.commits)
    }
}

/// A room that has changed, and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedRoom {
    /// The room.
    pub room: RoomName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The position in its changes.
    pub version: Version,
    /// The time of the transaction that gave it this version, in whole seconds, rounded down.
    pub changed_at: Duration,
}

/// A time in whole seconds, rounded down, as a store keeps it with a room. A room that changes many times a second changes an indexed value
/// only once, and PostgreSQL enters a row into all indexes again whenever such a value changes.
pub(super) const fn whole_seconds(millis: i64) -> i64 {
    millis.div_euclid(1000)
}
