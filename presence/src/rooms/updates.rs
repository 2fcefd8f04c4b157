//! The pending updates of one socket that sends updates faster than its rate.
//!
//! An update is a commit of its own if its socket waits for it, so a client that sends only updates would make the database write many
//! times what it sends. Therefore a socket has a rate. Updates beyond the rate are pending, and for each room only the last one is kept.
//! A socket has one presence in a room at a time, and the pending update of a presence that has left is dropped.
//!
//! An update can also be taken while it is being written. If a newer socket resumes the presence at that moment, the room may refuse the
//! update, since it is one of the former socket, and no other task would try it again.

use std::{collections::VecDeque, time::Duration};

use crate::{
    clock::Tick,
    model::{
        Meta,
        rate::{Bucket, Rate},
    },
    name::{PresenceId, RoomName},
};

/// A presence in a room, and its new meta.
pub(super) type PendingUpdate = (RoomName, PresenceId, Meta);

/// What one socket has left of its rate, and its pending updates.
#[derive(Debug, Default)]
pub(super) struct Updates {
    bucket: Bucket,
    waiting: VecDeque<PendingUpdate>,
    /// The update that is being written, if it was pending before.
    under_way: Option<PendingUpdate>,
    /// Whether a task is writing the pending updates.
    is_written: bool,
}

/// What the caller has to do with a new update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// Write it now.
    Now(Meta),
    /// Nothing: it is pending, and the task that writes pending updates will write it.
    Waits,
    /// Start a task that writes the pending updates: this is the first one.
    WaitsAlone,
}

/// What the task that writes pending updates has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Write(PendingUpdate),
    In(Duration),
    /// End: no update is pending.
    Nothing,
}

impl Updates {
    pub(super) fn offer(&mut self, update: PendingUpdate, rate: Rate, now: Tick) -> Offered {
        // A new update must not overtake a pending one: that may be of the same presence, and be in the middle of being written.
        if self.waiting.is_empty() && !self.is_written && self.bucket.take(rate, now).is_ok() {
            return Offered::Now(update.2);
        }
        self.put(update);
        if std::mem::replace(&mut self.is_written, true) { Offered::Waits } else { Offered::WaitsAlone }
    }

    fn of(&mut self, room: &RoomName) -> Option<&mut PendingUpdate> {
        self.waiting.iter_mut().find(|(waits, ..)| waits == room)
    }

    pub(super) fn put(&mut self, update: PendingUpdate) {
        match self.of(&update.0) {
            Some(waits) => *waits = update,
            None => self.waiting.push_back(update),
        }
    }

    /// Makes the update that could not be written pending again, unless a later one of the same room is pending or it was taken.
    pub(super) fn put_back(&mut self) {
        if let Some(update) = self.under_way.take()
            && self.of(&update.0).is_none()
        {
            self.waiting.push_front(update);
        }
    }

    /// Ends the update that was being written, with or without success. Returns false if it was taken meanwhile.
    pub(super) fn done(&mut self) -> bool {
        self.under_way.take().is_some()
    }

    /// The next pending update of a presence that `is_there`. Updates of other presences are dropped, and do not use up the rate. The
    /// update is under way until [`done`](Self::done) or [`put_back`](Self::put_back) is called.
    pub(super) fn next(&mut self, rate: Rate, now: Tick, is_there: impl Fn(&RoomName, PresenceId) -> bool) -> Next {
        while let Some(update) = self.waiting.pop_front() {
            if !is_there(&update.0, update.1) {
                continue;
            }
            return match self.bucket.take(rate, now) {
                Ok(()) => {
                    self.under_way = Some(update.clone());
                    Next::Write(update)
                }
                Err(wait) => {
                    self.waiting.push_front(update);
                    Next::In(wait)
                }
            };
        }
        self.is_written = false;
        Next::Nothing
    }

    /// Takes the pending update of this presence, or else the one that is being written.
    pub(super) fn take(&mut self, room: &RoomName, id: PresenceId) -> Option<Meta> {
        let is_this = |(waits, of, _): &PendingUpdate| (waits, *of) == (room, id);
        let under_way = self.under_way.take_if(|update| is_this(update));
        let waits = self.waiting.iter().position(is_this).and_then(|at| self.waiting.remove(at));
        waits.or(under_way).map(|(.., meta)| meta)
    }

    /// Takes all pending updates, and the one that is being written unless a later one of the same room is pending.
    pub(super) fn take_all(&mut self) -> VecDeque<PendingUpdate> {
        self.put_back();
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(_: &RoomName, _: PresenceId) -> bool {
        true
    }

    fn update(room: &str, id: u128, n: usize) -> PendingUpdate {
        let meta = Meta::from_json(&format!(r#"{{"n":{n}}}"#)).unwrap();
        (RoomName::new(room).unwrap(), PresenceId::from_uuid(uuid::Uuid::from_u128(id)), meta)
    }

    #[test]
    fn updates_beyond_the_rate_merge_to_the_last_of_each_presence_in_their_order() {
        let (rate, mut updates) = (Rate::new(5, 2), Updates::default());
        let mut offer = |room: &str, n| updates.offer(update(room, 7, n), rate, Tick(1000));
        assert!(matches!((offer("a", 0), offer("a", 1)), (Offered::Now(_), Offered::Now(_))));
        assert_eq!(
            (offer("a", 2), offer("b", 3), offer("a", 4)),
            (Offered::WaitsAlone, Offered::Waits, Offered::Waits)
        );
        assert_eq!(updates.next(rate, Tick(1000), is_there), Next::In(Duration::from_millis(200)));
        assert_eq!(updates.next(rate, Tick(1200), is_there), Next::Write(update("a", 7, 4)));
        assert_eq!(updates.offer(update("a", 7, 5), rate, Tick(1400)), Offered::Waits, "it overtakes nothing");
        assert_eq!(updates.next(rate, Tick(1400), is_there), Next::Write(update("b", 7, 3)));
        assert_eq!(updates.next(rate, Tick(1600), is_there), Next::Write(update("a", 7, 5)));
        assert_eq!(updates.next(rate, Tick(1600), is_there), Next::Nothing);
        assert_eq!(updates.offer(update("a", 7, 6), rate, Tick(1800)), Offered::Now(update("a", 7, 6).2));
    }

    #[test]
    fn one_that_could_not_be_written_waits_again_unless_a_later_one_does() {
        let rate = Rate::new(0, 1);
        for later in [false, true] {
            let mut updates = Updates::default();
            updates.put(update("a", 7, 0));
            assert_eq!(updates.next(rate, Tick(0), is_there), Next::Write(update("a", 7, 0)));
            if later {
                updates.put(update("a", 7, 1));
            }
            updates.put_back();
            assert_eq!(updates.next(rate, Tick(0), is_there), Next::Write(update("a", 7, usize::from(later))));
            assert!(updates.done());
            assert_eq!(updates.next(rate, Tick(0), is_there), Next::Nothing);
        }
    }

    /// A value in which this update is being written.
    fn under_way(update: PendingUpdate) -> Updates {
        let mut updates = Updates::default();
        updates.put(update.clone());
        assert_eq!(updates.next(Rate::new(0, 1), Tick(0), is_there), Next::Write(update));
        updates
    }

    #[test]
    fn one_that_is_under_way_when_its_presence_is_taken_over_is_taken_too_and_not_put_back() {
        let (room, id, meta) = update("a", 7, 1);
        let mut updates = under_way(update("a", 7, 1));
        assert_eq!(updates.take(&room, PresenceId::from_uuid(uuid::Uuid::from_u128(8))), None, "another presence");
        assert_eq!(updates.take(&room, id), Some(meta));
        updates.put_back();
        assert_eq!((updates.done(), updates.take_all().len()), (false, 0));
        // If a later one waits, that is what counts.
        let mut updates = under_way(update("a", 7, 1));
        updates.put(update("a", 7, 2));
        assert_eq!(updates.take(&room, id), Some(update("a", 7, 2).2));
        assert_eq!((updates.done(), updates.take_all().len()), (false, 0));
    }

    #[test]
    fn one_that_is_under_way_when_its_socket_is_lost_is_taken_with_those_that_wait() {
        let mut updates = under_way(update("a", 7, 1));
        updates.put(update("b", 7, 2));
        assert_eq!(updates.take_all(), [update("a", 7, 1), update("b", 7, 2)]);
        assert!(!updates.done());
        let mut updates = under_way(update("a", 7, 1));
        updates.put(update("a", 7, 2));
        assert_eq!(updates.take_all(), [update("a", 7, 2)]);
    }

    #[test]
    fn one_who_leaves_and_joins_again_has_one_update_that_waits_and_what_is_stale_costs_nothing() {
        let (rate, mut updates) = (Rate::new(1, 1), Updates::default());
        assert!(matches!(updates.offer(update("a", 0, 0), rate, Tick(0)), Offered::Now(_)));
        for id in 1..1000 {
            updates.offer(update("a", id, 1), rate, Tick(0));
        }
        assert_eq!(updates.waiting.len(), 1);
        updates.offer(update("b", 7, 2), rate, Tick(0));
        assert_eq!(updates.next(rate, Tick(1000), |room, _| room.as_str() == "b"), Next::Write(update("b", 7, 2)));
    }

    #[test]
    fn what_waits_of_one_presence_is_taken_and_not_that_of_a_later_one() {
        let (rate, mut updates) = (Rate::new(1, 1), Updates::default());
        for (room, id) in [("a", 7), ("b", 7), ("c", 8)] {
            updates.offer(update(room, id, 0), rate, Tick(0));
        }
        let mut take = |room: &str, id| updates.take(&update(room, id, 0).0, update(room, id, 0).1).is_some();
        assert_eq!((take("b", 8), take("b", 7), take("b", 7), take("c", 8)), (false, true, false, true));
    }
}
