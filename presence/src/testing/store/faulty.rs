//! A store that fails on demand, for tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::store::{
    Store, StoreError,
    forward::{Call, Forward},
};

/// Forwards each call to another store, unless a test makes it fail. Clones share one store.
///
/// ```
/// # use presence::{ChannelName, Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms, testing::store::FaultyStore};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = FaultyStore::new(MemoryStore::default());
/// let rooms = Rooms::start(Config::default(), store.clone(), NodeName::new("test")?);
/// # PruningSupervisor::spawn(&rooms);
/// rooms.ready().await;
/// store.fail_next(usize::MAX);
/// let loaded = rooms.rooms(None, 10).await;
/// assert!(loaded.is_err_and(|error| error.is_retryable()));
/// store.fail_next(0);
/// assert!(rooms.rooms(None, 10).await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Faults {
    calls: AtomicU64,
    failures: AtomicUsize,
    lost_answers: AtomicUsize,
    hanging: watch::Sender<bool>,
    slowness: AtomicU64,
}

/// The cause of a failure on demand.
#[derive(Debug, thiserror::Error)]
#[error("the test took the database away")]
struct Away;

impl<S: Store> FaultyStore<S> {
    /// A store that does not fail yet.
    #[must_use]
    pub fn new(inner: S) -> Self {
        let faults = Faults {
            calls: AtomicU64::new(0),
            failures: AtomicUsize::new(0),
            lost_answers: AtomicUsize::new(0),
            hanging: watch::Sender::new(false),
            slowness: AtomicU64::new(0),
        };
        Self { inner, faults: Arc::new(faults) }
    }

    /// The other store.
    #[must_use]
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// Makes the next `calls` calls fail as [`StoreError::Unavailable`], without any effect. `usize::MAX` makes all calls fail, and 0 ends
    /// it.
    pub fn fail_next(&self, calls: usize) {
        self.faults.failures.store(calls, Ordering::SeqCst);
    }

    /// Makes the next `calls` calls succeed and then return [`StoreError::Unavailable`], as if the connection was lost after the commit.
    pub fn lose_answers(&self, calls: usize) {
        self.faults.lost_answers.store(calls, Ordering::SeqCst);
    }

    /// Makes all further calls wait for [`release`](Self::release) before they do anything.
    pub fn hang(&self) {
        self.faults.hanging.send_replace(true);
    }

    /// Lets all waiting calls continue.
    pub fn release(&self) {
        self.faults.hanging.send_replace(false);
    }

    /// Delays all further calls by this time, in whole milliseconds, before they do anything. Zero ends it.
    pub fn slow_down(&self, by: Duration) {
        self.faults.slowness.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The number of calls, including those that failed or wait.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.faults.calls.load(Ordering::SeqCst)
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        self.faults.calls.fetch_add(1, Ordering::SeqCst);
        let mut hanging = self.faults.hanging.subscribe();
        // The sender is alive, so this resolves only when the value is `false`.
        let _ = hanging.wait_for(|hanging| !hanging).await;
        let slowness = Duration::from_millis(self.faults.slowness.load(Ordering::SeqCst));
        if !slowness.is_zero() {
            tokio::time::sleep(slowness).await;
        }
        if take_one(&self.faults.failures) {
            return Err(away());
        }
        let answer = call.await;
        if take_one(&self.faults.lost_answers) { Err(away()) } else { answer }
    }
}

fn away() -> StoreError {
    StoreError::Unavailable(Arc::new(Away))
}

fn take_one(left: &AtomicUsize) -> bool {
    let less = |left| match left {
        usize::MAX => Some(left),
        left => left.checked_sub(1),
    };
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok()
}

#[async_trait]
impl<S: Store> Forward for FaultyStore<S> {
    type Inner = S;

    fn inner(&self) -> &S {
        &self.inner
    }

    async fn forward<T: Send + 'static>(
        &self,
        call: Call,
        make: impl for<'a> Fn(&'a S) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        match call {
            Call::CheckConnection => make(&self.inner).await,
            _ => self.call(make(&self.inner)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::{NodeId, NodeName, RoomName},
        store::{MemoryStore, NodeStore, RoomStore},
    };

    fn faulty() -> (FaultyStore<MemoryStore>, RoomName) {
        (FaultyStore::new(MemoryStore::default()), RoomName::new("lobby").unwrap())
    }

    #[tokio::test]
    async fn the_next_calls_fail_and_then_all_is_well() {
        let (store, room) = faulty();
        store.fail_next(2);
        for _ in 0..2 {
            assert!(matches!(store.load(room.clone()).await, Err(StoreError::Unavailable(_))));
        }
        assert!(store.load(room.clone()).await.is_ok());
        assert_eq!(store.calls(), 3);
    }

    #[tokio::test]
    async fn a_lost_answer_belongs_to_work_that_was_done() {
        let (store, _) = faulty();
        let node = NodeId::random();
        store.lose_answers(1);
        let name = NodeName::new("here").unwrap();
        assert!(store.register(node, name.clone(), Duration::from_secs(1)).await.is_err());
        assert!(store.renew(node, Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_takes_its_time_and_works() {
        let (store, room) = faulty();
        let begun = tokio::time::Instant::now();
        store.slow_down(Duration::from_secs(2));
        assert!(store.load(room.clone()).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
        store.slow_down(Duration::ZERO);
        assert!(store.load(room.clone()).await.is_ok());
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_call_hangs_until_it_is_released() {
        let (store, room) = faulty();
        store.hang();
        let mut call = store.load(room.clone());
        assert!(futures_util::FutureExt::now_or_never(&mut call).is_none());
        store.release();
        assert!(call.await.is_ok());
    }
}
