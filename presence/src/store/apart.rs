//! A store whose calls run on a thread of its own, whoever makes them.
//!
//! A database driver works while its future is polled, and gives a connection back when the future is dropped. On the
//! thread of a caller that then blocks, neither happens: the connection is missing from the pool, the writer starves, and the
//! node loses its lease. So each call is a task of the store's runtime, and its caller waits for no more than the answer.
//! The runtime also ends what is under way when it ends itself: a driver's future must not outlive it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    model::Snapshot,
    name::{Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
};

use super::{
    Answer, Attempt, Batch, NodeSummary, Remains, Request, RoomCommit, RoomSummary, RoomWrites, Store, StoreError, Whom,
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

    async fn call<T, F>(&self, call: impl FnOnce(Arc<dyn Store>) -> F + Send) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let call = AbortOnDropHandle::new(self.runtime.spawn(call(self.store.clone())));
        // It panicked, or the runtime has ended.
        call.await.unwrap_or_else(|error| Err(StoreError::Unavailable(Arc::new(error))))
    }
}

#[async_trait]
impl Store for Apart {
    fn database(&self) -> Option<u64> {
        self.store.database()
    }

    fn tell_turns(&self) {
        self.store.tell_turns();
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.call(|store| async move { store.prepare().await }).await
    }

    async fn reach(&self) -> Result<(), StoreError> {
        self.call(|store| async move { store.reach().await }).await
    }

    async fn register(&self, node: NodeId, name: &NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        let name = name.clone();
        self.call(move |store| async move { store.register(node, &name, lease).await }).await
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError> {
        self.call(move |store| async move { store.renew(node, lease).await }).await
    }

    async fn commit(
        &self,
        node: NodeId,
        attempt: Attempt,
        rooms: &[RoomWrites],
    ) -> Result<Vec<RoomCommit>, StoreError> {
        let rooms = rooms.to_vec();
        self.call(move |store| async move { store.commit(node, attempt, &rooms).await }).await
    }

    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError> {
        self.call(move |store| async move { store.outcome(node, attempt).await }).await
    }

    async fn touch(&self, node: NodeId, seen: &[(PresenceId, Duration)]) -> Result<(), StoreError> {
        let seen = seen.to_vec();
        self.call(move |store| async move { store.touch(node, &seen).await }).await
    }

    async fn load(&self, room: &RoomName) -> Result<Option<Snapshot>, StoreError> {
        let room = room.clone();
        self.call(move |store| async move { store.load(&room).await }).await
    }

    async fn positions(&self, rooms: &[RoomName]) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let rooms = rooms.to_vec();
        self.call(move |store| async move { store.positions(&rooms).await }).await
    }

    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        self.call(|store| async move { store.all_positions().await }).await
    }

    async fn rooms(&self) -> Result<Vec<RoomSummary>, StoreError> {
        self.call(|store| async move { store.rooms().await }).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        self.call(|store| async move { store.nodes().await }).await
    }

    async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>, StoreError> {
        let user = user.clone();
        self.call(move |store| async move { store.rooms_of(&user).await }).await
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        self.call(move |store| async move { store.fence(node).await }).await
    }

    async fn clear(&self, node: NodeId, dead: NodeId, remains: Remains, limit: u64) -> Result<Batch, StoreError> {
        self.call(move |store| async move { store.clear(node, dead, remains, limit).await }).await
    }

    async fn sweep(&self, node: NodeId, limit: u64) -> Result<Batch, StoreError> {
        self.call(move |store| async move { store.sweep(node, limit).await }).await
    }

    async fn prune(&self, node: NodeId, max_age: Duration, limit: u64) -> Result<Batch, StoreError> {
        self.call(move |store| async move { store.prune(node, max_age, limit).await }).await
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        self.call(move |store| async move { store.prune_rooms(node).await }).await
    }

    async fn remove(&self, node: NodeId, whom: &Whom, limit: u64) -> Result<Batch, StoreError> {
        let whom = whom.clone();
        self.call(move |store| async move { store.remove(node, &whom, limit).await }).await
    }

    async fn ask(&self, node: NodeId, request: &Request) -> Result<(), StoreError> {
        let request = request.clone();
        self.call(move |store| async move { store.ask(node, &request).await }).await
    }

    async fn asked(&self, node: NodeId) -> Result<Vec<Request>, StoreError> {
        self.call(move |store| async move { store.asked(node).await }).await
    }

    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError> {
        self.call(move |store| async move { store.answer(node, request, removed).await }).await
    }

    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError> {
        self.call(move |store| async move { store.answers(request).await }).await
    }

    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError> {
        self.call(move |store| async move { store.withdraw(node, request).await }).await
    }

    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError> {
        self.call(move |store| async move { store.retire(node, closed).await }).await
    }
}
