//! The connection of one client: first by the HTTP server, and then without it.
//!
//! The HTTP server keeps two buffers and a task for each connection, and it copies everything. A WebSocket needs none of that after the
//! response to its handshake. So a second after the handshake was answered, the connection is taken over: the body of the response ends before
//! the length that it announced to the server, but not to the client. The server then drops the connection without ending it, since it
//! cannot send the rest, and the handle of [`KillSwitch`] is the only one. Until then, and if it cannot be taken over, the server reads and
//! writes.
//!
//! Nothing may be lost at that moment. What the server has not written: with [`WRITE_BUFFER_BYTES`](super::kill::WRITE_BUFFER_BYTES) it polls
//! the body only when it has written everything before. What the server has read: after each wait it reads, and passes on all of that before
//! it polls the body, unless too much of that was not taken yet. So the connection is taken over only at the first poll after a wait, and only
//! if nothing was passed on meanwhile. What was passed on before is read first.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::IoSlice,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use actix_web::web::Payload;
use bytes::Bytes;
use futures_util::StreamExt;
use tracing::warn;

use crate::delivery::{Filling, KernelSocket, ServerTrust, TakeOver};

use super::kill::KillSwitch;

/// While so many bytes wait for the reader, no more are taken out of the payload, so that TCP slows the client.
const MOST_EARLY: usize = 64 * 1024;
/// So many bytes of one client are read before other tasks go on.
const MOST_IN_A_TURN: usize = 64 * 1024;

/// The connection of one client.
pub(crate) struct Line {
    kill: KillSwitch,
    filling: Rc<Filling>,
    /// `None` when the connection was taken over, and all is read that the HTTP server had read.
    by_server: RefCell<Option<ByServer>>,
    /// How many bytes were read from the kernel since other tasks could run.
    in_this_turn: Cell<usize>,
}

/// The connection while the HTTP server has it, and what the server has read.
struct ByServer {
    /// `None` when it has ended, or is not read any more.
    payload: Option<Payload>,
    /// What was taken out of the payload, and is read next.
    early: VecDeque<Bytes>,
    /// Wakes the reader, which waits for the payload.
    reader: Option<Waker>,
    progress: Progress,
}

/// How far the taking over is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The response has no length, or there is none yet. So its end would end the connection.
    Unannounced,
    /// The response has a length that it will not reach.
    Announced,
    /// The response has ended, so the server has dropped the connection.
    TakenOver,
}

impl Line {
    pub(crate) fn new(kill: KillSwitch, payload: Payload, filling: Rc<Filling>) -> Rc<Self> {
        let (early, reader, progress) = (VecDeque::new(), None, Progress::Unannounced);
        let by_server = ByServer { payload: Some(payload), early, reader, progress };
        Rc::new(Self { kill, filling, by_server: RefCell::new(Some(by_server)), in_this_turn: Cell::new(0) })
    }

    /// The next bytes that have arrived; `None` at the end of the connection.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let by_server = &mut *self.by_server.borrow_mut();
        let Some(server) = by_server else { return self.poll_kernel(cx) };
        let is_taken_over = server.progress == Progress::TakenOver;
        if let Some(bytes) = server.early.pop_front() {
            return Poll::Ready(Some(bytes));
        }
        match server.poll_payload(cx) {
            Poll::Ready(Some(bytes)) => Poll::Ready(Some(bytes)),
            Poll::Ready(None) if is_taken_over => {
                let has_ended = self.kill.has_ended();
                // Otherwise the client may have caused the end.
                if has_ended && !self.kill.has_unread() {
                    self.is_kept();
                    return Poll::Ready(None);
                }
                *by_server = None;
                if self.filling.server.get() == ServerTrust::Trying {
                    self.filling.server.set(if has_ended { ServerTrust::Unknown } else { ServerTrust::LetsGo });
                }
                self.poll_kernel(cx)
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if is_taken_over => {
                self.is_kept();
                Poll::Ready(None)
            }
            Poll::Pending => {
                server.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Reads from the kernel. After [`MOST_IN_A_TURN`] other tasks go on first, however fast the client sends.
    fn poll_kernel(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.in_this_turn.get() >= MOST_IN_A_TURN {
            self.in_this_turn.set(0);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = self.kill.poll_read(cx);
        self.in_this_turn.set(match &read {
            Poll::Ready(Some(bytes)) => self.in_this_turn.get() + bytes.len(),
            _ => 0,
        });
        read
    }

    /// The HTTP server has not dropped the connection, so it reads what the client sends, or it has ended it. This connection counts as lost,
    /// and others are left to the server.
    fn is_kept(&self) {
        if self.filling.server.replace(ServerTrust::Keeps) != ServerTrust::Keeps {
            warn!(
                "a connection is lost: the HTTP server did not let go of it when the body of its 101 ended. From here on, connections of \
                 this worker stay with the server. Does a middleware change the bodies of responses?"
            );
        }
    }

    fn can_be_taken_over(&self) -> bool {
        self.kill.can_be_taken_over() && self.filling.server.get() != ServerTrust::Keeps
    }

    /// Nothing is read any more.
    pub(super) fn end_reading(&self) {
        if let Some(server) = &mut *self.by_server.borrow_mut() {
            (server.payload, server.early) = (None, VecDeque::new());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let is_unknown = self.by_server.get_mut().as_ref().is_some_and(|server| server.progress == Progress::TakenOver);
        if is_unknown && self.filling.server.get() == ServerTrust::Trying {
            // It ended before it was known what the server did. The next one shows it.
            self.filling.server.set(ServerTrust::Unknown);
        }
    }
}

impl ByServer {
    /// The next bytes that the server passes on; `None` at the end.
    fn poll_payload(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(payload) = &mut self.payload else { return Poll::Ready(None) };
        let polled = payload.poll_next_unpin(cx).map(|next| next.and_then(Result::ok));
        if polled == Poll::Ready(None) {
            self.payload = None;
        }
        polled
    }

    /// Takes out what the server has passed on. Returns whether there was something.
    fn take_early(&mut self) -> bool {
        let mut is_some = false;
        // The payload knows only the last waker that polled it.
        while let Poll::Ready(Some(bytes)) = self.poll_payload(&mut Context::from_waker(Waker::noop())) {
            self.early.push_back(bytes);
            is_some = true;
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        is_some
    }
}

impl KernelSocket for Rc<Line> {
    fn is_writable(&self) -> bool {
        self.kill.is_writable()
    }

    fn announce_take_over(&self) -> bool {
        let by_server = &mut *self.by_server.borrow_mut();
        let Some(server) = by_server else { return false };
        let can = self.can_be_taken_over();
        if can && server.progress == Progress::Unannounced {
            server.progress = Progress::Announced;
            self.kill.announce_take_over();
        }
        can
    }

    fn take_over(&self, has_read: bool) -> TakeOver {
        let Some(server) = &mut *self.by_server.borrow_mut() else { return TakeOver::Never };
        let can = server.progress == Progress::Announced && self.can_be_taken_over();
        if !can {
            return TakeOver::Never;
        }
        if server.early.iter().map(Bytes::len).sum::<usize>() > MOST_EARLY {
            return TakeOver::Later;
        }
        if !has_read || server.take_early() {
            return TakeOver::Soon;
        }
        // If the client has ended the connection, there is nothing left to take over.
        if server.payload.is_none() || !self.kill.take_over() {
            return TakeOver::Never;
        }
        server.progress = Progress::TakenOver;
        if self.filling.server.get() == ServerTrust::Unknown {
            self.filling.server.set(ServerTrust::Trying);
        }
        TakeOver::Done
    }

    fn can_write(&self) -> bool {
        self.kill.can_write()
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> usize {
        self.kill.write(slices)
    }

    fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Option<usize>> {
        self.kill.poll_write(cx, slices)
    }
}
