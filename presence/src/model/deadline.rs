//! When a presence goes stale.

use std::time::Duration;

use crate::clock::Tick;

/// Whether a presence is stale at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// The presence was last seen longer than `max_age` ago.
    Stale,
    /// The presence is not stale for this long at least.
    Wait(Duration),
}

/// Judges a presence that was last seen at `seen`.
///
/// The limit is strict, as in django-channels-presence: a presence that was seen exactly `max_age` ago stays.
pub(crate) fn judge(now: Tick, seen: Tick, max_age: Duration) -> Deadline {
    let silent = now.since(seen);
    if silent > max_age {
        Deadline::Stale
    } else {
        // One tick more than the rest, since the presence is not stale yet at exactly `max_age`.
        Deadline::Wait((max_age - silent).saturating_add(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The presences that stay when a room prunes.
    fn prune(seen: &[u64], now: u64, max_age: u64) -> Vec<u64> {
        let max_age = Duration::from_millis(max_age);
        seen.iter().copied().filter(|seen| judge(Tick(now), Tick(*seen), max_age) != Deadline::Stale).collect()
    }

    proptest! {
        #[test]
        fn pruning_is_strict_and_pruning_again_changes_nothing(
            seen in prop::collection::vec(0..50u64, 0..20), now in 0..60u64, max_age in 0..30u64,
        ) {
            let stay = prune(&seen, now, max_age);
            let not_older: Vec<u64> = seen.iter().copied().filter(|seen| now <= seen + max_age).collect();
            prop_assert_eq!(&stay, &not_older);
            prop_assert_eq!(prune(&stay, now, max_age), stay);
        }

        #[test]
        fn a_silent_presence_is_stale_after_the_wait_and_not_a_tick_before(
            seen in 0..50u64, silent in 0..30u64, max_age in 0..30u64,
        ) {
            let (seen, now) = (Tick(seen), Tick(seen + silent));
            let max_age = Duration::from_millis(max_age);
            if let Deadline::Wait(wait) = judge(now, seen, max_age) {
                prop_assert_eq!(judge(now.after(wait), seen, max_age), Deadline::Stale);
                let before = now.after(wait - Duration::from_millis(1));
                prop_assert_eq!(judge(before, seen, max_age), Deadline::Wait(Duration::from_millis(1)));
            }
        }
    }

    #[test]
    fn the_longest_age_does_not_overflow() {
        // The sum of the longest age and one tick overflowed, and panicked.
        assert_eq!(judge(Tick(5), Tick(5), Duration::MAX), Deadline::Wait(Duration::MAX));
    }
}
