//! The lease of a node, and its right to declare other nodes dead.

use std::time::Duration;

use crate::clock::Tick;

/// The lease of this node, by its own monotonic clock.
///
/// Other nodes go by the lease in the database. This one only decides whether this node may declare others dead. A node that was cut off
/// from the database sees all leases expired when it returns. So it must first renew its own lease for one full lease without a
/// failure, which shows that renewals work. If the clock of the database jumps forward, all other leases expire at once, too, and this
/// time begins again. Live nodes renew their leases within it.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    length: Duration,
    /// The first and the last renewal since a renewal failed.
    unbroken: Option<(Tick, Tick)>,
    /// When the last request was sent that returned the time of the database, and that time.
    clock: Option<(Tick, Duration)>,
}

impl Lease {
    pub(crate) const fn new(length: Duration) -> Self {
        Self { length, unbroken: None, clock: None }
    }

    /// Records the `time` of the database: the request was sent at `sent`, and the answer arrived at `answered`. Returns whether its
    /// clock has jumped forward since the last request, by more than the delays of the requests explain.
    ///
    /// A jump of less than a quarter of a lease is harmless, since nodes renew their leases after each third.
    pub(crate) fn observe_time(&mut self, sent: Tick, answered: Tick, time: Duration) -> bool {
        let Some((before, was)) = self.clock.filter(|(before, _)| *before <= sent) else {
            self.clock.get_or_insert((sent, time));
            return false;
        };
        self.clock = Some((sent, time));
        let jumped = time.saturating_sub(was) > answered.since(before) + self.length / 4;
        if jumped {
            self.unbroken = None;
        }
        jumped
    }

    /// The database has renewed the lease. The request was sent at `sent`.
    pub(crate) fn renewed(&mut self, sent: Tick) {
        self.unbroken = match self.unbroken {
            Some((since, last)) if sent.since(last) <= self.length => Some((since, last.max(sent))),
            _ => Some((sent, sent)),
        };
    }

    /// A renewal failed or was not answered.
    pub(crate) fn failed(&mut self) {
        self.unbroken = None;
    }

    /// Whether this node may declare others dead.
    pub(crate) fn may_judge(&self, now: Tick) -> bool {
        self.unbroken.is_some_and(|(since, last)| now.since(last) <= self.length && last.since(since) >= self.length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    fn renewed_every_3s(from: u64, times: u64) -> Lease {
        let mut lease = Lease::new(LEASE);
        for n in 0..times {
            lease.renewed(Tick(from + n * 3000));
        }
        lease
    }

    #[test]
    fn a_late_answer_changes_nothing() {
        // The lease went back to the older request, and the right to judge was lost.
        let mut lease = renewed_every_3s(0, 5);
        lease.renewed(Tick(3_000));
        assert!(lease.may_judge(Tick(20_000)));
    }

    #[test]
    fn a_clock_of_the_database_that_jumps_forward_starts_the_wait_anew() {
        let mut lease = Lease::new(LEASE);
        let hour = Duration::from_secs(3600);
        let mut renew = |at, time: Duration| {
            let jumped = lease.observe_time(Tick(at), Tick(at + 20), time + Duration::from_millis(at));
            lease.renewed(Tick(at));
            (jumped, lease.may_judge(Tick(at)))
        };
        for (at, may) in [(0, false), (3000, false), (6000, false), (9000, false), (12_000, true)] {
            assert_eq!(renew(at, hour), (false, may));
        }
        assert_eq!(renew(15_000, hour * 2), (true, false));
        assert_eq!(renew(18_000, hour * 2), (false, false));
        assert_eq!(renew(25_000, hour * 2), (false, true));
        // A jump back, and a small jump forward.
        assert_eq!(renew(28_000, hour), (false, true));
        assert_eq!(renew(31_000, hour + Duration::from_secs(2)), (false, true));
        assert_eq!(renew(34_000, hour + Duration::from_secs(5)), (true, false));
    }

    #[test]
    fn a_slow_answer_is_no_jump_of_the_clock() {
        let mut lease = renewed_every_3s(0, 5);
        assert!(!lease.observe_time(Tick(12_000), Tick(12_000), LEASE));
        assert!(!lease.observe_time(Tick(15_000), Tick(19_000), LEASE + Duration::from_secs(7)));
        // The late answer to an earlier request is ignored.
        assert!(!lease.observe_time(Tick(14_000), Tick(19_100), LEASE * 9));
        assert!(!lease.observe_time(Tick(20_000), Tick(20_000), LEASE + Duration::from_secs(8)));
        assert!(lease.may_judge(Tick(20_000)));
    }

    proptest! {
        #[test]
        fn a_node_may_judge_only_after_a_full_lease_of_renewals_that_is_not_too_long_ago(
            steps in prop::collection::vec((0..12u64, prop::bool::weighted(0.9)), 0..20), wait in 0..15u64,
        ) {
            let mut lease = Lease::new(LEASE);
            let mut now = 0;
            let mut unbroken: Vec<u64> = Vec::new();
            for (pause, works) in steps {
                now += pause * 1000;
                if works {
                    if unbroken.last().is_some_and(|last| now - last > 10_000) {
                        unbroken.clear();
                    }
                    unbroken.push(now);
                    lease.renewed(Tick(now));
                } else {
                    unbroken.clear();
                    lease.failed();
                }
            }
            now += wait * 1000;
            let may = match unbroken.as_slice() {
                [first, .., last] => now - last <= 10_000 && last - first >= 10_000,
                _ => false,
            };
            prop_assert_eq!(lease.may_judge(Tick(now)), may);
        }
    }
}
