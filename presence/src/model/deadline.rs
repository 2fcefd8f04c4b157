//! When a presence goes stale.

use std::time::Duration;

use crate::clock::Tick;

/// What the deadline of a presence says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// It was seen longer ago than it may be.
    Stale,
    /// It is fine for this long at least.
    Wait(Duration),
}

/// Judges one who was last seen at `seen`.
///
/// The limit is strict, as in django-channels-presence: one who was seen exactly `max_age` ago stays.
pub(crate) fn judge(now: Tick, seen: Tick, max_age: Duration) -> Deadline {
    let silent = now.since(seen);
    if silent > max_age {
        Deadline::Stale
    } else {
        // One tick more than what is left, since at the very end it still stays.
        Deadline::Wait(max_age - silent + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presence_seen_exactly_max_age_ago_stays() {
        let max_age = Duration::from_secs(60);
        assert_eq!(judge(Tick(60_000), Tick(0), max_age), Deadline::Wait(Duration::from_millis(1)));
        assert_eq!(judge(Tick(60_001), Tick(0), max_age), Deadline::Stale);
    }

    #[test]
    fn age_zero_spares_only_who_is_seen_in_this_very_moment() {
        assert_eq!(judge(Tick(5), Tick(4), Duration::ZERO), Deadline::Stale);
        assert_eq!(judge(Tick(5), Tick(5), Duration::ZERO), Deadline::Wait(Duration::from_millis(1)));
    }

    #[test]
    fn a_touch_from_the_future_is_not_stale() {
        assert_eq!(judge(Tick(5), Tick(9), Duration::ZERO), Deadline::Wait(Duration::from_millis(1)));
    }
}
