//! A few leaves that are alone in the queue wait a moment for a join.
//!
//! A user who leaves often joins again at once, or joins another room: that is one transaction instead of two. Nobody waits
//! for the answer to such a leave, and the others see the presence go at most [`LEAVE_DELAY`] later.

use std::time::Duration;

use tokio::time::Instant;

/// How long a few leaves wait for a join that shares their transaction.
const LEAVE_DELAY: Duration = Duration::from_millis(5);

/// How many leaves are few. A transaction with more leaves is worth its cost without a join.
pub(super) const MAX_DELAYED_LEAVES: usize = 16;

/// Until when the leaves that are queued now wait, if they do.
#[derive(Debug, Default)]
pub(super) struct LeaveDelay(Option<Instant>);

impl LeaveDelay {
    /// Until when nothing is written, if `only_few_leaves` are queued.
    pub(super) fn until(&mut self, only_few_leaves: bool) -> Option<Instant> {
        let now = Instant::now();
        let until = only_few_leaves.then(|| self.0.unwrap_or(now + LEAVE_DELAY)).filter(|until| now < *until);
        self.0 = until;
        until
    }
}
