//! Stores that forward their calls to another store: on another thread, with retries, with faults, or to observe them.
//!
//! Each of them implements [`Forward::forward`], and the methods of [`Store`] are forwarded here once for all of them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::{
    model::Snapshot,
    name::{Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
};

use super::{
    Answer, Attempt, Batch, Changes, ClearMode, LiveNode, NodeStore, NodeSummary, RecentChanges, Remaining,
    RemovalTarget, Request, RequestStore, RoomChange, RoomCommit, RoomStore, RoomSummary, Store, StoreError, Survey,
    SweepShare,
};

/// The call that is forwarded, with what some forwarders need to know about it.
#[derive(Debug, Clone)]
pub enum Call {
    Prepare,
    CheckConnection,
    Register,
    Renew,
    Commit {
        node: NodeId,
        attempt: Attempt,
        rooms: Changes,
    },
    Outcome,
    Touch(Arc<[(PresenceId, Duration)]>),
    Load,
    /// Any other call that changes nothing.
    Read,
    Fence,
    Clear,
    Sweep,
    /// Another call that removes presences or rooms.
    Remove,
    SendRequest,
    OpenRequests,
    Answer,
    Withdraw,
    Retire,
    ReportSetBack,
    ForgetChanges,
}

/// A store that forwards its calls to another store.
#[async_trait]
pub trait Forward: std::fmt::Debug + Send + Sync + 'static {
    /// The store that receives the calls.
    type Inner: Store + ?Sized;

    fn inner(&self) -> &Self::Inner;

    /// Forwards one call. `make` makes the call on the store that it is given; it may be called more than once.
    async fn forward<T: Send + 'static>(
        &self,
        call: Call,
        make: impl for<'a> Fn(&'a Self::Inner) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError>;
}

#[async_trait]
impl<F: Forward> Store for F {
    fn database_id(&self) -> Option<u64> {
        self.inner().database_id()
    }

    fn limit_waits(&self, lease: Duration, store_timeout: Duration) {
        self.inner().limit_waits(lease, store_timeout);
    }

    fn allow_lanes(&self, lanes: u16) -> u16 {
        self.inner().allow_lanes(lanes)
    }

    fn keep_changes(&self, keep: bool) {
        self.inner().keep_changes(keep);
    }

    fn track_online(&self) {
        self.inner().track_online();
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.forward(Call::Prepare, |store| store.prepare()).await
    }

    async fn check_connection(&self) -> Result<(), StoreError> {
        self.forward(Call::CheckConnection, |store| store.check_connection()).await
    }
}

#[async_trait]
impl<F: Forward> RoomStore for F {
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: Changes) -> Result<Vec<RoomCommit>, StoreError> {
        let call = Call::Commit { node, attempt, rooms: rooms.clone() };
        self.forward(call, move |store| store.commit(node, attempt, rooms.clone())).await
    }

    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError> {
        self.forward(Call::Outcome, move |store| store.outcome(node, attempt)).await
    }

    async fn touch(&self, node: NodeId, seen: Arc<[(PresenceId, Duration)]>) -> Result<(), StoreError> {
        self.forward(Call::Touch(seen.clone()), move |store| store.touch(node, seen.clone())).await
    }

    async fn load(&self, room: RoomName) -> Result<Option<Snapshot>, StoreError> {
        self.forward(Call::Load, move |store| store.load(room.clone())).await
    }

    async fn changes_after(&self, room: Epoch, version: Version) -> Result<Option<Vec<RoomChange>>, StoreError> {
        self.forward(Call::Read, move |store| store.changes_after(room, version)).await
    }

    async fn forget_changes(&self, age: Duration) -> Result<(), StoreError> {
        self.forward(Call::ForgetChanges, move |store| store.forget_changes(age)).await
    }

    async fn positions(&self, rooms: Arc<[RoomName]>) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        self.forward(Call::Read, move |store| store.positions(rooms.clone())).await
    }

    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        self.forward(Call::Read, |store| store.all_positions()).await
    }

    async fn recent_changes(&self, node: NodeId, since: Duration, limit: u64) -> Result<RecentChanges, StoreError> {
        self.forward(Call::Read, move |store| store.recent_changes(node, since, limit)).await
    }

    async fn rooms(&self, after: Option<RoomName>, limit: u64) -> Result<Vec<RoomSummary>, StoreError> {
        self.forward(Call::Read, move |store| store.rooms(after.clone(), limit)).await
    }

    async fn last_seen(&self, room: RoomName) -> Result<Vec<(PresenceId, Duration)>, StoreError> {
        self.forward(Call::Read, move |store| store.last_seen(room.clone())).await
    }

    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomName>, StoreError> {
        self.forward(Call::Read, move |store| store.rooms_of(user.clone())).await
    }

    async fn sweep(&self, node: NodeId, share: SweepShare, limit: u64) -> Result<Batch, StoreError> {
        self.forward(Call::Sweep, move |store| store.sweep(node, share.clone(), limit)).await
    }

    async fn prune(
        &self,
        node: NodeId,
        max_age: Duration,
        unwritten: Duration,
        limit: u64,
    ) -> Result<Batch, StoreError> {
        self.forward(Call::Remove, move |store| store.prune(node, max_age, unwritten, limit)).await
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        self.forward(Call::Remove, move |store| store.prune_rooms(node)).await
    }

    async fn remove(&self, node: NodeId, target: RemovalTarget, limit: u64) -> Result<Batch, StoreError> {
        self.forward(Call::Remove, move |store| store.remove(node, target.clone(), limit)).await
    }
}

#[async_trait]
impl<F: Forward> NodeStore for F {
    async fn register(&self, node: NodeId, name: NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        self.forward(Call::Register, move |store| store.register(node, name.clone(), lease)).await
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError> {
        self.forward(Call::Renew, move |store| store.renew(node, lease)).await
    }

    async fn report_set_back(&self, seen: u64, count: u64) -> Result<(), StoreError> {
        self.forward(Call::ReportSetBack, move |store| store.report_set_back(seen, count)).await
    }

    async fn rooms_with_presences_of(&self, node: NodeId) -> Result<Vec<RoomName>, StoreError> {
        self.forward(Call::Read, move |store| store.rooms_with_presences_of(node)).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        self.forward(Call::Read, |store| store.nodes()).await
    }

    async fn live_nodes(&self) -> Result<Vec<LiveNode>, StoreError> {
        self.forward(Call::Read, |store| store.live_nodes()).await
    }

    async fn survey(&self, node: NodeId) -> Result<Survey, StoreError> {
        self.forward(Call::Read, move |store| store.survey(node)).await
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        self.forward(Call::Fence, move |store| store.fence(node)).await
    }

    async fn clear(&self, node: NodeId, dead: NodeId, mode: ClearMode, limit: u64) -> Result<Batch, StoreError> {
        self.forward(Call::Clear, move |store| store.clear(node, dead, mode, limit)).await
    }

    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError> {
        self.forward(Call::Retire, move |store| store.retire(node, closed)).await
    }
}

#[async_trait]
impl<F: Forward> RequestStore for F {
    async fn send_request(&self, node: NodeId, request: Request) -> Result<Duration, StoreError> {
        self.forward(Call::SendRequest, move |store| store.send_request(node, request.clone())).await
    }

    async fn remaining(
        &self,
        target: RemovalTarget,
        joined_before: Duration,
        limit: u64,
    ) -> Result<Vec<Remaining>, StoreError> {
        self.forward(Call::Read, move |store| store.remaining(target.clone(), joined_before, limit)).await
    }

    async fn open_requests(&self, node: NodeId) -> Result<Vec<Request>, StoreError> {
        self.forward(Call::OpenRequests, move |store| store.open_requests(node)).await
    }

    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError> {
        self.forward(Call::Answer, move |store| store.answer(node, request, removed)).await
    }

    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError> {
        self.forward(Call::Read, move |store| store.answers(request)).await
    }

    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError> {
        self.forward(Call::Withdraw, move |store| store.withdraw(node, request)).await
    }
}
