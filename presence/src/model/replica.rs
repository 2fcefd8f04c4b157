//! One room as this node knows it: its own changes and those of other nodes, in the order of their versions.
//!
//! Deltas may be lost, repeated or out of order. The next delta is applied, a known one is skipped, and an early one waits for those
//! before it. If they do not arrive, or the room has a new epoch, the room must be loaded again. Two epochs have no order, so only a load
//! shows which one is current: it includes everything that this node had received before it began.
//!
//! Invariant: the roster is the room at `position`, and [`Replica::reload_at`] returns a time while this node knows of later changes. So
//! a roster may be late, but never wrong without notice.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    time::Duration,
};

use crate::{
    clock::Tick,
    name::{ChannelName, Epoch, PresenceId, Version},
};

use super::{Delta, Presence, Snapshot, delta::RosterChange, roster::Roster};

/// How many early deltas wait for those before them. Only a long load of a very busy room exceeds it.
const MAX_EARLY: usize = 1024;

/// What to do after a delta has arrived.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Applied {
    /// The changes that members can see. Empty if the delta was known.
    Changed(Vec<RosterChange>),
    /// The delta waits for those before it, until [`Replica::reload_at`].
    Early,
    /// The room must be loaded at once. If a load is in progress, one more is needed after it.
    Reload,
}

#[derive(Debug, Default)]
pub(crate) struct Replica {
    roster: Roster,
    position: Option<(Epoch, Version)>,
    /// Deltas that cannot be applied yet, because one before them is missing or they have another epoch.
    early: BTreeMap<(Epoch, Version), Early>,
    /// Since when deltas were dropped, because too many waited.
    dropped_since: Option<Tick>,
    /// When the load in progress became necessary.
    needed_since: Option<Tick>,
    /// How many loads have begun.
    loads: u64,
    /// The position of the roster when the last of them began.
    loaded_from: Option<(Epoch, Version)>,
    /// The last load showed less than was known before it began.
    rolled_back: bool,
    /// Presences of this node that left at a version which the roster has not reached yet.
    departed: HashMap<PresenceId, Departed>,
}

/// A presence that left, and may still be in the roster.
#[derive(Debug)]
struct Departed {
    channel: ChannelName,
    at: (Epoch, Version),
    /// How many loads had begun when it left. A later load does not contain the presence.
    loads: u64,
}

/// A loaded room, prepared for the replica. The preparation takes time, so the thread of the room does not do it.
#[derive(Debug)]
pub(crate) struct LoadedRoom {
    epoch: Epoch,
    version: Version,
    roster: Roster,
}

impl From<Snapshot> for LoadedRoom {
    fn from(Snapshot { epoch, version, presences }: Snapshot) -> Self {
        Self { epoch, version, roster: Roster::from(presences) }
    }
}

#[derive(Debug)]
struct Early {
    since: Tick,
    delta: Delta,
}

impl Replica {
    pub(crate) const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The epoch and version of the roster. `None` if nothing is known or the room does not exist.
    pub(crate) const fn position(&self) -> Option<(Epoch, Version)> {
        self.position
    }

    /// Sets the owner of a presence, and whether it is held, of which this node knows more than the roster. Returns whether the presence
    /// is in the roster. What members see of it stays the same.
    pub(crate) fn hand_over(&mut self, to: &Presence) -> bool {
        self.roster.hand_over(to)
    }

    /// Applies the change that led to `version`.
    pub(crate) fn apply(&mut self, now: Tick, epoch: Epoch, version: Version, delta: Delta) -> Applied {
        match self.position {
            Some((known, at)) if known == epoch && version <= at => return Applied::Changed(Vec::new()),
            // A commit that changes nothing returns the position of the room. A change of another node led to it, which is missing here.
            _ if delta.is_empty() => {
                self.dropped_since.get_or_insert(now);
                return Applied::Reload;
            }
            // This is the first change of the room, and nothing was loaded: it is applied to the empty roster. After a load, it may also
            // be a late delta of a former epoch.
            None if version == Version(1) && self.loads == 0 => {}
            Some((known, at)) if known == epoch && version == at.next() => {}
            position => {
                let full = self.early.len() >= MAX_EARLY;
                if full {
                    self.dropped_since.get_or_insert(now);
                } else {
                    self.early.entry((epoch, version)).or_insert(Early { since: now, delta });
                }
                let same_epoch = position.is_some_and(|(known, _)| known == epoch);
                return if same_epoch && !full { Applied::Early } else { Applied::Reload };
            }
        }
        let mut changes = self.roster.apply(&delta);
        changes.extend(self.take_early(epoch, version));
        Applied::Changed(changes)
    }

    /// Records that the presence of this channel left with the transaction that led to this version. Until the roster reaches it, an
    /// earlier load may still show the presence, which must not count as present.
    pub(crate) fn departs(&mut self, id: PresenceId, channel: ChannelName, at: (Epoch, Version)) {
        if !self.has_reached(at) {
            self.departed.insert(id, Departed { channel, at, loads: self.loads });
        }
    }

    /// Records that the presence joined again.
    pub(crate) fn returns(&mut self, id: PresenceId) {
        self.departed.remove(&id);
    }

    /// Whether this presence of the roster has left, and the roster has not reached that version yet.
    pub(crate) fn has_departed(&self, presence: &Presence) -> bool {
        self.departed.get(&presence.id).is_some_and(|departed| departed.channel == presence.channel)
    }

    /// Whether the roster has the epoch of this position, and a lower version.
    pub(crate) fn is_before(&self, (epoch, version): (Epoch, Version)) -> bool {
        self.position.is_some_and(|(known, at)| known == epoch && at < version)
    }

    /// Whether the roster has the epoch of this position, and at least its version.
    pub(crate) fn has_reached(&self, (epoch, version): (Epoch, Version)) -> bool {
        self.position.is_some_and(|(known, at)| known == epoch && version <= at)
    }

    /// Whether the change to this position of the same epoch is applied, or waits for those before it.
    pub(crate) fn knows(&self, at: (Epoch, Version)) -> bool {
        self.has_reached(at) || self.early.contains_key(&at)
    }

    /// Whether all that is missing are changes before or after those that are known.
    pub(crate) fn misses_only_changes(&self) -> bool {
        let epoch = self.position.map(|(epoch, _)| epoch);
        let are_of_epoch = self.early.keys().all(|(early, _)| Some(*early) == epoch);
        self.dropped_since.is_none() && self.needed_since.is_none() && !self.rolled_back && are_of_epoch
    }

    /// When the room must be loaded again, unless the missing deltas arrive before. A time in the past means at once.
    ///
    /// Call it after each `apply` and `reload`. It does not consider whether a load is in progress: the time stays in the past until a load
    /// succeeds, so that a failed load is repeated.
    pub(crate) fn reload_at(&self, hold_window: Duration) -> Option<Tick> {
        let current = self.position.map(|(epoch, _)| epoch);
        let waiting = self.early.iter().map(|((epoch, _), early)| {
            // Only missing deltas of the current epoch may still arrive.
            if current == Some(*epoch) { early.since.after(hold_window) } else { early.since }
        });
        waiting.chain(self.dropped_since).chain(self.needed_since).min()
    }

    /// Must be called just before each load, also when a failed load is repeated. The load includes all early deltas, because they are in
    /// the database by now. Only deltas that arrive later are applied on top of it.
    pub(crate) fn reloading(&mut self) {
        self.needed_since = self.reload_at(Duration::ZERO);
        self.early.clear();
        self.dropped_since = None;
        self.loads += 1;
        self.loaded_from = self.position;
    }

    /// Takes the result of the last load; `found` is `None` if the room does not exist. Returns the former roster, from which
    /// [the changes](Roster::changes_since) follow, or `None` if the roster stays as it was.
    ///
    /// Deltas that arrived during the load may need another load; see [`reload_at`](Self::reload_at).
    pub(crate) fn reload(&mut self, found: Option<LoadedRoom>) -> Option<Roster> {
        self.needed_since = None;
        // The load includes everything that was done before it began.
        self.departed.retain(|_, departed| departed.loads >= self.loads);
        let Some(LoadedRoom { epoch, version, roster }) = found else {
            // The known epoch existed before the load began, so it has ended.
            self.position = None;
            return Some(mem::take(&mut self.roster));
        };
        if self.position.is_some_and(|(known, at)| known == epoch && at > version) {
            if self.loaded_from.is_none_or(|(known, from)| known != epoch || from <= version) {
                // The load is older than a change that arrived during it.
                return None;
            }
            // The database has lost changes. Deltas that arrived during the load may be among these, so one more load follows.
            self.rolled_back = true;
            self.early.clear();
            self.needed_since = Some(Tick::default());
        }
        let before = mem::replace(&mut self.roster, roster);
        self.early.retain(|(other, early), _| *other != epoch || *early > version);
        let _ = self.take_early(epoch, version);
        Some(before)
    }

    /// The database has lost changes that this node knows, so new changes use their versions again. The position is unknown until the
    /// next load, and the roster stays as it was until then.
    pub(crate) fn distrust(&mut self, now: Tick) {
        self.position = None;
        self.early.clear();
        self.departed.clear();
        self.dropped_since.get_or_insert(now);
        self.rolled_back = true;
        // So that a change with version 1 is not considered the first change of the room.
        self.loads = self.loads.max(1);
    }

    /// Whether the database has lost changes, and no load has shown since then what is left.
    pub(crate) const fn is_rolled_back(&self) -> bool {
        self.rolled_back
    }

    /// Whether the database has lost changes since the last call. Then members must receive the whole state again.
    pub(crate) fn take_rolled_back(&mut self) -> bool {
        mem::take(&mut self.rolled_back)
    }

    /// The roster has reached `at`. Applies the early deltas that follow.
    fn take_early(&mut self, epoch: Epoch, mut at: Version) -> Vec<RosterChange> {
        let mut changes = Vec::new();
        while let Some(Early { delta, .. }) = self.early.remove(&(epoch, at.next())) {
            changes.extend(self.roster.apply(&delta));
            at = at.next();
        }
        self.position = Some((epoch, at));
        self.departed.retain(|_, departed| departed.at.0 != epoch || departed.at.1 > at);
        changes
    }
}

#[cfg(test)]
mod tests;
