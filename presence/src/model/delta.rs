//! What changed in a room, and what a room holds at one moment.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use crate::name::{Epoch, PresenceId, Version};

use super::Presence;

/// The net change of a room over some time: no presence is in it twice.
///
/// Invariant: a [`Snapshot`] plus the deltas after it equals the next snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Delta {
    /// Who came, in the order of their coming.
    pub joined: Vec<Arc<Presence>>,
    /// Who went, each as it was last.
    pub left: Vec<Arc<Presence>>,
    /// Whose user or meta is another now, each as it is now.
    pub updated: Vec<Arc<Presence>>,
}

/// Who is in a room at one position of its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which life of the room.
    pub epoch: Epoch,
    /// The position in its changes.
    pub version: Version,
    /// Everyone, in no particular order.
    pub presences: Vec<Arc<Presence>>,
}

impl Delta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.updated.is_empty()
    }

    /// How many presences the delta is about.
    #[must_use]
    pub fn len(&self) -> usize {
        self.joined.len() + self.left.len() + self.updated.len()
    }
}

/// What happened to one presence: how it was before, and how it is after. `None`: not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) was: Option<Arc<Presence>>,
    pub(crate) now: Option<Arc<Presence>>,
}

/// Changes put together one after the other, with net effect: who came and went in between is never mentioned, the
/// updates of one presence merge, and one who went and came back under the same id merely changed, if at all.
#[derive(Debug, Default)]
pub(crate) struct Net {
    changes: HashMap<PresenceId, NetChange>,
    order: u64,
}

#[derive(Debug)]
struct NetChange {
    order: u64,
    was: Option<Arc<Presence>>,
    here: bool,
    /// As it is now, or as it was when it left.
    last: Arc<Presence>,
}

impl Net {
    /// Adds what happened next.
    pub(crate) fn then(&mut self, changes: impl IntoIterator<Item = Change>) {
        for Change { was, now } in changes {
            let here = now.is_some();
            let Some(last) = now.or_else(|| was.clone()) else { continue };
            self.order += 1;
            match self.changes.entry(last.id) {
                Entry::Occupied(mut entry) => {
                    if !here && entry.get().was.is_none() {
                        entry.remove();
                    } else {
                        entry.get_mut().here = here;
                        entry.get_mut().last = last;
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(NetChange { order: self.order, was, here, last });
                }
            }
        }
    }

    /// The net change so far; from here on, nothing has happened.
    pub(crate) fn take(&mut self) -> Delta {
        self.order = 0;
        let mut changes: Vec<NetChange> = self.changes.drain().map(|(_, change)| change).collect();
        changes.sort_unstable_by_key(|change| change.order);
        let mut delta = Delta::default();
        for NetChange { was, here, last, .. } in changes {
            match (was, here) {
                (None, true) => delta.joined.push(last),
                (None, false) => {}
                (Some(_), false) => delta.left.push(last),
                (Some(was), true) if was.looks_like(&last) => {}
                (Some(_), true) => delta.updated.push(last),
            }
        }
        delta
    }
}
