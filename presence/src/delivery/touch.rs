//! When a connection was last seen, shared by its actor and by all its presences.

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
    node::listening::Listening,
};

/// A touch is local: it stores a number. The database hears of it later and in bulk, and nobody waits for that.
///
/// It outlives the actors on both of its ends, so a restart of either makes nobody stale.
#[derive(Debug, Clone, Default)]
pub(crate) struct Touch(Arc<Cell>);

#[derive(Debug, Default)]
struct Cell {
    seen: AtomicU64,
    /// Whether a frame that arrived still waits for the consumer.
    backlog: AtomicBool,
    /// Whether the next child that looks at it fails, to show that this does no harm.
    #[cfg(any(test, feature = "testing"))]
    fails: AtomicBool,
}

impl Touch {
    pub(crate) fn new(now: Tick) -> Self {
        let touch = Self::default();
        touch.mark(now);
        touch
    }

    /// It was seen at `now`. Never goes back.
    pub(crate) fn mark(&self, now: Tick) {
        self.0.seen.fetch_max(now.0, Ordering::Relaxed);
    }

    /// Whether both are of the same connection.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn seen(&self) -> Tick {
        Tick(self.0.seen.load(Ordering::Relaxed))
    }

    /// Whether a frame that arrived still waits for the consumer. What it will say is not known yet, so its sender is not
    /// stale.
    pub(crate) fn set_backlog(&self, backlog: bool) {
        self.0.backlog.store(backlog, Ordering::Relaxed);
    }

    pub(crate) fn has_backlog(&self) -> bool {
        self.0.backlog.load(Ordering::Relaxed)
    }

    /// When it goes stale, if nothing from it waits. Only time in which the node listened counts.
    pub(crate) fn deadline(&self, listening: &Listening, now: Tick, max_age: Duration) -> Deadline {
        let seen = self.seen();
        match judge(now, seen, max_age) {
            Deadline::Wait(left) => Deadline::Wait(left),
            Deadline::Stale => judge(now, listening.silent_since(seen, now), max_age),
        }
    }

    /// Whether it was last seen more than `max_age` before `now`, and nothing from it waits.
    pub(crate) fn is_stale(&self, listening: &Listening, now: Tick, max_age: Duration) -> bool {
        !self.has_backlog() && self.deadline(listening, now, max_age) == Deadline::Stale
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn make_child_fail(&self) {
        self.0.fails.store(true, Ordering::Relaxed);
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn fail_if_told(&self) {
        if self.0.fails.swap(false, Ordering::Relaxed) {
            panic!("a presence was told to fail");
        }
    }
}
