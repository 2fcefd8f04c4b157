//! First frames of rooms, and how fast a client takes them.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    clock::Tick,
    delivery::{message::ToConnection, wire::Rest},
    name::RoomName,
};

use super::Outbox;

/// For how long the rate is measured at which a client takes first frames. Before it has had them for so long, it need not make room.
const FIRST_FRAME_TIME: Duration = Duration::from_secs(5);

/// First frames that a client takes.
pub(super) struct First {
    /// Since when `taken` counts.
    since: Tick,
    /// How many bytes of whatever it took since.
    taken: usize,
    /// How many bytes a second it took in the last whole [`FIRST_FRAME_TIME`].
    rate: Option<f64>,
}

impl First {
    pub(super) const fn new(now: Tick) -> Self {
        Self { since: now, taken: 0, rate: None }
    }

    pub(super) const fn took(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// Time has passed. Before `attached` nothing could be taken.
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
    /// Adds the first frame of a room and what continues it, which do not count against the bound. What waits of an earlier one of the
    /// room is dropped: the client has left the room since, or is sent all anew.
    pub(crate) fn push_first(&self, room: &RoomName, (shared, tail, rest): (Bytes, Option<Bytes>, Option<Rest>)) {
        self.enqueue(|state, now| {
            state.queue.push_first(room, shared, tail, rest);
            state.first.get_or_insert(First::new(now));
        });
    }

    /// Drops what waits of first frames, but for a frame that is half sent: a client that is about to be closed needs no more of them.
    pub(crate) fn drop_first_frames(&self) {
        self.state.borrow_mut().queue.drop_first(None);
    }

    /// How many bytes a second the client took in the last whole [`FIRST_FRAME_TIME`] in which it had the first frame of this room, or of
    /// any, of which it has not taken all; `None` if there is none, or it has not had it for so long.
    pub(crate) fn first_frame_rate(&self, room: Option<&RoomName>) -> Option<f64> {
        let state = self.state.borrow();
        state.first.as_ref()?.rate.filter(|_| state.queue.holds_first_of(room))
    }

    /// Has the connection let go of the first frames that it holds, since others are kept out by them.
    pub(crate) fn make_room(&self) {
        self.tell(ToConnection::MakeRoom);
    }
}
