//! A node has at most one transaction in progress that removes presences for a prune.
//!
//! Such a transaction is either one of the writer's, with pruned presences, or one of the supervisor's. If there were one of
//! each, a join would wait for both on a database with a single write lock, such as SQLite. Permits are granted in the order
//! of their requests, so neither side waits longer than one transaction. Changes that callers requested need no permit.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Clones share one lock.
#[derive(Debug, Clone)]
pub(super) struct RemovalLock(Arc<Semaphore>);

/// The right to remove presences, until it is dropped.
#[derive(Debug)]
pub(crate) struct RemovalPermit(
    #[expect(dead_code, reason = "dropping it releases the lock")] Option<OwnedSemaphorePermit>,
);

impl Default for RemovalLock {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl RemovalLock {
    pub(super) fn is_held(&self) -> bool {
        self.0.available_permits() == 0
    }

    /// Waits for the permit. A caller that drops this future loses its place in the order.
    pub(super) async fn acquire(&self) -> RemovalPermit {
        // The semaphore is never closed.
        RemovalPermit(self.0.clone().acquire_owned().await.ok())
    }
}

/// The writer's request for the permit. The writer goes on with other changes while it waits.
pub(super) struct RemovalClaim {
    lock: RemovalLock,
    request: Option<BoxFuture<'static, RemovalPermit>>,
    granted: Option<RemovalPermit>,
}

impl RemovalClaim {
    pub(super) fn new(lock: &RemovalLock) -> Self {
        Self { lock: lock.clone(), request: None, granted: None }
    }

    /// Takes the permit if it is granted. Requests it if it was not requested yet.
    pub(super) fn try_take(&mut self) -> Option<RemovalPermit> {
        if let Some(permit) = self.granted.take() {
            return Some(permit);
        }
        let lock = &self.lock;
        let request = self.request.get_or_insert_with(|| {
            let lock = lock.clone();
            async move { lock.acquire().await }.boxed()
        });
        let permit = request.now_or_never()?;
        self.request = None;
        Some(permit)
    }

    /// Whether the permit was granted and not taken yet.
    pub(super) const fn is_granted(&self) -> bool {
        self.granted.is_some()
    }

    /// Resolves when the requested permit is granted. Without a request it never resolves.
    pub(super) async fn granted(&mut self) {
        if self.granted.is_none() {
            let Some(request) = &mut self.request else { return std::future::pending().await };
            self.granted = Some(request.await);
            self.request = None;
        }
    }

    /// Gives up the request, and the permit if it was granted.
    pub(super) fn withdraw(&mut self) {
        self.request = None;
        self.granted = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_are_granted_in_the_order_of_the_requests() {
        let lock = RemovalLock::default();
        let mut writer = RemovalClaim::new(&lock);
        let first = lock.acquire().await;
        let mut second = std::pin::pin!(lock.acquire());
        assert!(writer.try_take().is_none() && second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.as_mut().now_or_never().is_none());
        let permit = writer.try_take().expect("the writer asked first");
        assert!(writer.try_take().is_none(), "this is a new request");
        drop(permit);
        drop(second.await);
        assert!(writer.try_take().is_some());
    }

    #[tokio::test]
    async fn a_request_that_is_withdrawn_or_not_used_blocks_nobody() {
        let lock = RemovalLock::default();
        let mut writer = RemovalClaim::new(&lock);
        let first = lock.acquire().await;
        assert!(writer.try_take().is_none() && writer.granted().now_or_never().is_none());
        drop(first);
        writer.granted().await;
        assert!(lock.acquire().now_or_never().is_none());
        writer.withdraw();
        let first = lock.acquire().now_or_never().expect("the writer gave the permit back");
        assert!(writer.try_take().is_none());
        drop(first);
        writer.withdraw();
        assert!(lock.acquire().now_or_never().is_some() && writer.granted().now_or_never().is_none());
    }
}
