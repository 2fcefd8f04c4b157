//! What waits for the database, and what is written next.
//!
//! A caller waits for each requested change; nobody waits for a prune. So a large prune gets the rest of each transaction,
//! and at least a quarter of it, and a join waits only for what was requested before it. While nothing is requested,
//! transactions of a prune grow as long as they are quick.
//!
//! What goes into the transaction of one lane is nobody else's until that transaction ends, and neither are the later changes of its rooms.

mod aside;

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
    batch::{BatchBuilder, WriteBatch},
    lanes::{BRIEFLY, InProgress, Lanes, Work},
    leave_delay::MAX_DELAYED_LEAVES,
    merge::{Change, Tried},
    room_queue::RoomQueue,
    touches::Touches,
};

use self::aside::Aside;

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

pub(super) struct WriteQueue {
    rooms: HashMap<RoomName, RoomQueue>,
    /// The rooms with requested changes, in the order of their first request.
    requested: VecDeque<RoomName>,
    /// The rooms with pruned presences, in the order in which their prunes began.
    pruned: VecDeque<RoomName>,
    pending: usize,
    /// How many changes the next transaction writes at most.
    limit: usize,
    /// Nothing was written since a transaction failed.
    is_away: bool,
    /// How many pruned presences a transaction removes if nothing was requested.
    pace: RemovalPace,
    touches: Touches,
    lanes: Lanes,
    /// The rooms that were set aside and have changes.
    aside: Aside,
    /// The number of the last batch.
    last_batch: u64,
}

impl WriteQueue {
    /// A queue for this many lanes.
    pub(super) fn new(lanes: u16) -> Self {
        Self {
            rooms: HashMap::new(),
            requested: VecDeque::new(),
            pruned: VecDeque::new(),
            pending: 0,
            limit: MAX_CHANGES_PER_TRANSACTION,
            is_away: false,
            pace: RemovalPace::default(),
            touches: Touches::default(),
            lanes: Lanes::new(lanes),
            aside: Aside::default(),
            last_batch: 0,
        }
    }

    /// The queue is empty, and changes are about to be written in this many lanes.
    pub(super) fn set_lanes(&mut self, lanes: u16) {
        self.lanes = Lanes::new(lanes);
    }

    pub(super) const fn lanes(&self) -> &Lanes {
        &self.lanes
    }

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
        let nothing_waits = self.requested.is_empty() && self.pruned.is_empty() && self.aside.is_empty();
        nothing_waits && self.touches.is_empty() && self.lanes.are_free()
    }

    /// Whether a requested change waits or is being written.
    pub(super) fn is_writing(&self) -> bool {
        !self.requested.is_empty() || !self.aside.is_empty() || self.lanes.have(Work::Requested)
    }

    /// Whether pruned presences wait for an ordinary lane.
    pub(super) fn prunes(&self) -> bool {
        !self.pruned.is_empty()
    }

    /// Whether pruned presences wait for any lane.
    pub(super) fn waits_to_prune(&self) -> bool {
        self.prunes() || self.prunes_aside()
    }

    /// Whether at least this many requested changes can be taken now.
    pub(super) fn has_requested(&self, least: usize) -> bool {
        let mut count = 0;
        self.pending >= least
            && self.requested.iter().filter_map(|room| self.rooms.get(room)).any(|room| {
                count += room.requested();
                count >= least
            })
    }

    /// Whether all that waits are a few requested leaves.
    pub(super) fn has_only_few_leaves(&self) -> bool {
        let has_only_leaves = |room| self.rooms.get(room).is_some_and(RoomQueue::has_only_requested_leaves);
        (1..=MAX_DELAYED_LEAVES).contains(&self.requested.len())
            && self.pruned.is_empty()
            && !self.has_requested(MAX_DELAYED_LEAVES + 1)
            && self.requested.iter().all(has_only_leaves)
    }

    /// The transaction of a lane was written in `time`.
    pub(super) fn written(&mut self, lane: u16, time: Duration) {
        if let Some(rooms) = self.lanes.prunes_only(lane) {
            self.pace.took(time, rooms.len());
        }
        self.limit = MAX_CHANGES_PER_TRANSACTION.min(self.limit * 2);
        self.is_away = false;
        self.ended(lane, false);
    }

    /// The transaction of a lane failed. It was put back, or is `unconfirmed`: its answer was lost.
    pub(super) fn not_written(&mut self, lane: u16, unconfirmed: bool) {
        if !unconfirmed {
            self.ended(lane, true);
        }
        self.pace.slow_down();
        self.limit = MIN_LIMIT_AFTER_FAILURES.max(self.limit / 2);
        self.is_away = true;
    }

    /// The database answered whether it wrote the unconfirmed transaction of a lane.
    pub(super) fn resolved(&mut self, lane: u16) {
        self.ended(lane, false);
    }

    /// The changes that came for the rooms of this lane meanwhile can be taken.
    fn ended(&mut self, lane: u16, failed: bool) {
        let Some(InProgress { rooms, .. }) = self.lanes.end(lane) else { return };
        if self.lanes.is_aside(lane) {
            self.aside.tried(rooms.len(), failed);
        }
        let mut first = Vec::new();
        for room in &rooms {
            let Some(queued) = self.rooms.get_mut(room) else { continue };
            queued.in_progress = false;
            if queued.is_first && !queued.aside {
                first.push(room);
                continue;
            }
            self.list(room);
            self.forget_if_empty(room);
        }
        for room in first.into_iter().rev() {
            self.list(room);
            self.forget_if_empty(room);
        }
    }

    /// Changes are written first. Touches that are due alternate with them, so that neither waits for ever. Pruned presences
    /// wait until the writer has the removal permit.
    pub(super) fn next(&mut self, lane: u16, now: Tick, gather: Duration, may_prune: bool) -> NextWrite {
        let no_changes = self.requested.is_empty() && (!may_prune || self.pruned.is_empty());
        // Two transactions of touches would only wait for one another.
        let is_touching = self.lanes.have(Work::Touches);
        if !is_touching && let Some(touches) = self.touches.take_due(now, gather, no_changes) {
            self.lanes.begin(lane, InProgress { work: Work::Touches, rooms: Vec::new() });
            return NextWrite::Touches(touches);
        }
        if no_changes {
            return NextWrite::Nothing { touches_in: self.touches.due_in(now).filter(|_| !is_touching) };
        }
        NextWrite::Changes(self.take(lane, may_prune))
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
        if queued.in_progress {
            return;
        }
        let is_first = std::mem::take(&mut queued.is_first);
        let add = |is_in: &mut bool, belongs: bool, list: &mut VecDeque<RoomName>| {
            if !*is_in && belongs {
                *is_in = true;
                if is_first { list.push_front(room.clone()) } else { list.push_back(room.clone()) }
            }
        };
        let (requested, pruned) = (queued.has_requested(), queued.has_pruned());
        if queued.aside {
            if !queued.in_aside && (requested || pruned) {
                queued.in_aside = true;
                self.aside.rooms.push_back(room.clone());
            }
        } else {
            add(&mut queued.in_requested, requested, &mut self.requested);
            add(&mut queued.in_pruned, pruned, &mut self.pruned);
        }
    }

    /// The next batch, as large as one transaction may be.
    fn take(&mut self, lane: u16, may_prune: bool) -> WriteBatch {
        let mut next = BatchBuilder::default();
        let for_pruned = if may_prune && !self.pruned.is_empty() { self.limit / 4 } else { 0 };
        while next.count < self.limit - for_pruned {
            let Some(room) = self.requested.front().cloned() else { break };
            let Some(queued) = self.rooms.get_mut(&room) else { break };
            if !queued.is_free() {
                // A lane has taken pruned presences of it meanwhile. It is listed again, before others, when that transaction ends.
                (queued.in_requested, queued.is_first) = (false, true);
                self.requested.pop_front();
                continue;
            }
            let most = self.limit - for_pruned - next.count;
            // While the database is away, a join whose caller gives up cancels out with the leave after it, unless it was tried. So only what
            // was tried before is tried again.
            if self.is_away && queued.has_tried() {
                let changes = queued.take_tried(most);
                next.add(&room, &queued.room_actor, changes);
                break;
            }
            let changes = queued.take_requested(most);
            next.add(&room, &queued.room_actor, changes);
            if !queued.has_requested() {
                queued.in_requested = false;
                self.requested.pop_front();
                self.forget_if_cancelled_out(&room, &next);
            }
        }
        let has_requested = next.count > 0;
        if has_requested || self.lanes.have(Work::Requested) {
            self.pace.slow_down();
        }
        // A prune sets the size of a transaction only if nothing else is in it and the last one did not fail.
        let limit =
            if has_requested || self.limit < MAX_CHANGES_PER_TRANSACTION { self.limit } else { self.pace.size() };
        while may_prune && next.count < limit && next.index.len() < MAX_ROOMS_PER_REMOVAL {
            let Some(room) = self.pruned.front().cloned() else { break };
            let Some(queued) = self.rooms.get_mut(&room) else { break };
            if !queued.is_free() {
                // It is listed again when its transaction ends.
                queued.in_pruned = false;
                self.pruned.pop_front();
                continue;
            }
            let changes = queued.take_pruned(limit - next.count);
            next.add(&room, &queued.room_actor, changes);
            if !queued.has_pruned() {
                queued.in_pruned = false;
                self.pruned.pop_front();
                self.forget_if_cancelled_out(&room, &next);
            }
        }
        let priority = if has_requested { Priority::Requested } else { Priority::Pruned };
        self.begin(lane, next, priority)
    }

    /// Makes a batch the transaction of a lane.
    fn begin(&mut self, lane: u16, next: BatchBuilder, priority: Priority) -> WriteBatch {
        self.pending -= next.count;
        self.last_batch += 1;
        let patience = self.lanes.are_several().then_some(BRIEFLY);
        let batch = WriteBatch { number: self.last_batch, priority, lane, patience, ..next.batch };
        for RoomWrites { room, writes } in &batch.writes {
            let Some(queued) = self.rooms.get_mut(room) else { continue };
            // A batch has one change of a presence. The next change of the same presence goes into a later batch.
            queued.advance(writes);
            debug_assert!(!queued.in_progress, "a room is in commits of two lanes");
            queued.in_progress = true;
            // Only the first rooms of the lists can have changes left that did not fit into the transaction.
            for (is_in, list) in
                [(&mut queued.in_requested, &mut self.requested), (&mut queued.in_pruned, &mut self.pruned)]
            {
                if *is_in && list.front() == Some(room) {
                    (*is_in, queued.is_first) = (false, true);
                    list.pop_front();
                }
            }
        }
        if !batch.writes.is_empty() {
            let work = if priority == Priority::Requested { Work::Requested } else { Work::Pruned };
            let rooms = batch.writes.iter().map(|of| of.room.clone()).collect();
            self.lanes.begin(lane, InProgress { work, rooms });
        }
        batch
    }

    /// Forgets a room whose changes cancelled out, so that nothing of it is in the next batch.
    fn forget_if_cancelled_out(&mut self, room: &RoomName, next: &BatchBuilder) {
        if !next.index.contains_key(room) {
            self.forget_if_empty(room);
        }
    }

    fn forget_if_empty(&mut self, room: &RoomName) {
        let is_listed = |queued: &RoomQueue| queued.in_requested || queued.in_pruned || queued.in_aside;
        let is_empty = |queued: &RoomQueue| !queued.in_progress && !is_listed(queued) && queued.len() == 0;
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
            queued.is_first = true;
            self.list(&room);
        }
    }

    pub(super) const fn touches(&mut self) -> &mut Touches {
        &mut self.touches
    }
}
