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
pub(super) struct PendingUpdates {
    bucket: Bucket,
    pending: VecDeque<PendingUpdate>,
    /// The update that is being written, if it was pending before.
    in_progress: Option<PendingUpdate>,
    /// Whether a task is writing the pending updates.
    has_task: bool,
}

/// What the caller has to do with a new update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// Write it now.
    WriteNow(Meta),
    /// Nothing: it is pending, and the task that writes pending updates will write it.
    Pending,
    /// Start a task that writes the pending updates: this is the first one.
    FirstPending,
}

/// What the task that writes pending updates has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextUpdate {
    Write(PendingUpdate),
    /// Wait for this long, since the rate allows no update before.
    After(Duration),
    /// End: no update is pending.
    None,
}

impl PendingUpdates {
    /// Takes a new update, and returns what the caller has to do with it.
    pub(super) fn offer(&mut self, update: PendingUpdate, rate: Rate, now: Tick) -> Offered {
        // A new update must not overtake a pending one: that may be of the same presence, and be in the middle of being written.
        if self.pending.is_empty() && !self.has_task && self.bucket.take(rate, now).is_ok() {
            return Offered::WriteNow(update.2);
        }
        self.put(update);
        if std::mem::replace(&mut self.has_task, true) { Offered::Pending } else { Offered::FirstPending }
    }

    fn pending_in(&mut self, room: &RoomName) -> Option<&mut PendingUpdate> {
        self.pending.iter_mut().find(|(pending, ..)| pending == room)
    }

    /// Makes an update pending. It replaces a pending update of the same room.
    pub(super) fn put(&mut self, update: PendingUpdate) {
        match self.pending_in(&update.0) {
            Some(pending) => *pending = update,
            None => self.pending.push_back(update),
        }
    }

    /// Makes the update that could not be written pending again, unless a later one of the same room is pending or it was taken.
    pub(super) fn put_back(&mut self) {
        if let Some(update) = self.in_progress.take()
            && self.pending_in(&update.0).is_none()
        {
            self.pending.push_front(update);
        }
    }

    /// Ends the update that was being written, with or without success. Returns false if it was taken meanwhile.
    pub(super) fn finish(&mut self) -> bool {
        self.in_progress.take().is_some()
    }

    /// The next pending update of a presence that `is_there`. Updates of other presences are dropped, and do not use up the rate. The
    /// update is in progress until [`finish`](Self::finish) or [`put_back`](Self::put_back) is called.
    pub(super) fn next(
        &mut self,
        rate: Rate,
        now: Tick,
        is_there: impl Fn(&RoomName, PresenceId) -> bool,
    ) -> NextUpdate {
        while let Some(update) = self.pending.pop_front() {
            if !is_there(&update.0, update.1) {
                continue;
            }
            return match self.bucket.take(rate, now) {
                Ok(()) => {
                    self.in_progress = Some(update.clone());
                    NextUpdate::Write(update)
                }
                Err(wait) => {
                    self.pending.push_front(update);
                    NextUpdate::After(wait)
                }
            };
        }
        self.has_task = false;
        NextUpdate::None
    }

    /// Takes the pending update of this presence, or else the one that is being written.
    pub(super) fn take(&mut self, room: &RoomName, id: PresenceId) -> Option<Meta> {
        let is_this = |(in_room, of, _): &PendingUpdate| (in_room, *of) == (room, id);
        let in_progress = self.in_progress.take_if(|update| is_this(update));
        let pending = self.pending.iter().position(is_this).and_then(|at| self.pending.remove(at));
        pending.or(in_progress).map(|(.., meta)| meta)
    }

    /// Takes all pending updates, and the one that is being written unless a later one of the same room is pending.
    pub(super) fn take_all(&mut self) -> VecDeque<PendingUpdate> {
        self.put_back();
        std::mem::take(&mut self.pending)
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
        let (rate, mut updates) = (Rate::new(5, 2), PendingUpdates::default());
        let mut offer = |room: &str, n| updates.offer(update(room, 7, n), rate, Tick(1000));
        assert!(matches!((offer("a", 0), offer("a", 1)), (Offered::WriteNow(_), Offered::WriteNow(_))));
        assert_eq!(
            (offer("a", 2), offer("b", 3), offer("a", 4)),
            (Offered::FirstPending, Offered::Pending, Offered::Pending)
        );
        assert_eq!(updates.next(rate, Tick(1000), is_there), NextUpdate::After(Duration::from_millis(200)));
        assert_eq!(updates.next(rate, Tick(1200), is_there), NextUpdate::Write(update("a", 7, 4)));
        assert_eq!(updates.offer(update("a", 7, 5), rate, Tick(1400)), Offered::Pending, "it overtakes nothing");
        assert_eq!(updates.next(rate, Tick(1400), is_there), NextUpdate::Write(update("b", 7, 3)));
        assert_eq!(updates.next(rate, Tick(1600), is_there), NextUpdate::Write(update("a", 7, 5)));
        assert_eq!(updates.next(rate, Tick(1600), is_there), NextUpdate::None);
        assert_eq!(updates.offer(update("a", 7, 6), rate, Tick(1800)), Offered::WriteNow(update("a", 7, 6).2));
    }

    #[test]
    fn an_update_that_could_not_be_written_is_pending_again_unless_a_later_one_is() {
        let rate = Rate::new(0, 1);
        for later in [false, true] {
            let mut updates = PendingUpdates::default();
            updates.put(update("a", 7, 0));
            assert_eq!(updates.next(rate, Tick(0), is_there), NextUpdate::Write(update("a", 7, 0)));
            if later {
                updates.put(update("a", 7, 1));
            }
            updates.put_back();
            assert_eq!(updates.next(rate, Tick(0), is_there), NextUpdate::Write(update("a", 7, usize::from(later))));
            assert!(updates.finish());
            assert_eq!(updates.next(rate, Tick(0), is_there), NextUpdate::None);
        }
    }

    /// A value in which this update is being written.
    fn in_progress(update: PendingUpdate) -> PendingUpdates {
        let mut updates = PendingUpdates::default();
        updates.put(update.clone());
        assert_eq!(updates.next(Rate::new(0, 1), Tick(0), is_there), NextUpdate::Write(update));
        updates
    }

    #[test]
    fn an_update_in_progress_is_taken_with_its_presence_and_not_put_back() {
        let (room, id, meta) = update("a", 7, 1);
        let mut updates = in_progress(update("a", 7, 1));
        assert_eq!(updates.take(&room, PresenceId::from_uuid(uuid::Uuid::from_u128(8))), None, "another presence");
        assert_eq!(updates.take(&room, id), Some(meta));
        updates.put_back();
        assert_eq!((updates.finish(), updates.take_all().len()), (false, 0));
        // If a later update is pending, that one is taken.
        let mut updates = in_progress(update("a", 7, 1));
        updates.put(update("a", 7, 2));
        assert_eq!(updates.take(&room, id), Some(update("a", 7, 2).2));
        assert_eq!((updates.finish(), updates.take_all().len()), (false, 0));
    }

    #[test]
    fn an_update_in_progress_is_taken_with_all_that_are_pending() {
        let mut updates = in_progress(update("a", 7, 1));
        updates.put(update("b", 7, 2));
        assert_eq!(updates.take_all(), [update("a", 7, 1), update("b", 7, 2)]);
        assert!(!updates.finish());
        let mut updates = in_progress(update("a", 7, 1));
        updates.put(update("a", 7, 2));
        assert_eq!(updates.take_all(), [update("a", 7, 2)]);
    }

    #[test]
    fn of_a_room_one_update_is_pending_and_updates_of_former_presences_do_not_use_up_the_rate() {
        let (rate, mut updates) = (Rate::new(1, 1), PendingUpdates::default());
        assert!(matches!(updates.offer(update("a", 0, 0), rate, Tick(0)), Offered::WriteNow(_)));
        for id in 1..1000 {
            updates.offer(update("a", id, 1), rate, Tick(0));
        }
        assert_eq!(updates.pending.len(), 1);
        updates.offer(update("b", 7, 2), rate, Tick(0));
        assert_eq!(
            updates.next(rate, Tick(1000), |room, _| room.as_str() == "b"),
            NextUpdate::Write(update("b", 7, 2))
        );
    }

    #[test]
    fn only_the_update_of_the_given_presence_is_taken() {
        let (rate, mut updates) = (Rate::new(1, 1), PendingUpdates::default());
        for (room, id) in [("a", 7), ("b", 7), ("c", 8)] {
            updates.offer(update(room, id, 0), rate, Tick(0));
        }
        let mut take = |room: &str, id| updates.take(&update(room, id, 0).0, update(room, id, 0).1).is_some();
        assert_eq!((take("b", 8), take("b", 7), take("b", 7), take("c", 8)), (false, true, false, true));
    }
}
