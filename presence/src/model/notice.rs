//! When the members of a room receive which notices, on one node.
//!
//! A change is sent at once as long as the room's notices cost little ([`NoticeBudget`]). Beyond that, changes that come close together
//! are sent together, with their net effect, after a limit at the latest. First frames are only sent with a flush, so that all members on
//! the node always have the same version. So however the changes are split into flushes, no member can get a wrong roster.

use std::time::Duration;

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

use super::{
    Delta,
    delta::{NetChanges, RosterChange},
    notice_budget::{FlushSize, NoticeBudget},
};

/// The pending notices. `J` is a joiner that waits for its first frame.
#[derive(Debug)]
pub(crate) struct Notices<J> {
    limit: Duration,
    budget: NoticeBudget,
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
            budget: NoticeBudget::new(limit),
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
            let latest = self.flushed.map_or(now, |flushed| flushed.after(self.limit));
            self.due = Some(self.budget.allows_at().min(latest).max(now));
        }
    }

    /// Takes all pending notices. `position` is the position of the roster, which has `listed` presences, and `members` are on this node.
    /// While the replica has no position, there is no state to send, so a due flush waits for the next epoch.
    pub(crate) fn flush(&mut self, now: Tick, position: (Epoch, Version), members: usize, listed: usize) -> Flush<J> {
        self.flushed = Some(now);
        self.due = None;
        let delta = self.net.take();
        let joiners = std::mem::take(&mut self.joiners);
        let restart = std::mem::take(&mut self.restart);
        let growth = difference(delta.joined.len(), delta.left.len());
        let flush = self.flush_of(position, delta, restart, joiners);
        let sends_state = !flush.joiners.is_empty() || flush.content == NoticeContent::NewEpoch;
        self.budget.spend(
            now,
            FlushSize {
                receivers: if flush.content == NoticeContent::None { flush.joiners.len() } else { members },
                listed: if sends_state { listed } else { 0 },
                growth,
            },
        );
        flush
    }

    fn flush_of(&mut self, position: (Epoch, Version), delta: Delta, restart: bool, joiners: Vec<J>) -> Flush<J> {
        let (epoch, version) = position;
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

/// How many more `now` are than `before`.
fn difference(now: usize, before: usize) -> i64 {
    let signed = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    signed(now) - signed(before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{
            Presence,
            tests::truth::{epoch, presence, with_meta},
        },
        name::PresenceId,
    };

    const LIMIT: Duration = Duration::from_millis(100);

    /// So many members that each flush uses up the budget of the room.
    const HUGE: usize = 100_000;

    fn joins(n: u8) -> RosterChange {
        RosterChange { was: None, now: Some(presence(n)) }
    }

    fn leaves(n: u8) -> RosterChange {
        RosterChange { was: Some(presence(n)), now: None }
    }

    fn position(n: u8, version: u64) -> (Epoch, Version) {
        (epoch(n), Version(version))
    }

    /// Notices of a huge room whose members got version 1 of epoch 1 at tick 0.
    fn notices(limit: Duration) -> Notices<u8> {
        let mut notices = Notices::new(limit);
        notices.changed(Tick(0), [joins(0)]);
        notices.joined(Tick(0), 0);
        let _ = notices.flush(Tick(0), position(1, 1), HUGE, HUGE);
        notices
    }

    /// The times of the flushes if one member of a room of this size changes its meta at these times.
    fn flushes(limit: Duration, members: usize, changes: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let update = |_| RosterChange { was: Some(presence(0)), now: Some(with_meta(&presence(0), 1)) };
        flushes_of(limit, changes, update, |_| members)
    }

    /// The times of the flushes if these changes come at these times, and so many members are in the room after the n-th.
    fn flushes_of(
        limit: Duration,
        changes: impl IntoIterator<Item = u64>,
        change: impl Fn(usize) -> RosterChange,
        members: impl Fn(usize) -> usize,
    ) -> Vec<u64> {
        let mut notices = Notices::<u8>::new(limit);
        notices.announced = Some(position(1, 1));
        let mut flushes = Vec::new();
        let mut flush = |notices: &mut Notices<u8>, at: Tick, members: usize| {
            flushes.push(at.0);
            let _ = notices.flush(at, position(1, 1), members, members);
        };
        let mut count = 0;
        for now in changes {
            if let Some(due) = notices.due().filter(|due| due.0 < now) {
                flush(&mut notices, due, members(count));
            }
            notices.changed(Tick(now), [change(count)]);
            count += 1;
            if notices.due() == Some(Tick(now)) {
                flush(&mut notices, Tick(now), members(count));
            }
        }
        if let Some(due) = notices.due() {
            flush(&mut notices, due, members(count));
        }
        flushes
    }

    #[test]
    fn members_get_the_whole_state_if_versions_of_an_epoch_are_used_twice() {
        let mut notices = notices(LIMIT);
        notices.changed(Tick(1000), [joins(1), joins(2)]);
        let _ = notices.flush(Tick(1000), position(1, 3), HUGE, HUGE);
        notices.restart(Tick(2000));
        assert_eq!(notices.due(), Some(Tick(2000)));
        let flush = notices.flush(Tick(2000), position(1, 2), HUGE, HUGE);
        assert_eq!((flush.from, flush.version, flush.content), (Version(2), Version(2), NoticeContent::NewEpoch));
        notices.changed(Tick(3000), [joins(3)]);
        let flush = notices.flush(Tick(3000), position(1, 3), HUGE, HUGE);
        assert_eq!((flush.from, flush.version), (Version(2), Version(3)));
    }

    #[test]
    fn a_small_room_sends_each_of_two_hundred_changes_a_second_at_once() {
        let each_5_ms: Vec<u64> = (0..200).map(|n| n * 5).collect();
        assert_eq!(flushes(LIMIT, 10, each_5_ms.clone()), each_5_ms);
    }

    #[test]
    fn a_flood_of_changes_costs_the_others_in_a_small_room_250_notices_a_second() {
        // A notice to 2 members costs 410 µs. The budget has saved enough for the first 50.
        let flushes = flushes(LIMIT, 2, 0..10_000);
        assert!(flushes.len() <= 2500 + 50, "{}", flushes.len());
        assert!(flushes.windows(2).all(|two| two[1] - two[0] <= 5), "{flushes:?}");
    }

    #[test]
    fn a_large_room_that_is_busy_spends_a_tenth_of_a_thread_on_notices() {
        // A notice to 1,000 members costs 5.4 ms. The budget has saved enough for the first four.
        let flushes = flushes(LIMIT, 1000, 0..1000);
        assert_eq!(flushes[..6], [0, 1, 2, 3, 16, 70]);
        assert!(flushes[4..].windows(2).all(|two| two[1] - two[0] >= 54), "{flushes:?}");
    }

    #[test]
    fn a_huge_room_sends_its_changes_once_per_limit_and_the_first_after_a_rest_at_once() {
        let storm = 0..1000;
        let flushes = flushes(LIMIT, HUGE, storm.chain([5000, 5001]));
        assert_eq!(flushes, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 5000, 5100]);
    }

    #[test]
    fn a_storm_of_joins_into_one_room_costs_its_first_members_few_frames() {
        // 2,000 join in 5 s. With a frame for each, the first would receive 2,000.
        let joins_each = (0..2000).map(|n| n * 5 / 2);
        let joins = |n| {
            let id = PresenceId::from_uuid(uuid::Uuid::from_u128(n as u128));
            RosterChange { was: None, now: Some(Arc::new(Presence { id, ..(*presence(1)).clone() })) }
        };
        assert!(flushes_of(LIMIT, joins_each, joins, |count| count).len() <= 65);
    }

    #[test]
    fn members_that_come_while_others_go_are_sent_at_once() {
        let changes = |n| if n % 2 == 0 { leaves(1) } else { joins(1) };
        let each_5_ms: Vec<u64> = (0..200).map(|n| n * 5).collect();
        assert_eq!(flushes_of(LIMIT, each_5_ms.clone(), changes, |_| 10), each_5_ms);
    }

    #[test]
    fn with_limit_zero_each_change_is_flushed_at_once() {
        assert_eq!(flushes(Duration::ZERO, HUGE, [0, 0, 1, 1, 2]), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn the_longest_limit_does_not_overflow() {
        assert_eq!(flushes(Duration::MAX, usize::MAX, [0, 1])[0], 0);
    }

    #[test]
    fn a_joiner_gets_its_first_frame_with_the_flush_of_its_join() {
        let mut notices = notices(LIMIT);
        notices.changed(Tick(3), [joins(1)]);
        notices.joined(Tick(3), 1);
        assert_eq!(notices.due(), Some(Tick(100)));
        let content = NoticeContent::Delta(Delta { joined: vec![presence(1)], ..Delta::default() });
        let flush = Flush { from: Version(1), version: Version(2), epoch: epoch(1), content, joiners: vec![1] };
        assert_eq!(notices.flush(Tick(100), position(1, 2), HUGE, HUGE), flush);
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
        assert_eq!(notices.flush(Tick(100), position(1, 3), HUGE, HUGE), quiet);
        notices.changed(Tick(500), [leaves(0)]);
        let flush = notices.flush(Tick(500), position(1, 4), HUGE, HUGE);
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
        fn in_any_period_a_room_flushes_once_per_limit_and_as_often_as_its_budget_pays_for(
            pauses in prop::collection::vec(prop_oneof![0..3u64, 0..30u64, 0..150u64], 1..150),
            limit in prop_oneof![Just(5), Just(10), Just(40), Just(100), Just(1000)],
            members in prop_oneof![Just(2), Just(20), Just(500), Just(5_000), Just(HUGE)],
        ) {
            let changes = pauses.iter().scan(0, |now, pause| { *now += pause; Some(*now) });
            let flushes = flushes(Duration::from_millis(limit), members, changes);
            for (n, first) in flushes.iter().enumerate() {
                for (m, last) in flushes.iter().enumerate().skip(n) {
                    // A notice costs 400 µs, and 5 µs for each member. 20 ms are saved, and a tenth of the time is added.
                    let paid = (20_000 + (last - first) * 100) / (400 + 5 * members as u64);
                    prop_assert!((m - n + 1) as u64 <= (last - first) / limit + paid + 2, "{:?}", &flushes[n..=m]);
                }
            }
        }

        #[test]
        fn a_change_is_flushed_within_the_limit_and_at_once_after_a_quiet_period(
            pauses in prop::collection::vec(prop_oneof![0..3u64, 0..30u64, 0..150u64], 1..100),
            members in prop_oneof![Just(20), Just(500), Just(5_000), Just(HUGE)],
        ) {
            let changes: Vec<u64> = pauses.iter().scan(0, |now, pause| { *now += pause; Some(*now) }).collect();
            let flushes = flushes(LIMIT, members, changes.iter().copied());
            for change in changes {
                let flushed = *flushes.iter().find(|flush| **flush >= change).unwrap();
                let before = flushes.iter().rev().find(|flush| **flush < flushed);
                prop_assert!(flushed - change < 100);
                prop_assert!(flushed == change || before.is_some_and(|before| flushed - before <= 100));
            }
        }
    }
}
