//! How many presences a removal takes in one transaction while no caller waits for it.
//!
//! Large transactions are cheaper: a page with many of the presences is written once, and there are fewer commits. But a join
//! waits for such a transaction if it changes the same room, or if the whole database has one lock. So the size follows the
//! time that transactions take: it doubles after a quick one, halves after a slow one, and begins anew when a caller waits.

use std::time::Duration;

use crate::signal::Subscription;

/// The smallest size, and the one that a removal begins with.
pub(crate) const MIN_REMOVALS: usize = 1024;
pub(crate) const MAX_REMOVALS: usize = 8 * MIN_REMOVALS;
/// A transaction that took longer is followed by a smaller one. The size doubles only after less than half of it.
const SLOW: Duration = Duration::from_millis(200);
/// A transaction that changed more rooms is followed by one of the smallest size: each room is an event, and needs a lock.
const MANY_ROOMS: usize = 128;
/// How many rooms one transaction changes at most: half of the events that a subscription queues.
pub(crate) const MAX_ROOMS_PER_REMOVAL: usize = Subscription::CAPACITY / 2;

/// How many presences the next transaction removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemovalPace(usize);

impl Default for RemovalPace {
    fn default() -> Self {
        Self(MIN_REMOVALS)
    }
}

impl RemovalPace {
    pub(crate) const fn size(self) -> usize {
        self.0
    }

    /// A full transaction took `time` and changed `rooms` rooms.
    pub(crate) fn took(&mut self, time: Duration, rooms: usize) {
        if rooms > MANY_ROOMS {
            self.0 = MIN_REMOVALS;
        } else if time > SLOW {
            self.0 = MIN_REMOVALS.max(self.0 / 2);
        } else if time < SLOW / 2 {
            self.0 = MAX_REMOVALS.min(self.0 * 2);
        }
    }

    /// A caller waits, or the last transaction failed.
    pub(crate) fn slow_down(&mut self) {
        self.0 = MIN_REMOVALS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_grows_while_transactions_are_quick_and_shrinks_when_they_are_slow() {
        let mut pace = RemovalPace::default();
        let mut sizes = |times: &[Duration]| {
            let size = |time: &Duration| {
                pace.took(*time, 10);
                pace.size() / MIN_REMOVALS
            };
            times.iter().map(size).collect::<Vec<_>>()
        };
        let (quick, steady, slow) = (SLOW / 4, SLOW * 3 / 4, SLOW * 2);
        assert_eq!(sizes(&[quick, quick, steady, quick, quick, quick]), [2, 4, 4, 8, 8, 8]);
        assert_eq!(sizes(&[slow, steady, slow, slow, slow, quick]), [4, 4, 2, 1, 1, 2]);
    }

    #[test]
    fn the_size_begins_anew_after_many_rooms_and_when_a_caller_waits() {
        let mut pace = RemovalPace::default();
        pace.took(Duration::ZERO, MANY_ROOMS);
        assert_eq!(pace.size(), 2 * MIN_REMOVALS);
        pace.took(Duration::ZERO, MANY_ROOMS + 1);
        assert_eq!(pace, RemovalPace::default());
        pace.took(Duration::ZERO, 1);
        pace.slow_down();
        assert_eq!(pace, RemovalPace::default());
    }
}
