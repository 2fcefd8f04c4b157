//! A few leaves that are alone in the queue wait a moment for a join.
//!
//! A user who leaves often joins again at once, or joins another room: that is one transaction instead of two. Nobody waits
//! for the answer to such a leave, and the others see the presence go at most [`LEAVE_DELAY`] later.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Writer;

/// How long a few leaves wait for a join that shares their transaction.
const LEAVE_DELAY: Duration = Duration::from_millis(5);

/// How many leaves are few. A transaction with more leaves is worth its cost without a join.
pub(super) const MAX_DELAYED_LEAVES: usize = 16;

impl Writer {
    /// Resolves at once unless only a few leaves are queued. Then it resolves when something else is queued, or after
    /// [`LEAVE_DELAY`].
    pub(super) async fn delay_few_leaves(&self) {
        let until = Instant::now() + LEAVE_DELAY;
        loop {
            let work = self.0.work.notified();
            if !self.queue().has_only_few_leaves() || timeout_at(until, work).await.is_err() {
                return;
            }
        }
    }
}
