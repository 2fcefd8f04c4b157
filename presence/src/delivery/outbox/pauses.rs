//! Clients that pause: senders do not wait for them, as long as there is memory for what is queued meanwhile.
//!
//! A client pauses while its outbox is over its bound and its kernel has accepted nothing for [`PAUSE`]. Whether it will read again is not
//! known, so all would wait for it until it is cut off after [`PATIENCE`](super::PATIENCE). Instead its queue grows beyond its bound, out of
//! a reserve that all outboxes of the process share. When the client reads again, senders wait until its outbox is below its bound, and
//! only then it can pause again: a client that reads in bursts gets no more than the length of one pause. During the pause the client is
//! charged as if senders had waited.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::{clock::Tick, delivery::message::ToHub};

use super::{Outbox, OutboxPhase, OutboxState, queue::PIECE_COST};

/// A client whose kernel accepts nothing for so long pauses. A client at the default steady rate takes a piece of 8 KiB in each 31 ms.
const PAUSE: Duration = Duration::from_millis(40);
/// The time between two looks at the outboxes for which senders wait.
pub(crate) const PAUSE_INTERVAL: Duration = Duration::from_millis(10);

/// The bytes that the outboxes of a process may hold beyond their bounds.
#[derive(Debug)]
pub(crate) struct Reserve {
    left: AtomicUsize,
}

impl Reserve {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self { left: AtomicUsize::new(bytes) }
    }

    /// Takes so many bytes for an outbox that has taken `before`. Returns false, and takes none, if fewer are left than it would then have.
    /// So no outbox takes more than half, and each further one finds something.
    fn take(&self, bytes: usize, before: usize) -> bool {
        let taken = |left: usize| left.checked_sub(bytes).filter(|_| before + bytes <= left);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many bytes are left.
    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// What an outbox has taken from the reserve. The last pieces of its queue are on loan.
#[derive(Debug, Default)]
pub(super) struct Loan {
    pub(super) pieces: usize,
    /// With [`PIECE_COST`] for each piece.
    bytes: usize,
    /// The client has read again since. Nothing more is lent until the outbox is below its bound.
    is_over: bool,
}

impl Loan {
    /// The bytes of the frames alone.
    pub(super) const fn frame_bytes(&self) -> usize {
        self.bytes - self.pieces * PIECE_COST
    }

    const fn add(&mut self, pieces: usize, bytes: usize) {
        self.pieces += pieces;
        self.bytes += bytes;
    }
}

impl Outbox {
    /// Whether the client pauses and has not read since something was lent.
    fn is_pausing(state: &OutboxState, now: Tick) -> bool {
        // While the hub writes to the kernel directly, the kernel has refused nothing.
        !state.is_direct
            && !state.loan.is_over
            && state.attached.is_some_and(|attached| now.since(state.progress.max(attached)) >= PAUSE)
    }

    /// Whether the sender of a frame that takes so many bytes may go on although the outbox is over its bound, because the client pauses.
    pub(super) fn lends(&self, state: &mut OutboxState, bytes: usize, now: Tick) -> bool {
        let lends = Self::is_pausing(state, now) && self.filling.reserve.take(bytes, state.loan.bytes);
        if lends {
            state.loan.add(1, bytes);
        }
        lends
    }

    /// Gives back what is no longer queued, since the client has read, or the queue was dropped.
    pub(super) fn repay(&self, state: &mut OutboxState) {
        if state.loan.bytes == 0 {
            return;
        }
        let is_over = self.is_over(state);
        let pieces = if is_over { state.loan.pieces.min(state.queue.frames()) } else { 0 };
        let bytes = if is_over { state.loan.frame_bytes().min(state.queue.bytes()) + pieces * PIECE_COST } else { 0 };
        self.filling.reserve.give_back(state.loan.bytes - bytes);
        state.loan = Loan { pieces, bytes, is_over };
        if !is_over {
            state.queue.shrink();
        }
    }

    /// Has the hub look for the beginning of a pause, since a sender waits.
    pub(super) fn have_pause_noticed(&self, state: &mut OutboxState) {
        if state.is_awaited {
            return;
        }
        state.is_awaited = true;
        if let Some(itself) = self.itself.upgrade() {
            let mut awaited = self.filling.awaited.borrow_mut();
            if awaited.is_empty() {
                self.hub.addr.do_send(ToHub::WatchPauses);
            }
            awaited.push(itself);
        }
    }

    /// Lets senders go on if the client pauses. Returns whether some still wait.
    pub(crate) fn watch_pause(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        if state.phase == OutboxPhase::Open && Self::is_pausing(state, now) {
            let lent = state.loan.bytes;
            let take = |bytes, more| self.filling.reserve.take(bytes, lent + more);
            let (pieces, bytes) = state.senders.let_go(take);
            state.loan.add(pieces, bytes);
        }
        state.is_awaited = state.senders.any_waits();
        state.is_awaited
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.filling.reserve.give_back(self.state.get_mut().loan.bytes);
    }
}
