//! Runs the calls of a store on a thread of its own, whichever thread makes them.
//!
//! A database driver works while its future is polled, and returns the connection to the pool when the future is dropped. If
//! the caller's thread blocks, neither happens: the connection is missing from the pool, which could starve the writer and
//! the lease. So each call is a task on the store's runtime, and the caller only awaits the answer. When the runtime stops,
//! it drops the calls in progress, because a driver's future must not outlive it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::store::{
    Store, StoreError,
    forward::{Call, Forward},
};

/// Forwards each call to a store, on that store's runtime. A call is cancelled when its caller drops the future.
#[derive(Debug, Clone)]
pub(crate) struct ThreadedStore {
    store: Arc<dyn Store>,
    runtime: Handle,
}

impl ThreadedStore {
    pub(crate) fn new(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self { store, runtime }
    }
}

#[async_trait]
impl Forward for ThreadedStore {
    type Inner = dyn Store;

    fn inner(&self) -> &dyn Store {
        &*self.store
    }

    async fn forward<T: Send + 'static>(
        &self,
        _: Call,
        make: impl for<'a> Fn(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let store = self.store.clone();
        let call = AbortOnDropHandle::new(self.runtime.spawn(async move { make(&*store).await }));
        // The call panicked, or the runtime has stopped.
        call.await.unwrap_or_else(|error| Err(StoreError::Unavailable(Arc::new(error))))
    }
}
