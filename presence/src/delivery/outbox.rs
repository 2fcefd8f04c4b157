//! What waits to be written to one client: bounded, and watched.
//!
//! Frames are shared: pushing one costs a reference count. The response streams them, several in one write. A client that
//! takes nothing is cut off: its outbox is over its bound and made no progress for [`PATIENCE`], or it holds something and made
//! none for `write_timeout`. How long a whole transfer takes does not matter, so that a slow line gets all that it goes on reading.
//! While an outbox over its bound still makes progress, those who send to it wait. A client that takes less than `steady_rate` pays for
//! that: when others have waited for it for `send_patience`, of which it regains all in a minute, it is cut off. What they wait counts
//! only as far as the client is behind one of that rate, so that whoever sends without end is slowed and cuts nobody off.
//!
//! Progress is counted in steps of one piece (8 KiB), or all that waits if that is less. Two steps together are larger than one piece, so a
//! client that goes on for ever must take at least half a piece in each `write_timeout` on average: 410 bytes a second by default.

use std::{
    cell::{OnceCell, RefCell},
    rc::{Rc, Weak},
    task::Waker,
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
    first::First,
    queue::Queue,
    senders::{Senders, Terms},
};

use super::{
    message::{Claim, HubRef, Pressure, ToConnection},
    wire::Frames,
};

mod body;
mod first;
mod queue;
mod senders;
mod watch;

#[cfg(test)]
pub(crate) use self::queue::PIECE;
pub(crate) use self::{
    body::Outbound,
    watch::{Filling, WATCH_INTERVAL},
};

/// How long an outbox over its bound may stand still, and how long a sender waits for one that does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How much of a frame that is half sent is still sent to a client that is cut off but reads, so that a Close can follow it.
const REST: usize = 64 * 1024;

/// The outbox of one socket.
pub(crate) struct Outbox {
    state: RefCell<State>,
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

/// Whose an outbox is.
pub(crate) struct Owner {
    pub(crate) channel: ChannelName,
    pub(crate) connection: Recipient<ToConnection>,
    /// Whether the kernel takes anything for this client. Without a handle on the socket it is believed to.
    pub(crate) is_writable: Box<dyn Fn() -> bool>,
}

struct State {
    queue: Queue,
    phase: Phase,
    waker: Option<Waker>,
    senders: Senders,
    /// The first frames of which the client has not taken all.
    first: Option<First>,
    /// When the client last took something.
    progress: Tick,
    /// When the response was first asked for something; nothing can be taken before.
    attached: Option<Tick>,
    watched: bool,
    /// How often the server flushed in a row, since the queue is empty, while the kernel took something. `None`: the kernel takes
    /// nothing at the moment.
    flushes: Option<usize>,
    /// The response is gone.
    gone: bool,
    mark: Mark,
}

/// Where the last frame is whose answer is waited for: a ping or a Close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// There is none, or it is in the queue.
    Unsent,
    /// The server has it since then.
    Taken(Tick),
    /// The kernel has it since then.
    Written(Tick),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A Close is in the queue: nothing may follow.
    Closing,
    /// As `Closing`, and when the queue is empty, the connection is told.
    Finishing,
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
    /// How long others wait in all for a client that takes less than `rate` bytes a second.
    pub(crate) patience: Duration,
    pub(crate) rate: usize,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds, clock: Clock, filling: Rc<Filling>, hub: HubRef) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            state: RefCell::new(State {
                queue: Queue::default(),
                phase: Phase::Open,
                waker: None,
                senders: Senders::default(),
                first: None,
                progress: Tick::default(),
                attached: None,
                watched: false,
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

    /// Whose outbox it is.
    pub(crate) fn belongs_to(&self, owner: Owner) {
        let _ = self.owner.set(owner);
    }

    fn tell(&self, message: ToConnection) {
        if let Some(owner) = self.owner.get() {
            owner.connection.do_send(message);
        }
    }

    fn is_writable(&self) -> bool {
        self.owner.get().is_none_or(|owner| (owner.is_writable)())
    }

    /// Adds frames. If there are more now than may be, their sender's patience is kept until there are fewer.
    pub(crate) fn push(&self, frames: &Frames, pressure: Option<&Pressure>) {
        self.add(frames.bytes.clone(), frames.count, frames.bytes.len());
        if let Some(pressure) = pressure {
            let own = self.owner.get().map(|owner| &owner.channel);
            self.wait(pressure, pressure.sender.as_ref().is_none_or(|sender| Some(sender) != own));
        }
    }

    /// Keeps the patience of a sender if there is more now than may be.
    fn wait(&self, pressure: &Pressure, is_other: bool) {
        let state = &mut *self.state.borrow_mut();
        if state.phase != Phase::Open || state.is_early() || !self.is_over(state) {
            return;
        }
        if state.senders.wait(pressure.clone(), is_other, self.now(), self.terms) {
            let channel = self.owner.get().map(|owner| display(&owner.channel));
            let (frames, bytes) = (state.queue.frames(), state.queue.bytes());
            debug!(channel, frames, bytes, "others wait for a client that reads too slowly");
        }
    }

    /// Adds frames. If there are more now than may be, this waits until there are fewer, but not beyond [`PATIENCE`].
    pub(crate) async fn send(&self, frames: &Frames) {
        let (pressure, relieved) = Claim::new(None);
        self.push(frames, None);
        self.wait(&pressure, false);
        drop(pressure);
        let _ = relieved.await;
    }

    /// Adds the news of a room. As a first frame it does not count against the bound if it is large, so that a change of many members
    /// makes nobody wait for those who still take it.
    pub(crate) fn push_news(&self, room: &RoomName, news: &Frames) {
        self.enqueue(|state, _| {
            let counts = news.bytes.len() <= self.max_bytes / 2 || state.queue.holds_first();
            let (frames, counted) = if counts { (news.count, news.bytes.len()) } else { (0, 0) };
            state.queue.push_news(room, news.bytes.clone(), frames, counted);
        });
    }

    /// Adds a ping. It does not wait for frames of which nothing was taken.
    pub(crate) fn push_ping(&self, ping: &Frames) {
        self.enqueue(|state, _| {
            state.queue.push_ping(ping.bytes.clone());
            state.mark = Mark::Unsent;
        });
    }

    /// As [`send`](Self::send), for a pong, which does not wait for frames of which nothing was taken either. Of many that wait only the
    /// first and the last are sent.
    pub(crate) async fn send_pong(&self, pong: &Frames) {
        let (pressure, relieved) = Claim::new(None);
        self.enqueue(|state, _| state.queue.push_pong(pong.bytes.clone()));
        self.wait(&pressure, false);
        drop(pressure);
        let _ = relieved.await;
    }

    /// Since when the last ping or Close is written, if it is.
    pub(crate) fn written(&self) -> Option<Tick> {
        match self.state.borrow().mark {
            Mark::Written(at) => Some(at),
            Mark::Unsent | Mark::Taken(_) => None,
        }
    }

    /// For how long the client has taken nothing, and none of the frames whose answer is waited for was written.
    pub(crate) fn still_for(&self) -> Duration {
        let state = self.state.borrow();
        self.now().since(state.progress.max(state.attached.unwrap_or_default()))
    }

    /// Has it noticed when the frame that was added last is written.
    fn mark(&self) {
        let state = &mut *self.state.borrow_mut();
        if state.phase == Phase::Open && state.queue.mark_last() {
            state.mark = Mark::Unsent;
        }
    }

    /// Adds a Close; nothing can follow it.
    pub(crate) fn push_close(&self, frame: Bytes) {
        self.add(frame, 0, 0);
        self.mark();
        let mut state = self.state.borrow_mut();
        if state.phase == Phase::Open {
            state.phase = Phase::Closing;
        }
        state.senders.clear();
    }

    fn add(&self, bytes: Bytes, frames: usize, counted: usize) {
        self.queue(bytes, frames, counted);
        self.wake();
    }

    fn queue(&self, bytes: Bytes, frames: usize, counted: usize) {
        let state = &mut *self.state.borrow_mut();
        if state.phase == Phase::Open && !bytes.is_empty() {
            self.begin(state);
            state.queue.push(bytes, frames, counted);
        }
    }

    /// Adds to the queue, if anything still may be, and has the server ask for it.
    fn enqueue(&self, add: impl FnOnce(&mut State, Tick)) {
        let state = &mut *self.state.borrow_mut();
        if state.phase == Phase::Open {
            self.begin(state);
            add(state, self.now());
        }
        state.wake();
    }

    /// Something is about to be added.
    fn begin(&self, state: &mut State) {
        if state.queue.is_empty() {
            state.progress = self.now();
            if state.attached.is_some() {
                state.senders.filled(state.progress, self.terms);
            }
        }
        self.have_watched(state);
    }

    fn wake(&self) {
        let waker = self.state.borrow_mut().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    const fn is_over(&self, state: &State) -> bool {
        state.queue.frames() > self.max_frames || state.queue.bytes() > self.max_bytes
    }

    /// Whether the socket still takes frames.
    pub(crate) fn is_open(&self) -> bool {
        self.state.borrow().phase == Phase::Open
    }

    /// Has the connection told when all that is in the queue was written, a Close last.
    pub(crate) fn finish(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase == Phase::Closing {
            state.phase = Phase::Finishing;
        }
        state.wake();
    }

    /// Ends the response when all that is in the queue was taken.
    pub(crate) fn end(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase != Phase::Broken {
            state.phase = Phase::Ending;
        }
        state.senders.clear();
        state.wake();
    }

    /// Drops what waits, a Close too. Returns whether that left no frame half sent, so that another may follow.
    pub(crate) fn clear(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let whole = state.queue.is_whole();
        state.queue.clear();
        state.was_cleared();
        whole
    }

    /// Drops what waits, so that a Close may follow, but for the end of a frame that is half sent. Returns whether one may: not if
    /// that frame is far from its end, or the client does not read it.
    pub(crate) fn clear_but_begun(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        let is_read = now.since(state.progress) < PATIENCE;
        if !state.queue.is_whole() && (!is_read || state.queue.begun_bytes() > REST) {
            return false;
        }
        state.queue.keep_begun();
        state.was_cleared();
        // The time in which it takes the end of that frame is new.
        state.first = state.first.take().map(|_| First::new(now));
        true
    }

    /// Drops what waits, and fails the response.
    pub(crate) fn abort(&self) {
        self.clear();
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Broken;
        state.wake();
    }

    /// Whether the response was ever asked for anything.
    pub(crate) fn is_attached(&self) -> bool {
        self.state.borrow().attached.is_some()
    }

    /// The clock, less the time for which this thread was blocked, so that a thread that stood still does not make its clients look
    /// slow.
    fn now(&self) -> Tick {
        let now = self.clock.now();
        Tick(0).after(now.since(Tick(0)).saturating_sub(self.filling.blocked(now)))
    }
}

impl State {
    /// Whether the client could not take what waits, however fast it reads.
    const fn is_early(&self) -> bool {
        self.attached.is_none() || self.queue.holds_first()
    }

    /// What waited was dropped, and with it a Close: another may follow, and nobody waits for room any more.
    fn was_cleared(&mut self) {
        self.senders.clear();
        if matches!(self.phase, Phase::Closing | Phase::Finishing) {
            self.phase = Phase::Open;
        }
    }

    /// Has the server ask for more.
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether somebody waits for the end of what is in the queue.
    const fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Finishing)
    }
}
