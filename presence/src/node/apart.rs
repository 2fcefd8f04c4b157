//! A store whose calls run on a thread of its own, whoever makes them.
//!
//! A database driver works while its future is polled, and gives a connection back when the future is dropped. On the
//! thread of a caller that then blocks, neither happens: the connection is missing from the pool, the writer starves, and the
//! node loses its lease. So each call is a task of the store's runtime, and its caller waits for no more than the answer.
//! The runtime also ends what is under way when it ends itself: a driver's future must not outlive it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::store::{
    Store, StoreError,
    forward::{Call, Forward},
};

/// Passes every call on to a store, on the thread of that store's runtime. One that nobody waits for any more is given up.
#[derive(Debug, Clone)]
pub(crate) struct Apart {
    store: Arc<dyn Store>,
    runtime: Handle,
}

impl Apart {
    pub(crate) fn new(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self { store, runtime }
    }
}

#[async_trait]
impl Forward for Apart {
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
        // It panicked, or the runtime has ended.
        call.await.unwrap_or_else(|error| Err(StoreError::Unavailable(Arc::new(error))))
    }
}
