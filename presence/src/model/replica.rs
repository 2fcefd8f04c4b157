//! One room as this node knows it: its own changes and those of other nodes, in the order of their versions.
//!
//! Deltas may be lost, repeated or out of order on their way. One that is next is applied, one that is known is passed
//! over, one that came too early waits for those before it; if they do not come, or the room has begun another life, the
//! room must be read anew. Two lives have no order, so only a reading tells which of them is over: it holds whatever was
//! heard of before it began.
//!
//! Invariant: the roster is what the room was at `position`, and [`Replica::reload_at`] says so as long as more than that
//! was heard of. So a roster is at worst late, never silently wrong.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    time::Duration,
};

use crate::{
    clock::Tick,
    name::{ChannelName, Epoch, PresenceId, Version},
};

use super::{Delta, Presence, Snapshot, delta::Change, roster::Roster};

/// How many deltas wait for those before them. It takes a long reading of a very busy room to pass it.
const MAX_EARLY: usize = 1024;

/// What to do after a delta came in.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Applied {
    /// This changed; nothing, if the delta was known or changed nothing that can be seen.
    Changed(Vec<Change>),
    /// The delta waits for those before it, until [`Replica::reload_at`].
    Early,
    /// The room must be read anew at once, or, if it is being read, once more afterwards.
    Reload,
}

#[derive(Debug, Default)]
pub(crate) struct Replica {
    roster: Roster,
    position: Option<(Epoch, Version)>,
    /// Deltas that could not be applied yet, since one before them is missing or their life is not the known one.
    early: BTreeMap<(Epoch, Version), Early>,
    /// Since when deltas were passed over, because too many waited.
    passed_over: Option<Tick>,
    /// Since when the reading that is under way was needed.
    owed: Option<Tick>,
    /// How many readings were begun.
    readings: u64,
    /// Where the roster stood when the last of them began.
    read_from: Option<(Epoch, Version)>,
    /// The last reading showed less than was known before it began.
    has_gone_back: bool,
    /// Those of this node that left at a version which the roster has not reached yet.
    departed: HashMap<PresenceId, Departed>,
}

/// One who left.
#[derive(Debug)]
struct Departed {
    channel: ChannelName,
    at: (Epoch, Version),
    /// How many readings were begun by then. A later one does not show it any more.
    readings: u64,
}

/// What a reading found, made ready for the replica: that is work, and not for the thread of the room.
#[derive(Debug)]
pub(crate) struct Reading {
    epoch: Epoch,
    version: Version,
    roster: Roster,
}

impl From<Snapshot> for Reading {
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

    /// Which life of the room this is, and how far it has come; `None` if nothing is known or there is no such room.
    pub(crate) const fn position(&self) -> Option<(Epoch, Version)> {
        self.position
    }

    /// Notes who has a presence, and whether it is held: that is no change, and has no version. Returns whether it is here.
    ///
    /// What members can tell of it stays as it was at this version.
    pub(crate) fn hand_over(&mut self, to: &Presence) -> bool {
        self.roster.hand_over(to)
    }

    /// Takes in the change that led to `version`.
    pub(crate) fn apply(&mut self, now: Tick, epoch: Epoch, version: Version, delta: Delta) -> Applied {
        match self.position {
            Some((known, at)) if known == epoch && version <= at => return Applied::Changed(Vec::new()),
            // Something led to that version, but nobody knows what: it was another's change.
            _ if delta.is_empty() => {
                self.passed_over.get_or_insert(now);
                return Applied::Reload;
            }
            // The first change ever, and the first that is heard of the room: nothing came before it that one would have
            // to read. Once the room was read, it may as well be a straggler of a life that is over.
            None if version == Version(1) && self.readings == 0 => {}
            Some((known, at)) if known == epoch && version == at.next() => {}
            position => {
                let full = self.early.len() >= MAX_EARLY;
                if full {
                    self.passed_over.get_or_insert(now);
                } else {
                    self.early.entry((epoch, version)).or_insert(Early { since: now, delta });
                }
                let same_life = position.is_some_and(|(known, _)| known == epoch);
                return if same_life && !full { Applied::Early } else { Applied::Reload };
            }
        }
        let mut changes = self.roster.apply(&delta);
        changes.extend(self.take_early(epoch, version));
        Applied::Changed(changes)
    }

    /// Notes that the presence of this channel left, by the transaction that led to this version: until the roster has reached
    /// it, a reading from before still shows the presence, and nobody may take it for one that is there.
    pub(crate) fn departs(&mut self, id: PresenceId, channel: ChannelName, at: (Epoch, Version)) {
        if !self.has_reached(at) {
            self.departed.insert(id, Departed { channel, at, readings: self.readings });
        }
    }

    /// Notes that the presence is there again.
    pub(crate) fn returns(&mut self, id: PresenceId) {
        self.departed.remove(&id);
    }

    /// Whether the roster shows one who has left, since it has not come so far yet.
    pub(crate) fn has_departed(&self, presence: &Presence) -> bool {
        self.departed.get(&presence.id).is_some_and(|departed| departed.channel == presence.channel)
    }

    /// Whether the roster shows the room as it was before this version of the life that it shows.
    pub(crate) fn is_before(&self, (epoch, version): (Epoch, Version)) -> bool {
        self.position.is_some_and(|(known, at)| known == epoch && at < version)
    }

    /// Whether the roster has come as far as this version of the life that it shows.
    pub(crate) fn has_reached(&self, (epoch, version): (Epoch, Version)) -> bool {
        self.position.is_some_and(|(known, at)| known == epoch && version <= at)
    }

    /// When the room must be read anew, unless the missing deltas come before. A moment that is past means at once.
    ///
    /// To be asked after every `apply` and `reload`. It does not know whether a reading is under way: until one succeeds
    /// it stays past, so that one that fails is not forgotten.
    pub(crate) fn reload_at(&self, hold_window: Duration) -> Option<Tick> {
        let life = self.position.map(|(epoch, _)| epoch);
        let waiting = self.early.iter().map(|((epoch, _), early)| {
            // Only what is missing of the known life may still come by itself.
            if life == Some(*epoch) { early.since.after(hold_window) } else { early.since }
        });
        waiting.chain(self.passed_over).chain(self.owed).min()
    }

    /// Must be called just before the room is read, or read again after a reading that failed. What waits now is in the
    /// database already, so the reading will hold it; only what comes in later must still be put on top.
    pub(crate) fn reloading(&mut self) {
        self.owed = self.reload_at(Duration::ZERO);
        self.early.clear();
        self.passed_over = None;
        self.readings += 1;
        self.read_from = self.position;
    }

    /// Takes in what the room was when it was read, in the reading that began last. `None`: there was no such room. Returns the
    /// roster as it was before, since which there may be [changes](Roster::changes_since), or `None` if it stays as it was.
    ///
    /// What came in meanwhile may still call for another reading; [`reload_at`](Self::reload_at) knows.
    pub(crate) fn reload(&mut self, found: Option<Reading>) -> Option<Roster> {
        self.owed = None;
        // What was done before the reading began, the reading shows.
        self.departed.retain(|_, departed| departed.readings >= self.readings);
        let Some(Reading { epoch, version, roster }) = found else {
            // The life that we knew was there before the reading began, so it is over.
            self.position = None;
            return Some(mem::take(&mut self.roster));
        };
        if self.position.is_some_and(|(known, at)| known == epoch && at > version) {
            if self.read_from.is_none_or(|(known, from)| known != epoch || from <= version) {
                // The room was read before a change that came in meanwhile.
                return None;
            }
            // The database has lost changes. What came in meanwhile may be of before, so one more reading follows.
            self.has_gone_back = true;
            self.early.clear();
            self.owed = Some(Tick::default());
        }
        let before = mem::replace(&mut self.roster, roster);
        self.early.retain(|(other, early), _| *other != epoch || *early > version);
        let _ = self.take_early(epoch, version);
        Some(before)
    }

    /// The database has lost changes that this node knows of, so what comes now has versions that were there before. Until the room
    /// was read, nothing is known of it; the roster stays as it was for so long.
    pub(crate) fn distrust(&mut self, now: Tick) {
        self.position = None;
        self.early.clear();
        self.departed.clear();
        self.passed_over.get_or_insert(now);
        self.has_gone_back = true;
        // However few changes it has had, they are not the first.
        self.readings = self.readings.max(1);
    }

    /// Whether the database went back since this was last asked: then what members were told counts no more.
    pub(crate) fn take_gone_back(&mut self) -> bool {
        mem::take(&mut self.has_gone_back)
    }

    /// The roster stands at `at`: applies what waited for just that.
    fn take_early(&mut self, epoch: Epoch, mut at: Version) -> Vec<Change> {
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
        tests::truth::{Commit, Truth, channel, epoch, presence, writes},
    };

    const HOLD: Duration = Duration::from_millis(200);

    /// Presence `n` joins.
    fn joins(n: u8) -> Delta {
        Delta { joined: vec![presence(n)], ..Delta::default() }
    }

    /// The delta that leads to the version is that presence `version` joins.
    fn hear(replica: &mut Replica, now: u64, life: u8, version: u8) -> Applied {
        replica.apply(Tick(now), epoch(life), Version(version.into()), joins(version))
    }

    /// What is read at a version: presences 1 to `version`.
    fn read(life: u8, version: u8) -> Option<Snapshot> {
        let presences = (1..=version).map(presence).collect();
        Some(Snapshot { epoch: epoch(life), version: Version(version.into()), presences })
    }

    /// The net difference that a reading made.
    fn reload(replica: &mut Replica, found: Option<Snapshot>) -> Vec<Change> {
        let before = replica.reload(found.map(Reading::from));
        before.map_or_else(Vec::new, |before| replica.roster().changes_since(&before))
    }

    fn replica_at(life: u8, version: u8) -> Replica {
        let mut replica = Replica::default();
        replica.reloading();
        let _ = reload(&mut replica, read(life, version));
        replica
    }

    fn check(replica: &Replica, life: u8, version: u8) {
        assert_eq!(replica.position(), Some((epoch(life), Version(version.into()))));
        let presences: Vec<_> = (1..=version).map(presence).collect();
        assert!(replica.roster().iter().eq(&presences));
    }

    /// A commit that changed nothing says where the room stands: what led there, nobody has said.
    #[test]
    fn a_version_that_says_nothing_of_what_led_to_it_asks_for_a_reading_at_once() {
        let mut replica = replica_at(1, 2);
        assert_eq!(replica.apply(Tick(5), epoch(1), Version(3), Delta::default()), Applied::Reload);
        check(&replica, 1, 2);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(5)));
        replica.reloading();
        let _ = reload(&mut replica, read(1, 3));
        check(&replica, 1, 3);
        assert_eq!(replica.reload_at(HOLD), None);

        let mut fresh = Replica::default();
        assert_eq!(fresh.apply(Tick(5), epoch(1), Version(1), Delta::default()), Applied::Reload);
    }

    #[test]
    fn a_version_that_is_known_and_says_nothing_is_nothing() {
        let mut replica = replica_at(1, 2);
        assert_eq!(replica.apply(Tick(5), epoch(1), Version(2), Delta::default()), Applied::Changed(Vec::new()));
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn the_first_change_of_a_room_needs_no_reading() {
        let mut replica = Replica::default();
        let Applied::Changed(changes) = hear(&mut replica, 0, 1, 1) else { panic!("not applied") };
        assert_eq!(changes, [Change { was: None, now: Some(presence(1)) }]);
        check(&replica, 1, 1);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_change_of_a_room_of_which_nothing_is_known_asks_for_a_reading_at_once() {
        let mut replica = Replica::default();
        assert_eq!(hear(&mut replica, 7, 1, 2), Applied::Reload);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(7)));
    }

    #[test]
    fn a_gap_that_closes_in_time_needs_no_reading() {
        let mut replica = replica_at(1, 1);
        assert_eq!(hear(&mut replica, 0, 1, 4), Applied::Early);
        assert_eq!(hear(&mut replica, 10, 1, 3), Applied::Early);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(200)));
        let Applied::Changed(changes) = hear(&mut replica, 20, 1, 2) else { panic!("not applied") };
        assert_eq!(changes.len(), 3);
        check(&replica, 1, 4);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_later_gap_has_a_hold_window_of_its_own() {
        // The second gap took over the window of the first, and the room was read for nothing.
        let mut replica = replica_at(1, 1);
        let _ = hear(&mut replica, 0, 1, 3);
        let _ = hear(&mut replica, 190, 1, 6);
        let _ = hear(&mut replica, 195, 1, 2);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(390)));
    }

    #[test]
    fn a_delta_that_is_repeated_while_it_waits_does_not_postpone_the_reading() {
        let mut replica = replica_at(1, 1);
        let _ = hear(&mut replica, 0, 1, 3);
        let _ = hear(&mut replica, 150, 1, 3);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(200)));
    }

    #[test]
    fn another_life_asks_for_a_reading_at_once_and_the_reading_ends_the_old_one() {
        let mut replica = replica_at(1, 3);
        assert_eq!(hear(&mut replica, 5, 2, 1), Applied::Reload);
        check(&replica, 1, 3);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(5)));
        replica.reloading();
        let changes = reload(&mut replica, read(2, 1));
        assert_eq!(changes.len(), 2);
        check(&replica, 2, 1);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_reading_that_shows_less_than_was_known_before_it_began_shows_that_the_database_lost_changes() {
        let mut replica = replica_at(1, 5);
        replica.reloading();
        let _ = reload(&mut replica, read(1, 3));
        check(&replica, 1, 3);
        assert!(replica.take_gone_back());
        assert_eq!(replica.reload_at(HOLD), Some(Tick(0)), "what came in meanwhile may be of before");
        replica.reloading();
        let _ = reload(&mut replica, read(1, 3));
        assert!(!replica.take_gone_back());
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn after_the_database_lost_changes_nothing_is_applied_before_the_room_was_read() {
        let mut replica = replica_at(1, 5);
        replica.distrust(Tick(7));
        assert_eq!(hear(&mut replica, 8, 1, 6), Applied::Reload);
        assert_eq!((replica.position(), replica.reload_at(HOLD)), (None, Some(Tick(7))));
        replica.reloading();
        let _ = hear(&mut replica, 9, 1, 5);
        let _ = reload(&mut replica, read(1, 4));
        check(&replica, 1, 5);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn one_who_left_has_departed_until_the_roster_has_come_so_far_or_a_later_reading_shows_it() {
        let (mut replica, one) = (replica_at(1, 3), presence(1));
        replica.departs(one.id, one.channel.clone(), (epoch(1), Version(3)));
        assert!(!replica.has_departed(&one), "the roster has come so far");
        replica.reloading();
        replica.departs(one.id, one.channel.clone(), (epoch(1), Version(5)));
        let _ = reload(&mut replica, read(1, 4));
        assert!(replica.has_departed(&one), "the reading began before");
        assert!(!replica.has_departed(&Presence { channel: channel(9), ..(*one).clone() }), "another socket has it");
        let _ = hear(&mut replica, 0, 1, 5);
        assert!(!replica.has_departed(&one));
        replica.departs(one.id, one.channel.clone(), (epoch(2), Version(1)));
        replica.reloading();
        assert!(replica.has_departed(&one));
        let _ = reload(&mut replica, None);
        assert!(!replica.has_departed(&one), "whatever became of the room, the reading shows it");
    }

    #[test]
    fn what_came_in_while_the_room_was_read_is_put_on_top() {
        let mut replica = replica_at(1, 1);
        replica.reloading();
        let _ = hear(&mut replica, 0, 1, 4);
        let _ = hear(&mut replica, 0, 1, 5);
        let _ = reload(&mut replica, read(1, 4));
        check(&replica, 1, 5);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_reading_that_is_older_than_what_came_in_meanwhile_takes_nothing_back() {
        let mut replica = replica_at(1, 2);
        replica.reloading();
        let _ = hear(&mut replica, 0, 1, 3);
        assert_eq!(reload(&mut replica, read(1, 2)), []);
        check(&replica, 1, 3);
    }

    #[test]
    fn a_reading_of_the_known_version_brings_what_has_no_version() {
        let mut replica = replica_at(1, 1);
        let resumed = Arc::new(Presence { channel: channel(9), ..(*presence(1)).clone() });
        replica.reloading();
        let mut snapshot = read(1, 1).unwrap();
        snapshot.presences = vec![resumed.clone()];
        assert_eq!(reload(&mut replica, Some(snapshot)), []);
        assert_eq!(replica.roster().get(resumed.id), Some(&resumed));
    }

    #[test]
    fn a_room_that_begins_while_it_is_read_is_not_lost_when_the_reading_found_none() {
        // The first change was applied, and then the reading took it back.
        let mut replica = Replica::default();
        replica.reloading();
        assert_eq!(hear(&mut replica, 3, 1, 1), Applied::Reload);
        let _ = reload(&mut replica, None);
        assert_eq!(replica.reload_at(HOLD), Some(Tick(3)));
        replica.reloading();
        let _ = reload(&mut replica, read(1, 1));
        check(&replica, 1, 1);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_life_that_begins_while_the_room_is_read_asks_for_another_reading() {
        // It waited without end: the reading was over, and nobody asked for the next.
        let mut replica = replica_at(1, 1);
        replica.reloading();
        assert_eq!(hear(&mut replica, 8, 2, 3), Applied::Reload);
        let _ = reload(&mut replica, read(1, 1));
        assert_eq!(replica.reload_at(HOLD), Some(Tick(8)));
        replica.reloading();
        let _ = reload(&mut replica, read(2, 3));
        check(&replica, 2, 3);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_straggler_does_not_bring_back_a_room_that_is_over() {
        // The first change of the old life looked like the first of a new one.
        let mut replica = replica_at(1, 3);
        replica.reloading();
        assert_eq!(reload(&mut replica, None).len(), 3);
        assert_eq!(replica.position(), None);
        assert_eq!(hear(&mut replica, 0, 1, 1), Applied::Reload);
        assert!(replica.roster().is_empty());
        replica.reloading();
        assert_eq!(reload(&mut replica, None), []);
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_reading_that_fails_is_not_forgotten() {
        // What waited was forgotten when the reading began, and with it that a reading was needed.
        let mut replica = replica_at(1, 1);
        let _ = hear(&mut replica, 4, 1, 3);
        replica.reloading();
        assert_eq!(replica.reload_at(HOLD), Some(Tick(4)));
        replica.reloading();
        assert_eq!(replica.reload_at(HOLD), Some(Tick(4)));
        let _ = reload(&mut replica, read(1, 3));
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn a_delta_that_the_database_does_not_hold_is_asked_for_once() {
        let mut replica = replica_at(1, 1);
        let _ = hear(&mut replica, 0, 1, 9);
        replica.reloading();
        let _ = reload(&mut replica, read(1, 1));
        assert_eq!(replica.reload_at(HOLD), None);
    }

    #[test]
    fn no_more_than_1024_deltas_wait_and_the_next_one_asks_for_a_reading_at_once() {
        // They waited without bound.
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
        let snapshot = |version| Some(Snapshot { version: Version(version), ..read(1, 1).unwrap() });
        let _ = reload(&mut replica, snapshot(2001));
        assert_eq!(replica.reload_at(far), None);
    }

    #[test]
    fn a_delta_passed_over_while_the_room_is_read_asks_for_another_reading() {
        let mut replica = replica_at(1, 1);
        replica.reloading();
        for version in 3..=3 + 1024 {
            let _ = replica.apply(Tick(version), epoch(1), Version(version), joins(7));
        }
        let _ = reload(&mut replica, Some(Snapshot { version: Version(2), ..read(1, 1).unwrap() }));
        assert_eq!(replica.position(), Some((epoch(1), Version(1026))));
        assert_eq!(replica.reload_at(Duration::from_secs(3600)), Some(Tick(1027)));
    }

    proptest! {
        #[test]
        fn deltas_of_one_life_repeated_and_in_any_order_need_no_reading(
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
                let Commit { epoch, version, delta } = truth.commits[n % truth.commits.len()].clone();
                let _ = replica.apply(Tick(0), epoch, version, delta);
            }
            prop_assert_eq!(replica.position(), truth.now().position);
            prop_assert!(replica.roster().iter().eq(truth.now().presences.values()));
            prop_assert_eq!(replica.reload_at(HOLD), None);
        }
    }
}
