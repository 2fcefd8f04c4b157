//! What waits for one subscriber.
//!
//! It grows with what waits and shrinks again: most subscriptions are of one room in which nothing happens.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::debug;

use super::{PresenceChanged, Subscription};

/// An empty queue keeps no more room than for so many.
const KEPT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    come: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<PresenceChanged>>,
    /// How many were lost before the first of these.
    missed: u64,
    over: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock()
    }

    /// Adds an event; the oldest is lost if there are too many.
    pub(super) fn push(&self, event: Arc<PresenceChanged>) {
        let mut waiting = self.waiting();
        if waiting.events.len() >= Subscription::CAPACITY {
            waiting.events.pop_front();
            waiting.missed += 1;
            if waiting.missed == 1 {
                debug!(room = %event.room, "a subscriber is too slow and loses its oldest events");
            }
        }
        waiting.events.push_back(event);
        drop(waiting);
        self.come.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.waiting().over = true;
        self.come.notify_one();
    }

    /// The next event; `None` if all were taken and none comes any more. For one at a time.
    pub(super) async fn next(&self) -> Option<PresenceChanged> {
        loop {
            {
                let mut waiting = self.waiting();
                if let Some(event) = waiting.events.pop_front() {
                    if waiting.events.is_empty() {
                        waiting.events.shrink_to(KEPT);
                    }
                    let missed = std::mem::take(&mut waiting.missed);
                    return Some(PresenceChanged { missed, ..Arc::unwrap_or_clone(event) });
                }
                if waiting.over {
                    return None;
                }
            }
            self.come.notified().await;
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
    fn a_queue_in_which_nothing_waits_takes_no_memory() {
        // Each subscription reserved 1,024 places.
        let queue = Queue::default();
        assert_eq!(queue.waiting().events.capacity(), 0);
        for _ in 0..Subscription::CAPACITY {
            queue.push(event());
        }
        while queue.next().now_or_never().is_some() {}
        assert!(queue.waiting().events.capacity() <= KEPT);
    }

    #[test]
    fn what_waits_is_heard_before_the_end() {
        let queue = Queue::default();
        queue.push(event());
        queue.end();
        assert!(queue.next().now_or_never().unwrap().is_some());
        assert!(queue.next().now_or_never().unwrap().is_none());
        assert!(queue.next().now_or_never().unwrap().is_none());
    }
}
