//! What waits for the database, and what of it goes next.
//!
//! Somebody waits for what was asked, and nobody for a prune. So a prune of many takes what the others leave of each
//! transaction, and a quarter of it at least: a join never waits for more than what was asked before it. While nothing is asked,
//! transactions of a prune grow as long as they are quick.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    time::Duration,
};

use actix::Recipient;

use crate::{
    clock::Tick,
    name::{PresenceId, RoomName},
    store::pace::{MOST_ROOMS, Pace},
    store::{RoomWrites, Write},
};

use super::{
    Committed,
    batch::Batch,
    merge::{Change, Tried},
    touches::Touches,
    waiting::Waiting,
};

/// How many changes go into one transaction at most: two full statements, where 1,000 would be six.
pub(super) const BATCH: usize = 1024;
/// How many go at least into one that took too long before: it may have been too large for its time-out.
const LEAST: usize = 16;

/// How many leaves are few: a transaction of more is worth its cost without a join.
const FEW_LEAVES: usize = 16;

/// Whether somebody waits for a leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Haste {
    /// It was asked for.
    #[default]
    Asked,
    /// It is one of many that are pruned.
    Pruned,
}

/// What became of a change that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It waits for the database; the room will be told. The batch that it goes into has a higher number than this.
    Waits(u64),
    /// It and the join that it takes back cancelled out; the database will hear of neither.
    CancelledOut,
}

/// What the next transaction is for.
pub(super) enum Work {
    Changes(Batch),
    Touches(Vec<(PresenceId, Tick)>),
    /// If touches are being gathered, they will be due after this time.
    Nothing {
        touches_in: Option<Duration>,
    },
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// Somebody waits for it.
    Asked,
    /// Those of so many rooms are pruned.
    Pruned {
        rooms: usize,
    },
    Touches,
}

pub(super) struct Queue {
    rooms: HashMap<RoomName, Waiting>,
    /// The rooms of which something was asked, in the order in which it first was.
    asked: VecDeque<RoomName>,
    /// The rooms that prune, in the order in which they began.
    pruned: VecDeque<RoomName>,
    pending: usize,
    /// How many changes the next transaction takes at most.
    limit: usize,
    /// How many of those that are pruned it takes if there is nothing else.
    pace: Pace,
    touches: Touches,
    busy: Option<Busy>,
    /// The number of the last batch.
    taken: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            rooms: HashMap::new(),
            asked: VecDeque::new(),
            pruned: VecDeque::new(),
            pending: 0,
            limit: BATCH,
            pace: Pace::default(),
            touches: Touches::default(),
            busy: None,
            taken: 0,
        }
    }
}

impl Queue {
    /// How many changes wait.
    pub(super) const fn pending(&self) -> usize {
        self.pending
    }

    /// How many changes of a presence wait.
    pub(super) fn pending_of(&self, room: &RoomName, id: PresenceId) -> usize {
        self.rooms.get(room).map_or(0, |waiting| waiting.of(id))
    }

    /// The number of the last batch.
    pub(super) const fn begun(&self) -> u64 {
        self.taken
    }

    /// Nothing waits, and nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.busy.is_none() && self.asked.is_empty() && self.pruned.is_empty() && self.touches.is_empty()
    }

    /// Somebody waits for a change, or for one that is under way.
    pub(super) fn is_writing(&self) -> bool {
        !self.asked.is_empty() || self.busy == Some(Busy::Asked)
    }

    /// Something is pruned.
    pub(super) fn prunes(&self) -> bool {
        !self.pruned.is_empty()
    }

    /// Whether all that waits are a few leaves, which may wait a little longer for a join.
    pub(super) fn has_only_few_leaves(&self) -> bool {
        let asks_only_leaves = |room| self.rooms.get(room).is_some_and(Waiting::asks_only_leaves);
        (1..=FEW_LEAVES).contains(&self.pending)
            && self.asked.len() == self.rooms.len()
            && self.asked.iter().all(asks_only_leaves)
    }

    /// What was taken last was written, and that took so long.
    pub(super) fn written(&mut self, time: Duration) {
        if let Some(Busy::Pruned { rooms }) = self.busy.take() {
            self.pace.took(time, rooms);
        }
        self.limit = BATCH.min(self.limit * 2);
    }

    /// What was taken last was not written. It was put back, or is in doubt.
    pub(super) fn not_written(&mut self, in_doubt: bool) {
        if !in_doubt {
            self.busy = None;
        }
        self.pace.slow_down();
        self.limit = LEAST.max(self.limit / 2);
    }

    /// What was in doubt is so no more.
    pub(super) const fn settled(&mut self) {
        self.busy = None;
    }

    /// Changes go first, but touches do not wait for ever: once they are due, they have every other turn. Those that are pruned
    /// wait unless it is the writer's turn to remove.
    pub(super) fn next(&mut self, now: Tick, gather: Duration, may_prune: bool) -> Work {
        let nothing_else = self.asked.is_empty() && !(may_prune && self.prunes());
        if let Some(touches) = self.touches.take_due(now, gather, nothing_else) {
            self.busy = Some(Busy::Touches);
            return Work::Touches(touches);
        }
        if nothing_else {
            return Work::Nothing { touches_in: self.touches.due_in(now) };
        }
        Work::Changes(self.take(may_prune))
    }

    pub(super) fn add(
        &mut self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        change: Change,
        haste: Haste,
    ) -> Submitted {
        if let Write::Leave { id, .. } = &change.write {
            self.touches.forget(*id);
        }
        let waiting = match self.rooms.entry(room.clone()) {
            Entry::Occupied(waiting) => {
                let waiting = waiting.into_mut();
                waiting.actor = actor.clone();
                waiting
            }
            Entry::Vacant(waiting) => waiting.insert(Waiting::new(actor.clone())),
        };
        self.pending -= waiting.len();
        let waits = waiting.add(change, haste);
        self.pending += waiting.len();
        self.list(room);
        if waits { Submitted::Waits(self.taken) } else { Submitted::CancelledOut }
    }

    /// Puts the room on the lists that it belongs on.
    fn list(&mut self, room: &RoomName) {
        let Some(waiting) = self.rooms.get_mut(room) else { return };
        if !waiting.in_asked && waiting.asks() {
            waiting.in_asked = true;
            self.asked.push_back(room.clone());
        }
        if !waiting.in_pruned && waiting.prunes() {
            waiting.in_pruned = true;
            self.pruned.push_back(room.clone());
        }
    }

    /// The next batch: as much as one transaction takes.
    fn take(&mut self, may_prune: bool) -> Batch {
        let mut taken = Taken::default();
        let for_pruned = if may_prune && self.prunes() { self.limit / 4 } else { 0 };
        while taken.count < self.limit - for_pruned {
            let Some(room) = self.asked.front().cloned() else { break };
            let Some(waiting) = self.rooms.get_mut(&room) else { break };
            let changes = waiting.take_asked(self.limit - for_pruned - taken.count);
            taken.add(&room, &waiting.actor, changes);
            if !waiting.asks() {
                waiting.in_asked = false;
                self.asked.pop_front();
                self.forget_if_empty(&room);
            }
        }
        let asked = taken.count > 0;
        if asked {
            self.pace.slow_down();
        }
        // After a transaction that failed, and if others wait, no more than these may have.
        let limit = if asked || self.limit < BATCH { self.limit } else { self.pace.size() };
        while may_prune && taken.count < limit && taken.at.len() < MOST_ROOMS {
            let Some(room) = self.pruned.front().cloned() else { break };
            let Some(waiting) = self.rooms.get_mut(&room) else { break };
            let changes = waiting.take_pruned(limit - taken.count);
            taken.add(&room, &waiting.actor, changes);
            if !waiting.prunes() {
                waiting.in_pruned = false;
                self.pruned.pop_front();
                self.forget_if_empty(&room);
            }
        }
        // A presence is in a batch once: what waits behind a change goes into a later one.
        for (room, at) in &taken.at {
            if let Some(waiting) = self.rooms.get_mut(room) {
                waiting.advance(&taken.batch.writes[*at].writes);
                self.list(room);
                self.forget_if_empty(room);
            }
        }
        self.pending -= taken.count;
        self.taken += 1;
        let haste = if asked { Haste::Asked } else { Haste::Pruned };
        let batch = Batch { number: self.taken, haste, ..taken.batch };
        self.busy = match batch.writes.len() {
            0 => None,
            _ if asked => Some(Busy::Asked),
            rooms => Some(Busy::Pruned { rooms }),
        };
        batch
    }

    fn forget_if_empty(&mut self, room: &RoomName) {
        let is_empty = |waiting: &Waiting| !waiting.in_asked && !waiting.in_pruned && waiting.len() == 0;
        if self.rooms.get(room).is_some_and(is_empty) {
            self.rooms.remove(room);
        }
    }

    /// What was not committed goes before what came since; but what was only pruned, after what is asked.
    pub(super) fn put_back(&mut self, batch: Batch) {
        let haste = batch.haste;
        for (RoomWrites { room, writes }, actor) in batch.writes.into_iter().zip(batch.actors) {
            let waiting = match self.rooms.entry(room.clone()) {
                Entry::Occupied(waiting) => waiting.into_mut(),
                Entry::Vacant(waiting) => waiting.insert(Waiting::new(actor)),
            };
            self.pending -= waiting.len();
            for write in writes {
                let since = waiting.remove(write.id());
                waiting.add(Change { write, tried: Tried::Yes }, haste);
                for (since, haste) in since {
                    waiting.add(since, haste);
                }
            }
            self.pending += waiting.len();
            if haste == Haste::Asked && !waiting.in_asked {
                waiting.in_asked = true;
                self.asked.push_front(room.clone());
            }
            if haste == Haste::Pruned && !waiting.in_pruned && waiting.prunes() {
                waiting.in_pruned = true;
                self.pruned.push_front(room.clone());
            }
            self.list(&room);
        }
    }

    pub(super) const fn touches(&mut self) -> &mut Touches {
        &mut self.touches
    }
}

/// A batch that is being put together. A room is in it once, also if it is on both lists.
#[derive(Default)]
struct Taken {
    batch: Batch,
    at: HashMap<RoomName, usize>,
    count: usize,
}

impl Taken {
    fn add(&mut self, room: &RoomName, actor: &Recipient<Committed>, changes: Vec<Change>) {
        // All that waited may have cancelled out.
        if changes.is_empty() {
            return;
        }
        self.count += changes.len();
        let Batch { writes, actors, .. } = &mut self.batch;
        let at = *self.at.entry(room.clone()).or_insert_with(|| {
            writes.push(RoomWrites { room: room.clone(), writes: Vec::with_capacity(changes.len()) });
            actors.push(actor.clone());
            writes.len() - 1
        });
        writes[at].writes.extend(changes.into_iter().map(|change| change.write));
    }
}
