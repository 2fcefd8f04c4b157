//! Monotonic time, passed in wherever it is needed.
//!
//! Presence is judged by a clock that never jumps. Wall-clock time exists only at the store's edge, where a `Tick`
//! becomes milliseconds of the database.

use std::{fmt, sync::Arc, time::Duration};

/// A moment of this process's monotonic clock, in milliseconds since its [`Clock`] was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// The time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This moment and `time` more.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Tells the time of one node.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Tick + Send + Sync>);

impl Clock {
    /// The system's monotonic clock, as `tokio` sees it: under `tokio::time::pause` it stands still and is advanced
    /// together with every timer.
    #[must_use]
    pub fn system() -> Self {
        let start = tokio::time::Instant::now();
        Self::new(move || Tick(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    /// A clock that asks `now`, whose answers must never go back.
    #[must_use]
    pub fn new(now: impl Fn() -> Tick + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Tick {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
