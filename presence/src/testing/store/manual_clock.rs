//! A clock that a test advances.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::clock::{Clock, Tick};

/// A clock that stands still until it is advanced. Clones share one clock.
///
/// It starts at one day and not at zero, so that times before the beginning of a test exist.
///
/// ```
/// # use std::time::Duration;
/// use presence::testing::store::ManualClock;
///
/// let time = ManualClock::new();
/// let begun = time.clock().now();
/// time.advance(Duration::from_secs(5));
/// assert_eq!(time.clock().now().since(begun), Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A new clock.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(24 * 60 * 60 * 1000)))
    }

    /// Advances the clock.
    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The time in milliseconds, for the wall clock of a store.
    #[must_use]
    pub fn millis(&self) -> i64 {
        i64::try_from(self.0.load(Ordering::SeqCst)).unwrap_or(i64::MAX)
    }

    /// This clock as a [`Clock`].
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
