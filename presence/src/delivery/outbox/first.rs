//! FirstFrameRate frames of rooms, and how fast a client reads them.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    clock::Tick,
    delivery::{message::ToConnection, wire::Rest},
    name::RoomName,
};

use super::Outbox;

/// The time over which the rate of a client is measured while it reads first frames. A client is not cut off for them before that.
const FIRST_FRAME_TIME: Duration = Duration::from_secs(5);

/// The measurement of a client that reads first frames.
pub(super) struct FirstFrameRate {
    /// The time from which `taken` counts.
    since: Tick,
    /// How many bytes the client took since then, of all frames.
    taken: usize,
    /// The rate in the last whole [`FIRST_FRAME_TIME`], in bytes a second.
    rate: Option<f64>,
}

impl FirstFrameRate {
    pub(super) const fn new(now: Tick) -> Self {
        Self { since: now, taken: 0, rate: None }
    }

    pub(super) const fn took(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// Updates the rate when enough time has passed. Before `attached` the client could take nothing.
    pub(super) fn look(&mut self, now: Tick, attached: Tick) {
        let had = now.since(self.since.max(attached));
        if had >= FIRST_FRAME_TIME {
            #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
            let taken = self.taken as f64;
            *self = Self { rate: Some(taken / had.as_secs_f64()), ..Self::new(now) };
        }
    }
}

impl Outbox {
    /// Adds the first frame of a room and its parts, which do not count against the bound. What is queued of an earlier first frame of the
    /// room is dropped: the client has left the room since, or receives the whole state again.
    pub(crate) fn push_first(&self, room: &RoomName, (shared, tail, rest): (Bytes, Option<Bytes>, Option<Rest>)) {
        self.enqueue(|state| {
            state.queue.push_first(room, shared, tail, rest);
            state.first.get_or_insert_with(|| FirstFrameRate::new(self.now()));
        });
    }

    /// Drops queued first frames, except the rest of a partly sent frame, since a client that is about to be closed does not need them.
    pub(crate) fn drop_first_frames(&self) {
        self.state.borrow_mut().queue.drop_first(None);
    }

    /// The rate of the client in the last whole [`FIRST_FRAME_TIME`], in bytes a second; `None` if no first frame of this room (or of any
    /// room, for `None`) is queued, or not for that long.
    pub(crate) fn first_frame_rate(&self, room: Option<&RoomName>) -> Option<f64> {
        let state = self.state.borrow();
        state.first.as_ref()?.rate.filter(|_| state.queue.holds_first_of(room))
    }

    /// Requests that the connection frees the memory of its first frames, since joins are refused because of them.
    pub(crate) fn make_room(&self) {
        self.notify_connection(ToConnection::MakeRoom);
    }
}
