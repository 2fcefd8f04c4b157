//! Rate limits: a number of events per second, and a burst of them at once.
//!
//! This is the generic cell rate algorithm, a token bucket in one number: the time at which all events are paid for. The crate `governor`
//! does the same, but with its own clock and sleeps. Here the time is an argument, as everywhere in the model, so that tests with a
//! manual clock run the code of production. A bucket takes eight bytes for each socket.

use std::time::Duration;

use crate::clock::Tick;

const NANOS: u64 = 1_000_000_000;

/// A client that leaves this much of its rate unused is no longer slowed down.
const REST: Duration = Duration::from_secs(1);
/// For each unused second of its rate, a client may be slowed down this many seconds longer. So a client that stays below 10/11 of its
/// rate is not closed for what piled up while its network was away, up to the time that is remembered.
const SECONDS_FOR_ONE_UNUSED: u32 = 10;
/// The unused rate is remembered up to this many times the patience.
const REMEMBERED_PATIENCES: u32 = 2;

/// A rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The time between two events after the burst, in nanoseconds. 0 for no limit.
    interval: u64,
    /// The burst, in nanoseconds of the rate.
    burst: u64,
}

impl Rate {
    /// At most `per_second` events, and `burst` at once. No limit if `per_second` is 0.
    pub(crate) fn new(per_second: usize, burst: usize) -> Self {
        let interval = NANOS.checked_div(per_second as u64).map_or(0, |interval| interval.max(1));
        Self { interval, burst: interval.saturating_mul(burst.max(1) as u64) }
    }
}

/// The state of a [`Rate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// The time at which all events are paid for, in nanoseconds of the clock.
    paid: u64,
}

impl Bucket {
    /// Takes one event at `now`. The error is the time until one is available.
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

    /// Whether `rest` of the rate is unused, besides the one event that a client at exactly its rate takes as soon as it can.
    fn has_rested(self, rate: Rate, now: Tick, rest: Duration) -> bool {
        let left = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX).saturating_add(rate.interval);
        self.paid.saturating_add(left.min(rate.burst)) <= nanos(now).saturating_add(rate.burst)
    }
}

/// Applies a [`Rate`] to one client, and measures for how long the client is slowed down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RateLimiter {
    bucket: Bucket,
    /// What may be taken in addition until this time, in nanoseconds of the rate.
    given_back: (u64, Tick),
    /// How much of its rate the client has left unused.
    unused: Duration,
    /// For how long the client has been slowed down since its last rest, without the time that its unused rate pays for. `None` if it is
    /// not slowed down.
    slowed: Option<Duration>,
    /// Until when the client is slowed down, in nanoseconds of the clock.
    slowed_until: u64,
}

/// The client is slowed down: no event is available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slowed {
    /// How long until one is available.
    pub(crate) wait: Duration,
    /// By how much this event extends the time for which the client is slowed down. Several events may wait for the same time.
    pub(crate) more: Duration,
    pub(crate) stage: SlowStage,
}

/// Since when the client is slowed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlowStage {
    Begins,
    GoesOn,
    /// Longer than its patience.
    TooLong,
}

impl RateLimiter {
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            bucket: Bucket { paid: nanos(now) },
            given_back: (0, now),
            unused: Duration::ZERO,
            slowed: None,
            slowed_until: 0,
        }
    }

    /// Whether an event is available at `now`.
    pub(crate) fn has_one(mut self, rate: Rate, now: Tick) -> bool {
        self.take_one(rate, now).is_ok()
    }

    /// Grants the rate of a standstill of the node that ended at `now`, because the events of this time arrive together. The grant is valid
    /// for as long as the standstill was.
    pub(crate) fn give_back(&mut self, stood: Duration, now: Tick) {
        let left = if now < self.given_back.1 { self.given_back.0 } else { 0 };
        let stood_nanos = u64::try_from(stood.as_nanos()).unwrap_or(u64::MAX);
        self.given_back = (left.saturating_add(stood_nanos), now.after(stood).max(self.given_back.1));
    }

    fn take_one(&mut self, rate: Rate, now: Tick) -> Result<(), Duration> {
        let taken = self.bucket.take(rate, now);
        let (left, until) = self.given_back;
        if taken.is_err()
            && now < until
            && let Some(left) = left.checked_sub(rate.interval)
        {
            self.given_back.0 = left;
            return Ok(());
        }
        taken
    }

    /// Takes one event at `now`, or returns how long to wait. After `patience` the client has been slowed down for too long.
    pub(crate) fn take(&mut self, rate: Rate, patience: Duration, now: Tick) -> Result<(), Slowed> {
        if self.slowed.is_some() && self.bucket.has_rested(rate, now, REST) {
            self.slowed = None;
        }
        let unused = Duration::from_nanos(nanos(now).saturating_sub(self.bucket.paid));
        self.unused = self.unused.saturating_add(unused).min(patience.saturating_mul(REMEMBERED_PATIENCES));
        self.take_one(rate, now).map_err(|wait| self.slow(wait, patience, now))
    }

    fn slow(&mut self, wait: Duration, patience: Duration, now: Tick) -> Slowed {
        let stage = match self.slowed {
            None => SlowStage::Begins,
            Some(slowed) if slowed >= patience => SlowStage::TooLong,
            Some(_) => SlowStage::GoesOn,
        };
        let now = nanos(now);
        let until = now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        let more = Duration::from_nanos(until.saturating_sub(self.slowed_until.max(now)));
        self.slowed_until = self.slowed_until.max(until);
        let paid_by_rest = more.min(self.unused.saturating_mul(SECONDS_FOR_ONE_UNUSED));
        self.unused = self.unused.saturating_sub(paid_by_rest / SECONDS_FOR_ONE_UNUSED);
        self.slowed = Some(self.slowed.unwrap_or_default().saturating_add(more.saturating_sub(paid_by_rest)));
        Slowed { wait, more, stage }
    }
}

fn nanos(tick: Tick) -> u64 {
    tick.0.saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A client that sends this many events a second. The events of the pause arrive together after it. Returns for how many seconds the
    /// client was slowed down; the error is the second in which it was too long.
    fn run_client(per_second: u64, pause: std::ops::Range<u64>, stands_still: bool) -> Result<u64, u64> {
        let (rate, mut limiter) = (Rate::new(100, 500), RateLimiter::new(Tick(0)));
        let mut sent = 0;
        let mut taken = 0;
        let mut slowed = 0;
        for second in 0..10_000 {
            sent += per_second;
            if pause.contains(&second) {
                continue;
            }
            if second == pause.end && stands_still {
                limiter.give_back(Duration::from_secs(pause.end - pause.start), Tick(second * 1000));
            }
            let (end, mut now) = ((second + 1) * 1000, second * 1000);
            while taken < sent && now < end {
                match limiter.take(rate, PATIENCE, Tick(now)) {
                    Ok(()) => taken += 1,
                    Err(Slowed { stage: SlowStage::TooLong, .. }) => return Err(second),
                    Err(Slowed { wait, .. }) => now += u64::try_from(wait.as_millis()).unwrap().max(1),
                }
            }
            slowed += u64::from(taken < sent);
            if second > pause.end + 10 && taken == sent {
                return Ok(slowed);
            }
        }
        panic!("{sent} sent and {taken} taken")
    }

    #[test]
    fn events_that_piled_up_in_a_network_outage_are_slowed_and_their_sender_is_not_closed() {
        for (per_second, pause) in [(50, 20), (80, 20), (90, 20), (50, 62), (80, 62), (50, 180), (75, 180)] {
            let slowed = run_client(per_second, 5..5 + pause, false);
            let left = (per_second * pause).saturating_sub(500);
            let longest = left / (100 - per_second) + 5;
            assert!(slowed.is_ok_and(|slowed| slowed <= longest), "{per_second} a second, {pause} s: {slowed:?}");
        }
    }

    #[test]
    fn events_that_piled_up_in_a_standstill_of_the_node_are_not_slowed() {
        for (per_second, pause) in [(80, 20), (50, 62), (99, 62), (80, 3600)] {
            assert_eq!(run_client(per_second, 5..5 + pause, true), Ok(0), "{per_second} a second, {pause} s");
        }
    }

    #[test]
    fn a_client_above_its_rate_is_slowed_for_too_long_after_its_patience() {
        // The burst of five seconds is spent after 5 s.
        assert!(run_client(200, 0..0, false).is_err_and(|second| (33..=36).contains(&second)));
        // A client that was idle for an hour has one minute of unused rate, and ten minutes of patience for it.
        let over = run_client(1000, 1..3600, false);
        assert!(over.is_err_and(|second| (3600 + 630..3600 + 640).contains(&second)), "{over:?}");
    }

    #[test]
    fn time_for_which_many_events_wait_is_counted_once() {
        let (rate, mut limiter) = (Rate::new(10, 1), RateLimiter::new(Tick(0)));
        assert_eq!(limiter.take(rate, PATIENCE, Tick(0)), Ok(()));
        let wait = Duration::from_millis(100);
        let begins = Slowed { wait, more: wait, stage: SlowStage::Begins };
        assert_eq!(limiter.take(rate, PATIENCE, Tick(0)), Err(begins));
        for _ in 0..1000 {
            let goes_on = Slowed { more: Duration::ZERO, stage: SlowStage::GoesOn, ..begins };
            assert_eq!(limiter.take(rate, PATIENCE, Tick(0)), Err(goes_on));
        }
        assert_eq!(limiter.slowed, Some(wait));
    }

    #[test]
    fn the_grant_for_a_standstill_is_given_once_and_expires() {
        let (rate, mut limiter) = (Rate::new(10, 10), RateLimiter::new(Tick(0)));
        let taken = |limiter: &mut RateLimiter, now| {
            (0..10_000).take_while(|_| limiter.take(rate, PATIENCE, Tick(now)).is_ok()).count()
        };
        assert_eq!(taken(&mut limiter, 20_000), 10);
        limiter.give_back(Duration::from_secs(20), Tick(20_000));
        assert_eq!(taken(&mut limiter, 20_000), 200);
        assert_eq!(taken(&mut limiter, 21_000), 10);
        limiter.give_back(Duration::from_secs(20), Tick(21_000));
        assert_eq!(taken(&mut limiter, 41_000), 10, "the grant has expired");
    }

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
        assert_eq!(taken(&mut bucket, rate, 100_000), 20, "at most a burst is saved");
    }

    #[test]
    fn rate_zero_is_no_limit() {
        let (rate, mut bucket) = (Rate::new(0, 1), Bucket::default());
        assert_eq!(taken(&mut bucket, rate, 0), 10_000);
        assert!(bucket.has_rested(rate, Tick(0), Duration::from_secs(1)));
    }

    #[test]
    fn a_client_has_rested_when_a_second_of_its_rate_is_unused() {
        let (rate, mut bucket) = (Rate::new(5, 20), Bucket::default());
        let rest = Duration::from_secs(1);
        assert_eq!(taken(&mut bucket, rate, 0), 20);
        assert!(!bucket.has_rested(rate, Tick(1199), rest));
        assert!(bucket.has_rested(rate, Tick(1200), rest), "one event, and a second");
    }

    #[test]
    fn a_client_that_never_rests_is_slowed_for_too_long_even_at_one_event_a_second() {
        // One event was a second of the rate, so the client counted as rested after each event, and was warned again each time.
        for per_second in [1, 2, 3, 10] {
            let (rate, mut limiter) = (Rate::new(per_second, 5 * per_second), RateLimiter::new(Tick(0)));
            let (mut now, mut warned) = (0, 0);
            let closed = loop {
                match limiter.take(rate, PATIENCE, Tick(now)) {
                    Ok(()) => {}
                    Err(Slowed { stage: SlowStage::TooLong, .. }) => break now,
                    Err(Slowed { wait, stage, .. }) => {
                        warned += usize::from(stage == SlowStage::Begins);
                        now += u64::try_from(wait.as_millis()).unwrap().max(1);
                    }
                }
                assert!(now < 60_000, "{per_second} a second: never closed");
            };
            assert!((29_000..=32_000).contains(&closed), "{per_second} a second: {closed} ms");
            assert_eq!(warned, 1, "{per_second} a second");
        }
    }

    proptest! {
        #[test]
        fn in_any_period_there_are_at_most_a_burst_and_the_rate(
            per_second in 1_usize..2000,
            burst in 1_usize..100,
            waits in proptest::collection::vec(0_u64..300, 1..300),
        ) {
            let (rate, mut bucket) = (Rate::new(per_second, burst), Bucket::default());
            let (mut now, mut count) = (0, 0);
            for wait in waits {
                now += wait;
                count += taken(&mut bucket, rate, now);
                let most = burst as u64 + now * per_second as u64 / 1000 + 1;
                prop_assert!(count as u64 <= most, "{count} of {most} by {now} ms");
            }
        }
    }
}
