//! What waits for a consumer: the frames of its client, in order, and what rooms say to it.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use tokio::sync::Notify;
use tracing::{info, trace, warn};

use crate::{CloseCode, Event, Frame, clock::Tick, delivery::touch::Touch, name::RoomName};

/// How many events may wait for one consumer before the newest are dropped.
const MAX_EVENTS: usize = 1024;

/// One call of a consumer's method.
#[derive(Debug)]
pub(crate) enum Job {
    /// A frame, and when it arrived.
    Frame(Frame, Tick),
    Event(Arc<Event>),
    Removed(RoomName),
}

/// Bounded: when it is full, the client's connection is no longer read.
#[derive(Debug)]
pub(crate) struct Inbox {
    jobs: RefCell<VecDeque<Job>>,
    frames: Cell<usize>,
    events: Cell<usize>,
    /// How many events were lost since the consumer last had handled all.
    lost: Cell<u64>,
    capacity: usize,
    /// How the socket ended: nothing more is handed out once the queue is empty.
    ended: Cell<Option<CloseCode>>,
    working: Cell<bool>,
    /// A frame that came is held back outside, since its client sends too many.
    held_back: Cell<bool>,
    touch: Touch,
    filled: Notify,
    emptied: Notify,
}

impl Inbox {
    pub(crate) fn new(capacity: usize, touch: Touch) -> Self {
        Self {
            jobs: RefCell::default(),
            frames: Cell::new(0),
            events: Cell::new(0),
            lost: Cell::new(0),
            capacity,
            ended: Cell::new(None),
            working: Cell::new(false),
            held_back: Cell::new(false),
            touch,
            filled: Notify::new(),
            emptied: Notify::new(),
        }
    }

    /// Adds a frame, when there is room for it. Returns `false` if the socket has ended.
    pub(crate) async fn push(&self, frame: Frame, arrived: Tick) -> bool {
        let is_full = || self.frames.get() >= self.capacity && self.ended.get().is_none();
        if is_full() {
            trace!("a client is not read until its consumer has handled a frame");
        }
        while is_full() {
            self.emptied.notified().await;
        }
        if self.ended.get().is_some() {
            return false;
        }
        self.frames.set(self.frames.get() + 1);
        self.jobs.borrow_mut().push_back(Job::Frame(frame, arrived));
        self.touch.set_backlog(true);
        self.filled.notify_one();
        true
    }

    /// Adds what a room says. A consumer that is too far behind loses it.
    pub(crate) fn push_event(&self, job: Job) {
        if self.ended.get().is_some() {
            return;
        }
        if self.events.get() >= MAX_EVENTS && matches!(job, Job::Event(_)) {
            if self.lost.replace(self.lost.get() + 1) == 0 {
                warn!("a consumer is too far behind and loses events");
            }
            return;
        }
        self.events.set(self.events.get() + 1);
        self.jobs.borrow_mut().push_back(job);
        self.filled.notify_one();
    }

    /// The socket ended with this code. What waits is handed out first.
    pub(crate) fn end(&self, code: CloseCode) {
        if self.ended.get().is_none() {
            self.ended.set(Some(code));
            self.filled.notify_one();
            self.emptied.notify_one();
        }
    }

    /// The socket ended with this code. What waits is dropped.
    pub(crate) fn cut(&self, code: CloseCode) {
        self.jobs.borrow_mut().clear();
        self.end(code);
    }

    /// Says whether a frame that came is held back, and not here yet.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.held_back.set(held_back);
        if held_back {
            self.touch.set_backlog(true);
        }
    }

    /// Whether the socket has ended, so that nothing more is taken.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Resolves when the socket has ended.
    pub(crate) async fn ended(&self) -> CloseCode {
        loop {
            if let Some(code) = self.ended.get() {
                return code;
            }
            self.filled.notified().await;
        }
    }

    /// Whether something that arrived was not dealt with yet.
    pub(crate) fn has_backlog(&self) -> bool {
        self.working.get() || self.held_back.get() || self.frames.get() > 0
    }

    /// The next job; `Err` with the code once the socket has ended and nothing is left.
    pub(crate) async fn next(&self) -> Result<Job, CloseCode> {
        self.working.set(false);
        loop {
            let next = self.jobs.borrow_mut().pop_front();
            if let Some(job) = next {
                if matches!(job, Job::Frame(..)) {
                    self.frames.set(self.frames.get() - 1);
                    self.working.set(true);
                    self.emptied.notify_one();
                } else {
                    self.events.set(self.events.get() - 1);
                    if self.events.get() == 0
                        && let count @ 1.. = self.lost.take()
                    {
                        info!(count, "a consumer that lost events has caught up");
                    }
                }
                return Ok(job);
            }
            self.touch.set_backlog(self.held_back.get());
            if let Some(code) = self.ended.get() {
                return Err(code);
            }
            self.filled.notified().await;
        }
    }
}
