//! How late the database learns when a presence was last seen.

use std::time::Duration;

/// The longest time for which touches are gathered.
const MAX_GATHER: Duration = Duration::from_secs(4);

/// For how long touches that are due are gathered before they are written together.
pub(crate) fn gather_time(touch_flush_interval: Duration) -> Duration {
    MAX_GATHER.min(touch_flush_interval / 4)
}

/// How much later than its row says a presence of a dead node may have been seen, for a prune of presences that are older than `age`. For an age
/// of zero that does not matter, since all presences are removed.
pub(crate) fn unwritten(touch_flush_interval: Duration, age: Duration) -> Duration {
    if age.is_zero() { Duration::ZERO } else { touch_flush_interval.saturating_add(gather_time(touch_flush_interval)) }
}
