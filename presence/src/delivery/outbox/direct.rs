//! Writing to the kernel without the HTTP server.
//!
//! The hub writes to the kernel: all frames that wait for a client, in one call, and without a copy. While the HTTP server has the connection,
//! the hub writes when the server has nothing left of it, and what the kernel does not accept at once is left to the response. When the
//! connection was taken over (`age.rs`), it is left to the task of the socket, which waits until the kernel accepts more.

use std::{
    io::IoSlice,
    rc::Rc,
    task::{Context, Poll, ready},
};

use crate::{
    clock::Tick,
    delivery::message::{ToConnection, ToHub},
};

use super::{Outbox, OutboxPhase, OutboxState, queue::PIECE};

/// The most pieces that are written in one call.
const MOST_SLICES: usize = 32;
/// The most bytes that the hub writes in one call, unless the first piece is larger.
const MOST_BYTES: usize = 64 * 1024;

/// The TCP socket of a client.
pub(crate) trait KernelSocket {
    /// Whether the kernel accepts bytes. True if the server has no handle on the TCP socket.
    fn is_writable(&self) -> bool;

    /// Whether the connection will be taken over from the HTTP server. Then the response must have a length that it will not reach.
    fn announce_take_over(&self) -> bool;

    /// Takes the connection over from the HTTP server, which polls the response now. `has_read`: since the last poll the server has read what
    /// had arrived.
    fn take_over(&self, has_read: bool) -> TakeOver;

    /// Whether [`write`](Self::write) is allowed: there is a handle on the TCP socket, and the HTTP server, if it has the connection, has
    /// nothing left to write when it polls a response.
    fn can_write(&self) -> bool;

    /// Writes, and returns how many bytes the kernel accepted. After an error this is 0.
    fn write(&self, slices: &[IoSlice<'_>]) -> usize;

    /// Writes as soon as the kernel accepts bytes, and returns how many; `None` if the connection is lost.
    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Option<usize>>;
}

/// Whether a connection was taken over from the HTTP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakeOver {
    /// The response must end, and its end closes nothing.
    Done,
    /// The response goes on, and must be polled again soon.
    Soon,
    /// The response goes on. This can be tried again after a while.
    Later,
    /// The response goes on to its end.
    Never,
}

/// Writes what the hub leaves. It ends with the connection, or with the response of one that was not taken over.
pub(crate) struct Writing(pub(crate) Rc<Outbox>);

impl Future for Writing {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_writing(cx)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let state = &mut *self.0.state.borrow_mut();
        if state.is_taken_over && !std::mem::replace(&mut state.gone, true) {
            self.0.notify_connection(ToConnection::BodyGone);
        }
    }
}

impl Outbox {
    /// Has the queue written: by the hub after all messages that have arrived for it, or by the server.
    pub(super) fn have_written(&self, state: &mut OutboxState) {
        if !state.is_direct || state.phase != OutboxPhase::Open {
            return state.wake();
        }
        if !state.is_unwritten
            && let Some(itself) = self.itself.upgrade()
        {
            state.is_unwritten = true;
            self.filling.unwritten.borrow_mut().push_back(itself);
            if !self.filling.is_writing.replace(true) {
                self.hub.addr.do_send(ToHub::Write);
            }
        }
    }

    /// Writes what is queued to the kernel. Returns how many bytes it accepted.
    pub(crate) fn write(&self, now: Tick) -> usize {
        let state = &mut *self.state.borrow_mut();
        state.is_unwritten = false;
        let is_direct = state.is_direct && state.phase == OutboxPhase::Open && !state.gone;
        if !is_direct {
            state.wake();
            return 0;
        }
        self.write_at_once(state, now)
    }

    /// Lets the hub write from here on, because the connection was taken over. What waits is written at once: the kernel accepts it, but the
    /// runtime learns of that only when it has asked the kernel next.
    pub(super) fn begin_direct(&self, state: &mut OutboxState, now: Tick) {
        state.is_taken_over = true;
        state.waker = None;
        state.is_direct = true;
        self.write_at_once(state, now);
        // It reads from the kernel from here on.
        state.wake_task();
    }

    fn write_at_once(&self, state: &mut OutboxState, now: Tick) -> usize {
        let Some(owner) = self.owner.get() else { return 0 };
        let was_marked = state.queue.holds_marked();
        let mut slices = [IoSlice::new(&[]); MOST_SLICES];
        let (count, bytes) = state.queue.gather(&mut slices, usize::MAX, MOST_BYTES);
        if count == 0 {
            return 0;
        }
        let written = owner.kernel.write(&slices[..count]).min(bytes);
        if written > 0 {
            state.queue.advance(written);
            self.took(state, written, was_marked, now);
        }
        if written < bytes {
            state.is_direct = false;
            state.wake();
        } else if !state.queue.is_empty() {
            // The others are next.
            self.have_written(state);
        }
        written
    }

    fn poll_writing(&self, cx: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state.borrow_mut();
        let Some(owner) = self.owner.get().filter(|_| !state.gone) else { return Poll::Ready(()) };
        if state.waker_of_task.is_none() {
            state.waker_of_task = Some(cx.waker().clone());
        }
        // The hub writes until the kernel does not accept all.
        let is_idle = !state.is_taken_over || state.is_direct && state.phase == OutboxPhase::Open;
        if is_idle {
            return Poll::Pending;
        }
        state.is_direct = false;
        while state.phase != OutboxPhase::Broken {
            if state.queue.is_empty() {
                return self.all_is_written(state);
            }
            let was_marked = state.queue.holds_marked();
            let mut slices = [IoSlice::new(&[]); MOST_SLICES];
            // In steps of one piece, because progress is counted in such steps.
            let (count, bytes) = state.queue.gather(&mut slices, PIECE, PIECE);
            let Some(written) = ready!(owner.kernel.poll_write(cx, &slices[..count])) else { break };
            let written = written.min(bytes);
            state.queue.advance(written);
            self.took(state, written, was_marked, self.now());
        }
        Poll::Ready(())
    }

    /// Leaves the connection to the hub, unless it is about to end.
    fn all_is_written(&self, state: &mut OutboxState) -> Poll<()> {
        if state.is_ending() {
            self.notify_connection(ToConnection::Flushed);
            if state.phase == OutboxPhase::Ending {
                return Poll::Ready(());
            }
            state.phase = OutboxPhase::Closing;
        }
        state.is_direct = true;
        Poll::Pending
    }
}
