//! What waits of one room.
//!
//! A presence has at most one change that is taken next: a later one is merged into it, or waits behind it where no one change
//! does both. So the order of what happens to one presence is kept, whatever the order in which presences are taken. Leaves go
//! before all else: a channel that left may have joined anew as another presence, and a room has room for one of them.
//!
//! What waits does not grow with time. However often a presence is lost and resumed while the database is away, its last return
//! waits, and its leave or hold since then; only updates can keep some apart, and those are refused when too much waits, the last
//! one of a socket when too much of the same presence does.

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
    merge::{Change, Merged, merge},
    queue::Haste,
};

type Changes = BTreeMap<PresenceId, Change>;

/// What waits of one room. A presence is in one of the three, and what waits behind it in the fourth.
pub(super) struct Waiting {
    pub(super) actor: Recipient<Committed>,
    /// Leaves, and holds: a hold, too, makes room for another presence.
    left: Changes,
    pruned: Changes,
    /// Who speaks for which of the pruned, from when somebody joins: until then nobody asks.
    pruned_channels: Option<HashMap<ChannelName, PresenceId>>,
    /// Joins, resumes, holds and updates.
    others: Changes,
    /// What can be taken only once the change before it was taken, in its order.
    behind: HashMap<PresenceId, VecDeque<(Change, Haste)>>,
    behind_len: usize,
    /// Whether the room is on the queue's list of those that ask, and of those that prune.
    pub(super) in_asked: bool,
    pub(super) in_pruned: bool,
}

impl Waiting {
    pub(super) fn new(actor: Recipient<Committed>) -> Self {
        Self {
            actor,
            left: Changes::new(),
            pruned: Changes::new(),
            pruned_channels: None,
            others: Changes::new(),
            behind: HashMap::new(),
            behind_len: 0,
            in_asked: false,
            in_pruned: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.left.len() + self.others.len() + self.pruned.len() + self.behind_len
    }

    /// Whether something was asked of it.
    pub(super) fn asks(&self) -> bool {
        !self.left.is_empty() || !self.others.is_empty()
    }

    /// Whether nothing is asked but to remove or to hold presences.
    pub(super) fn asks_only_leaves(&self) -> bool {
        self.others.is_empty()
    }

    pub(super) fn prunes(&self) -> bool {
        !self.pruned.is_empty()
    }

    /// How many changes of a presence wait.
    pub(super) fn of(&self, id: PresenceId) -> usize {
        let next = [&self.left, &self.others, &self.pruned].iter().any(|changes| changes.contains_key(&id));
        usize::from(next) + self.behind.get(&id).map_or(0, VecDeque::len)
    }

    /// Takes out all that waits of a presence, in its order.
    pub(super) fn remove(&mut self, id: PresenceId) -> Vec<(Change, Haste)> {
        let behind = self.behind.remove(&id).unwrap_or_default();
        self.behind_len -= behind.len();
        self.remove_next(id).into_iter().chain(behind).collect()
    }

    fn remove_next(&mut self, id: PresenceId) -> Option<(Change, Haste)> {
        let asked = self.left.remove(&id).or_else(|| self.others.remove(&id));
        asked.map(|change| (change, Haste::Asked)).or_else(|| Some((self.unprune(id)?, Haste::Pruned)))
    }

    fn unprune(&mut self, id: PresenceId) -> Option<Change> {
        let change = self.pruned.remove(&id)?;
        self.forget_pruned(&change);
        Some(change)
    }

    fn forget_pruned(&mut self, change: &Change) {
        if let (Some(channels), Write::Leave { channel, .. }) = (&mut self.pruned_channels, &change.write) {
            channels.remove(channel);
        }
    }

    /// Who of the pruned speaks for the channel.
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

    /// Adds a change after what waits of the same presence. Returns whether something comes of it.
    pub(super) fn add(&mut self, mut change: Change, mut haste: Haste) -> bool {
        let id = change.write.id();
        // What was merged into the one before it may now be merged into the one before that.
        while let Some((earlier, earlier_haste)) = self.take_last(id) {
            match merge(earlier, change) {
                Merged::Nothing => return false,
                Merged::One(merged) => change = merged,
                Merged::Both(earlier, later) => {
                    self.put_last(id, earlier, earlier_haste);
                    self.put_last(id, later, haste);
                    return true;
                }
            }
            // Somebody waits for one of the two.
            if earlier_haste == Haste::Asked {
                haste = Haste::Asked;
            }
        }
        self.put(id, change, haste);
        true
    }

    fn take_last(&mut self, id: PresenceId) -> Option<(Change, Haste)> {
        let Some(last) = self.behind.get_mut(&id).and_then(VecDeque::pop_back) else { return self.remove_next(id) };
        self.behind_len -= 1;
        self.drop_empty(id);
        Some(last)
    }

    fn put_last(&mut self, id: PresenceId, change: Change, haste: Haste) {
        if [&self.left, &self.others, &self.pruned].iter().any(|changes| changes.contains_key(&id)) {
            self.behind.entry(id).or_default().push_back((change, haste));
            self.behind_len += 1;
        } else {
            self.put(id, change, haste);
        }
    }

    fn drop_empty(&mut self, id: PresenceId) {
        if self.behind.get(&id).is_some_and(VecDeque::is_empty) {
            self.behind.remove(&id);
        }
    }

    /// Makes a change the next of its presence, of which nothing waits.
    fn put(&mut self, id: PresenceId, change: Change, haste: Haste) {
        match (&change.write, haste) {
            (Write::Leave { channel, .. }, Haste::Pruned) => {
                if let Some(channels) = &mut self.pruned_channels {
                    channels.insert(channel.clone(), id);
                }
                self.pruned.insert(id, change);
            }
            (Write::Leave { .. }, Haste::Asked) => drop(self.left.insert(id, change)),
            (
                Write::Join(presence)
                | Write::Restore { presence, .. }
                | Write::Resume { presence, .. }
                | Write::JoinWithin { presence, .. },
                _,
            ) => {
                // The channel's leave as another presence must not come after this.
                let other = self.pruned_of(&presence.channel);
                if let Some((other, leave)) = other.and_then(|other| Some((other, self.unprune(other)?))) {
                    self.left.insert(other, leave);
                }
                self.others.insert(id, change);
            }
            (Write::Update { .. } | Write::Hold { .. }, _) => drop(self.others.insert(id, change)),
        }
    }

    /// Changes were taken: what waits behind them is next.
    pub(super) fn advance(&mut self, taken: &[Write]) {
        if self.behind.is_empty() {
            return;
        }
        for write in taken {
            let id = write.id();
            let Some((next, haste)) = self.behind.get_mut(&id).and_then(VecDeque::pop_front) else { continue };
            self.behind_len -= 1;
            self.drop_empty(id);
            self.put(id, next, haste);
        }
    }

    /// Takes up to `most` of what was asked.
    pub(super) fn take_asked(&mut self, most: usize) -> Vec<Change> {
        let mut taken = take(&mut self.left, most);
        taken.extend(take(&mut self.others, most - taken.len()));
        taken
    }

    /// Takes up to `most` of those that are pruned.
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
