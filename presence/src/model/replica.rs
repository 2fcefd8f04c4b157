//! One room as this node knows it: its own changes and those of other nodes, in the order of their versions.
//!
//! Deltas may be lost, repeated or out of order on their way. One that is next is applied, one that is known is passed
//! over, one that came too early waits for those before it; if they do not come, or the room has begun another life, the
//! room must be read anew. So a roster is at worst late, never silently wrong.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

use super::{Delta, Snapshot, delta::Change, roster::Roster};

/// What to do after a delta came in.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Applied {
    /// This changed; nothing, if the delta was known or changed nothing that can be seen.
    Changed(Vec<Change>),
    /// The delta waits for those before it.
    Early,
    /// The room must be read anew.
    Reload,
}

#[derive(Debug, Default)]
pub(crate) struct Replica {
    roster: Roster,
    position: Option<(Epoch, Version)>,
    /// Deltas that could not be applied yet, since one before them is missing or their epoch is not known.
    early: BTreeMap<(Epoch, Version), Delta>,
    /// Since when the oldest of them waits.
    early_since: Option<Tick>,
}

impl Replica {
    pub(crate) const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Which life of the room this is, and how far it has come; `None` before anything is known.
    pub(crate) const fn position(&self) -> Option<(Epoch, Version)> {
        self.position
    }

    /// Takes in the change that led to `version`.
    pub(crate) fn apply(&mut self, now: Tick, epoch: Epoch, version: Version, delta: Delta) -> Applied {
        match self.position {
            // The first change ever: nothing came before it that one would have to read.
            None if version == Version(1) => {
                self.position = Some((epoch, Version(0)));
            }
            Some((known, at)) if known == epoch && version <= at => return Applied::Changed(Vec::new()),
            Some((known, at)) if known == epoch && version == at.next() => {}
            position => {
                self.early.insert((epoch, version), delta);
                self.early_since.get_or_insert(now);
                let same_life = position.is_some_and(|(known, _)| known == epoch);
                return if same_life { Applied::Early } else { Applied::Reload };
            }
        }
        let mut changes = self.roster.apply(&delta);
        self.position = Some((epoch, version));
        self.take_early(&mut changes);
        Applied::Changed(changes)
    }

    /// When the room must be read anew, unless the missing deltas come before.
    pub(crate) fn reload_at(&self, hold_window: Duration) -> Option<Tick> {
        self.early_since.map(|since| since.after(hold_window))
    }

    /// Must be called before the room is read. What waits now is in the database already, so the reading will hold it;
    /// only what comes in later must still be put on top.
    pub(crate) fn reloading(&mut self) {
        self.early.clear();
        self.early_since = None;
    }

    /// Takes in what the room was when it was read, and tells the net difference. `None`: there was no such room.
    pub(crate) fn reload(&mut self, snapshot: Option<Snapshot>) -> Applied {
        let mut changes = match (snapshot, self.position) {
            // It was read before a change that we know.
            (Some(snapshot), Some((epoch, at))) if snapshot.epoch == epoch && snapshot.version < at => Vec::new(),
            (Some(snapshot), _) => {
                self.position = Some((snapshot.epoch, snapshot.version));
                self.roster.replace(snapshot.presences)
            }
            (None, _) => {
                self.position = None;
                self.roster.replace(Vec::new())
            }
        };
        self.take_early(&mut changes);
        Applied::Changed(changes)
    }

    fn take_early(&mut self, changes: &mut Vec<Change>) {
        let Some((epoch, mut at)) = self.position else { return };
        self.early.retain(|(other, version), _| *other != epoch || *version > at);
        while let Some(delta) = self.early.remove(&(epoch, at.next())) {
            changes.extend(self.roster.apply(&delta));
            at = at.next();
        }
        self.position = Some((epoch, at));
        if self.early.is_empty() {
            self.early_since = None;
        }
    }
}
