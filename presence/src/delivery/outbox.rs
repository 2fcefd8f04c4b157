//! The outbox: the bounded queue of frames for one client, and the rules by which a slow client is cut off.
//!
//! Frames are shared: pushing one costs a reference count. The hub writes them, several in one write, and the task of the socket writes what
//! the kernel does not accept at once. Where the connection cannot be taken over from the HTTP server, the response streams the outbox. A
//! client that reads nothing is cut off: when its outbox is over its bound and makes no progress for [`PATIENCE`], or is not empty and makes
//! no progress for `write_timeout`. The total time of a transfer does not matter, so that a slow line receives everything.
//!
//! While an outbox over its bound still makes progress, its senders wait; during a pause of its client they do not (`pauses`). If a client reads less than `steady_rate`, the time for which
//! others wait is charged to it. When the charge exceeds `send_patience`, the client is cut off. The whole patience is regained in a
//! minute. The charge is never more than the time by which the client is behind a steady reader, so a sender that never stops is slowed,
//! and cannot make others be cut off.
//!
//! While frames are left, progress is counted in steps of one piece (8 KiB), or of all that is queued if that is less. Two steps together are larger than one
//! piece, so a client that is never cut off reads at least half a piece in each `write_timeout` on average: 410 bytes a second by default.

use std::{
    cell::{OnceCell, RefCell},
    rc::{Rc, Weak},
    time::Duration,
};

use actix::Recipient;
use bytes::Bytes;
use tracing::{debug, field::display};

use crate::{
    clock::{Clock, Tick},
    name::{ChannelName, RoomName},
};

use self::{
    first::FirstFrameRate,
    pauses::Loan,
    queue::{OutboxQueue, PIECE_COST},
    senders::{Senders, Terms},
    state::{Mark, OutboxPhase, OutboxState},
};

use super::{
    message::{Claim, HubRef, Pressure, ToConnection},
    wire::Frames,
};

mod age;
mod body;
mod direct;
mod first;
mod pauses;
mod queue;
mod senders;
mod state;
mod watch;

#[cfg(test)]
pub(crate) use self::queue::PIECE;
pub(crate) use self::{
    body::Outbound,
    direct::{KernelSocket, TakeOver, Writing},
    pauses::{PAUSE_INTERVAL, Reserve},
    watch::{Filling, ServerTrust, WATCH_INTERVAL},
};

/// How long an outbox over its bound may make no progress, and how long a sender waits at most for one that makes progress.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// The most bytes of a partly sent frame that are still sent to a client that is cut off but reads, so that a Close can follow them.
const REST: usize = 64 * 1024;

/// The outbox of one socket.
pub(crate) struct Outbox {
    state: RefCell<OutboxState>,
    max_frames: usize,
    max_bytes: usize,
    write_timeout: Duration,
    terms: Terms,
    clock: Clock,
    filling: Rc<Filling>,
    hub: HubRef,
    itself: Weak<Self>,
    owner: OnceCell<Owner>,
}

/// The socket of an outbox.
pub(crate) struct Owner {
    pub(crate) channel: ChannelName,
    pub(crate) connection: Recipient<ToConnection>,
    pub(crate) kernel: Box<dyn KernelSocket>,
}

/// The bounds of an outbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    pub(crate) write_timeout: Duration,
    /// How long others wait in all for a client that reads less than `rate` bytes a second.
    pub(crate) patience: Duration,
    pub(crate) rate: usize,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds, clock: Clock, filling: Rc<Filling>, hub: HubRef) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            state: RefCell::new(OutboxState {
                queue: OutboxQueue::default(),
                phase: OutboxPhase::Open,
                waker: None,
                waker_of_task: None,
                senders: Senders::default(),
                first: None,
                progress: Tick::default(),
                attached: None,
                is_settled: false,
                has_waited: false,
                is_taken_over: false,
                is_direct: false,
                is_unwritten: false,
                watched: false,
                loan: Loan::default(),
                is_awaited: false,
                flushes: Some(0),
                gone: false,
                mark: Mark::Unsent,
            }),
            max_frames: bounds.frames,
            max_bytes: bounds.bytes,
            write_timeout: bounds.write_timeout,
            terms: Terms { patience: bounds.patience, rate: bounds.rate },
            clock,
            filling,
            hub,
            itself: itself.clone(),
            owner: OnceCell::new(),
        })
    }

    /// Sets the socket of this outbox.
    pub(crate) fn set_owner(&self, owner: Owner) {
        let _ = self.owner.set(owner);
    }

    fn notify_connection(&self, message: ToConnection) {
        if let Some(owner) = self.owner.get() {
            owner.connection.do_send(message);
        }
    }

    fn is_writable(&self) -> bool {
        self.owner.get().is_none_or(|owner| owner.kernel.is_writable())
    }

    /// Adds frames. If the outbox is over its bound then, it keeps the claim, so that the sender waits.
    pub(crate) fn push(&self, frames: &Frames, pressure: Option<&Pressure>) {
        self.add(frames.bytes.clone(), frames.count, frames.bytes.len());
        if let Some(pressure) = pressure {
            self.wait(pressure, frames.bytes.len() + PIECE_COST, || {
                let own = self.owner.get().map(|owner| &owner.channel);
                pressure.sender.as_ref().is_none_or(|sender| Some(sender) != own)
            });
        }
    }

    /// Keeps the claim of a frame that takes so many bytes if the outbox is over its bound and its client does not pause.
    fn wait(&self, pressure: &Pressure, bytes: usize, is_other: impl Fn() -> bool) {
        let state = &mut *self.state.borrow_mut();
        if state.phase != OutboxPhase::Open || state.is_early() || !self.is_over(state) {
            return;
        }
        let (is_other, now) = (is_other(), self.now());
        let goes_on = is_other && self.lends(state, bytes, now);
        if is_other && !goes_on {
            self.have_pause_noticed(state);
        }
        if state.senders.wait((!goes_on).then(|| pressure.clone()), bytes, is_other, now, self.terms) {
            let channel = self.owner.get().map(|owner| display(&owner.channel));
            let (frames, bytes) = (state.queue.frames(), state.queue.bytes());
            debug!(channel, frames, bytes, "others wait for a client that reads too slowly");
        }
    }

    /// Adds frames. If the outbox is over its bound then, this waits until it is not, for at most [`PATIENCE`].
    pub(crate) async fn send(&self, frames: &Frames) {
        let (pressure, relieved) = Claim::new(None);
        self.push(frames, None);
        self.wait(&pressure, 0, || false);
        drop(pressure);
        let _ = relieved.await;
    }

    /// Adds a notice of a room. A large notice does not count against the bound, like a first frame, so that a change of many members makes
    /// no sender wait.
    pub(crate) fn push_notice(&self, room: &RoomName, notice: &Frames) {
        self.enqueue(|state| {
            let counts = notice.bytes.len() <= self.max_bytes / 2 || state.queue.holds_first();
            let (frames, counted) = if counts { (notice.count, notice.bytes.len()) } else { (0, 0) };
            state.queue.push_notice(room, notice.bytes.clone(), frames, counted);
        });
    }

    /// Adds a ping. It goes before all frames of which nothing is sent yet.
    pub(crate) fn push_ping(&self, ping: &Frames) {
        self.enqueue(|state| {
            state.queue.push_ping(ping.bytes.clone());
            state.mark = Mark::Unsent;
        });
    }

    /// As [`send`](Self::send), for a pong, which goes before all frames of which nothing is sent yet. Of many queued pongs only the first
    /// ones and the last are sent.
    pub(crate) async fn send_pong(&self, pong: &Frames) {
        let (pressure, relieved) = Claim::new(None);
        self.enqueue(|state| state.queue.push_pong(pong.bytes.clone()));
        self.wait(&pressure, 0, || false);
        drop(pressure);
        let _ = relieved.await;
    }

    /// When the last ping or Close was written; `None` if it is not written yet.
    pub(crate) fn written(&self) -> Option<Tick> {
        match self.state.borrow().mark {
            Mark::Written(at) => Some(at),
            Mark::Unsent | Mark::Taken(_) => None,
        }
    }

    /// How long ago the client last made progress. A ping or Close that was written counts as progress.
    pub(crate) fn still_for(&self) -> Duration {
        let state = self.state.borrow();
        self.now().since(state.progress.max(state.attached.unwrap_or_default()))
    }

    /// Marks the last frame, so that its writing is recorded.
    fn mark(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.phase == OutboxPhase::Open && state.queue.mark_last() {
            state.mark = Mark::Unsent;
        }
    }

    /// Adds a Close. No frame can follow it.
    pub(crate) fn push_close(&self, frame: Bytes) {
        self.add(frame, 0, 0);
        self.mark();
        let mut state = self.state.borrow_mut();
        if state.phase == OutboxPhase::Open {
            state.phase = OutboxPhase::Closing;
        }
        state.senders.clear();
    }

    fn add(&self, bytes: Bytes, frames: usize, counted: usize) {
        if !bytes.is_empty() {
            self.enqueue(|state| state.queue.push(bytes, frames, counted));
        }
    }

    /// Adds to the queue, unless a Close is in it, and has it written.
    fn enqueue(&self, add: impl FnOnce(&mut OutboxState)) {
        let state = &mut *self.state.borrow_mut();
        if state.phase == OutboxPhase::Open {
            self.begin(state);
            add(state);
        }
        self.have_written(state);
    }

    /// Prepares the outbox for a frame that is about to be added.
    fn begin(&self, state: &mut OutboxState) {
        if state.queue.is_empty() {
            state.progress = self.now();
            if state.attached.is_some() {
                state.senders.filled(state.progress, self.terms);
            }
        }
        self.have_watched(state);
    }

    const fn is_over(&self, state: &OutboxState) -> bool {
        state.queue.frames() > self.max_frames || state.queue.bytes() > self.max_bytes
    }

    /// Whether frames can be added.
    pub(crate) fn is_open(&self) -> bool {
        self.state.borrow().phase == OutboxPhase::Open
    }

    /// Makes the outbox notify the connection when the queue, with a Close at its end, is written.
    pub(crate) fn finish(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase == OutboxPhase::Closing {
            state.phase = OutboxPhase::Finishing;
        }
        state.wake();
    }

    /// Ends the response when the queue is written.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase != OutboxPhase::Broken {
            state.phase = OutboxPhase::Ending;
        }
        state.senders.clear();
        state.wake();
    }

    /// Drops all that is queued, also a Close. Returns whether another frame may follow: not if a frame is partly sent.
    pub(crate) fn clear(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let whole = state.queue.is_whole();
        state.queue.clear();
        state.was_cleared();
        self.repay(state);
        whole
    }

    /// Drops all that is queued, except the end of a partly sent frame, so that a Close may follow. Returns whether a Close may follow: not
    /// if more than [`REST`] of that frame is left, or the client does not read it.
    pub(crate) fn clear_but_begun(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        let is_read = now.since(state.progress) < PATIENCE;
        if !state.queue.is_whole() && (!is_read || state.queue.begun_bytes() > REST) {
            return false;
        }
        state.queue.keep_begun();
        state.was_cleared();
        self.repay(state);
        // The measurement starts again for the end of that frame.
        state.first = state.first.take().map(|_| FirstFrameRate::new(now));
        true
    }

    /// Drops all that is queued, and makes the response fail.
    pub(crate) fn abort(&self) {
        self.clear();
        let mut state = self.state.borrow_mut();
        state.phase = OutboxPhase::Broken;
        state.wake();
    }

    /// Whether the server has polled the response.
    pub(crate) fn is_attached(&self) -> bool {
        self.state.borrow().attached.is_some()
    }

    /// The time of the clock minus the time for which this thread was blocked, so that a blocked thread does not make its clients look slow.
    pub(crate) fn now(&self) -> Tick {
        let now = self.clock.now();
        Tick(0).after(now.since(Tick(0)).saturating_sub(self.filling.blocked(now)))
    }
}
