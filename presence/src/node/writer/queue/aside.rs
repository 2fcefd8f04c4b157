//! Rooms whose locks others keep, for example a node that is suspended within a transaction.
//!
//! They have a lane of their own, so that the other rooms of the node go on. A room returns when everything of it is written, or when its
//! lock is free again. It does not return earlier: a room for which many nodes queue would be set aside again and again.
//!
//! The lane waits for one room at a time, because a transaction that waits keeps the locks that it has. After that it tries all rooms and
//! waits for none, so that a lock which is free again is noticed, however many others are not.

use std::{collections::VecDeque, time::Duration};

use crate::{name::RoomName, store::pace::MAX_ROOMS_PER_REMOVAL};

use super::{
    super::batch::{BatchBuilder, WriteBatch},
    Priority, RoomQueue, WriteQueue,
};

/// How long the lane waits for one room while others are set aside, too.
const AMONG_OTHERS: Duration = Duration::from_secs(1);
/// How long it waits when it tries all rooms.
const GLANCE: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Aside {
    /// The rooms that wait for the lane, in the order in which they were set aside.
    pub(super) rooms: VecDeque<RoomName>,
    /// The next turn tries all of them.
    all_next: bool,
}

/// What the lane does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    /// How many rooms it tries at most.
    rooms: usize,
    /// How long it waits for their locks.
    patience: Duration,
}

impl Aside {
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// The next turn, if a room waits. `ordinary` is how long a transaction waits for a lock when nothing else does.
    fn turn(&mut self, ordinary: Duration) -> Option<Turn> {
        let all = std::mem::take(&mut self.all_next);
        match self.rooms.len() {
            0 => None,
            1 => Some(Turn { rooms: 1, patience: ordinary }),
            _ if all => Some(Turn { rooms: usize::MAX, patience: GLANCE }),
            _ => Some(Turn { rooms: 1, patience: AMONG_OTHERS.min(ordinary) }),
        }
    }

    /// A turn with this many rooms ended. Some of them may be `locked` still.
    pub(super) fn tried(&mut self, rooms: usize, locked: bool) {
        self.all_next = rooms == 1 || !locked;
    }
}

impl WriteQueue {
    /// Whether changes wait whose rooms were set aside.
    pub(in super::super) fn has_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// Whether pruned presences wait in rooms that were set aside.
    pub(in super::super) fn prunes_aside(&self) -> bool {
        self.aside.rooms.iter().any(|room| self.rooms.get(room).is_some_and(RoomQueue::has_pruned))
    }

    /// The transaction of a lane was put back, because other transactions have locked these of its rooms.
    pub(in super::super) fn set_aside(&mut self, lane: u16, locked: &[RoomName]) {
        for room in self.lanes.rooms(lane) {
            if let Some(queued) = self.rooms.get_mut(room) {
                queued.aside = locked.contains(room);
            }
        }
        self.ended(lane, true);
    }

    /// What the lane for rooms that were set aside writes next, if anything waits. `ordinary` is how long it waits for a single room.
    pub(in super::super) fn next_aside(
        &mut self,
        lane: u16,
        ordinary: Duration,
        may_prune: bool,
    ) -> Option<WriteBatch> {
        let turn = self.aside.turn(ordinary)?;
        let mut next = BatchBuilder::default();
        // A batch has one priority, with which it is put back if it fails.
        let mut priority = None;
        for _ in 0..self.aside.rooms.len() {
            if next.index.len() >= turn.rooms.min(MAX_ROOMS_PER_REMOVAL) {
                break;
            }
            let Some(room) = self.aside.rooms.pop_front() else { break };
            let Some(queued) = self.rooms.get_mut(&room) else { continue };
            queued.in_aside = false;
            let most = self.limit - next.count;
            let mut changes = Vec::new();
            if priority != Some(Priority::Pruned) {
                changes = queued.take_requested(most);
            }
            if !changes.is_empty() {
                priority = Some(Priority::Requested);
            } else if may_prune && priority != Some(Priority::Requested) {
                changes = queued.take_pruned(most);
                if !changes.is_empty() {
                    priority = Some(Priority::Pruned);
                }
            }
            if changes.is_empty() {
                self.list(&room);
                self.forget_if_empty(&room);
            } else {
                next.add(&room, &queued.room_actor, changes);
            }
        }
        let batch = WriteBatch { patience: Some(turn.patience), ..self.begin(lane, next, priority?) };
        (!batch.writes.is_empty()).then_some(batch)
    }
}
