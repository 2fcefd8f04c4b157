//! The queued changes of one room.
//!
//! Each presence has at most one change for the next batch. A later change is merged into it, or waits for a later batch if
//! no single change has the effect of both. So changes of one presence keep their order, in whatever order presences are
//! taken. Leaves are written first: a channel that left may have joined again as another presence, and a room can have one
//! presence of a channel.
//!
//! The queue does not grow with time. However often a presence is lost and resumed while the database is away, only its last
//! resume waits, and the leave or hold after it. Updates between them can prevent a merge. They are refused when too many
//! changes wait; the last update of a socket, when too many of the same presence wait.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
};

use actix::Recipient;

use crate::{
    name::{ChannelName, PresenceId},
    store::Write,
};

use super::{
    Committed,
    merge::{Change, Merged, Tried, merge},
    queue::Priority,
};

type Changes = BTreeMap<PresenceId, Change>;

/// The first change of a presence is in `leaves`, `pruned` or `others`, and the changes after it are in `later`.
pub(super) struct RoomQueue {
    pub(super) room_actor: Recipient<Committed>,
    /// Requested leaves.
    leaves: Changes,
    /// Leaves that a prune makes.
    pruned: Changes,
    /// The presences in `pruned` by channel. It is built at the first join, because nothing else needs it.
    pruned_channels: Option<HashMap<ChannelName, PresenceId>>,
    /// Joins, resumes, holds and updates.
    others: Changes,
    /// Changes that can be taken only after the changes before them, in their order.
    later: HashMap<PresenceId, VecDeque<(Change, Priority)>>,
    later_count: usize,
    /// Whether the room is in the queue's list of rooms with requested changes.
    pub(super) in_requested: bool,
    /// Whether the room is in the queue's list of rooms with pruned presences.
    pub(super) in_pruned: bool,
    /// Whether a lane is writing changes of the room. Then the others leave it alone.
    pub(super) in_progress: bool,
    /// Whether changes of the room that are first in line are left. It is put before other rooms when no lane is writing it any more.
    pub(super) is_first: bool,
    /// Whether the room was set aside, because another transaction keeps its lock.
    pub(super) aside: bool,
    /// Whether the room is in the queue's list of rooms that were set aside.
    pub(super) in_aside: bool,
}

impl RoomQueue {
    pub(super) fn new(room_actor: Recipient<Committed>) -> Self {
        Self {
            room_actor,
            leaves: Changes::new(),
            pruned: Changes::new(),
            pruned_channels: None,
            others: Changes::new(),
            later: HashMap::new(),
            later_count: 0,
            in_requested: false,
            in_pruned: false,
            in_progress: false,
            is_first: false,
            aside: false,
            in_aside: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.leaves.len() + self.others.len() + self.pruned.len() + self.later_count
    }

    pub(super) fn has_requested(&self) -> bool {
        !self.leaves.is_empty() || !self.others.is_empty()
    }

    pub(super) fn has_only_requested_leaves(&self) -> bool {
        self.others.is_empty()
    }

    pub(super) fn has_pruned(&self) -> bool {
        !self.pruned.is_empty()
    }

    /// Whether an ordinary lane may take changes of the room.
    pub(super) const fn is_free(&self) -> bool {
        !self.in_progress && !self.aside
    }

    /// How many requested changes can be taken now.
    pub(super) fn requested(&self) -> usize {
        self.leaves.len() + self.others.len()
    }

    /// How many changes of a presence wait.
    pub(super) fn pending_of(&self, id: PresenceId) -> usize {
        let next = [&self.leaves, &self.others, &self.pruned].iter().any(|changes| changes.contains_key(&id));
        usize::from(next) + self.later.get(&id).map_or(0, VecDeque::len)
    }

    /// Takes out all changes of a presence, in their order.
    pub(super) fn remove(&mut self, id: PresenceId) -> Vec<(Change, Priority)> {
        let later = self.later.remove(&id).unwrap_or_default();
        self.later_count -= later.len();
        self.remove_next(id).into_iter().chain(later).collect()
    }

    fn remove_next(&mut self, id: PresenceId) -> Option<(Change, Priority)> {
        let asked = self.leaves.remove(&id).or_else(|| self.others.remove(&id));
        asked.map(|change| (change, Priority::Requested)).or_else(|| Some((self.unprune(id)?, Priority::Pruned)))
    }

    fn unprune(&mut self, id: PresenceId) -> Option<Change> {
        let change = self.pruned.remove(&id)?;
        self.forget_pruned(&change);
        Some(change)
    }

    /// Whether a join of this channel waits.
    fn joins(&self, channel: &ChannelName) -> bool {
        self.others.values().any(|change| match &change.write {
            Write::Join(presence)
            | Write::Restore { presence, .. }
            | Write::Resume { presence, .. }
            | Write::JoinWithin { presence, .. } => presence.channel == *channel,
            _ => false,
        })
    }

    fn forget_pruned(&mut self, change: &Change) {
        if let (Some(channels), Write::Leave { channel, .. }) = (&mut self.pruned_channels, &change.write) {
            channels.remove(channel);
        }
    }

    /// The pruned presence of a channel.
    fn pruned_of(&mut self, channel: &ChannelName) -> Option<PresenceId> {
        if self.pruned.is_empty() {
            return None;
        }
        let of = |(id, change): (&PresenceId, &Change)| match &change.write {
            Write::Leave { channel, .. } => Some((channel.clone(), *id)),
            _ => None,
        };
        let channels = self.pruned_channels.get_or_insert_with(|| self.pruned.iter().filter_map(of).collect());
        channels.get(channel).copied()
    }

    /// Adds a change after those that wait of the same presence. Returns `false` if they cancelled out.
    pub(super) fn add(&mut self, mut change: Change, mut priority: Priority) -> bool {
        let id = change.write.id();
        // The result of a merge may be merged into the change before it.
        while let Some((earlier, earlier_priority)) = self.take_last(id) {
            match merge(earlier, change) {
                Merged::Nothing => return false,
                Merged::One(merged) => change = merged,
                Merged::Both(earlier, later) => {
                    self.put_last(id, earlier, earlier_priority);
                    self.put_last(id, later, priority);
                    return true;
                }
            }
            // A caller waits for one of the two.
            if earlier_priority == Priority::Requested {
                priority = Priority::Requested;
            }
        }
        self.put(id, change, priority);
        true
    }

    fn take_last(&mut self, id: PresenceId) -> Option<(Change, Priority)> {
        let Some(last) = self.later.get_mut(&id).and_then(VecDeque::pop_back) else { return self.remove_next(id) };
        self.later_count -= 1;
        self.drop_empty(id);
        Some(last)
    }

    fn put_last(&mut self, id: PresenceId, change: Change, priority: Priority) {
        if [&self.leaves, &self.others, &self.pruned].iter().any(|changes| changes.contains_key(&id)) {
            self.later.entry(id).or_default().push_back((change, priority));
            self.later_count += 1;
        } else {
            self.put(id, change, priority);
        }
    }

    fn drop_empty(&mut self, id: PresenceId) {
        if self.later.get(&id).is_some_and(VecDeque::is_empty) {
            self.later.remove(&id);
        }
    }

    /// Adds the first change of a presence.
    fn put(&mut self, id: PresenceId, change: Change, priority: Priority) {
        match (&change.write, priority) {
            // It was put back, and meanwhile its channel has joined as another presence. It must be written before that join.
            (Write::Leave { channel, .. }, Priority::Pruned) if change.tried == Tried::Yes && self.joins(channel) => {
                drop(self.leaves.insert(id, change));
            }
            (Write::Leave { channel, .. }, Priority::Pruned) => {
                if let Some(channels) = &mut self.pruned_channels {
                    channels.insert(channel.clone(), id);
                }
                self.pruned.insert(id, change);
            }
            (Write::Leave { .. }, Priority::Requested) => drop(self.leaves.insert(id, change)),
            (
                Write::Join(presence)
                | Write::Restore { presence, .. }
                | Write::Resume { presence, .. }
                | Write::JoinWithin { presence, .. },
                _,
            ) => {
                // The channel may be pruned as another presence. That leave must be written before this join.
                let other = self.pruned_of(&presence.channel);
                if let Some((other, leave)) = other.and_then(|other| Some((other, self.unprune(other)?))) {
                    self.leaves.insert(other, leave);
                }
                self.others.insert(id, change);
            }
            (Write::Update { .. } | Write::Hold { .. }, _) => drop(self.others.insert(id, change)),
        }
    }

    /// After `taken` went into a batch, the later changes of the same presences are next.
    pub(super) fn advance(&mut self, taken: &[Write]) {
        if self.later.is_empty() {
            return;
        }
        for write in taken {
            let id = write.id();
            let Some((next, priority)) = self.later.get_mut(&id).and_then(VecDeque::pop_front) else { continue };
            self.later_count -= 1;
            self.drop_empty(id);
            self.put(id, next, priority);
        }
    }

    /// Takes up to `most` requested changes.
    pub(super) fn take_requested(&mut self, most: usize) -> Vec<Change> {
        let mut taken = take(&mut self.leaves, most);
        taken.extend(take(&mut self.others, most - taken.len()));
        taken
    }

    /// Whether requested changes wait that were tried before.
    pub(super) fn has_tried(&self) -> bool {
        self.leaves.values().chain(self.others.values()).any(|change| change.tried == Tried::Yes)
    }

    /// Takes up to `most` requested changes that were tried before.
    pub(super) fn take_tried(&mut self, most: usize) -> Vec<Change> {
        let mut taken = Vec::new();
        for changes in [&mut self.leaves, &mut self.others] {
            let tried = changes.iter().filter(|(_, change)| change.tried == Tried::Yes).map(|(id, _)| *id);
            let ids: Vec<_> = tried.take(most - taken.len()).collect();
            taken.extend(ids.iter().filter_map(|id| changes.remove(id)));
        }
        taken
    }

    /// Takes up to `most` leaves of a prune.
    pub(super) fn take_pruned(&mut self, most: usize) -> Vec<Change> {
        let taken = take(&mut self.pruned, most);
        if self.pruned.is_empty() {
            self.pruned_channels = None;
        } else if self.pruned_channels.is_some() {
            taken.iter().for_each(|change| self.forget_pruned(change));
        }
        taken
    }
}

fn take(changes: &mut Changes, most: usize) -> Vec<Change> {
    if changes.len() <= most {
        return mem::take(changes).into_values().collect();
    }
    (0..most).map_while(|_| Some(changes.pop_first()?.1)).collect()
}
