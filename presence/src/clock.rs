//! Monotonic time, which is passed to all code that needs it.
//!
//! Deadlines use a clock that never jumps. Wall-clock time only exists in the stores, where a `Tick` becomes milliseconds of the database.

use std::{fmt, sync::Arc, time::Duration};

/// A moment of the monotonic clock of this process, in milliseconds since its [`Clock`] was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    /// The time from `earlier` to this moment. Zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The moment that is `time` after this one.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// The clock of a node.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Tick + Send + Sync>);

impl Clock {
    /// The monotonic clock of `tokio`: after `tokio::time::pause` it stands still, and is advanced together with all timers.
    #[must_use]
    pub fn system() -> Self {
        let start = tokio::time::Instant::now();
        Self::new(move || Tick(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)))
    }

    /// A clock that calls `now`. Its results must never go back.
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
