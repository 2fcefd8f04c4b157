//! Work at a steady rate.

use std::time::{Duration, Instant};

/// Even steps in time.
#[derive(Debug)]
pub(crate) struct Pace {
    pub(crate) due: Instant,
    step: Duration,
}

impl Pace {
    pub(crate) fn per_second(rate: f64) -> Self {
        Self { due: Instant::now(), step: Duration::from_secs_f64(1.0 / rate) }
    }

    /// Whether a step is due, which is then taken.
    pub(crate) fn is_due(&mut self) -> bool {
        let is_due = Instant::now() >= self.due;
        if is_due {
            self.due += self.step;
        }
        is_due
    }
}
