//! How many presences a removal takes in one transaction, while nobody waits for it.
//!
//! In a larger one a page that holds many of them is written once, and there are fewer ends to wait for. But whoever joins
//! meanwhile waits for one, as far as it changes the same rooms, or all the database is one lock. So it is steered by time: twice
//! as many after a transaction that was quick, half as many after one that was not, and the least if somebody came to wait.

use std::time::Duration;

use crate::signal::QUEUE;

/// The least, and with how many a removal begins.
pub(crate) const LEAST: usize = 1024;
/// The most.
pub(crate) const MOST: usize = 8 * LEAST;
/// A transaction that took longer than this is followed by a smaller one. One is doubled only after less than half of it.
const LONG: Duration = Duration::from_millis(200);
/// One that changed more rooms than this is followed by the least: each room is an event, and takes a lock.
const MANY_ROOMS: usize = 128;
/// In how many rooms at most: half of the events that a subscriber's queue holds.
pub(crate) const MOST_ROOMS: usize = QUEUE / 2;

/// How many the next transaction takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl Pace {
    pub(crate) const fn size(self) -> usize {
        self.0
    }

    /// A transaction that was full took so long, and changed so many rooms.
    pub(crate) fn took(&mut self, time: Duration, rooms: usize) {
        if rooms > MANY_ROOMS {
            self.0 = LEAST;
        } else if time > LONG {
            self.0 = LEAST.max(self.0 / 2);
        } else if time < LONG / 2 {
            self.0 = MOST.min(self.0 * 2);
        }
    }

    /// Somebody waits, or the last transaction failed.
    pub(crate) fn slow_down(&mut self) {
        self.0 = LEAST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_transactions_are_quick_and_shrinks_when_they_are_not() {
        let mut pace = Pace::default();
        let mut sizes = |times: &[Duration]| {
            let size = |time: &Duration| {
                pace.took(*time, 10);
                pace.size() / LEAST
            };
            times.iter().map(size).collect::<Vec<_>>()
        };
        let (quick, steady, long) = (LONG / 4, LONG * 3 / 4, LONG * 2);
        assert_eq!(sizes(&[quick, quick, steady, quick, quick, quick]), [2, 4, 4, 8, 8, 8]);
        assert_eq!(sizes(&[long, steady, long, long, long, quick]), [4, 4, 2, 1, 1, 2]);
    }

    #[test]
    fn it_begins_anew_after_many_rooms_and_when_somebody_waits() {
        let mut pace = Pace::default();
        pace.took(Duration::ZERO, MANY_ROOMS);
        assert_eq!(pace.size(), 2 * LEAST);
        pace.took(Duration::ZERO, MANY_ROOMS + 1);
        assert_eq!(pace, Pace::default());
        pace.took(Duration::ZERO, 1);
        pace.slow_down();
        assert_eq!(pace, Pace::default());
    }
}
