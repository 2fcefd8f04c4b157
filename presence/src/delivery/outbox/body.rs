//! The body of the response. It streams the outbox of a connection that is not taken over from the HTTP server.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix::Recipient;
use bytes::Bytes;
use futures_util::Stream;

use crate::{clock::Tick, delivery::message::ToConnection};

use super::{Mark, Outbox, OutboxPhase, OutboxState, direct::TakeOver};

/// After so many flushes with an empty queue all is written, if the server may be polled before. The server holds at most its write buffer, 32 KiB by default, and one piece.
/// Each flush while the kernel accepts bytes writes at least a quarter of the 16 KiB that `on_connect` allows to be unsent there.
const FLUSHES: usize = 16;

/// The client was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read; the connection is cut")]
pub(crate) struct Stalled;

/// The body of a response. The connection is notified when the server drops it, for whatever reason.
pub(crate) struct Outbound {
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) connection: Recipient<ToConnection>,
}

impl Outbound {
    /// Whether it may end while the connection is open, because the connection is taken over from the HTTP server. Then its response must
    /// have a length that it will not reach.
    pub(crate) fn announce_take_over(&self) -> bool {
        let is_announced = self.outbox.owner.get().is_some_and(|owner| owner.kernel.announce_take_over());
        if is_announced {
            self.outbox.have_age_watched();
        }
        is_announced
    }
}

impl Stream for Outbound {
    type Item = Result<Bytes, Stalled>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outbox.poll(cx)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        let state = &mut *self.outbox.state.borrow_mut();
        if !state.is_taken_over {
            state.gone = true;
            state.wake_task();
            self.connection.do_send(ToConnection::BodyGone);
        }
    }
}

impl Outbox {
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Stalled>>> {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        let has_waited = std::mem::take(&mut state.has_waited);
        if state.is_taken_over {
            return Poll::Ready(None);
        }
        if state.attached.is_none() {
            state.attached = Some(now);
            if !state.queue.is_empty() {
                state.senders.filled(now, self.terms);
            }
        }
        if state.phase == OutboxPhase::Broken {
            return Poll::Ready(Some(Err(Stalled)));
        }
        let mut tries_again = false;
        if state.is_settled && state.phase == OutboxPhase::Open {
            match self.owner.get().map_or(TakeOver::Never, |owner| owner.kernel.take_over(has_waited)) {
                TakeOver::Done => {
                    self.begin_direct(state, now);
                    return Poll::Ready(None);
                }
                TakeOver::Soon => tries_again = true,
                TakeOver::Later => {
                    state.is_settled = false;
                    self.have_age_watched();
                }
                TakeOver::Never => {}
            }
        }
        state.is_direct = false;
        let was_marked = state.queue.holds_marked();
        if let Some(bytes) = state.queue.take() {
            self.took(state, bytes.len(), was_marked, now);
            return Poll::Ready(Some(Ok(bytes)));
        }
        if state.is_ending() {
            // The server flushes once after each poll that returns nothing. If it polls only when it has written everything, nothing is left.
            let needed = if self.is_polled_when_all_is_written() { 0 } else { FLUSHES };
            state.flushes = state.flushes.filter(|_| self.is_writable()).map(|flushes| flushes + 1);
            match state.flushes {
                Some(flushes) if flushes > needed => {
                    self.notify_connection(ToConnection::Flushed);
                    if state.phase == OutboxPhase::Ending {
                        return Poll::Ready(None);
                    }
                    state.phase = OutboxPhase::Closing;
                }
                Some(_) => cx.waker().wake_by_ref(),
                // The kernel accepts nothing now. The watch polls again when it does.
                None => self.have_watched(state),
            }
        }
        state.is_direct = self.is_polled_when_all_is_written();
        state.has_waited = true;
        if tries_again {
            cx.waker().wake_by_ref();
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the HTTP server polls the body only when the kernel has everything before.
    fn is_polled_when_all_is_written(&self) -> bool {
        self.owner.get().is_some_and(|owner| owner.kernel.can_write())
    }

    /// Records that the server or the kernel took so many bytes.
    pub(super) fn took(&self, state: &mut OutboxState, bytes: usize, was_marked: bool, now: Tick) {
        state.progress = now;
        state.flushes = Some(0);
        if was_marked && !state.queue.holds_marked() {
            state.mark = Mark::Taken(now);
        }
        state.senders.taken(bytes, !state.queue.is_empty(), now, self.terms);
        state.first = state.first.take().filter(|_| state.queue.holds_first());
        if let Some(first) = &mut state.first {
            first.took(bytes);
        }
        if !self.is_over(state) {
            state.senders.relieve(now, self.terms);
        }
        self.repay(state);
    }
}
