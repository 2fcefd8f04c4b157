//! The times at which this node stood still.
//!
//! A process stands still when it is stopped, when its machine is paused, or when a laptop sleeps. It then reads nothing of what its
//! clients send, and TCP sends the lost packets again only some time after the machine is back. So a client is not considered silent
//! for that time.
//!
//! A pulse notes each second that the node runs. A pulse that comes too late shows a standstill, and so does a pulse that is overdue
//! when a method is called. So the result does not depend on which thread continues first. The pulse has a thread on which nothing
//! else runs: otherwise a thread that is busy for long, such as the store's during a large removal, would look like a standstill.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Mutex, MutexGuard};

use crate::clock::Tick;

/// How often a node notes that it runs.
pub(crate) const PULSE: Duration = Duration::from_secs(1);
/// A timer that is later than this shows that its thread, or the whole node, stood still.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// How many standstills are remembered.
const REMEMBERED: usize = 16;

/// The times at which a node stood still.
#[derive(Debug, Default)]
pub(crate) struct Standstills(Mutex<Pulse>);

#[derive(Debug, Default)]
struct Pulse {
    /// When the next pulse is due.
    due: Option<Tick>,
    standstills: VecDeque<Standstill>,
    /// The length of all standstills together, including those that are no longer in the list.
    stood: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Standstill {
    from: Tick,
    until: Tick,
}

impl Standstill {
    fn length(self) -> Duration {
        self.until.since(self.from)
    }
}

impl Pulse {
    fn overdue(&self, now: Tick) -> Option<Standstill> {
        self.due.filter(|due| now.since(*due) > LATE).map(|from| Standstill { from, until: now })
    }
}

impl Standstills {
    fn lock(&self) -> MutexGuard<'_, Pulse> {
        self.0.lock()
    }

    /// Notes that the node runs. If it stood still just before, returns for how long.
    pub(crate) fn pulse(&self, now: Tick) -> Option<Duration> {
        let mut pulse = self.lock();
        let stood = pulse.overdue(now);
        if let Some(stood) = stood {
            if pulse.standstills.len() == REMEMBERED {
                pulse.standstills.pop_front();
            }
            pulse.standstills.push_back(stood);
            pulse.stood = pulse.stood.saturating_add(stood.length());
        }
        pulse.due = Some(now.after(PULSE));
        stood.map(Standstill::length)
    }

    /// The length of all standstills until `now` together.
    pub(crate) fn stood(&self, now: Tick) -> Duration {
        let pulse = self.lock();
        pulse.stood.saturating_add(pulse.overdue(now).map_or(Duration::ZERO, Standstill::length))
    }

    /// The moment from which a client that was last seen at `seen` counts as silent: `seen`, and later by the time for which the node
    /// stood still since then.
    pub(crate) fn silent_since(&self, seen: Tick, now: Tick) -> Tick {
        let pulse = self.lock();
        let standstills = pulse.standstills.iter().copied().chain(pulse.overdue(now));
        let stood: Duration = standstills.map(|one| one.until.min(now).since(one.from.max(seen))).sum();
        seen.after(stood)
    }

    /// Selects the standstills that began after `seen` and ended less time ago than they lasted. Returns their length together, and when
    /// the last of them began.
    pub(crate) fn just_ended_since(&self, seen: Tick, now: Tick) -> Option<(Duration, Tick)> {
        let pulse = self.lock();
        let standstills = pulse.standstills.iter().copied().chain(pulse.overdue(now));
        let just = standstills.filter(|one| one.from > seen && now.since(one.until) < one.length());
        just.fold(None, |sum, one| Some((sum.map_or(Duration::ZERO, |(stood, _)| stood) + one.length(), one.from)))
    }

    /// Whether the last standstill ended less time ago than it lasted, and less than `limit` ago.
    pub(crate) fn has_just_resumed(&self, now: Tick, limit: Duration) -> bool {
        let pulse = self.lock();
        let last = pulse.overdue(now).or(pulse.standstills.back().copied());
        last.is_some_and(|last| now.since(last.until) < last.length().min(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Tick {
        Tick(seconds * 1000)
    }

    /// A node that ran for 10 s, stood still until 70 s, and ran for 10 s again.
    fn stopped_for_a_minute() -> Standstills {
        let standstills = Standstills::default();
        for n in (0..=10).chain(71..=80) {
            standstills.pulse(s(n));
        }
        standstills
    }

    #[test]
    fn time_in_which_the_node_stood_still_is_not_silence() {
        let standstills = stopped_for_a_minute();
        assert_eq!(standstills.silent_since(s(5), s(80)), s(65), "60 s of the 75 s do not count");
        assert_eq!(standstills.silent_since(s(75), s(80)), s(75));
        assert_eq!(
            standstills.silent_since(s(41), s(80)),
            s(71),
            "a silence that began within the standstill is extended by the rest of it"
        );
        assert_eq!(standstills.stood(s(80)), Duration::from_secs(60));
    }

    #[test]
    fn a_standstill_is_just_over_for_as_long_as_it_lasted() {
        let standstills = stopped_for_a_minute();
        assert_eq!(standstills.just_ended_since(s(5), s(80)), Some((Duration::from_secs(60), s(11))));
        assert_eq!(standstills.just_ended_since(s(11), s(80)), None, "the client was not seen before it");
        assert_eq!(standstills.just_ended_since(s(5), s(81)), Some((Duration::from_secs(60), s(11))));
        let standstills = Standstills::default();
        standstills.pulse(s(0));
        assert_eq!(
            standstills.just_ended_since(s(0), s(61)),
            Some((Duration::from_secs(60), s(1))),
            "also before the pulse has noticed it"
        );
        for n in 61..=121 {
            standstills.pulse(s(n));
        }
        assert_eq!(standstills.just_ended_since(s(0), s(121)), None);
    }

    #[test]
    fn a_standstill_counts_before_the_pulse_has_noticed_it() {
        let standstills = Standstills::default();
        let minute = Duration::from_secs(60);
        assert_eq!((standstills.pulse(s(0)), standstills.stood(s(1))), (None, Duration::ZERO));
        assert!(!standstills.has_just_resumed(s(1), minute));
        assert_eq!((standstills.silent_since(s(0), s(61)), standstills.stood(s(61))), (s(60), minute));
        assert!(standstills.has_just_resumed(s(61), minute));
        assert_eq!(standstills.pulse(s(61)), Some(minute));
        assert_eq!(
            (standstills.silent_since(s(0), s(61)), standstills.stood(s(61))),
            (s(60), minute),
            "it counts once"
        );
    }

    #[test]
    fn a_node_has_just_resumed_for_as_long_as_it_stood_still_and_not_beyond_the_limit() {
        let (standstills, limit) = (stopped_for_a_minute(), Duration::from_secs(5));
        assert!(standstills.has_just_resumed(Tick(75_999), limit) && !standstills.has_just_resumed(s(76), limit));
        for n in 81..=100 {
            standstills.pulse(s(n));
        }
        // The next pulse was due at 101 s.
        standstills.pulse(s(103));
        assert!(standstills.has_just_resumed(Tick(104_999), limit) && !standstills.has_just_resumed(s(105), limit));
    }

    #[test]
    fn a_pulse_that_is_a_little_late_is_no_standstill() {
        let standstills = Standstills::default();
        (0..100).for_each(|n| assert_eq!(standstills.pulse(Tick(n * 2000)), None));
        assert_eq!(standstills.silent_since(s(1), s(199)), s(1));
    }

    #[test]
    fn only_the_latest_standstills_are_remembered_one_by_one() {
        let standstills = Standstills::default();
        for n in 0..100 {
            standstills.pulse(s(n * 10));
        }
        assert_eq!(standstills.silent_since(s(0), s(990)), s(16 * 9));
        assert_eq!(
            standstills.stood(s(990)),
            Duration::from_secs(99 * 9),
            "the sum includes those that were forgotten"
        );
    }
}
