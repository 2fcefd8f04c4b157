//! How far a room in the database is known to have come, and since when: what is asked of the database later has come as far.
//!
//! If an answer to a later question says otherwise, the database has lost changes that it had confirmed: its server crashed
//! without having written them, another server with less took its place, or a backup was restored. Then versions are used a second
//! time, and what is known of the room counts no more.

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

#[derive(Debug, Default)]
pub(crate) struct Reached {
    at: Option<(Epoch, Version)>,
    /// Each batch of the writer with a higher number was begun after that was known.
    batch: u64,
    since: Tick,
}

impl Reached {
    /// The room is known to be at this position. `batch` is the number of the last batch that the writer has begun.
    pub(crate) fn note(&mut self, now: Tick, at: Option<(Epoch, Version)>, batch: impl FnOnce() -> u64) {
        if self.at != at {
            *self = Self { at, batch: batch(), since: now };
        }
    }

    /// Whether the database lost changes if a transaction of this batch led to this version, or found it if it changed nothing.
    pub(crate) fn refutes_commit(&self, batch: u64, (epoch, version): (Epoch, Version), is_new: bool) -> bool {
        let before = |at: Version| if is_new { version <= at } else { version < at };
        batch > self.batch && self.at.is_some_and(|(known, at)| known == epoch && before(at))
    }

    /// Whether the database lost changes if that is where it said the room stands, when it was asked at `asked`.
    pub(crate) fn refutes(&self, asked: Tick, (epoch, version): (Epoch, Version)) -> bool {
        asked > self.since && self.at.is_some_and(|(known, at)| known == epoch && version < at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::truth::epoch;

    fn at(life: u8, version: u64) -> (Epoch, Version) {
        (epoch(life), Version(version))
    }

    fn reached() -> Reached {
        let mut reached = Reached::default();
        reached.note(Tick(100), Some(at(1, 5)), || 7);
        reached
    }

    #[test]
    fn a_transaction_that_began_later_and_did_not_get_further_shows_that_changes_are_lost() {
        let reached = reached();
        assert!(reached.refutes_commit(8, at(1, 5), true), "that version is another's");
        assert!(reached.refutes_commit(8, at(1, 4), false));
        assert!(!reached.refutes_commit(8, at(1, 6), true));
        assert!(!reached.refutes_commit(8, at(1, 5), false), "it changed nothing");
        assert!(!reached.refutes_commit(7, at(1, 4), true), "its answer may only be late");
        assert!(!reached.refutes_commit(8, at(2, 1), true), "the room has begun another life");
    }

    #[test]
    fn a_position_that_was_asked_for_later_and_is_lower_shows_that_changes_are_lost() {
        let mut reached = reached();
        assert!(reached.refutes(Tick(101), at(1, 4)));
        assert!(!reached.refutes(Tick(100), at(1, 4)), "it may have been asked for before");
        assert!(!reached.refutes(Tick(101), at(1, 5)) && !reached.refutes(Tick(101), at(2, 1)));
        reached.note(Tick(200), Some(at(1, 5)), || 9);
        assert!(reached.refutes(Tick(101), at(1, 4)), "nothing new was noted");
    }
}
