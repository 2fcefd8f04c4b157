//! How often something may happen: so many times a second, and a burst of them at once.
//!
//! The generic cell rate algorithm, a token bucket in one number: the moment at which all that happened is paid for. A crate such as
//! `governor` does the same with a clock, and sleeps, of its own; here time comes in as an argument, as everywhere in the model, so
//! that a test with a manual clock sees what runs in production, and a bucket is eight bytes of each socket.

use std::time::Duration;

use crate::clock::Tick;

const NANOS: u64 = 1_000_000_000;

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Between two, in nanoseconds, once the burst is spent; 0 for no limit.
    interval: u64,
    /// What may be spent ahead, in nanoseconds.
    burst: u64,
}

impl Rate {
    /// At most `per_second`, and `burst` of them at once; no limit if `per_second` is 0.
    pub(crate) fn new(per_second: usize, burst: usize) -> Self {
        let interval = NANOS.checked_div(per_second as u64).map_or(0, |interval| interval.max(1));
        Self { interval, burst: interval.saturating_mul(burst.max(1) as u64) }
    }
}

/// What is left of a [`Rate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// The moment at which all that happened is paid for, in nanoseconds of the clock.
    paid: u64,
}

impl Bucket {
    /// Takes one, at `now`. `Err`: how long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Tick) -> Result<(), Duration> {
        let now = nanos(now);
        let paid = self.paid.max(now).saturating_add(rate.interval);
        match paid.saturating_sub(now).checked_sub(rate.burst) {
            Some(wait) if wait > 0 => Err(Duration::from_nanos(wait)),
            _ => {
                self.paid = paid;
                Ok(())
            }
        }
    }

    /// Whether `rest` has gone by, in all, in which nothing was taken though it could have been.
    pub(crate) fn has_rested(self, rate: Rate, now: Tick, rest: Duration) -> bool {
        let rest = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX);
        self.paid.saturating_add(rest.min(rate.burst)) <= nanos(now).saturating_add(rate.burst)
    }
}

fn nanos(tick: Tick) -> u64 {
    tick.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(bucket: &mut Bucket, rate: Rate, now: u64) -> usize {
        (0..10_000).take_while(|_| bucket.take(rate, Tick(now)).is_ok()).count()
    }

    #[test]
    fn a_burst_is_taken_at_once_and_the_rest_at_the_rate() {
        let (rate, mut bucket) = (Rate::new(5, 20), Bucket::default());
        assert_eq!(taken(&mut bucket, rate, 1000), 20);
        assert_eq!(bucket.take(rate, Tick(1000)), Err(Duration::from_millis(200)));
        assert_eq!(bucket.take(rate, Tick(1150)), Err(Duration::from_millis(50)));
        assert_eq!(taken(&mut bucket, rate, 1200), 1);
        assert_eq!(taken(&mut bucket, rate, 2200), 5);
        assert_eq!(taken(&mut bucket, rate, 100_000), 20, "no more is saved than a burst");
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        let (rate, mut bucket) = (Rate::new(0, 1), Bucket::default());
        assert_eq!(taken(&mut bucket, rate, 0), 10_000);
        assert!(bucket.has_rested(rate, Tick(0), Duration::from_secs(1)));
    }

    #[test]
    fn one_has_rested_when_a_second_of_its_rate_is_left() {
        let (rate, mut bucket) = (Rate::new(5, 20), Bucket::default());
        let rest = Duration::from_secs(1);
        assert_eq!(taken(&mut bucket, rate, 0), 20);
        assert!(!bucket.has_rested(rate, Tick(999), rest));
        assert!(bucket.has_rested(rate, Tick(1000), rest));
    }

    proptest! {
        #[test]
        fn in_any_time_there_is_a_burst_and_the_rate_at_most(
            per_second in 1_usize..2000,
            burst in 1_usize..100,
            waits in proptest::collection::vec(0_u64..300, 1..300),
        ) {
            let (rate, mut bucket, mut now, mut count) = (Rate::new(per_second, burst), Bucket::default(), 0, 0);
            for wait in waits {
                now += wait;
                count += taken(&mut bucket, rate, now);
                let most = burst as u64 + now * per_second as u64 / 1000 + 1;
                prop_assert!(count as u64 <= most, "{count} of {most} by {now} ms");
            }
        }
    }
}
