//! The queue of one consumer: frames of its client, in order, and events.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tracing::{info, trace, warn};

use crate::{CloseCode, Event, Frame, clock::Tick, delivery::Touch, name::RoomName};

/// How many events may be queued for one consumer. Further events are dropped.
const MAX_EVENTS: usize = 1024;

/// One call of a consumer's method.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    /// A frame, and when it arrived.
    Frame(Frame, Tick),
    Event(Arc<Event>),
    Removed(RoomName),
}

/// Bounded: when it is full, the client's connection is no longer read.
///
/// The client is read and its consumer runs in one task (`consumer/task.rs`), and whatever changes here polls that task again.
#[derive(Debug)]
pub(crate) struct Inbox {
    jobs: RefCell<VecDeque<Queued>>,
    frames: Cell<usize>,
    events: Cell<usize>,
    /// How many events were dropped since the queue last was without events.
    dropped: Cell<u64>,
    capacity: usize,
    /// The code with which the socket ended. The jobs that are queued still run, unless they were cut.
    ended: Cell<Option<CloseCode>>,
    /// The consumer is handling a frame.
    working: Cell<bool>,
    /// A frame has arrived and is not in the queue yet, because its client sends too many.
    held_back: Cell<bool>,
    /// The consumer has taken a frame while there was no space for another.
    made_space: Cell<bool>,
    /// The connection is gone, so the client is no longer read.
    abandoned: Cell<bool>,
    touch: Touch,
    task: RefCell<Option<Waker>>,
}

/// What is queued: a job, and how often it is to be done. Frames of heartbeats that arrive together are queued as one.
#[derive(Debug)]
struct Queued {
    job: Job,
    times: usize,
}

impl Inbox {
    pub(crate) fn new(capacity: usize, touch: Touch) -> Self {
        Self {
            jobs: RefCell::default(),
            frames: Cell::new(0),
            events: Cell::new(0),
            dropped: Cell::new(0),
            capacity,
            ended: Cell::new(None),
            working: Cell::new(false),
            held_back: Cell::new(false),
            made_space: Cell::new(false),
            abandoned: Cell::new(false),
            touch,
            task: RefCell::default(),
        }
    }

    /// Whether there is no space for a frame.
    pub(crate) fn is_full(&self) -> bool {
        self.frames.get() >= self.capacity && self.ended.get().is_none()
    }

    /// Resolves when there is space for a frame, or when the socket has ended.
    pub(crate) async fn space(&self) {
        trace!("nothing is read from a client until its consumer has handled a frame");
        poll_fn(|cx| if self.is_full() { self.wait(cx) } else { Poll::Ready(()) }).await;
    }

    /// For how many frames there will be space when one more is added.
    pub(crate) fn space_after_one(&self) -> usize {
        self.capacity.saturating_sub(self.frames.get() + 1)
    }

    /// Adds so many frames, all the same, unless the socket has ended.
    pub(crate) fn push(&self, frame: Frame, times: usize, arrived: Tick) {
        if self.ended.get().is_some() {
            return;
        }
        self.frames.set(self.frames.get() + times);
        self.jobs.borrow_mut().push_back(Queued { job: Job::Frame(frame, arrived), times });
        self.touch.set_backlog(true);
    }

    /// Whether the consumer has made space for a frame since the last call.
    pub(crate) fn take_made_space(&self) -> bool {
        self.made_space.take()
    }

    /// The connection is gone: ends the reading of the client.
    pub(crate) fn abandon(&self) {
        self.abandoned.set(true);
        self.wake();
    }

    /// Whether the connection is gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.get()
    }

    /// Has the task of the socket polled when something changes.
    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        let task = &mut *self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Adds an event or a removal. An event is dropped if too many are queued.
    pub(crate) fn push_event(&self, job: Job) {
        if self.ended.get().is_some() {
            return;
        }
        if self.events.get() >= MAX_EVENTS && matches!(job, Job::Event(_)) {
            if self.dropped.replace(self.dropped.get() + 1) == 0 {
                warn!("a consumer is too slow, and events are dropped");
            }
            return;
        }
        self.events.set(self.events.get() + 1);
        self.jobs.borrow_mut().push_back(Queued { job, times: 1 });
        self.wake();
    }

    /// The socket ended with this code. The queued jobs still run.
    pub(crate) fn end(&self, code: CloseCode) {
        if self.ended.get().is_none() {
            self.ended.set(Some(code));
            self.wake();
        }
    }

    /// The socket ended with this code. The queued jobs are dropped.
    pub(crate) fn cut(&self, code: CloseCode) {
        self.jobs.borrow_mut().clear();
        self.end(code);
    }

    /// Sets whether a frame has arrived and is not in the queue yet.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.held_back.set(held_back);
        if held_back {
            self.touch.set_backlog(true);
        }
    }

    /// Whether the socket has ended, so that no more frames are added.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// Resolves when the socket has ended.
    pub(crate) fn ended(&self) -> impl Future<Output = CloseCode> {
        poll_fn(|cx| self.ended.get().map_or_else(|| self.wait(cx), Poll::Ready))
    }

    /// Whether a frame has arrived that the consumer has not handled completely.
    pub(crate) fn has_backlog(&self) -> bool {
        self.working.get() || self.held_back.get() || self.frames.get() > 0
    }

    /// The next job; `Err` with the code when the socket has ended and the queue is empty.
    pub(crate) fn next(&self) -> impl Future<Output = Result<Job, CloseCode>> {
        poll_fn(|cx| {
            self.working.set(false);
            if let Some(job) = self.take() {
                return Poll::Ready(Ok(job));
            }
            self.touch.set_backlog(self.held_back.get());
            self.ended.get().map_or_else(|| self.wait(cx), |code| Poll::Ready(Err(code)))
        })
    }

    fn take_first(&self) -> Option<Job> {
        let jobs = &mut *self.jobs.borrow_mut();
        let first = jobs.front_mut()?;
        if first.times > 1 {
            first.times -= 1;
            return Some(first.job.clone());
        }
        jobs.pop_front().map(|first| first.job)
    }

    fn take(&self) -> Option<Job> {
        let job = self.take_first()?;
        if matches!(job, Job::Frame(..)) {
            if self.is_full() {
                self.made_space.set(true);
            }
            self.frames.set(self.frames.get() - 1);
            self.working.set(true);
        } else {
            self.events.set(self.events.get() - 1);
            if self.events.get() == 0
                && let count @ 1.. = self.dropped.take()
            {
                info!(count, "a consumer for which events were dropped has caught up");
            }
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// What is next, which must not have to be waited for.
    fn next(inbox: &Inbox) -> Result<Job, CloseCode> {
        inbox.next().now_or_never().expect("something is next")
    }

    #[test]
    fn frames_that_are_queued_as_one_take_space_and_are_handled_one_by_one() {
        let inbox = Inbox::new(4, Touch::default());
        let frame = || Frame::Text("x".into());
        inbox.push(frame(), 1, Tick(7));
        assert_eq!(inbox.space_after_one(), 2);
        inbox.push(frame(), 3, Tick(8));
        assert!(inbox.is_full());
        assert_eq!(inbox.space_after_one(), 0);
        for arrived in [7, 8, 8, 8] {
            let Ok(Job::Frame(taken, at)) = next(&inbox) else { panic!("a frame is queued") };
            assert_eq!((taken, at), (frame(), Tick(arrived)));
            assert!(inbox.has_backlog(), "it is not handled yet");
        }
        inbox.end(CloseCode::NORMAL);
        assert!(matches!(next(&inbox), Err(CloseCode::NORMAL)));
        assert!(!inbox.has_backlog());
    }

    #[test]
    fn a_cut_drops_all_frames_that_are_queued_as_one() {
        let inbox = Inbox::new(4, Touch::default());
        inbox.push(Frame::Text("x".into()), 3, Tick(7));
        assert!(next(&inbox).is_ok());
        inbox.cut(CloseCode::LOST);
        assert!(matches!(next(&inbox), Err(CloseCode::LOST)));
    }
}
