//! What waits of one room.
//!
//! A presence has at most one change that waits: a later one is merged into it, so the order of what happens to one presence
//! is kept, whatever the order in which presences are taken. Leaves go before all else: a channel that left may have joined
//! anew as another presence, and a room has room for one of them.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use actix::Recipient;

use crate::{
    name::{ChannelName, PresenceId},
    store::Write,
};

use super::{
    Committed,
    merge::{Change, merge},
    queue::Haste,
};

type Changes = BTreeMap<PresenceId, Change>;

/// What waits of one room. A presence is in one of the three.
pub(super) struct Waiting {
    pub(super) actor: Recipient<Committed>,
    /// Leaves, and holds: a hold, too, makes room for another presence.
    left: Changes,
    pruned: Changes,
    /// Who speaks for which of the pruned.
    pruned_channels: HashMap<ChannelName, PresenceId>,
    /// Joins and updates.
    others: Changes,
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
            pruned_channels: HashMap::new(),
            others: Changes::new(),
            in_asked: false,
            in_pruned: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.left.len() + self.others.len() + self.pruned.len()
    }

    /// Whether something was asked of it.
    pub(super) fn asks(&self) -> bool {
        !self.left.is_empty() || !self.others.is_empty()
    }

    pub(super) fn prunes(&self) -> bool {
        !self.pruned.is_empty()
    }

    /// Takes out what waits of a presence.
    pub(super) fn remove(&mut self, id: PresenceId) -> Option<(Change, Haste)> {
        let asked = self.left.remove(&id).or_else(|| self.others.remove(&id));
        asked.map(|change| (change, Haste::Asked)).or_else(|| Some((self.unprune(id)?, Haste::Pruned)))
    }

    fn unprune(&mut self, id: PresenceId) -> Option<Change> {
        let change = self.pruned.remove(&id)?;
        if let Write::Leave { channel, .. } = &change.write {
            self.pruned_channels.remove(channel);
        }
        Some(change)
    }

    /// Adds a change after what waits of the same presence. Returns whether something waits then.
    pub(super) fn add(&mut self, change: Change, haste: Haste) -> bool {
        let id = change.write.id();
        let (change, haste) = match self.remove(id) {
            None => (Some(change), haste),
            Some((earlier, Haste::Pruned)) => (merge(earlier, change), haste),
            Some((earlier, Haste::Asked)) => (merge(earlier, change), Haste::Asked),
        };
        let Some(change) = change else { return false };
        match (&change.write, haste) {
            (Write::Leave { channel, .. }, Haste::Pruned) => {
                self.pruned_channels.insert(channel.clone(), id);
                self.pruned.insert(id, change);
            }
            (Write::Leave { .. } | Write::Hold { .. }, _) => drop(self.left.insert(id, change)),
            (Write::Join(presence) | Write::Restore { presence, .. } | Write::Resume { presence, .. }, _) => {
                // The channel's leave as another presence must not come after this.
                let other = self.pruned_channels.get(&presence.channel).copied();
                if let Some((other, leave)) = other.and_then(|other| Some((other, self.unprune(other)?))) {
                    self.left.insert(other, leave);
                }
                self.others.insert(id, change);
            }
            (Write::Update { .. }, _) => drop(self.others.insert(id, change)),
        }
        true
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
            self.pruned_channels = HashMap::new();
        } else {
            for change in &taken {
                if let Write::Leave { channel, .. } = &change.write {
                    self.pruned_channels.remove(channel);
                }
            }
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
