//! When presences were last seen, as far as the database has still to hear of it.
//!
//! Touches are in no hurry: they are gathered for a while, so that they take few transactions. A later one takes the place of an
//! earlier one of the same presence.

use std::{collections::BTreeMap, mem, time::Duration};

use crate::{clock::Tick, name::PresenceId};

/// How many touches go into one transaction at most. As many take a database less time than as many joins, so no join waits
/// for them longer than for others.
const BATCH: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Touches {
    /// In the order of their ids, which is that in which they joined: those that are written together lie together in the database,
    /// and it changes fewer pages.
    seen: BTreeMap<PresenceId, Tick>,
    /// None are written before this.
    from: Tick,
    in_a_hurry: bool,
    /// The last transaction was one of touches, so it is the turn of the changes.
    had_their_turn: bool,
}

impl Touches {
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    pub(super) fn add(&mut self, id: PresenceId, seen: Tick) {
        self.seen.insert(id, seen);
    }

    /// The presence leaves.
    pub(super) fn forget(&mut self, id: PresenceId) {
        self.seen.remove(&id);
    }

    /// These were not written; later ones of some may have come since.
    pub(super) fn put_back(&mut self, touches: Vec<(PresenceId, Tick)>) {
        for (id, seen) in touches {
            self.seen.entry(id).or_insert(seen);
        }
    }

    /// From here on they are not gathered any more.
    pub(super) const fn hurry(&mut self) {
        self.in_a_hurry = true;
    }

    /// Those for the next transaction, if they are due and it is their turn; `alone` if nothing else waits. After the last of
    /// them more are gathered.
    pub(super) fn take_due(&mut self, now: Tick, gather: Duration, alone: bool) -> Option<Vec<(PresenceId, Tick)>> {
        let ripe = self.in_a_hurry || self.from <= now;
        let due = ripe && !self.seen.is_empty() && (alone || !self.had_their_turn);
        self.had_their_turn = due;
        if !due {
            return None;
        }
        let touches: Vec<_> = if self.seen.len() <= BATCH {
            mem::take(&mut self.seen).into_iter().collect()
        } else {
            (0..BATCH).map_while(|_| self.seen.pop_first()).collect()
        };
        if self.seen.is_empty() {
            self.from = now.after(gather);
        }
        Some(touches)
    }

    /// How long they are still gathered; `None` if there are none.
    pub(super) fn due_in(&self, now: Tick) -> Option<Duration> {
        let from = if self.in_a_hurry { now } else { self.from };
        (!self.seen.is_empty()).then(|| from.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_joined_together_are_written_together() {
        let (mut touches, now) = (Touches::default(), Tick::default());
        let mut ids: Vec<_> = (0..2_500).map(|_| PresenceId::random()).collect();
        ids.iter().rev().for_each(|id| touches.add(*id, now));
        ids.sort_unstable();
        for together in ids.chunks(BATCH) {
            let taken = touches.take_due(now, Duration::ZERO, true).expect("they are due");
            assert_eq!(taken.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), together);
        }
    }
}
