//! The highest position of a room that the database has confirmed, and when.
//!
//! If a later query returns a lower position, the database has lost changes that it had confirmed: its server crashed before it wrote
//! them, it was replaced by a server with fewer changes, or a backup was restored. Then versions are used a second time, and what this
//! node knows of the room is no longer valid.

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

#[derive(Debug, Default)]
pub(crate) struct HighWaterMark {
    at: Option<(Epoch, Version)>,
    /// Batches of the writer with a higher number began after this position was known.
    batch: u64,
    since: Tick,
}

impl HighWaterMark {
    /// Records that the room is at this position. `batch` returns the number of the writer's latest batch.
    pub(crate) fn note(&mut self, now: Tick, at: Option<(Epoch, Version)>, batch: impl FnOnce() -> u64) {
        if self.at != at {
            *self = Self { at, batch: batch(), since: now };
        }
    }

    /// Whether the database has lost changes, given that a transaction of this batch led to this version. If the transaction changed
    /// nothing, it found this version.
    pub(crate) fn contradicts_commit(&self, batch: u64, (epoch, version): (Epoch, Version), is_new: bool) -> bool {
        let before = |at: Version| if is_new { version <= at } else { version < at };
        batch > self.batch && self.at.is_some_and(|(known, at)| known == epoch && before(at))
    }

    /// Whether the database has lost changes, given that a query that was sent at `sent` returned this position.
    pub(crate) fn contradicts(&self, sent: Tick, (epoch, version): (Epoch, Version)) -> bool {
        sent > self.since && self.at.is_some_and(|(known, at)| known == epoch && version < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::truth::epoch;

    fn at(n: u8, version: u64) -> (Epoch, Version) {
        (epoch(n), Version(version))
    }

    fn mark() -> HighWaterMark {
        let mut mark = HighWaterMark::default();
        mark.note(Tick(100), Some(at(1, 5)), || 7);
        mark
    }

    #[test]
    fn a_later_transaction_without_a_higher_version_shows_that_changes_are_lost() {
        let mark = mark();
        assert!(mark.contradicts_commit(8, at(1, 5), true), "that version was used before");
        assert!(mark.contradicts_commit(8, at(1, 4), false));
        assert!(!mark.contradicts_commit(8, at(1, 6), true));
        assert!(!mark.contradicts_commit(8, at(1, 5), false), "it changed nothing");
        assert!(!mark.contradicts_commit(7, at(1, 4), true), "its answer may just be late");
        assert!(!mark.contradicts_commit(8, at(2, 1), true), "the room has a new epoch");
    }

    #[test]
    fn a_lower_position_in_a_later_query_shows_that_changes_are_lost() {
        let mut mark = mark();
        assert!(mark.contradicts(Tick(101), at(1, 4)));
        assert!(!mark.contradicts(Tick(100), at(1, 4)), "the query may have been sent before");
        assert!(!mark.contradicts(Tick(101), at(1, 5)) && !mark.contradicts(Tick(101), at(2, 1)));
        mark.note(Tick(200), Some(at(1, 5)), || 9);
        assert!(mark.contradicts(Tick(101), at(1, 4)), "nothing new was noted");
    }
}
