//! The time at which a channel was last seen, shared by its connection and all its presences.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    clock::Tick,
    model::deadline::{Deadline, judge},
    node::Standstills,
};

/// The time at which a channel was last seen. To touch is to store a number in memory. It is written to the database later, together with
/// many others, and no caller waits for that.
///
/// It is shared by reference count, so a restart of the room or of the connection does not lose the time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touch(Arc<Cell>);

#[derive(Debug, Default)]
struct Cell {
    seen: AtomicU64,
    /// Whether a frame that arrived still waits for the consumer.
    backlog: AtomicBool,
    /// Whether the next presence that reads this panics, so that a test can show that this does no harm.
    #[cfg(any(test, feature = "testing"))]
    fails: AtomicBool,
}

impl Touch {
    pub(crate) fn new(now: Tick) -> Self {
        let touch = Self::default();
        touch.mark(now);
        touch
    }

    /// Records that the channel was seen at `now`. The time never goes back.
    pub(crate) fn mark(&self, now: Tick) {
        // Frames that arrive together have the same time, and to read it costs less than to write it.
        if self.0.seen.load(Ordering::Relaxed) < now.0 {
            self.0.seen.fetch_max(now.0, Ordering::Relaxed);
        }
    }

    /// Whether both are of the same channel.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn seen(&self) -> Tick {
        Tick(self.0.seen.load(Ordering::Relaxed))
    }

    /// Records whether a frame that has arrived still waits for the consumer. The frame may be a heartbeat, so its sender is not stale.
    pub(crate) fn set_backlog(&self, backlog: bool) {
        self.0.backlog.store(backlog, Ordering::Relaxed);
    }

    pub(crate) fn has_backlog(&self) -> bool {
        self.0.backlog.load(Ordering::Relaxed)
    }

    /// When the channel becomes stale, if no frame of it waits. Only time in which this node read its sockets counts.
    pub(crate) fn deadline(&self, standstills: &Standstills, now: Tick, max_age: Duration) -> Deadline {
        let seen = self.seen();
        match judge(now, seen, max_age) {
            Deadline::Wait(left) => Deadline::Wait(left),
            Deadline::Stale => judge(now, standstills.silent_since(seen, now), max_age),
        }
    }

    /// Whether the channel was last seen more than `max_age` before `now`, and no frame of it waits.
    pub(crate) fn is_stale(&self, standstills: &Standstills, now: Tick, max_age: Duration) -> bool {
        !self.has_backlog() && self.deadline(standstills, now, max_age) == Deadline::Stale
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn make_child_fail(&self) {
        self.0.fails.store(true, Ordering::Relaxed);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn panic_if_requested(&self) {
        if self.0.fails.swap(false, Ordering::Relaxed) {
            panic!("a presence was made to panic");
        }
    }
}
