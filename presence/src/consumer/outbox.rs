//! What waits to be written to one client: bounded, and watched.
//!
//! Frames are shared: pushing one costs a reference count. The response streams them, several in one write. A client that
//! takes too little is cut off: its outbox is over its bound and made no progress for [`PATIENCE`], or a frame waited longer
//! than `write_timeout`. While an outbox over its bound still makes progress, those who send to it wait.

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix::{Addr, Recipient};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use crate::{
    clock::{Clock, Tick},
    room::{
        hub::HubActor,
        message::{Pressure, ToConnection, ToHub},
        wire::Frames,
    },
};

use super::connection::Connection;

/// How long an outbox over its bound may stand still, and how long a sender waits for one that does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How much goes out in one piece.
const PIECE: usize = 16 * 1024;

/// The outbox of one socket.
pub(crate) struct Outbox {
    state: RefCell<State>,
    max_frames: usize,
    max_bytes: usize,
    write_timeout: Duration,
    clock: Clock,
    filling: Rc<RefCell<Vec<Rc<Outbox>>>>,
    hub: Addr<HubActor>,
    itself: Weak<Self>,
    connection: OnceCell<Recipient<ToConnection>>,
}

struct State {
    queue: VecDeque<Piece>,
    /// What counts against the bound.
    frames: usize,
    bytes: usize,
    phase: Phase,
    waker: Option<Waker>,
    waiting: Vec<(Tick, Pressure)>,
    /// When the client last took something.
    progress: Tick,
    /// When the response was first asked for something; nothing can be taken before.
    attached: Option<Tick>,
    watched: bool,
    flushing: bool,
}

struct Piece {
    bytes: Bytes,
    /// Part of it was taken already.
    begun: bool,
    at: Tick,
    frames: usize,
    counted: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A Close is in the queue: nothing may follow.
    Closing,
    /// When the queue is empty, the response ends.
    Ending,
    /// The response fails.
    Broken,
}

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) write_timeout: Duration,
}

impl Outbox {
    pub(crate) fn new(
        bounds: Bounds,
        clock: Clock,
        filling: Rc<RefCell<Vec<Rc<Self>>>>,
        hub: Addr<HubActor>,
    ) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            state: RefCell::new(State {
                queue: VecDeque::new(),
                frames: 0,
                bytes: 0,
                phase: Phase::Open,
                waker: None,
                waiting: Vec::new(),
                progress: clock.now(),
                attached: None,
                watched: false,
                flushing: false,
            }),
            max_frames: bounds.frames,
            max_bytes: bounds.bytes,
            write_timeout: bounds.write_timeout,
            clock,
            filling,
            hub,
            itself: itself.clone(),
            connection: OnceCell::new(),
        })
    }

    /// Whose outbox it is.
    pub(crate) fn belongs_to(&self, connection: Recipient<ToConnection>) {
        let _ = self.connection.set(connection);
    }

    /// Adds frames. If there are more now than may be, their sender's patience is kept until there are fewer.
    pub(crate) fn push(&self, frames: &Frames, pressure: Option<&Pressure>) {
        self.add(frames.bytes.clone(), frames.count, frames.bytes.len());
        if let Some(pressure) = pressure {
            let state = &mut *self.state.borrow_mut();
            if state.phase == Phase::Open && self.is_over(state) {
                state.waiting.push((self.clock.now(), pressure.clone()));
            }
        }
    }

    /// Adds a first frame, which does not count against the bound.
    pub(crate) fn push_first(&self, shared: Bytes, tail: Option<Bytes>) {
        self.queue(shared, 0, 0);
        if let Some(tail) = tail {
            self.queue(tail, 0, 0);
            // If it is at the front, the piece before it, which is of the same frame, was taken.
            if self.is_open()
                && let Some(piece) = self.state.borrow_mut().queue.back_mut()
            {
                piece.begun = true;
            }
        }
        self.wake();
    }

    /// Adds a Close; nothing can follow it.
    pub(crate) fn push_close(&self, frame: Bytes) {
        self.add(frame, 0, 0);
        let mut state = self.state.borrow_mut();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        state.waiting.clear();
    }

    fn add(&self, bytes: Bytes, frames: usize, counted: usize) {
        self.queue(bytes, frames, counted);
        self.wake();
    }

    fn queue(&self, bytes: Bytes, frames: usize, counted: usize) {
        let state = &mut *self.state.borrow_mut();
        if state.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let at = self.clock.now();
        if state.queue.is_empty() {
            state.progress = at;
        }
        state.queue.push_back(Piece { bytes, begun: false, at, frames, counted });
        state.frames += frames;
        state.bytes += counted;
        if !state.watched {
            state.watched = true;
            if let Some(itself) = self.itself.upgrade() {
                let mut filling = self.filling.borrow_mut();
                if filling.is_empty() {
                    self.hub.do_send(ToHub::Watch);
                }
                filling.push(itself);
            }
        }
    }

    fn wake(&self) {
        let waker = self.state.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    const fn is_over(&self, state: &State) -> bool {
        state.frames > self.max_frames || state.bytes > self.max_bytes
    }

    /// Whether the socket still takes frames.
    pub(crate) fn is_open(&self) -> bool {
        self.state.borrow().phase == Phase::Open
    }

    /// Ends the response when all that is in the queue was taken.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase != Phase::Broken {
            state.phase = Phase::Ending;
        }
        state.waiting.clear();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Drops what waits. Returns whether that left no frame half sent, so that another may follow.
    pub(crate) fn clear(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let whole = state.queue.front().is_none_or(|piece| !piece.begun);
        state.queue.clear();
        state.waiting.clear();
        (state.frames, state.bytes) = (0, 0);
        whole
    }

    /// Drops what waits, and fails the response.
    pub(crate) fn abort(&self) {
        self.clear();
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Broken;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether the response was ever asked for anything.
    pub(crate) fn is_attached(&self) -> bool {
        self.state.borrow().attached.is_some()
    }

    /// Looks whether the client takes what there is. Returns whether there is still something.
    pub(crate) fn watch(&self, now: Tick) -> bool {
        let state = &mut *self.state.borrow_mut();
        state.waiting.retain(|(since, _)| now.since(*since) < PATIENCE);
        if state.queue.is_empty() || state.phase == Phase::Broken {
            state.watched = false;
            return false;
        }
        // Before the handshake is answered the client can take nothing; that time has a limit of its own.
        let Some(attached) = state.attached else { return true };
        let still = now.since(state.progress.max(attached)) > PATIENCE && self.is_over(state);
        let late = state.queue.front().is_some_and(|piece| now.since(piece.at.max(attached)) > self.write_timeout);
        if (still || late)
            && let Some(connection) = self.connection.get()
        {
            connection.do_send(ToConnection::TooSlow);
        }
        true
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Stalled>>> {
        let state = &mut *self.state.borrow_mut();
        let now = self.clock.now();
        state.attached.get_or_insert(now);
        if state.phase == Phase::Broken {
            return Poll::Ready(Some(Err(Stalled)));
        }
        if let Some(bytes) = state.take() {
            state.progress = now;
            state.flushing = false;
            if !self.is_over(state) {
                state.waiting.clear();
            }
            return Poll::Ready(Some(Ok(bytes)));
        }
        if state.phase == Phase::Ending {
            if state.flushing {
                return Poll::Ready(None);
            }
            // The server asks again only after it has written all that it was given.
            state.flushing = true;
            cx.waker().wake_by_ref();
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    /// A piece to write: several small ones together, or part of a large one.
    fn take(&mut self) -> Option<Bytes> {
        let first = self.queue.front_mut()?;
        if first.bytes.len() > PIECE {
            first.begun = true;
            return Some(first.bytes.split_to(PIECE));
        }
        let first = self.take_first()?;
        let mut fits = PIECE - first.len();
        let more = self.queue.front().is_some_and(|next| next.bytes.len() <= fits);
        if !more {
            return Some(first);
        }
        let mut together = BytesMut::with_capacity(PIECE.min(first.len() * 4));
        together.extend_from_slice(&first);
        while self.queue.front().is_some_and(|next| next.bytes.len() <= fits) {
            let Some(next) = self.take_first() else { break };
            fits -= next.len();
            together.extend_from_slice(&next);
        }
        Some(together.freeze())
    }

    fn take_first(&mut self) -> Option<Bytes> {
        let Piece { bytes, frames, counted, .. } = self.queue.pop_front()?;
        self.frames -= frames;
        self.bytes -= counted;
        Some(bytes)
    }
}

/// The client was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the client did not read; the connection is cut")]
pub(crate) struct Stalled;

/// The body of the response: what is in the outbox. Tells the connection when it is gone, for whatever reason.
pub(crate) struct Outbound {
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) connection: Addr<Connection>,
}

impl Stream for Outbound {
    type Item = Result<Bytes, Stalled>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.outbox.poll(cx);
        if matches!(polled, Poll::Ready(None)) {
            self.connection.do_send(ToConnection::Flushed);
        }
        polled
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.connection.do_send(ToConnection::BodyGone);
    }
}
