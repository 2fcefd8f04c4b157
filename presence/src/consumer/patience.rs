//! Limits of time that do not run out merely because nothing ran.

use std::{pin::pin, time::Duration};

use tokio::time::Instant;

use crate::room::listening::LATE;

/// How long a thread that was held up may take to read what has come in meanwhile.
pub(crate) const UNBLOCKED: Duration = Duration::from_secs(1);
/// After so many turns of a thread, what it has taken from the kernel has reached the consumers.
pub(crate) const READING_TURNS: usize = 8;

/// Runs `work`, but no longer than `limit`; `None` if it takes longer. If the thread stood still when the limit was reached, what
/// `work` waits for may have come and not be read, so it has that time again, and at most `limit` once more.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut until = Instant::now() + limit;
    loop {
        if let Ok(done) = tokio::time::timeout_at(until, &mut work).await {
            return Some(done);
        }
        until = again(until, limit)?;
    }
}

/// Until when something is waited for that was due at `due`; `None` if it was waited for long enough.
pub(crate) fn again(due: Instant, limit: Duration) -> Option<Instant> {
    let (now, late) = (Instant::now(), due.elapsed());
    (late > LATE).then(|| now + late.min(limit))
}

/// Lets everything be handled that the thread has read.
pub(crate) async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn work_that_takes_too_long_ends_at_its_limit() {
        let begun = Instant::now();
        assert_eq!(within(LIMIT, pending::<()>()).await, None);
        assert!(begun.elapsed() < LIMIT + Duration::from_millis(10), "{:?}", begun.elapsed());
        assert_eq!(within(LIMIT, ready(7)).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_thread_stood_still_is_given_again() {
        let begun = Instant::now();
        let work = async { tokio::join!(within(LIMIT, pending::<()>()), tokio::time::advance(LIMIT + LATE * 5)).0 };
        assert_eq!(work.await, None);
        assert_eq!(begun.elapsed().as_secs(), (LIMIT + LATE * 10).as_secs());
    }
}
