//! Time that a test moves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::{Clock, Tick};

/// A clock that stands still until it is advanced. Clones are one clock.
///
/// It starts at a day rather than at zero, so that moments before the beginning of a test exist.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock of its own.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(24 * 60 * 60 * 1000)))
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The time in milliseconds, for a store's wall clock.
    #[must_use]
    pub fn millis(&self) -> i64 {
        i64::try_from(self.0.load(Ordering::SeqCst)).unwrap_or(i64::MAX)
    }

    /// This clock as the framework sees it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        let now = self.0.clone();
        Clock::new(move || Tick(now.load(Ordering::SeqCst)))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}
