//! What changes in an outbox.

use std::task::Waker;

use crate::clock::Tick;

use super::{first::FirstFrameRate, pauses::Loan, queue::OutboxQueue, senders::Senders};

pub(super) struct OutboxState {
    pub(super) queue: OutboxQueue,
    pub(super) phase: OutboxPhase,
    /// Polls the response.
    pub(super) waker: Option<Waker>,
    /// Polls the task of the socket, which writes to a connection that was taken over.
    pub(super) waker_of_task: Option<Waker>,
    pub(super) senders: Senders,
    /// Measures how fast the client reads first frames, while part of one is queued.
    pub(super) first: Option<FirstFrameRate>,
    /// When the server last took a piece, or when the queue was last filled.
    pub(super) progress: Tick,
    /// When the server first polled the response. Before that the client can receive nothing.
    pub(super) attached: Option<Tick>,
    /// The connection is old enough to be taken over from the HTTP server.
    pub(super) is_settled: bool,
    /// At its last poll the response had nothing, so the server polls it again only after it has read.
    pub(super) has_waited: bool,
    /// The connection was taken over from the HTTP server.
    pub(super) is_taken_over: bool,
    /// Nothing waits until the kernel accepts more. So the hub may write to it.
    pub(super) is_direct: bool,
    /// It is in the list of those to which the hub writes next.
    pub(super) is_unwritten: bool,
    pub(super) watched: bool,
    /// What it has taken from the reserve for clients that pause.
    pub(super) loan: Loan,
    /// It is in the list of those at which the hub looks for the beginning of a pause.
    pub(super) is_awaited: bool,
    /// The number of flushes of the server in a row with an empty queue while the kernel accepted bytes. `None` if the kernel accepts nothing
    /// at the moment.
    pub(super) flushes: Option<usize>,
    /// The response is gone, or the connection that was taken over.
    pub(super) gone: bool,
    pub(super) mark: Mark,
}

/// Where the last frame is that the client must answer: a ping or a Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// There is no such frame, or it is in the queue.
    Unsent,
    /// The server took it at this time.
    Taken(Tick),
    /// The kernel accepted it by this time.
    Written(Tick),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutboxPhase {
    Open,
    /// A Close is in the queue, and no frame may follow it.
    Closing,
    /// As `Closing`, and the connection is notified when the queue is empty.
    Finishing,
    /// The response ends when the queue is empty.
    Ending,
    /// The response fails.
    Broken,
}

impl OutboxState {
    /// Whether the queue may be long although the client reads fast: the handshake is not answered yet, or a first frame is in the queue.
    pub(super) const fn is_early(&self) -> bool {
        self.attached.is_none() || self.queue.holds_first()
    }

    /// Updates the state after the queue was dropped: frames may follow if a Close was dropped, and no sender waits any more.
    pub(super) fn was_cleared(&mut self) {
        self.senders.clear();
        if matches!(self.phase, OutboxPhase::Closing | OutboxPhase::Finishing) {
            self.phase = OutboxPhase::Open;
        }
    }

    /// Wakes whoever writes: the server, so that it polls the response, or the task of the socket.
    pub(super) fn wake(&mut self) {
        if self.is_taken_over {
            self.wake_task();
        } else if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_task(&mut self) {
        if let Some(waker) = self.waker_of_task.take() {
            waker.wake();
        }
    }

    /// Whether something happens when the queue is empty.
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.phase, OutboxPhase::Ending | OutboxPhase::Finishing)
    }
}
