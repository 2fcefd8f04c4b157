//! Time limits that a blocked thread does not use up.

use std::{pin::pin, task::Poll, time::Duration};

use futures_util::poll;
use tokio::time::Instant;

use crate::node::LATE;

/// How long a thread that was blocked may take to read what has arrived in the meantime.
pub(crate) const UNBLOCKED: Duration = Duration::from_secs(1);
/// After so many turns of a thread, everything that it has read from the kernel has reached the consumers.
pub(crate) const READING_TURNS: usize = 8;

/// Runs `work` for at most `limit`; `None` if it takes longer. If the thread stood still when the limit was reached, the event that
/// `work` waits for may have arrived and not been read. So `work` is given that time again, but at most `limit` once more.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    within_apart_from(|| Duration::ZERO, limit, work).await
}

/// As [`within`], but time in which `work` had to wait does not count. `waited` returns the sum of this time so far.
pub(crate) async fn within_apart_from<T>(
    waited: impl Fn() -> Duration,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let waited_before = waited();
    // Most work is done at once, and needs no timer.
    if let Poll::Ready(done) = poll!(&mut work) {
        return Some(done);
    }
    rest_within_apart_from(waited_before, waited, limit, work).await
}

/// As [`within_apart_from`], for `work` that has begun, when `waited` returned `waited_before`.
pub(crate) async fn rest_within_apart_from<T>(
    waited_before: Duration,
    waited: impl Fn() -> Duration,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let (begun, mut allowed) = (Instant::now(), limit);
    let due = |allowed: Duration| begun + allowed + waited().saturating_sub(waited_before);
    loop {
        let until = due(allowed);
        if let Ok(done) = tokio::time::timeout_at(until, &mut work).await {
            return Some(done);
        }
        if due(allowed) <= Instant::now() {
            allowed += again(until, limit)? - until;
        }
    }
}

/// The new end of a limit that ended at `due`, if the thread stood still then; otherwise `None`.
pub(crate) fn again(due: Instant, limit: Duration) -> Option<Instant> {
    let (now, late) = (Instant::now(), due.elapsed());
    (late > LATE).then(|| now + late.min(limit))
}

/// Lets other tasks of the thread run, so many times.
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
    async fn time_in_which_work_had_to_wait_does_not_count() {
        let begun = Instant::now();
        // It has to wait for half of the first three minutes.
        let waited = || (begun.elapsed() / 2).min(Duration::from_secs(90));
        assert_eq!(within_apart_from(waited, LIMIT, pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_secs(), 60, "30 s besides the wait");
        let begun = Instant::now();
        let longer = tokio::time::sleep(Duration::from_secs(100));
        let waited = || begun.elapsed().saturating_sub(Duration::from_secs(5)).min(Duration::from_secs(90));
        assert_eq!(within_apart_from(waited, LIMIT, longer).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_thread_stood_still_is_given_again() {
        let begun = Instant::now();
        let work = async { tokio::join!(within(LIMIT, pending::<()>()), tokio::time::advance(LIMIT + LATE * 5)).0 };
        assert_eq!(work.await, None);
        assert_eq!(begun.elapsed().as_secs(), (LIMIT + LATE * 10).as_secs());
    }
}
