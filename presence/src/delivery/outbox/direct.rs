//! Writing to the kernel without the HTTP server.
//!
//! The HTTP server has a task for each socket, which copies each piece into a buffer of its own. So while it has nothing to write for a
//! socket, the hub writes to the kernel itself: all frames that wait, in one call, and without a copy. What the kernel does not accept is
//! left to the response, because the HTTP server waits until the kernel accepts more.

use std::io::IoSlice;

use crate::{clock::Tick, delivery::message::ToHub};

use super::{Outbox, OutboxPhase, OutboxState};

/// The most pieces that are written in one call.
const MOST_SLICES: usize = 32;

/// The TCP socket of a client.
pub(crate) trait KernelSocket {
    /// Whether the kernel accepts bytes. True if the server has no handle on the TCP socket.
    fn is_writable(&self) -> bool;

    /// Whether [`write`](Self::write) is allowed: there is a handle, and the HTTP server polls a response only when it has written
    /// everything before.
    fn can_write(&self) -> bool;

    /// Writes, and returns how many bytes the kernel accepted. After an error this is 0, and the HTTP server finds the error, too.
    fn write(&self, slices: &[IoSlice<'_>]) -> usize;
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
        let Some(owner) = self.owner.get().filter(|_| is_direct) else {
            state.wake();
            return 0;
        };
        let was_marked = state.queue.holds_marked();
        let mut slices = [IoSlice::new(&[]); MOST_SLICES];
        let (count, bytes) = state.queue.gather(&mut slices);
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
}
