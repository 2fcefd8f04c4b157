//! How often something may happen: so many times a second, and a burst of them at once.
//!
//! The generic cell rate algorithm, a token bucket in one number: the moment at which all that happened is paid for. A crate such as
//! `governor` does the same with a clock, and sleeps, of its own; here time comes in as an argument, as everywhere in the model, so
//! that a test with a manual clock sees what runs in production, and a bucket is eight bytes of each socket.

use std::time::Duration;

use crate::clock::Tick;

const NANOS: u64 = 1_000_000_000;

/// Who has left so much of its rate unused was not slowed without a rest.
const REST: Duration = Duration::from_secs(1);
/// For each second of its rate that it had left unused, one may be slowed for so many seconds more. So who stays below ten elevenths
/// of its rate is not closed for what had piled up while its network was away, unless that took longer than is remembered.
const SECONDS_FOR_ONE_UNUSED: u32 = 10;
/// Of the rate that was left unused, so many times the patience are remembered.
const REMEMBERED: u32 = 2;

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

    /// Whether `rest` has gone by, in all, in which nothing was taken though it could have been: besides the one that who goes at
    /// just its rate takes as soon as it can.
    fn has_rested(self, rate: Rate, now: Tick, rest: Duration) -> bool {
        let left = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX).saturating_add(rate.interval);
        self.paid.saturating_add(left.min(rate.burst)) <= nanos(now).saturating_add(rate.burst)
    }
}

/// How one goes on that has a [`Rate`]: what it has left of it, and for how long it was slowed down.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bucket: Bucket,
    /// What may be taken besides until then, in nanoseconds of the rate.
    given_back: (u64, Tick),
    /// How much of its rate it left unused before it was slowed.
    unused: Duration,
    /// For how long it was slowed since its last rest, apart from what it had left unused for; `None` if it was not.
    slowed: Option<Duration>,
    /// Until when it is slowed by all that it was refused, in nanoseconds of the clock.
    slowed_until: u64,
}

/// One may not be taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slowed {
    /// How long until there is one.
    pub(crate) wait: Duration,
    /// By how much this one extends the time for which it is slowed: several may wait for the same one.
    pub(crate) more: Duration,
    pub(crate) turn: Turn,
}

/// How long that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It begins.
    Begins,
    GoesOn,
    /// It has gone on for longer than is borne with.
    TooLong,
}

impl Pace {
    pub(crate) fn new(now: Tick) -> Self {
        Self {
            bucket: Bucket { paid: nanos(now) },
            given_back: (0, now),
            unused: Duration::ZERO,
            slowed: None,
            slowed_until: 0,
        }
    }

    /// Whether there is one at `now`.
    pub(crate) fn has_one(mut self, rate: Rate, now: Tick) -> bool {
        self.take_one(rate, now).is_ok()
    }

    /// The node stood still for so long before `now`, and what came meanwhile comes together: it may be taken besides, until as much
    /// time has gone by once more.
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

    /// Takes one at `now`, or says how long to wait for it. One who was slowed for `patience` has been so for too long.
    pub(crate) fn take(&mut self, rate: Rate, patience: Duration, now: Tick) -> Result<(), Slowed> {
        if self.slowed.is_some() && self.bucket.has_rested(rate, now, REST) {
            self.slowed = None;
        }
        let unused = Duration::from_nanos(nanos(now).saturating_sub(self.bucket.paid));
        self.unused = self.unused.saturating_add(unused).min(patience.saturating_mul(REMEMBERED));
        self.take_one(rate, now).map_err(|wait| self.slow(wait, patience, now))
    }

    fn slow(&mut self, wait: Duration, patience: Duration, now: Tick) -> Slowed {
        let turn = match self.slowed {
            None => Turn::Begins,
            Some(slowed) if slowed >= patience => Turn::TooLong,
            Some(_) => Turn::GoesOn,
        };
        let now = nanos(now);
        let until = now.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
        let more = Duration::from_nanos(until.saturating_sub(self.slowed_until.max(now)));
        self.slowed_until = self.slowed_until.max(until);
        let paid_by_rest = more.min(self.unused.saturating_mul(SECONDS_FOR_ONE_UNUSED));
        self.unused = self.unused.saturating_sub(paid_by_rest / SECONDS_FOR_ONE_UNUSED);
        self.slowed = Some(self.slowed.unwrap_or_default().saturating_add(more.saturating_sub(paid_by_rest)));
        Slowed { wait, more, turn }
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

    /// A client that says so many a second from `from` on, but for a pause, after which all comes that it said meanwhile. Returns for
    /// how many seconds it was slowed until nothing waits any more; `Err` with when it was slowed for too long.
    fn says(per_second: u64, pause: std::ops::Range<u64>, stands_still: bool) -> Result<u64, u64> {
        let (rate, mut pace) = (Rate::new(100, 500), Pace::new(Tick(0)));
        let (mut said, mut taken, mut slowed) = (0, 0, 0);
        for second in 0..10_000 {
            said += per_second;
            if pause.contains(&second) {
                continue;
            }
            if second == pause.end && stands_still {
                pace.give_back(Duration::from_secs(pause.end - pause.start), Tick(second * 1000));
            }
            let (end, mut now) = ((second + 1) * 1000, second * 1000);
            while taken < said && now < end {
                match pace.take(rate, PATIENCE, Tick(now)) {
                    Ok(()) => taken += 1,
                    Err(Slowed { turn: Turn::TooLong, .. }) => return Err(second),
                    Err(Slowed { wait, .. }) => now += u64::try_from(wait.as_millis()).unwrap().max(1),
                }
            }
            slowed += u64::from(taken < said);
            if second > pause.end + 10 && taken == said {
                return Ok(slowed);
            }
        }
        panic!("{said} said and {taken} taken")
    }

    #[test]
    fn what_piled_up_in_a_pause_of_the_network_is_slowed_and_its_sender_is_not_closed() {
        for (per_second, pause) in [(50, 20), (80, 20), (90, 20), (50, 62), (80, 62), (50, 180), (75, 180)] {
            let slowed = says(per_second, 5..5 + pause, false);
            let left = (per_second * pause).saturating_sub(500);
            let longest = left / (100 - per_second) + 5;
            assert!(slowed.is_ok_and(|slowed| slowed <= longest), "{per_second} a second, {pause} s: {slowed:?}");
        }
    }

    #[test]
    fn what_piled_up_while_the_node_stood_still_is_not_even_slowed() {
        for (per_second, pause) in [(80, 20), (50, 62), (99, 62), (80, 3600)] {
            assert_eq!(says(per_second, 5..5 + pause, true), Ok(0), "{per_second} a second, {pause} s");
        }
    }

    #[test]
    fn one_who_says_more_than_its_rate_is_slowed_for_too_long_when_its_patience_is_over() {
        // Five seconds' worth at once are spent after 5 s.
        assert!(says(200, 0..0, false).is_err_and(|second| (33..=36).contains(&second)));
        // One who did nothing for an hour before has two minutes' worth of patience unused, and ten times as much for it.
        let over = says(1000, 1..3600, false);
        assert!(over.is_err_and(|second| (3600 + 630..3600 + 640).contains(&second)), "{over:?}");
    }

    #[test]
    fn the_time_for_which_many_wait_together_is_counted_once() {
        let (rate, mut pace) = (Rate::new(10, 1), Pace::new(Tick(0)));
        assert_eq!(pace.take(rate, PATIENCE, Tick(0)), Ok(()));
        let wait = Duration::from_millis(100);
        let begins = Slowed { wait, more: wait, turn: Turn::Begins };
        assert_eq!(pace.take(rate, PATIENCE, Tick(0)), Err(begins));
        for _ in 0..1000 {
            let goes_on = Slowed { more: Duration::ZERO, turn: Turn::GoesOn, ..begins };
            assert_eq!(pace.take(rate, PATIENCE, Tick(0)), Err(goes_on));
        }
        assert_eq!(pace.slowed, Some(wait));
    }

    #[test]
    fn what_is_given_back_for_a_standstill_is_given_once_and_not_kept() {
        let (rate, mut pace) = (Rate::new(10, 10), Pace::new(Tick(0)));
        let taken =
            |pace: &mut Pace, now| (0..10_000).take_while(|_| pace.take(rate, PATIENCE, Tick(now)).is_ok()).count();
        assert_eq!(taken(&mut pace, 20_000), 10);
        pace.give_back(Duration::from_secs(20), Tick(20_000));
        assert_eq!(taken(&mut pace, 20_000), 200);
        assert_eq!(taken(&mut pace, 21_000), 10);
        pace.give_back(Duration::from_secs(20), Tick(21_000));
        assert_eq!(taken(&mut pace, 41_000), 10, "what was not taken by then is gone");
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
        assert!(!bucket.has_rested(rate, Tick(1199), rest));
        assert!(bucket.has_rested(rate, Tick(1200), rest), "one every 200 ms, and a second");
    }

    #[test]
    fn one_who_never_rests_is_slowed_for_too_long_also_at_a_rate_of_one_a_second() {
        // One unit was a second of its rate: it counted as rested whenever it was given one, and was warned again each time.
        for per_second in [1, 2, 3, 10] {
            let (rate, mut pace, mut now, mut warned) =
                (Rate::new(per_second, 5 * per_second), Pace::new(Tick(0)), 0, 0);
            let closed = loop {
                match pace.take(rate, PATIENCE, Tick(now)) {
                    Ok(()) => {}
                    Err(Slowed { turn: Turn::TooLong, .. }) => break now,
                    Err(Slowed { wait, turn, .. }) => {
                        warned += usize::from(turn == Turn::Begins);
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
