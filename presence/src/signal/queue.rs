//! The events that one subscriber has not received yet.
//!
//! The queue grows and shrinks with its events, since most subscriptions are for one room in which little happens.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::debug;

use super::{PresenceChanged, Subscription};

/// The capacity that an empty queue keeps.
const KEPT_CAPACITY: usize = 16;

#[derive(Debug, Default)]
pub(super) struct EventQueue {
    state: Mutex<QueueState>,
    added: Notify,
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
        self.added.notify_one();
    }

    /// No more events will be added.
    pub(super) fn end(&self) {
        self.state().ended = true;
        self.added.notify_one();
    }

    /// The next event. `None` after the last event when the queue has ended. Only one task may wait at a time.
    pub(super) async fn next(&self) -> Option<PresenceChanged> {
        loop {
            {
                let mut state = self.state();
                if let Some(event) = state.events.pop_front() {
                    if state.events.is_empty() {
                        state.events.shrink_to(KEPT_CAPACITY);
                    }
                    let missed = std::mem::take(&mut state.missed);
                    return Some(PresenceChanged { missed, ..Arc::unwrap_or_clone(event) });
                }
                if state.ended {
                    return None;
                }
            }
            self.added.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{PresenceChange, name::RoomName};

    fn event() -> Arc<PresenceChanged> {
        let room = RoomName::new("lobby").unwrap();
        let (online, offline) = (Vec::new(), Vec::new());
        Arc::new(PresenceChanged { room, change: PresenceChange::Bulk(Vec::new()), missed: 0, online, offline })
    }

    #[test]
    fn an_empty_queue_takes_no_memory() {
        // Each subscription reserved space for 1,024 events.
        let queue = EventQueue::default();
        assert_eq!(queue.state().events.capacity(), 0);
        for _ in 0..Subscription::CAPACITY {
            queue.push(event());
        }
        while queue.next().now_or_never().is_some() {}
        assert!(queue.state().events.capacity() <= KEPT_CAPACITY);
    }

    #[test]
    fn queued_events_are_received_before_the_end() {
        let queue = EventQueue::default();
        queue.push(event());
        queue.end();
        assert!(queue.next().now_or_never().unwrap().is_some());
        assert!(queue.next().now_or_never().unwrap().is_none());
        assert!(queue.next().now_or_never().unwrap().is_none());
    }
}
