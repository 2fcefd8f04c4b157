//! Which rooms a node compares with the database in each round, and what shows that the database has lost changes.
//!
//! A round asks for the rooms that have changed since the last one. A part of all rooms is compared by name besides, in case a change was not
//! among these. If the node does not know what it has missed, it compares all.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use crate::{
    clock::Tick,
    name::{Epoch, NodeId, RoomName, Version},
    store::{KEEP_CHANGES_FOR, RecentChanges},
};

/// After so many rounds, each room was compared by its name.
pub(crate) const SLICES: u64 = 12;

/// By how much the clock of the database may be adjusted between two rounds. More is a jump. The stores allow for it in
/// [`RecentChanges::next`].
const ADJUSTMENT: Duration = Duration::from_secs(1);

/// What a node knows after its last round.
#[derive(Debug, Default)]
pub(crate) struct Comparisons {
    last: Option<Known>,
    /// The last round has not ended: it failed.
    is_interrupted: bool,
    /// A room has noticed that the database has lost changes of it.
    is_noticed: bool,
    /// All rooms are compared until then, because the clock of the database has jumped.
    all_until: Option<Tick>,
    /// The slice of the next round.
    slice: u64,
    /// Whether there were other nodes in the last round.
    had_others: Option<bool>,
    /// The log has a warning of the loss that this round and those before it, which failed, are about.
    has_warned: bool,
    /// What this node still has to report to the others.
    unreported: Option<Report>,
}

/// What the database had in a round.
#[derive(Debug)]
struct Known {
    node: NodeId,
    asked: Tick,
    answered: Tick,
    time: Duration,
    next: Duration,
    /// The rooms that had changed, with the times of their changes.
    rooms: HashMap<RoomName, (Epoch, Version, Duration)>,
    /// Whether these are all.
    is_complete: bool,
    prunes: u64,
    /// How many losses were reported. `None` while a report of this node is on its way.
    set_backs: Option<u64>,
    /// The round was about a loss.
    was_set_back: bool,
}

/// A report to the other nodes that the database has lost changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Report {
    /// The count of reports that the database had when the loss was noticed.
    pub(crate) seen: u64,
    /// The count that shows the loss to each node: it is higher than any that this node has seen.
    pub(crate) count: u64,
}

/// What a round asks the database.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) node: NodeId,
    /// Changes since this time.
    pub(crate) since: Duration,
    asked: Tick,
    /// How many writes of the node were confirmed before.
    confirmed: u64,
    is_noticed: bool,
    was_interrupted: bool,
}

/// What a round has to do.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) scope: Scope,
    /// The database has lost changes.
    pub(crate) set_back: Option<SetBack>,
    /// How many confirmed writes of this node are lost.
    pub(crate) lost_writes: u64,
    known: Known,
}

/// Which rooms are compared by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// One of the [`SLICES`].
    Slice(u64),
}

/// The database has lost changes.
#[derive(Debug)]
pub(crate) struct SetBack {
    /// What to report to the other nodes. `None` if one of them has reported it.
    pub(crate) report: Option<Report>,
    /// The rooms that may have other changes now under the versions that were lost. `None`: each room.
    suspects: Option<HashSet<RoomName>>,
}

impl SetBack {
    /// Whether the room may have other changes now under a version that this node knows.
    pub(crate) fn concerns(&self, room: &RoomName) -> bool {
        self.suspects.as_ref().is_none_or(|suspects| suspects.contains(room))
    }
}

impl Comparisons {
    /// A room has noticed that the database has lost changes of it. The next round is about all rooms.
    pub(crate) fn note_set_back(&mut self) {
        self.is_noticed = true;
    }

    /// Begins a round. If it does not [end](Self::end), the next one compares all rooms.
    pub(crate) fn begin(&mut self, node: NodeId, asked: Tick, confirmed: u64) -> Question {
        Question {
            node,
            // Without an earlier round, all rooms are compared anyway.
            since: self.last.as_ref().map_or(Duration::MAX, |last| last.next),
            asked,
            confirmed,
            is_noticed: self.is_noticed,
            was_interrupted: std::mem::replace(&mut self.is_interrupted, true),
        }
    }

    /// Judges the answer to a question, which arrived at `answered`.
    pub(crate) fn judge(&mut self, question: Question, answered: Tick, changes: &RecentChanges) -> Round {
        let Question { node, asked, confirmed, is_noticed, was_interrupted, .. } = question;
        let rooms = changes.rooms.iter().map(|at| (at.room.clone(), (at.epoch, at.version, at.changed_at))).collect();
        let RecentChanges { time, next, is_complete, prunes, set_backs, .. } = *changes;
        let (reports, was_set_back) = (Some(set_backs), false);
        let known =
            Known { node, asked, answered, time, next, rooms, is_complete, prunes, set_backs: reports, was_set_back };
        let last = self.last.as_ref();
        let last_reports = last.and_then(|last| last.set_backs);
        let is_reported = last_reports.is_some_and(|last| set_backs > last);
        let lost_writes = changes.own_writes.map_or(0, |has| confirmed.saturating_sub(has.total()));
        // The answers to commits that were made after a loss, but before the round that noticed it, arrive after that round. In it, these
        // commits took the place of some that are lost.
        let is_known = last.is_some_and(|last| last.node == node && last.was_set_back);
        let has_lost = is_noticed
            || (lost_writes > 0 && !is_known)
            || last_reports.is_some_and(|last| set_backs < last)
            || last.is_some_and(|last| last.has_lost(&known));
        if last.is_some_and(|last| last.clock_has_jumped(&known)) {
            // Transactions that began before the jump have another time than those after it.
            self.all_until = Some(answered.after(time.saturating_sub(next)));
        }
        let is_after_jump = self.all_until.is_some_and(|until| asked <= until);
        // A node of an earlier version does not record what it changes, and may have ended since the last round.
        let lists_all = is_complete && !is_after_jump && last.is_some_and(|last| last.is_complete);
        let is_sure =
            last.is_some_and(|last| last.node == node && last.prunes == prunes && !last.misses_any_of(&known));
        let is_slice = lists_all && is_sure && !was_interrupted && !is_reported && !has_lost && lost_writes == 0;
        let scope = if is_slice { Scope::Slice(self.slice) } else { Scope::All };
        let set_back = (is_reported || has_lost).then(|| SetBack {
            report: (!is_reported)
                .then(|| Report { seen: set_backs, count: last_reports.unwrap_or_default().max(set_backs) + 1 }),
            suspects: lists_all.then(|| known.rooms.keys().cloned().collect()),
        });
        Round { scope, set_back, lost_writes, known }
    }

    /// Whether the round is about a loss that no earlier one was about.
    pub(crate) fn is_new(&mut self, round: &Round) -> bool {
        round.set_back.is_some() && !std::mem::replace(&mut self.has_warned, true)
    }

    /// The report that has not arrived yet.
    pub(crate) const fn unreported(&self) -> Option<Report> {
        self.unreported
    }

    /// The other nodes can see the report now.
    pub(crate) const fn reported(&mut self) {
        self.unreported = None;
    }

    /// How many times empty rooms were removed, as far as this node knows.
    pub(crate) fn prunes(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.prunes)
    }

    /// How old a change must be to be removed from the change log in this round. `None` if nothing is to be removed.
    pub(crate) fn forgets(&self, has_others: bool) -> Option<Duration> {
        if has_others {
            return Some(KEEP_CHANGES_FOR);
        }
        // Nobody reads the log of a node that is alone. What is in it now was kept before.
        (self.had_others != Some(false)).then_some(Duration::ZERO)
    }

    /// That was done.
    pub(crate) fn forgot(&mut self, has_others: bool) {
        self.had_others = Some(has_others);
    }

    /// All that a round had to do is done.
    pub(crate) fn end(&mut self, Round { scope, set_back, mut known, .. }: Round) {
        if let Some(SetBack { report, .. }) = set_back {
            known.was_set_back = true;
            self.unreported = report.or(self.unreported);
            self.is_noticed = false;
        }
        if self.unreported.is_some() {
            // The report of this node, or that of another one about the same loss, is no news to it.
            known.set_backs = None;
        }
        self.has_warned = false;
        if let Scope::Slice(slice) = scope {
            self.slice = (slice + 1) % SLICES;
        }
        self.last = Some(known);
        self.is_interrupted = false;
    }

    /// The next round compares all rooms.
    pub(crate) fn interrupt(&mut self) {
        self.is_interrupted = true;
    }
}

impl Known {
    /// Whether a room is at a lower version than it was, or has given the same version a second time.
    fn has_lost(&self, now: &Self) -> bool {
        now.rooms.iter().any(|(room, (epoch, version, changed_at))| {
            let is_other = |at: &Version, then: &Duration| version < at || (version == at && changed_at != then);
            self.rooms.get(room).is_some_and(|(known, at, then)| known == epoch && is_other(at, then))
        })
    }

    /// Whether a room that changed so late that both rounds have to show it is not there in the later one: it was removed, or the
    /// database has lost the change.
    fn misses_any_of(&self, now: &Self) -> bool {
        let since = Duration::from_secs(self.next.as_secs());
        self.rooms.iter().any(|(room, (.., changed_at))| *changed_at >= since && !now.rooms.contains_key(room))
    }

    /// Whether the clock of the database has gone on by another time than that of this node.
    fn clock_has_jumped(&self, now: &Self) -> bool {
        let (least, most) = (now.asked.since(self.answered), now.answered.since(self.asked));
        // Clocks do not run at quite the same speed.
        let tolerance = ADJUSTMENT + most / 1000;
        now.time + tolerance < self.time + least || now.time > self.time + most + tolerance
    }
}

#[cfg(test)]
mod tests;
