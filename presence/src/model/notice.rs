//! When the members of a room receive which notices, on one node.
//!
//! Changes that come close together are sent together, with their net effect. The first change of a quiet room is sent at once. While
//! more changes come, they are sent at most once per interval. The interval doubles with each flush up to a limit, and halves again for
//! each quiet period of that length. First frames are only sent with a flush, so that all members on the node always have the same version.
//! So however the changes are split into flushes, no member can get a wrong roster.
//!
//! Invariant: in any time there are at most `time / limit + log2(limit / 10 ms) + 2` flushes.

use std::time::Duration;

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

use super::{
    Delta,
    delta::{NetChanges, RosterChange},
};

/// The interval of a room that has just become busy.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);

/// The pending notices. `J` is a joiner that waits for its first frame.
#[derive(Debug)]
pub(crate) struct Notices<J> {
    limit: Duration,
    /// The least time between the last flush and the next.
    interval: Duration,
    flushed: Option<Tick>,
    due: Option<Tick>,
    net: NetChanges,
    joiners: Vec<J>,
    announced: Option<(Epoch, Version)>,
    /// What members know is no longer valid, although the epoch is the same.
    restart: bool,
}

/// What is sent with one flush.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Flush<J> {
    /// The version that members have, and the one that they have afterwards. They are equal if members see no change.
    pub(crate) from: Version,
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    /// What the notice for all members except the joiners contains.
    pub(crate) content: NoticeContent,
    /// The joiners, who get the whole state at `version`.
    pub(crate) joiners: Vec<J>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoticeContent {
    None,
    Delta(Delta),
    /// The room has a new epoch. What members know is no longer valid, so they get the whole state, too.
    NewEpoch,
}

impl<J> Notices<J> {
    /// `limit` is the longest time between two flushes. With zero, each change is flushed at once.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            interval: Duration::ZERO,
            flushed: None,
            due: None,
            net: NetChanges::default(),
            joiners: Vec::new(),
            announced: None,
            restart: false,
        }
    }

    /// Members receive the whole state again, because the room has lost changes that they know, and uses the versions of these again.
    pub(crate) fn restart(&mut self, now: Tick) {
        self.restart = true;
        self.schedule(now);
    }

    /// Adds changes.
    pub(crate) fn changed(&mut self, now: Tick, changes: impl IntoIterator<Item = RosterChange>) {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_some() {
            self.net.add(changes);
            self.schedule(now);
        }
    }

    /// Adds a joiner, which is in the roster and waits for its first frame.
    pub(crate) fn joined(&mut self, now: Tick, joiner: J) {
        self.joiners.push(joiner);
        self.schedule(now);
    }

    /// Whether a joiner waits for its first frame.
    pub(crate) const fn has_joiners(&self) -> bool {
        !self.joiners.is_empty()
    }

    /// Removes joiners that left before they had their first frame.
    pub(crate) fn forget(&mut self, left: impl FnMut(&mut J) -> bool) -> Vec<J> {
        self.joiners.extract_if(.., left).collect()
    }

    /// The position that members have, from the last frame that was sent to them.
    pub(crate) const fn announced(&self) -> Option<(Epoch, Version)> {
        self.announced
    }

    /// When the next flush is due.
    pub(crate) const fn due(&self) -> Option<Tick> {
        self.due
    }

    fn schedule(&mut self, now: Tick) {
        if self.due.is_none() {
            let earliest = self.flushed.map_or(now, |flushed| flushed.after(self.interval));
            self.due = Some(earliest.max(now));
        }
    }

    /// The interval after a flush at `now`.
    fn interval_after(&self, now: Tick) -> Duration {
        let quiet = self.flushed.map_or(Duration::ZERO, |flushed| now.since(flushed));
        // Without a limit there is no interval to halve.
        let halvings = quiet.as_millis().checked_div(self.limit.as_millis()).unwrap_or(0);
        let rested = self.interval / 2_u32.saturating_pow(u32::try_from(halvings).unwrap_or(u32::MAX));
        rested.saturating_mul(2).max(FIRST_INTERVAL).min(self.limit)
    }

    /// Takes all pending notices. `position` is the position of the roster. While the replica has none, there is no state to send, so a
    /// due flush waits for the next epoch.
    pub(crate) fn flush(&mut self, now: Tick, position: (Epoch, Version)) -> Flush<J> {
        self.interval = self.interval_after(now);
        self.flushed = Some(now);
        self.due = None;
        let delta = self.net.take();
        let joiners = std::mem::take(&mut self.joiners);
        let (epoch, version) = position;
        let restart = std::mem::take(&mut self.restart);
        let (from, content) = match self.announced {
            Some(_) if restart => (version, NoticeContent::NewEpoch),
            Some((known, from)) if known == epoch && !delta.is_visible() => {
                return Flush { from, version: from, epoch, content: NoticeContent::None, joiners };
            }
            Some((known, from)) if known == epoch => (from, NoticeContent::Delta(delta)),
            Some(_) => (version, NoticeContent::NewEpoch),
            None => (version, NoticeContent::None),
        };
        self.announced = Some(position);
        Flush { from, version, epoch, content, joiners }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::truth::{epoch, presence};

    const LIMIT: Duration = Duration::from_millis(100);

    fn joins(n: u8) -> RosterChange {
        RosterChange { was: None, now: Some(presence(n)) }
    }

    fn leaves(n: u8) -> RosterChange {
        RosterChange { was: Some(presence(n)), now: None }
    }

    fn position(n: u8, version: u64) -> (Epoch, Version) {
        (epoch(n), Version(version))
    }

    /// Notices whose members got version 1 of epoch 1 at tick 0.
    fn notices(limit: Duration) -> Notices<u8> {
        let mut notices = Notices::new(limit);
        notices.changed(Tick(0), [joins(0)]);
        notices.joined(Tick(0), 0);
        let _ = notices.flush(Tick(0), position(1, 1));
        notices
    }

    /// The times of the flushes if the room changes at these times.
    fn flushes(limit: Duration, changes: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut notices = Notices::<u8>::new(limit);
        let mut flushes = Vec::new();
        let mut flush = |notices: &mut Notices<u8>, at: Tick| {
            flushes.push(at.0);
            let _ = notices.flush(at, position(1, 1));
        };
        for now in changes {
            if let Some(due) = notices.due().filter(|due| due.0 < now) {
                flush(&mut notices, due);
            }
            notices.changed(Tick(now), [joins(0)]);
            if notices.due() == Some(Tick(now)) {
                flush(&mut notices, Tick(now));
            }
        }
        if let Some(due) = notices.due() {
            flush(&mut notices, due);
        }
        flushes
    }

    #[test]
    fn members_get_the_whole_state_if_versions_of_an_epoch_are_used_twice() {
        let mut notices = notices(LIMIT);
        notices.changed(Tick(1000), [joins(1), joins(2)]);
        let _ = notices.flush(Tick(1000), position(1, 3));
        notices.restart(Tick(2000));
        assert_eq!(notices.due(), Some(Tick(2000)));
        let flush = notices.flush(Tick(2000), position(1, 2));
        assert_eq!((flush.from, flush.version, flush.content), (Version(2), Version(2), NoticeContent::NewEpoch));
        notices.changed(Tick(3000), [joins(3)]);
        let flush = notices.flush(Tick(3000), position(1, 3));
        assert_eq!((flush.from, flush.version), (Version(2), Version(3)));
    }

    #[test]
    fn a_quiet_room_flushes_at_once_and_a_busy_one_less_and_less_often() {
        let each_ms = flushes(LIMIT, 0..400);
        assert_eq!(each_ms, [0, 10, 30, 70, 150, 250, 350, 450]);
        assert_eq!(flushes(LIMIT, [0, 1000, 2000]), [0, 1000, 2000]);
    }

    #[test]
    fn a_room_is_busy_if_its_changes_come_a_little_slower_than_the_shortest_interval() {
        // Each change was flushed at once, as in a quiet room.
        let each_11_ms = flushes(LIMIT, (0..400).step_by(11));
        assert_eq!(each_11_ms, [0, 11, 31, 71, 151, 251, 351, 451]);
    }

    #[test]
    fn a_busy_room_is_quiet_again_after_some_time() {
        let storm = 0..1000;
        let rest = flushes(LIMIT, storm.chain([2000, 2001]));
        assert!(rest.ends_with(&[2000, 2010]), "{rest:?}");
    }

    #[test]
    fn with_limit_zero_each_change_is_flushed_at_once() {
        assert_eq!(flushes(Duration::ZERO, [0, 0, 1, 1, 2]), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn the_longest_limit_does_not_overflow() {
        assert_eq!(flushes(Duration::MAX, [0, 1, 11]), [0, 10, 30]);
    }

    #[test]
    fn a_joiner_gets_its_first_frame_with_the_flush_of_its_join() {
        let mut notices = notices(LIMIT);
        notices.changed(Tick(3), [joins(1)]);
        notices.joined(Tick(3), 1);
        assert_eq!(notices.due(), Some(Tick(10)));
        let content = NoticeContent::Delta(Delta { joined: vec![presence(1)], ..Delta::default() });
        let flush = Flush { from: Version(1), version: Version(2), epoch: epoch(1), content, joiners: vec![1] };
        assert_eq!(notices.flush(Tick(10), position(1, 2)), flush);
        assert_eq!(notices.due(), None);
    }

    #[test]
    fn a_joiner_without_news_gets_its_first_frame_at_once_in_a_quiet_room() {
        let mut notices = notices(LIMIT);
        notices.joined(Tick(500), 1);
        assert_eq!(notices.due(), Some(Tick(500)));
    }

    #[test]
    fn a_flush_without_net_changes_announces_no_version() {
        let mut notices = notices(LIMIT);
        notices.changed(Tick(3), [joins(1)]);
        notices.changed(Tick(4), [leaves(1)]);
        notices.joined(Tick(5), 2);
        let quiet = Flush {
            from: Version(1),
            version: Version(1),
            epoch: epoch(1),
            content: NoticeContent::None,
            joiners: vec![2],
        };
        assert_eq!(notices.flush(Tick(10), position(1, 3)), quiet);
        notices.changed(Tick(500), [leaves(0)]);
        let flush = notices.flush(Tick(500), position(1, 4));
        assert_eq!((flush.from, flush.version), (Version(1), Version(4)));
    }

    #[test]
    fn without_changes_there_is_no_flush() {
        let mut notices = notices(LIMIT);
        notices.changed(Tick(3), []);
        assert_eq!(notices.due(), None);
    }

    proptest! {
        #[test]
        fn in_any_period_a_room_flushes_at_most_once_per_limit_and_a_few_times_more(
            pauses in prop::collection::vec(prop_oneof![0..3u64, 0..30u64, 0..150u64], 1..150),
            limit in prop_oneof![Just(5), Just(10), Just(40), Just(100), Just(1000)],
        ) {
            let changes = pauses.iter().scan(0, |now, pause| { *now += pause; Some(*now) });
            let flushes = flushes(Duration::from_millis(limit), changes);
            let few = (0..).find(|doublings| 10 << doublings >= limit).unwrap() + 2;
            for (n, first) in flushes.iter().enumerate() {
                for (m, last) in flushes.iter().enumerate().skip(n) {
                    prop_assert!((m - n + 1) as u64 <= (last - first) / limit + few, "{:?}", &flushes[n..=m]);
                }
            }
        }

        #[test]
        fn a_change_is_flushed_within_the_limit_and_at_once_after_a_quiet_period(
            pauses in prop::collection::vec(prop_oneof![0..3u64, 0..30u64, 0..150u64], 1..100),
        ) {
            let changes: Vec<u64> = pauses.iter().scan(0, |now, pause| { *now += pause; Some(*now) }).collect();
            let flushes = flushes(LIMIT, changes.iter().copied());
            for change in changes {
                let flushed = *flushes.iter().find(|flush| **flush >= change).unwrap();
                let before = flushes.iter().rev().find(|flush| **flush < flushed);
                prop_assert!(flushed - change < 100);
                prop_assert!(flushed == change || before.is_some_and(|before| flushed - before <= 100));
            }
        }
    }
}
