//! When presences were last seen, until the database knows it.
//!
//! Touches are gathered for a while, so that they need few transactions. A later touch replaces an earlier one of the same
//! presence.

use std::{collections::BTreeMap, mem, time::Duration};

use crate::{clock::Tick, name::PresenceId};

/// How many touches one transaction writes at most. A database writes as many touches faster than as many joins, so no join
/// waits longer for touches than for other joins.
const MAX_TOUCHES_PER_TRANSACTION: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Touches {
    /// Sorted by id, and so by the time of the join. Rows that are written together then lie together in the database, which
    /// changes fewer pages.
    seen: BTreeMap<PresenceId, Tick>,
    /// None are written before this time.
    due: Tick,
    /// Touches are no longer gathered.
    at_once: bool,
    /// The last transaction wrote touches, so that the next one writes changes if there are any.
    written_last: bool,
}

impl Touches {
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    pub(super) fn add(&mut self, id: PresenceId, seen: Tick) {
        self.seen.insert(id, seen);
    }

    /// Drops the touch of a presence that leaves.
    pub(super) fn forget(&mut self, id: PresenceId) {
        self.seen.remove(&id);
    }

    /// Puts touches back that were not written, except where a later one has arrived.
    pub(super) fn put_back(&mut self, touches: Vec<(PresenceId, Tick)>) {
        for (id, seen) in touches {
            self.seen.entry(id).or_insert(seen);
        }
    }

    pub(super) const fn stop_gathering(&mut self) {
        self.at_once = true;
    }

    /// The touches for the next transaction, if they are due. Touches and changes alternate, unless touches are `alone` in
    /// the queue. After the last due touch, gathering begins again.
    pub(super) fn take_due(&mut self, now: Tick, gather: Duration, alone: bool) -> Option<Vec<(PresenceId, Tick)>> {
        let is_time = self.at_once || self.due <= now;
        let take = is_time && !self.seen.is_empty() && (alone || !self.written_last);
        self.written_last = take;
        if !take {
            return None;
        }
        let touches: Vec<_> = if self.seen.len() <= MAX_TOUCHES_PER_TRANSACTION {
            mem::take(&mut self.seen).into_iter().collect()
        } else {
            (0..MAX_TOUCHES_PER_TRANSACTION).map_while(|_| self.seen.pop_first()).collect()
        };
        if self.seen.is_empty() {
            self.due = now.after(gather);
        }
        Some(touches)
    }

    /// How long touches are still gathered. `None` if there are none.
    pub(super) fn due_in(&self, now: Tick) -> Option<Duration> {
        let due = if self.at_once { now } else { self.due };
        (!self.seen.is_empty()).then(|| due.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presences_that_joined_together_are_written_together() {
        let now = Tick::default();
        let mut touches = Touches::default();
        let mut ids: Vec<_> = (0..2_500).map(|_| PresenceId::random()).collect();
        ids.iter().rev().for_each(|id| touches.add(*id, now));
        ids.sort_unstable();
        for together in ids.chunks(MAX_TOUCHES_PER_TRANSACTION) {
            let taken = touches.take_due(now, Duration::ZERO, true).expect("they are due");
            assert_eq!(taken.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), together);
        }
    }
}
