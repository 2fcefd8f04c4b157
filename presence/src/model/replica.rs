//! One room as this node knows it: its own changes and those of other nodes, in the order of their versions.
//!
//! Deltas may be lost, repeated or out of order. The next delta is applied, a known one is skipped, and an early one waits for those
//! before it. If they do not arrive, or the room has a new epoch, the room must be loaded again. Two epochs have no order, so only a load
//! shows which one is current: it includes everything that this node had received before it began.
//!
//! Invariant: the roster is the room at `position`, and [`Replica::reload_at`] returns a time while this node knows of later changes. So
//! a roster may be late, but never wrong without notice. More than half of this file is tests.

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
    /// The room must be loaded at once, or, if a load is in progress, once more after it.
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
    /// Since when the load in progress was needed.
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

/// A presence that left.
#[derive(Debug)]
struct Departed {
    channel: ChannelName,
    at: (Epoch, Version),
    /// How many loads had begun by then. A later load does not have the presence any more.
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

    /// Sets the owner of a presence, and whether it is held. This is no change of the room, and has no version. Returns whether the presence
    /// is in the roster. What members see of it stays the same.
    pub(crate) fn hand_over(&mut self, to: &Presence) -> bool {
        self.roster.hand_over(to)
    }

    /// Applies the change that led to `version`.
    pub(crate) fn apply(&mut self, now: Tick, epoch: Epoch, version: Version, delta: Delta) -> Applied {
        match self.position {
            Some((known, at)) if known == epoch && version <= at => return Applied::Changed(Vec::new()),
            // A change of another node led to this version, and it is not known.
            _ if delta.is_empty() => {
                self.dropped_since.get_or_insert(now);
                return Applied::Reload;
            }
            // The first change of the room, and nothing is known of the room: there is nothing to load. After a load it may also be a late
            // delta of a former epoch.
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

    /// Must be called just before each load, also when a failed load is repeated. Deltas that wait now are in the database, so the load
    /// includes them. Only later ones are applied on top of it.
    pub(crate) fn reloading(&mut self) {
        self.needed_since = self.reload_at(Duration::ZERO);
        self.early.clear();
        self.dropped_since = None;
        self.loads += 1;
        self.loaded_from = self.position;
    }

    /// Takes the result of the last load. `None` if the room does not exist. Returns the former roster, from which
    /// [the changes](Roster::changes_since) follow, or `None` if the roster stays as it was.
    ///
    /// Deltas that arrived meanwhile may need another load; see [`reload_at`](Self::reload_at).
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
                // The load is older than a change that arrived meanwhile.
                return None;
            }
            // The database has lost changes. Deltas that arrived meanwhile may be from before, so one more load follows.
            self.rolled_back = true;
            self.early.clear();
            self.needed_since = Some(Tick::default());
        }
        let before = mem::replace(&mut self.roster, roster);
        self.early.retain(|(other, early), _| *other != epoch || *early > version);
        let _ = self.take_early(epoch, version);
        Some(before)
    }

    /// The database has lost changes that this node knows, so new changes reuse versions. Until the next load nothing is known of the room.
    /// The roster stays as it was until then.
    pub(crate) fn distrust(&mut self, now: Tick) {
        self.position = None;
        self.early.clear();
        self.departed.clear();
        self.dropped_since.get_or_insert(now);
        self.rolled_back = true;
        // The next change is not the first change of the room, even if its version is 1.
        self.loads = self.loads.max(1);
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
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        Presence,
        tests::truth::{TestCommit, Truth, channel, epoch, presence, writes},
    };

    const HOLD: Duration = Duration::from_millis(200);

    /// Presence `n` joins.
    fn joins(n: u8) -> Delta {
        Delta { joined: vec![presence(n)], ..Delta::default() }
    }

    /// Presence `version` joins with each version.
    fn receive(replica: &mut Replica, now: u64, n: u8, version: u8) -> Applied {
        replica.apply(Tick(now), epoch(n), Version(version.into()), joins(version))
    }

    /// The room at a version: presences 1 to `version`.
    fn room_at(n: u8, version: u8) -> Option<Snapshot> {
        let presences = (1..=version).map(presence).collect();
        Some(Snapshot { epoch: epoch(n), version: Version(version.into()), presences })
    }

    /// The changes by a load.
    fn reload(replica: &mut Replica, found: Option<Snapshot>) -> Vec<RosterChange> {
        let before = replica.reload(found.map(LoadedRoom::from));
        before.map_or_else(Vec::new, |before| replica.roster().changes_since(&before))
    }

    fn replica_at(n: u8, version: u8) -> Replica {
        let mut replica = Replica::default();
        replica.reloading();
        let _ = reload(&mut replica, room_at(n, version));
        replica
    }

    fn check(replica: &Replica, n: u8, version: u8) {
        assert_eq!(replica.position(), Some((epoch(n), Version(version.into()))));
        let presences: Vec<_> = (1..=version).map(presence).collect();
        assert!(replica.roster().iter().eq(&presences));
    }

    /// A commit without changes returns the position of the room, but not the changes that led to it.
    #[test]
    fn a_new_version_without_a_delta_needs_a_load_at_once() {
        let mut replica = replica_at(1, 2);
        assert_eq!(replica.apply(Tick(5), epoch(1), Version(3), Delta::default()), Applied::Reload);
        check(&replica, 1, 2);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(5)));
        replica.reloading();
        let _ = reload(&mut replica, room_at(1, 3));
        check(&replica, 1, 3);
        assert_eq!(replica.reload_at(HOLD), None);

        let mut fresh = Replica::default();
        assert_eq!(fresh.apply(Tick(5), epoch(1), Version(1), Delta::default()), Applied::Reload);
    }

    #[test]
    fn a_known_version_without_a_delta_has_no_effect() {
        let mut replica = replica_at(1, 2);
        assert_eq!(replica.apply(Tick(5), epoch(1), Version(2), Delta::default()), Applied::Changed(Vec::new()));
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn the_first_change_of_a_room_needs_no_load() {
        let mut replica = Replica::default();
        let Applied::Changed(changes) = receive(&mut replica, 0, 1, 1) else { panic!("not applied") };
        assert_eq!(changes, [RosterChange { was: None, now: Some(presence(1)) }]);
        check(&replica, 1, 1);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_change_of_an_unknown_room_needs_a_load_at_once() {
        let mut replica = Replica::default();
        assert_eq!(receive(&mut replica, 7, 1, 2), Applied::Reload);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(7)));
    }

    #[test]
    fn a_gap_that_closes_in_time_needs_no_load() {
        let mut replica = replica_at(1, 1);
        assert_eq!(receive(&mut replica, 0, 1, 4), Applied::Early);
        assert_eq!(receive(&mut replica, 10, 1, 3), Applied::Early);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(200)));
        let Applied::Changed(changes) = receive(&mut replica, 20, 1, 2) else { panic!("not applied") };
        assert_eq!(changes.len(), 3);
        check(&replica, 1, 4);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn each_gap_has_its_own_hold_window() {
        // The second gap got the window of the first, and the room was loaded needlessly.
        let mut replica = replica_at(1, 1);
        let _ = receive(&mut replica, 0, 1, 3);
        let _ = receive(&mut replica, 190, 1, 6);
        let _ = receive(&mut replica, 195, 1, 2);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(390)));
    }

    #[test]
    fn a_repeated_early_delta_does_not_postpone_the_load() {
        let mut replica = replica_at(1, 1);
        let _ = receive(&mut replica, 0, 1, 3);
        let _ = receive(&mut replica, 150, 1, 3);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(200)));
    }

    #[test]
    fn another_epoch_needs_a_load_at_once_which_ends_the_old_one() {
        let mut replica = replica_at(1, 3);
        assert_eq!(receive(&mut replica, 5, 2, 1), Applied::Reload);
        check(&replica, 1, 3);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(5)));
        replica.reloading();
        let changes = reload(&mut replica, room_at(2, 1));
        assert_eq!(changes.len(), 2);
        check(&replica, 2, 1);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_load_with_less_than_was_known_before_it_began_shows_that_the_database_lost_changes() {
        let mut replica = replica_at(1, 5);
        replica.reloading();
        let _ = reload(&mut replica, room_at(1, 3));
        check(&replica, 1, 3);
        assert!(replica.take_rolled_back());
        assert_eq!(replica.reload_at(HOLD), Some(Tick(0)), "deltas that arrived meanwhile may be from before");
        replica.reloading();
        let _ = reload(&mut replica, room_at(1, 3));
        assert!(!replica.take_rolled_back());
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn after_the_database_lost_changes_nothing_is_applied_before_a_load() {
        let mut replica = replica_at(1, 5);
        replica.distrust(Tick(7));
        assert_eq!(receive(&mut replica, 8, 1, 6), Applied::Reload);
        assert_eq!((replica.position(), replica.reload_at(HOLD)), (None, Some(Tick(7))));
        replica.reloading();
        let _ = receive(&mut replica, 9, 1, 5);
        let _ = reload(&mut replica, room_at(1, 4));
        check(&replica, 1, 5);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_presence_has_departed_until_the_roster_reaches_its_leave_or_a_later_load_ends() {
        let (mut replica, one) = (replica_at(1, 3), presence(1));
        replica.departs(one.id, one.channel.clone(), (epoch(1), Version(3)));
        assert!(!replica.has_departed(&one), "the roster has reached the version");
        replica.reloading();
        replica.departs(one.id, one.channel.clone(), (epoch(1), Version(5)));
        let _ = reload(&mut replica, room_at(1, 4));
        assert!(replica.has_departed(&one), "the load began before");
        assert!(!replica.has_departed(&Presence { channel: channel(9), ..(*one).clone() }), "another socket has it");
        let _ = receive(&mut replica, 0, 1, 5);
        assert!(!replica.has_departed(&one));
        replica.departs(one.id, one.channel.clone(), (epoch(2), Version(1)));
        replica.reloading();
        assert!(replica.has_departed(&one));
        let _ = reload(&mut replica, None);
        assert!(!replica.has_departed(&one), "the load shows the result");
    }

    #[test]
    fn deltas_that_arrive_during_a_load_are_applied_on_top() {
        let mut replica = replica_at(1, 1);
        replica.reloading();
        let _ = receive(&mut replica, 0, 1, 4);
        let _ = receive(&mut replica, 0, 1, 5);
        let _ = reload(&mut replica, room_at(1, 4));
        check(&replica, 1, 5);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_load_older_than_deltas_that_arrived_meanwhile_undoes_nothing() {
        let mut replica = replica_at(1, 2);
        replica.reloading();
        let _ = receive(&mut replica, 0, 1, 3);
        assert_eq!(reload(&mut replica, room_at(1, 2)), []);
        check(&replica, 1, 3);
    }

    #[test]
    fn a_load_of_the_known_version_updates_owners() {
        let mut replica = replica_at(1, 1);
        let resumed = Arc::new(Presence { channel: channel(9), ..(*presence(1)).clone() });
        replica.reloading();
        let mut snapshot = room_at(1, 1).unwrap();
        snapshot.presences = vec![resumed.clone()];
        assert_eq!(reload(&mut replica, Some(snapshot)), []);
        assert_eq!(replica.roster().get(resumed.id), Some(&resumed));
    }

    #[test]
    fn a_room_that_begins_during_a_load_that_found_none_is_not_lost() {
        // The first change was applied, and then the load undid it.
        let mut replica = Replica::default();
        replica.reloading();
        assert_eq!(receive(&mut replica, 3, 1, 1), Applied::Reload);
        let _ = reload(&mut replica, None);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(3)));
        replica.reloading();
        let _ = reload(&mut replica, room_at(1, 1));
        check(&replica, 1, 1);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn an_epoch_that_begins_during_a_load_needs_another_load() {
        // It waited for ever: the load had ended, and no other followed.
        let mut replica = replica_at(1, 1);
        replica.reloading();
        assert_eq!(receive(&mut replica, 8, 2, 3), Applied::Reload);
        let _ = reload(&mut replica, room_at(1, 1));
        assert_eq!(replica.reload_at(HOLD), Some(Tick(8)));
        replica.reloading();
        let _ = reload(&mut replica, room_at(2, 3));
        check(&replica, 2, 3);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_late_delta_does_not_restore_a_room_that_has_ended() {
        // The first change of the old epoch looked like the first of a new one.
        let mut replica = replica_at(1, 3);
        replica.reloading();
        assert_eq!(reload(&mut replica, None).len(), 3);
        assert_eq!(replica.position(), None);
        assert_eq!(receive(&mut replica, 0, 1, 1), Applied::Reload);
        assert!(replica.roster().is_empty());
        replica.reloading();
        assert_eq!(reload(&mut replica, None), []);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_failed_load_is_repeated() {
        // Waiting deltas were forgotten when the load began, and so was the need for a load.
        let mut replica = replica_at(1, 1);
        let _ = receive(&mut replica, 4, 1, 3);
        replica.reloading();
        assert_eq!(replica.reload_at(HOLD), Some(Tick(4)));
        replica.reloading();
        assert_eq!(replica.reload_at(HOLD), Some(Tick(4)));
        let _ = reload(&mut replica, room_at(1, 3));
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_delta_that_the_database_does_not_have_needs_one_load() {
        let mut replica = replica_at(1, 1);
        let _ = receive(&mut replica, 0, 1, 9);
        replica.reloading();
        let _ = reload(&mut replica, room_at(1, 1));
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn at_most_1024_deltas_wait_and_the_next_one_needs_a_load_at_once() {
        // Any number of deltas waited.
        let mut replica = replica_at(1, 1);
        let wait = |replica: &mut Replica, version| replica.apply(Tick(version), epoch(1), Version(version), joins(7));
        for version in 3..3 + 1024 {
            assert_eq!(wait(&mut replica, version), Applied::Early);
        }
        assert_eq!(wait(&mut replica, 2000), Applied::Reload);
        assert_eq!(wait(&mut replica, 2001), Applied::Reload);
        assert_eq!(replica.early.len(), 1024);
        let far = Duration::from_secs(3600);
        assert_eq!(replica.reload_at(far), Some(Tick(2000)));
        replica.reloading();
        assert_eq!(replica.early.len(), 0);
        let snapshot = |version| Some(Snapshot { version: Version(version), ..room_at(1, 1).unwrap() });
        let _ = reload(&mut replica, snapshot(2001));
        assert_eq!(replica.reload_at(far), None);
    }

    #[test]
    fn a_delta_that_is_dropped_during_a_load_needs_another_load() {
        let mut replica = replica_at(1, 1);
        replica.reloading();
        for version in 3..=3 + 1024 {
            let _ = replica.apply(Tick(version), epoch(1), Version(version), joins(7));
        }
        let _ = reload(&mut replica, Some(Snapshot { version: Version(2), ..room_at(1, 1).unwrap() }));
        assert_eq!(replica.position(), Some((epoch(1), Version(1026))));
        assert_eq!(replica.reload_at(Duration::from_secs(3600)), Some(Tick(1027)));
    }

    proptest! {
        #[test]
        fn deltas_of_one_epoch_repeated_and_in_any_order_need_no_load(
            history in prop::collection::vec(writes(), 1..15),
            order in Just((0..60).collect::<Vec<usize>>()).prop_shuffle(),
        ) {
            let mut truth = Truth::new();
            for writes in &history {
                let _ = truth.commit(writes);
            }
            prop_assume!(!truth.commits.is_empty());
            let mut replica = Replica::default();
            for n in order {
                let TestCommit { epoch, version, delta } = truth.commits[n % truth.commits.len()].clone();
                let _ = replica.apply(Tick(0), epoch, version, delta);
            }
            prop_assert_eq!(replica.position(), truth.now().position);
            prop_assert!(replica.roster().iter().eq(truth.now().presences.values()));
            prop_assert_eq!(replica.reload_at(HOLD), None);
        }
    }
}
