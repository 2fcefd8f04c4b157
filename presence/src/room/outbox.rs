//! What waits to be written to one client: bounded, and watched.
//!
//! Frames are shared: pushing one costs a reference count. The response streams them, several in one write. A client that
//! takes nothing is cut off: its outbox is over its bound and made no progress for [`PATIENCE`], or it holds something and made
//! none for `write_timeout`. How long a whole transfer takes does not matter, so that a slow line gets all that it goes on reading.
//! While an outbox over its bound still makes progress, those who send to it wait. A client that takes less than `steady_rate` pays for
//! that: when others have waited for it for `send_patience` in all, it is cut off. The time that a client of that rate would have
//! needed for what it took is not counted, so that whoever sends without end is slowed and cuts nobody off.
//!
//! Progress is counted in steps of [`PIECE`], or all that waits if that is less. Two steps together are larger than one piece, so a
//! client that goes on for ever must take at least half a piece in each `write_timeout` on average: 819 bytes a second by default.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    clock::{Clock, Tick},
    name::ChannelName,
};
use actix::{Addr, Recipient};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::{
    hub::HubActor,
    message::{Claim, Pressure, ToConnection, ToHub},
    wire::{Frames, Rest},
};

/// How long an outbox over its bound may stand still, and how long a sender waits for one that does not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How much goes out in one piece, and the least that is progress.
const PIECE: usize = 16 * 1024;
/// After this time a client has regained all of the patience of those who send to it.
const REGAINED: Duration = Duration::from_secs(60);
/// Before the handshake is answered nothing can be taken, and behind a first frame nothing else, so nobody waits for that; but no
/// more than so many times the bound may be left waiting.
const EARLY: usize = 8;
/// How much of a frame that is half sent is still sent to a client that is cut off but reads, so that a Close can follow it.
const REST: usize = 64 * 1024;
/// The server holds at most its write buffer of 32 KiB and one piece. Each time it flushes while the kernel takes anything, that
/// takes at least a quarter of the 16 KiB that `on_connect` lets wait there. After so many times nothing is left.
const FLUSHES: usize = 16;

/// What the outboxes of one thread share with its hub.
#[derive(Default)]
pub(crate) struct Filling {
    /// Those that hold something, or did when last looked at.
    pub(crate) outboxes: RefCell<Vec<Rc<Outbox>>>,
    /// For how long the thread was held up in all. Nobody's frames were written then, which is not their clients' fault.
    blocked: Cell<Duration>,
}

impl Filling {
    /// The thread was held up.
    pub(crate) fn was_blocked(&self, time: Duration) {
        self.blocked.set(self.blocked.get() + time);
    }
}

/// The outbox of one socket.
pub(crate) struct Outbox {
    state: RefCell<State>,
    max_frames: usize,
    max_bytes: usize,
    write_timeout: Duration,
    patience: Duration,
    rate: usize,
    clock: Clock,
    filling: Rc<Filling>,
    hub: Addr<HubActor>,
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
    queue: VecDeque<Piece>,
    /// What counts against the bound.
    frames: usize,
    bytes: usize,
    phase: Phase,
    waker: Option<Waker>,
    /// The first frames, and parts of some, that are in the queue.
    firsts: usize,
    waiting: Vec<Waiting>,
    /// Since when others wait, and what was taken since.
    awaited: Option<(Tick, usize)>,
    cost: Cost,
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
    /// How many frames whose writing is waited for are in the queue.
    marked: usize,
    mark: Mark,
}

/// A sender that waits until less is in the queue.
struct Waiting {
    since: Tick,
    /// It is not this socket's own consumer or connection.
    is_other: bool,
    _pressure: Pressure,
}

/// How long others have waited for this client, and not regained yet.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    time: Duration,
    at: Tick,
}

impl Cost {
    /// What is left of it now, of which `patience` is regained within [`REGAINED`].
    fn now(self, now: Tick, patience: Duration) -> Duration {
        let part = now.since(self.at).div_duration_f64(REGAINED).min(1.0);
        self.time.saturating_sub(patience.mul_f64(part))
    }
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

struct Piece {
    bytes: Bytes,
    /// Part of it was taken already.
    begun: bool,
    /// Its writing is waited for.
    marked: bool,
    frames: usize,
    counted: usize,
    /// It has no bytes of its own, but stands for the frames from this page on: all who wait for them share them.
    rest: Option<(Arc<Rest>, usize)>,
}

impl Piece {
    const fn of(bytes: Bytes) -> Self {
        Self { bytes, begun: false, marked: false, frames: 0, counted: 0, rest: None }
    }

    fn rest(rest: Arc<Rest>, number: usize) -> Self {
        Self { rest: Some((rest, number)), ..Self::of(Bytes::new()) }
    }
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
    pub(crate) fn new(bounds: Bounds, clock: Clock, filling: Rc<Filling>, hub: Addr<HubActor>) -> Rc<Self> {
        Rc::new_cyclic(|itself| Self {
            state: RefCell::new(State {
                queue: VecDeque::new(),
                frames: 0,
                bytes: 0,
                phase: Phase::Open,
                waker: None,
                firsts: 0,
                waiting: Vec::new(),
                awaited: None,
                cost: Cost::default(),
                progress: Tick::default(),
                attached: None,
                watched: false,
                flushes: Some(0),
                gone: false,
                marked: 0,
                mark: Mark::Unsent,
            }),
            max_frames: bounds.frames,
            max_bytes: bounds.bytes,
            write_timeout: bounds.write_timeout,
            patience: bounds.patience,
            rate: bounds.rate,
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
        let now = self.now();
        state.waiting.push(Waiting { since: now, is_other, _pressure: pressure.clone() });
        if is_other && state.awaited.is_none() {
            state.awaited = Some((now, 0));
        }
    }

    /// How long others have waited for this client in all, less what it has regained, and less than one would need for what it took
    /// that is no slow reader.
    fn cost(&self, state: &State, now: Tick) -> Duration {
        let waited = state.awaited.map_or(Duration::ZERO, |(since, taken)| {
            #[expect(clippy::cast_precision_loss, reason = "nobody waits for so many bytes")]
            let worth = taken as f64 / self.rate as f64;
            now.since(since).saturating_sub(Duration::from_secs_f64(worth))
        });
        state.cost.now(now, self.patience).saturating_add(waited)
    }

    /// Charges the client with the time that others have waited. They may go on waiting.
    fn charge(&self, state: &mut State, now: Tick) {
        state.cost = Cost { time: self.cost(state, now), at: now };
        state.awaited = state.waiting.iter().any(|waiting| waiting.is_other).then_some((now, 0));
    }

    /// Adds frames. If there are more now than may be, this waits until there are fewer, but not beyond [`PATIENCE`].
    pub(crate) async fn send(&self, frames: &Frames) {
        let (pressure, relieved) = Claim::new(None);
        self.push(frames, None);
        self.wait(&pressure, false);
        drop(pressure);
        let _ = relieved.await;
    }

    /// Adds a first frame and what continues it, which do not count against the bound.
    pub(crate) fn push_first(&self, shared: Bytes, tail: Option<Bytes>, rest: Option<Arc<Rest>>) {
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
        if self.is_open()
            && let Some(rest) = rest
        {
            let state = &mut *self.state.borrow_mut();
            state.queue.push_back(Piece::rest(rest, 0));
            state.firsts += 1;
        }
        self.wake();
    }

    /// Adds a ping.
    pub(crate) fn push_ping(&self, ping: &Frames) {
        self.push(ping, None);
        self.mark();
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
        if state.phase == Phase::Open
            && let Some(last) = state.queue.back_mut()
        {
            last.marked = true;
            state.marked += 1;
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
        if state.queue.is_empty() {
            state.progress = self.now();
        }
        state.queue.push_back(Piece { frames, counted, ..Piece::of(bytes) });
        state.frames += frames;
        state.bytes += counted;
        state.firsts += usize::from(frames == 0);
        self.have_watched(state);
    }

    fn have_watched(&self, state: &mut State) {
        if !state.watched {
            state.watched = true;
            if let Some(itself) = self.itself.upgrade() {
                let mut filling = self.filling.outboxes.borrow_mut();
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

    /// Has the connection told when all that is in the queue was written, a Close last.
    pub(crate) fn finish(&self) {
        let mut state = self.state.borrow_mut();
        if state.phase == Phase::Closing {
            state.phase = Phase::Finishing;
        }
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
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

    /// Drops what waits, a Close too. Returns whether that left no frame half sent, so that another may follow.
    pub(crate) fn clear(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let whole = state.queue.front().is_none_or(|piece| !piece.begun);
        state.queue.clear();
        state.waiting.clear();
        (state.frames, state.bytes, state.firsts, state.marked) = (0, 0, 0, 0);
        if matches!(state.phase, Phase::Closing | Phase::Finishing) {
            state.phase = Phase::Open;
        }
        whole
    }

    /// Drops what waits, so that a Close may follow, but for the end of a frame that is half sent. Returns whether one may: not if
    /// that frame is far from its end, or the client does not read it.
    pub(crate) fn clear_but_begun(&self) -> bool {
        let mut begun = VecDeque::new();
        {
            let state = &mut *self.state.borrow_mut();
            let is_read = self.now().since(state.progress) < PATIENCE;
            while is_read && state.queue.front().is_some_and(|piece| piece.begun) {
                begun.extend(state.queue.pop_front());
            }
        }
        if begun.iter().map(|piece| piece.bytes.len()).sum::<usize>() > REST {
            return false;
        }
        let whole = self.clear() || !begun.is_empty();
        begun.into_iter().for_each(|piece| self.queue_begun(piece.bytes));
        whole
    }

    fn queue_begun(&self, bytes: Bytes) {
        self.queue(bytes, 0, 0);
        if let Some(piece) = self.state.borrow_mut().queue.back_mut() {
            piece.begun = true;
        }
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

    /// The time in which the thread worked.
    fn now(&self) -> Tick {
        Tick(0).after(self.clock.now().since(Tick(0)).saturating_sub(self.filling.blocked.get()))
    }

    /// Looks whether the client takes what there is. Returns whether there is still something to look at.
    pub(crate) fn watch(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        state.waiting.retain(|waiting| now.since(waiting.since) < PATIENCE);
        if state.awaited.is_some_and(|(since, _)| now.since(since) >= PATIENCE) || state.waiting.is_empty() {
            self.charge(state, now);
        }
        let is_ending = matches!(state.phase, Phase::Ending | Phase::Finishing) && state.attached.is_some();
        let is_taken = matches!(state.mark, Mark::Taken(_));
        let is_over = state.gone || state.phase == Phase::Broken;
        if is_over || state.queue.is_empty() && !is_taken && !is_ending {
            state.watched = false;
            return false;
        }
        let is_writable = (is_taken || is_ending) && self.is_writable();
        if let Mark::Taken(at) = state.mark
            // Also if the kernel never says so, because more has come since.
            && (is_writable || now.since(at) > self.write_timeout)
        {
            state.mark = Mark::Written(self.clock.now());
            state.progress = now;
        }
        if is_ending && is_writable && state.queue.is_empty() && state.flushes.is_none() {
            state.flushes = Some(0);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
        if state.queue.is_empty() {
            return true;
        }
        // Before the handshake is answered the client can take nothing; that time has a limit of its own.
        let still = state.attached.map(|attached| now.since(state.progress.max(attached)));
        let is_still_for = |limit| still.is_some_and(|still| still > limit);
        let too_much = if state.is_early() {
            state.frames / EARLY > self.max_frames || state.bytes / EARLY > self.max_bytes
        } else {
            is_still_for(PATIENCE) && self.is_over(state)
        };
        if too_much || is_still_for(self.write_timeout) || self.cost(state, now) > self.patience {
            self.tell(ToConnection::TooSlow);
        }
        true
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Stalled>>> {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        state.attached.get_or_insert(now);
        if state.phase == Phase::Broken {
            return Poll::Ready(Some(Err(Stalled)));
        }
        let marked = state.marked;
        if let Some(bytes) = state.take() {
            state.progress = now;
            state.flushes = Some(0);
            if state.marked == 0 && marked > 0 {
                state.mark = Mark::Taken(now);
            }
            if let Some((_, taken)) = &mut state.awaited {
                *taken += bytes.len();
            }
            if !self.is_over(state) && !state.waiting.is_empty() {
                state.waiting.clear();
                self.charge(state, now);
            }
            return Poll::Ready(Some(Ok(bytes)));
        }
        if matches!(state.phase, Phase::Ending | Phase::Finishing) {
            // The server flushes once after each time that it gets nothing here.
            state.flushes = state.flushes.filter(|_| self.is_writable()).map(|flushes| flushes + 1);
            match state.flushes {
                Some(flushes) if flushes > FLUSHES => {
                    self.tell(ToConnection::Flushed);
                    if state.phase == Phase::Ending {
                        return Poll::Ready(None);
                    }
                    state.phase = Phase::Closing;
                }
                Some(_) => cx.waker().wake_by_ref(),
                // The kernel takes nothing now: asked again when it does.
                None => self.have_watched(state),
            }
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl State {
    /// Whether the client could not take what waits, however fast it reads.
    const fn is_early(&self) -> bool {
        self.attached.is_none() || self.firsts > 0
    }

    /// Puts the next page in front if it is what comes next. Nothing else can come in between: no other piece goes to the front.
    fn unfold(&mut self) {
        let Some((rest, number)) = self.queue.front_mut().and_then(|front| front.rest.take()) else { return };
        self.queue.pop_front();
        self.firsts -= 1;
        let Some((head, body)) = rest.page(number) else { return };
        let others = (number + 1 < rest.len()).then(|| Piece::rest(rest, number + 1));
        let body = Piece { begun: head.is_some(), ..Piece::of(body) };
        for piece in [others, Some(body), head.map(Piece::of)].into_iter().flatten() {
            self.queue.push_front(piece);
            self.firsts += 1;
        }
    }

    /// How long the piece is that comes next.
    fn next_len(&mut self) -> Option<usize> {
        self.unfold();
        self.queue.front().map(|next| next.bytes.len())
    }

    /// A piece to write: several small ones together, or part of a large one.
    fn take(&mut self) -> Option<Bytes> {
        self.unfold();
        let first = self.queue.front_mut()?;
        if first.bytes.len() > PIECE {
            first.begun = true;
            return Some(first.bytes.split_to(PIECE));
        }
        let first = self.take_first()?;
        let mut fits = PIECE - first.len();
        let more = self.next_len().is_some_and(|next| next <= fits);
        if !more {
            return Some(first);
        }
        let mut together = BytesMut::with_capacity(PIECE.min(first.len() * 4));
        together.extend_from_slice(&first);
        while self.next_len().is_some_and(|next| next <= fits) {
            let Some(next) = self.take_first() else { break };
            fits -= next.len();
            together.extend_from_slice(&next);
        }
        Some(together.freeze())
    }

    fn take_first(&mut self) -> Option<Bytes> {
        let Piece { bytes, frames, counted, marked, .. } = self.queue.pop_front()?;
        self.frames -= frames;
        self.bytes -= counted;
        self.firsts -= usize::from(frames == 0);
        self.marked -= usize::from(marked);
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
    pub(crate) connection: Recipient<ToConnection>,
}

impl Stream for Outbound {
    type Item = Result<Bytes, Stalled>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outbox.poll(cx)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.outbox.state.borrow_mut().gone = true;
        self.connection.do_send(ToConnection::BodyGone);
    }
}
