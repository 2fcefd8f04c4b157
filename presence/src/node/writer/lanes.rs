//! What each lane of a node writes.
//!
//! A lane has one transaction in progress at most, and a row of its own in which the database records its last commit. So a lock that is
//! not free stops one lane and not the others, and several answers may be lost at once. A lane belongs to no room: whichever is free takes
//! what waits. But a room is in the transaction of one lane at a time, so its changes keep their order.

use std::time::Duration;

use crate::name::RoomName;

/// How long a transaction waits for the locks of its rooms before those that are not free are set aside.
pub(super) const BRIEFLY: Duration = Duration::from_millis(250);

/// The lanes of a node. If there are several, the last one is for rooms that were set aside.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Option<InProgress>>);

/// The transaction of a lane.
#[derive(Debug)]
pub(super) struct InProgress {
    pub(super) work: Work,
    /// The rooms that it changes.
    pub(super) rooms: Vec<RoomName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Requested,
    Pruned,
    Touches,
}

impl Lanes {
    /// This many lanes, at least one.
    pub(super) fn new(count: u16) -> Self {
        Self((0..count.max(1)).map(|_| None).collect())
    }

    /// The lane for rooms that were set aside, if there is one.
    fn aside(&self) -> Option<u16> {
        u16::try_from(self.0.len() - 1).ok().filter(|last| *last > 0)
    }

    /// Whether rooms whose locks are not free are set aside.
    pub(super) fn are_several(&self) -> bool {
        self.aside().is_some()
    }

    pub(super) fn is_aside(&self, lane: u16) -> bool {
        self.aside() == Some(lane)
    }

    /// A lane without a transaction, other than the one for rooms that were set aside.
    pub(super) fn free(&self) -> Option<u16> {
        (0..).zip(&self.0).find(|(lane, in_progress)| in_progress.is_none() && !self.is_aside(*lane)).map(|free| free.0)
    }

    pub(super) fn is_any_free(&self) -> bool {
        self.0.iter().any(Option::is_none)
    }

    /// The lane for rooms that were set aside, if it has no transaction.
    pub(super) fn free_aside(&self) -> Option<u16> {
        self.aside().filter(|lane| self.0[usize::from(*lane)].is_none())
    }

    /// The rooms that a lane writes.
    pub(super) fn rooms(&self, lane: u16) -> &[RoomName] {
        self.0[usize::from(lane)].as_ref().map_or(&[], |one| &one.rooms)
    }

    pub(super) fn begin(&mut self, lane: u16, in_progress: InProgress) {
        self.0[usize::from(lane)] = Some(in_progress);
    }

    pub(super) fn end(&mut self, lane: u16) -> Option<InProgress> {
        self.0[usize::from(lane)].take()
    }

    /// Whether the transaction of the lane removes pruned presences and nothing else.
    pub(super) fn prunes_only(&self, lane: u16) -> Option<&[RoomName]> {
        self.0[usize::from(lane)].as_ref().filter(|one| one.work == Work::Pruned).map(|one| &*one.rooms)
    }

    pub(super) fn are_free(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Whether an ordinary lane has a transaction.
    pub(super) fn is_one_ordinary_in_progress(&self) -> bool {
        (0..).zip(&self.0).any(|(lane, in_progress)| in_progress.is_some() && !self.is_aside(lane))
    }

    /// Whether a lane does such work.
    pub(super) fn have(&self, work: Work) -> bool {
        self.0.iter().flatten().any(|one| one.work == work)
    }
}
