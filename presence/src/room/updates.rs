//! Updates of one socket that come faster than they may be written.
//!
//! An update is a commit of its own if its socket waits for it, so a client that sends nothing else would write to the disk many times
//! what it sends. So a socket has a rate; beyond it, updates wait, at most one for each presence: the last.

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
pub(super) type Update = (RoomName, PresenceId, Meta);

/// What one socket has left of its rate, and what waits.
#[derive(Debug, Default)]
pub(super) struct Updates {
    bucket: Bucket,
    waiting: VecDeque<Update>,
    /// Somebody writes what waits.
    is_written: bool,
}

/// What becomes of an update.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is to be written now.
    Now(Meta),
    /// It waits, and is written with the others.
    Waits,
    /// It waits, and nobody writes what waits yet.
    WaitsAlone,
}

/// What is to be done for those that wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Write(Update),
    In(Duration),
    /// None waits. Who asked is not the one any more who writes what waits.
    Nothing,
}

impl Updates {
    pub(super) fn offer(&mut self, update: Update, rate: Rate, now: Tick) -> Offered {
        // None overtakes one that waits: it may be of the same presence, and have been taken to be written just now.
        if self.waiting.is_empty() && !self.is_written && self.bucket.take(rate, now).is_ok() {
            return Offered::Now(update.2);
        }
        self.put(update);
        if std::mem::replace(&mut self.is_written, true) { Offered::Waits } else { Offered::WaitsAlone }
    }

    fn put(&mut self, update: Update) {
        match self.waiting.iter_mut().find(|(room, id, _)| (room, id) == (&update.0, &update.1)) {
            Some((.., meta)) => *meta = update.2,
            None => self.waiting.push_back(update),
        }
    }

    /// This one could not be written. It waits again, unless a later one of the same presence does.
    pub(super) fn put_back(&mut self, update: Update) {
        if !self.waiting.iter().any(|(room, id, _)| (room, id) == (&update.0, &update.1)) {
            self.waiting.push_front(update);
        }
    }

    pub(super) fn next(&mut self, rate: Rate, now: Tick) -> Next {
        let Some(update) = self.waiting.pop_front() else {
            self.is_written = false;
            return Next::Nothing;
        };
        match self.bucket.take(rate, now) {
            Ok(()) => Next::Write(update),
            Err(wait) => {
                self.waiting.push_front(update);
                Next::In(wait)
            }
        }
    }

    /// Takes all that wait.
    pub(super) fn take_all(&mut self) -> VecDeque<Update> {
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(room: &str, id: u128, n: usize) -> Update {
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
        assert_eq!(updates.next(rate, Tick(1000)), Next::In(Duration::from_millis(200)));
        assert_eq!(updates.next(rate, Tick(1200)), Next::Write(update("a", 7, 4)));
        assert_eq!(updates.offer(update("a", 7, 5), rate, Tick(1400)), Offered::Waits, "it overtakes nothing");
        assert_eq!(updates.next(rate, Tick(1400)), Next::Write(update("b", 7, 3)));
        assert_eq!(updates.next(rate, Tick(1600)), Next::Write(update("a", 7, 5)));
        assert_eq!(updates.next(rate, Tick(1600)), Next::Nothing);
        assert_eq!(updates.offer(update("a", 7, 6), rate, Tick(1800)), Offered::Now(update("a", 7, 6).2));
    }

    #[test]
    fn one_that_could_not_be_written_waits_again_unless_a_later_one_does() {
        let (rate, mut updates) = (Rate::new(0, 1), Updates::default());
        updates.put_back(update("a", 7, 1));
        updates.put_back(update("a", 7, 0));
        assert_eq!(updates.next(rate, Tick(0)), Next::Write(update("a", 7, 1)));
    }
}
