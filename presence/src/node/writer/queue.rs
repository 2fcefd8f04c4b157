//! What waits for the database, and what is written next.
//!
//! A caller waits for each requested change; nobody waits for a prune. So a large prune gets the rest of each transaction,
//! and at least a quarter of it, and a join waits only for what was requested before it. While nothing is requested,
//! transactions of a prune grow as long as they are quick.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use actix::Recipient;

use crate::{
    clock::Tick,
    name::{PresenceId, RoomName},
    store::pace::{MAX_ROOMS_PER_REMOVAL, RemovalPace},
    store::{RoomWrites, Write},
};

use super::{
    Committed,
    batch::WriteBatch,
    leave_delay::MAX_DELAYED_LEAVES,
    merge::{Change, Tried},
    room_queue::RoomQueue,
    touches::Touches,
};

/// How many changes one transaction writes at most. They are two full statements; 1,000 would need six.
pub(super) const MAX_CHANGES_PER_TRANSACTION: usize = 1024;
/// The lowest limit after transactions that failed. They may have been too large for their time-out.
const MIN_LIMIT_AFTER_FAILURES: usize = 16;

/// Whether a caller waits for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Priority {
    #[default]
    Requested,
    /// The change is one of many leaves that a prune makes.
    Pruned,
}

/// What happened to a change that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// The change waits, and the room receives a [`Committed`]. Its batch will have a higher number than this.
    Queued(u64),
    /// The change undid a queued join. Neither is written.
    CancelledOut,
}

/// What the next transaction writes.
pub(super) enum NextWrite {
    Changes(WriteBatch),
    Touches(Vec<(PresenceId, Tick)>),
    /// Nothing is due. Touches that are being gathered become due after `touches_in`.
    Nothing {
        touches_in: Option<Duration>,
    },
}

/// The transaction in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InProgress {
    Requested,
    Pruned { rooms: usize },
    Touches,
}

pub(super) struct WriteQueue {
    rooms: HashMap<RoomName, RoomQueue>,
    /// The rooms with requested changes, in the order of their first request.
    requested: VecDeque<RoomName>,
    /// The rooms with pruned presences, in the order in which their prunes began.
    pruned: VecDeque<RoomName>,
    pending: usize,
    /// How many changes the next transaction writes at most.
    limit: usize,
    /// How many pruned presences a transaction removes if nothing was requested.
    pace: RemovalPace,
    touches: Touches,
    in_progress: Option<InProgress>,
    /// The number of the last batch.
    last_batch: u64,
}

impl Default for WriteQueue {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
            requested: VecDeque::new(),
            pruned: VecDeque::new(),
            pending: 0,
            limit: MAX_CHANGES_PER_TRANSACTION,
            pace: RemovalPace::default(),
            touches: Touches::default(),
            in_progress: None,
            last_batch: 0,
        }
    }
}

impl WriteQueue {
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn pending_of(&self, room: &RoomName, id: PresenceId) -> usize {
        self.rooms.get(room).map_or(0, |queued| queued.pending_of(id))
    }

    pub(super) const fn last_batch(&self) -> u64 {
        self.last_batch
    }

    /// Whether nothing waits and nothing is in progress.
    pub(super) fn is_idle(&self) -> bool {
        self.in_progress.is_none() && self.requested.is_empty() && self.pruned.is_empty() && self.touches.is_empty()
    }

    /// Whether a requested change waits or is being written.
    pub(super) fn is_writing(&self) -> bool {
        !self.requested.is_empty() || self.in_progress == Some(InProgress::Requested)
    }

    /// Whether pruned presences wait.
    pub(super) fn prunes(&self) -> bool {
        !self.pruned.is_empty()
    }

    /// Whether all that waits are a few requested leaves.
    pub(super) fn has_only_few_leaves(&self) -> bool {
        let has_only_leaves = |room| self.rooms.get(room).is_some_and(RoomQueue::has_only_requested_leaves);
        (1..=MAX_DELAYED_LEAVES).contains(&self.pending)
            && self.requested.len() == self.rooms.len()
            && self.requested.iter().all(has_only_leaves)
    }

    /// The transaction in progress was written in `time`.
    pub(super) fn written(&mut self, time: Duration) {
        if let Some(InProgress::Pruned { rooms }) = self.in_progress.take() {
            self.pace.took(time, rooms);
        }
        self.limit = MAX_CHANGES_PER_TRANSACTION.min(self.limit * 2);
    }

    /// The transaction in progress failed. It was put back, or is `unconfirmed`: its answer was lost.
    pub(super) fn not_written(&mut self, unconfirmed: bool) {
        if !unconfirmed {
            self.in_progress = None;
        }
        self.pace.slow_down();
        self.limit = MIN_LIMIT_AFTER_FAILURES.max(self.limit / 2);
    }

    /// The database answered whether it wrote the unconfirmed transaction.
    pub(super) const fn resolved(&mut self) {
        self.in_progress = None;
    }

    /// Changes are written first. Touches that are due alternate with them, so that neither waits for ever. Pruned presences
    /// wait until the writer has the removal permit.
    pub(super) fn next(&mut self, now: Tick, gather: Duration, may_prune: bool) -> NextWrite {
        let no_changes = self.requested.is_empty() && !(may_prune && self.prunes());
        if let Some(touches) = self.touches.take_due(now, gather, no_changes) {
            self.in_progress = Some(InProgress::Touches);
            return NextWrite::Touches(touches);
        }
        if no_changes {
            return NextWrite::Nothing { touches_in: self.touches.due_in(now) };
        }
        NextWrite::Changes(self.take(may_prune))
    }

    pub(super) fn add(
        &mut self,
        room: &RoomName,
        room_actor: &Recipient<Committed>,
        change: Change,
        priority: Priority,
    ) -> Submitted {
        if let Write::Leave { id, .. } = &change.write {
            self.touches.forget(*id);
        }
        let queued = match self.rooms.entry(room.clone()) {
            Entry::Occupied(queued) => {
                let queued = queued.into_mut();
                queued.room_actor = room_actor.clone();
                queued
            }
            Entry::Vacant(queued) => queued.insert(RoomQueue::new(room_actor.clone())),
        };
        self.pending -= queued.len();
        let is_queued = queued.add(change, priority);
        self.pending += queued.len();
        self.list(room);
        if is_queued { Submitted::Queued(self.last_batch) } else { Submitted::CancelledOut }
    }

    /// Puts the room on the lists that it belongs on.
    fn list(&mut self, room: &RoomName) {
        let Some(queued) = self.rooms.get_mut(room) else { return };
        if !queued.in_requested && queued.has_requested() {
            queued.in_requested = true;
            self.requested.push_back(room.clone());
        }
        if !queued.in_pruned && queued.has_pruned() {
            queued.in_pruned = true;
            self.pruned.push_back(room.clone());
        }
    }

    /// The next batch, as large as one transaction may be.
    fn take(&mut self, may_prune: bool) -> WriteBatch {
        let mut next = BatchBuilder::default();
        let for_pruned = if may_prune && self.prunes() { self.limit / 4 } else { 0 };
        while next.count < self.limit - for_pruned {
            let Some(room) = self.requested.front().cloned() else { break };
            let Some(queued) = self.rooms.get_mut(&room) else { break };
            let changes = queued.take_requested(self.limit - for_pruned - next.count);
            next.add(&room, &queued.room_actor, changes);
            if !queued.has_requested() {
                queued.in_requested = false;
                self.requested.pop_front();
                self.forget_if_empty(&room);
            }
        }
        let has_requested = next.count > 0;
        if has_requested {
            self.pace.slow_down();
        }
        // A prune sets the size of a transaction only if nothing else is in it and the last one did not fail.
        let limit =
            if has_requested || self.limit < MAX_CHANGES_PER_TRANSACTION { self.limit } else { self.pace.size() };
        while may_prune && next.count < limit && next.index.len() < MAX_ROOMS_PER_REMOVAL {
            let Some(room) = self.pruned.front().cloned() else { break };
            let Some(queued) = self.rooms.get_mut(&room) else { break };
            let changes = queued.take_pruned(limit - next.count);
            next.add(&room, &queued.room_actor, changes);
            if !queued.has_pruned() {
                queued.in_pruned = false;
                self.pruned.pop_front();
                self.forget_if_empty(&room);
            }
        }
        // A batch has one change of a presence. The next change of the same presence goes into a later batch.
        for (room, index) in &next.index {
            if let Some(queued) = self.rooms.get_mut(room) {
                queued.advance(&next.batch.writes[*index].writes);
                self.list(room);
                self.forget_if_empty(room);
            }
        }
        self.pending -= next.count;
        self.last_batch += 1;
        let priority = if has_requested { Priority::Requested } else { Priority::Pruned };
        let batch = WriteBatch { number: self.last_batch, priority, ..next.batch };
        self.in_progress = match batch.writes.len() {
            0 => None,
            _ if has_requested => Some(InProgress::Requested),
            rooms => Some(InProgress::Pruned { rooms }),
        };
        batch
    }

    fn forget_if_empty(&mut self, room: &RoomName) {
        let is_empty = |queued: &RoomQueue| !queued.in_requested && !queued.in_pruned && queued.len() == 0;
        if self.rooms.get(room).is_some_and(is_empty) {
            self.rooms.remove(room);
        }
    }

    /// Puts a batch that was not written before the changes that came later. Pruned presences stay behind requested changes.
    pub(super) fn put_back(&mut self, batch: WriteBatch) {
        let priority = batch.priority;
        for (RoomWrites { room, writes }, actor) in batch.writes.into_iter().zip(batch.room_actors) {
            let queued = match self.rooms.entry(room.clone()) {
                Entry::Occupied(queued) => queued.into_mut(),
                Entry::Vacant(queued) => queued.insert(RoomQueue::new(actor)),
            };
            self.pending -= queued.len();
            for write in writes {
                let later = queued.remove(write.id());
                queued.add(Change { write, tried: Tried::Yes }, priority);
                for (later, priority) in later {
                    queued.add(later, priority);
                }
            }
            self.pending += queued.len();
            if priority == Priority::Requested && !queued.in_requested {
                queued.in_requested = true;
                self.requested.push_front(room.clone());
            }
            if priority == Priority::Pruned && !queued.in_pruned && queued.has_pruned() {
                queued.in_pruned = true;
                self.pruned.push_front(room.clone());
            }
            self.list(&room);
        }
    }

    pub(super) const fn touches(&mut self) -> &mut Touches {
        &mut self.touches
    }
}

/// A batch that is being built. A room that is on both lists is in it once.
#[derive(Default)]
struct BatchBuilder {
    batch: WriteBatch,
    /// Where each room is in the batch.
    index: HashMap<RoomName, usize>,
    /// How many changes are in the batch.
    count: usize,
}

impl BatchBuilder {
    fn add(&mut self, room: &RoomName, actor: &Recipient<Committed>, changes: Vec<Change>) {
        // All changes of the room may have cancelled out.
        if changes.is_empty() {
            return;
        }
        self.count += changes.len();
        let WriteBatch { writes, room_actors, .. } = &mut self.batch;
        let index = *self.index.entry(room.clone()).or_insert_with(|| {
            writes.push(RoomWrites { room: room.clone(), writes: Vec::with_capacity(changes.len()) });
            room_actors.push(actor.clone());
            writes.len() - 1
        });
        writes[index].writes.extend(changes.into_iter().map(|change| change.write));
    }
}
