//! The events that one subscriber has not received yet.
//!
//! The queue grows and shrinks with its events, since most subscriptions are for one room in which little happens.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tracing::debug;

use super::{PresenceChanged, Subscription};

/// The capacity that an empty queue keeps.
const KEPT_CAPACITY: usize = 16;

#[derive(Debug, Default)]
pub(super) struct EventQueue {
    state: Mutex<QueueState>,
    /// The task that waits for an event.
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct QueueState {
    events: VecDeque<Arc<PresenceChanged>>,
    /// How many events were lost before the first of these.
    missed: u64,
    ended: bool,
}

impl EventQueue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    /// Adds an event. If the queue is full, the oldest is lost.
    pub(super) fn push(&self, event: Arc<PresenceChanged>) {
        let mut state = self.state();
        if state.events.len() >= Subscription::CAPACITY {
            state.events.pop_front();
            state.missed += 1;
            if state.missed == 1 {
                debug!(room = %event.room, "a subscriber is too slow and loses its oldest events");
            }
        }
        state.events.push_back(event);
        drop(state);
        self.waker.wake();
    }

    /// No more events will be added.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.waker.wake();
    }

    /// The next event. `None` after the last event when the queue has ended. Only one task may wait at a time.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<PresenceChanged>> {
        self.waker.register(cx.waker());
        let mut state = self.state();
        if let Some(event) = state.events.pop_front() {
            if state.events.is_empty() {
                state.events.shrink_to(KEPT_CAPACITY);
            }
            let missed = std::mem::take(&mut state.missed);
            return Poll::Ready(Some(PresenceChanged { missed, ..Arc::unwrap_or_clone(event) }));
        }
        if state.ended { Poll::Ready(None) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PresenceChange, name::RoomName};

    fn event() -> Arc<PresenceChanged> {
        let room = RoomName::new("lobby").unwrap();
        let (online, offline) = (Vec::new(), Vec::new());
        Arc::new(PresenceChanged { room, change: PresenceChange::Bulk(Vec::new()), missed: 0, online, offline })
    }

    fn next(queue: &EventQueue) -> Poll<Option<PresenceChanged>> {
        queue.poll_next(&Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn an_empty_queue_takes_no_memory() {
        // Each subscription reserved space for 1,024 events.
        let queue = EventQueue::default();
        assert_eq!(queue.state().events.capacity(), 0);
        for _ in 0..Subscription::CAPACITY {
            queue.push(event());
        }
        while next(&queue).is_ready() {}
        assert!(queue.state().events.capacity() <= KEPT_CAPACITY);
    }

    #[test]
    fn queued_events_are_received_before_the_end() {
        let queue = EventQueue::default();
        queue.push(event());
        queue.end();
        assert!(matches!(next(&queue), Poll::Ready(Some(_))));
        assert!(matches!(next(&queue), Poll::Ready(None)));
        assert!(matches!(next(&queue), Poll::Ready(None)));
    }
}
