//! Requests between nodes, through the store: to prune, or to remove a user, a room, a channel or a presence.
//!
//! Each node removes its own presences, by messages to its rooms. So a room does not mistake the removal for an error, sockets are
//! notified or closed on their own node, and events are published on the node that made the change.

use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use actix::{Addr, AsyncContext, Handler, Message, ResponseFuture, WrapFuture};
use futures_util::{
    FutureExt,
    future::{AbortHandle, abortable, join_all},
};
use tokio::{sync::oneshot, time::Instant};
use tracing::{debug, error, info, warn};

use crate::{
    Error, Result,
    name::{NodeId, NodeName, PresenceId, RequestId, RoomName},
    node::{AskedNodes, ToDo},
    room::{PresenceKey, ToRoom},
    store::{NodeState, NodeStore, Order, Remaining, Removal, RemovalTarget, Request, RequestStore, RoomStore},
    telemetry::report,
};

use super::{NodeActor, Upkeep};

/// The time between two queries for the answers of other nodes.
const LOOK: Duration = Duration::from_millis(100);
/// How many presences that are left after a removal are looked up at once.
const LEFT: u64 = 1_000;

/// Requests a removal on all nodes, as [`Rooms::remove_room`](crate::Rooms::remove_room) does.
#[derive(Debug, Message)]
#[rtype(result = "Result<usize>")]
pub(crate) struct RemoveEverywhere(pub(crate) Removal);

impl Handler<RemoveEverywhere> for NodeActor {
    type Result = ResponseFuture<Result<usize>>;

    fn handle(&mut self, RemoveEverywhere(removal): RemoveEverywhere, _: &mut Self::Context) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.remove(removal).await })
    }
}

/// Carries out a request of another node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CarryOut(Request);

impl Handler<CarryOut> for NodeActor {
    type Result = ();

    fn handle(&mut self, CarryOut(Request { id, order }): CarryOut, ctx: &mut Self::Context) {
        let work = self.work.clone();
        let (done, under_way) = abortable(async move { work.carry_out_and_answer(id, &order).await });
        if self.work.node.registration.open_requests().begin(id, under_way) {
            ctx.spawn(done.map(drop).into_actor(self));
        }
    }
}

impl Upkeep {
    /// Resolves when the requests have to be read: once in each `sweep_interval`, unless a supervisor sweeps. Then its
    /// [survey](crate::store::Survey) shows whether there are any, so that an idle node asks once for both.
    pub(super) async fn requests_are_due(&self) {
        let registration = &self.node.registration;
        loop {
            let wait = registration.open_requests().next_look_in(self.node.now());
            if wait.is_zero() || tokio::time::timeout(wait, registration.requested.notified()).await.is_ok() {
                return;
            }
        }
    }

    /// Reads the requests of other nodes and of the command line. Each is carried out in a task of its own, so that a slow one does not delay
    /// the others, and is aborted when it is withdrawn.
    pub(super) async fn look_for_requests(&self, actor: &Addr<NodeActor>) -> Result<()> {
        let next = self.node.now().after(self.node.config.sweep_interval());
        self.node.registration.open_requests().look_at(next);
        let listed = self.node.bounded(self.node.store.open_requests(self.id()?)).await?;
        let ToDo { abort, begin, answer } = self.node.registration.open_requests().look(listed);
        abort.iter().for_each(AbortHandle::abort);
        for request in begin {
            actor.do_send(CarryOut(request));
        }
        join_all(answer.into_iter().map(|(id, count)| self.try_to_answer(id, count))).await;
        Ok(())
    }

    async fn carry_out_and_answer(&self, id: RequestId, order: &Order) {
        let Ok(count) = AssertUnwindSafe(self.carry_out(order)).catch_unwind().await else {
            error!(?order, "a request of another node panicked; it is tried again");
            self.node.registration.open_requests().failed(id);
            return;
        };
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        info!(count, ?order, "a request of another node was carried out");
        self.node.registration.open_requests().done(id, count);
        self.try_to_answer(id, count).await;
    }

    async fn try_to_answer(&self, id: RequestId, count: u64) {
        match self.answer(id, count).await {
            Ok(()) => self.node.registration.open_requests().answered(id),
            Err(error) => debug!(error = %report(&error), "an answer could not be written; it will be tried again"),
        }
    }

    async fn answer(&self, id: RequestId, count: u64) -> Result<()> {
        self.node.bounded(self.node.store.answer(self.id()?, id, count)).await
    }

    /// Carries out a request, and resolves when the change is durable, however long that takes: only then may it be answered.
    async fn carry_out(&self, order: &Order) -> usize {
        match order {
            Order::Prune { max_age } => {
                self.remove_in(self.rooms.table().names(), |reply| ToRoom::Prune { max_age: *max_age, reply }).await
            }
            Order::Remove(removal) => self.remove_own(removal).await,
        }
    }

    async fn remove_own(&self, Removal { target, close }: &Removal) -> usize {
        let (rooms, user) = match target {
            RemovalTarget::Room(room) => (vec![room.clone()], None),
            RemovalTarget::User(user) => (self.rooms.table().names(), Some(user)),
            RemovalTarget::UserIn { user, room } => (vec![room.clone()], Some(user)),
            RemovalTarget::Channel { channel, room } => {
                return until_done(|| self.rooms.remove_here(room.as_ref(), channel, close.as_ref())).await;
            }
            RemovalTarget::Presence { room, id } => {
                let (key, count) = (PresenceKey::Id(*id), Arc::default());
                until_done(|| self.rooms.remove_one(room, &key, close.as_ref(), &count)).await;
                // The message is repeated if the room failed, so the presence may have been counted twice.
                return count.load(Ordering::Acquire).min(1);
            }
        };
        let remove = |reply| ToRoom::Remove { user: user.cloned(), close: close.clone(), reply };
        self.remove_in(rooms, remove).await
    }

    /// Sends a message to each of these rooms to remove presences of this node, and resolves to their number when all are removed.
    pub(super) async fn remove_in(
        &self,
        rooms: Vec<RoomName>,
        message: impl Fn(oneshot::Sender<usize>) -> ToRoom,
    ) -> usize {
        let answers = rooms.into_iter().map(|room| {
            let (reply, answer) = oneshot::channel();
            self.rooms.table().send_running(&room, message(reply));
            answer
        });
        // A room that does not run has no presence of this node.
        let answers = join_all(answers.collect::<Vec<_>>()).await;
        answers.into_iter().map(|answer| answer.unwrap_or(0)).sum()
    }

    /// Removes the target on all nodes.
    async fn remove(&self, removal: Removal) -> Result<usize> {
        let node = self.id()?;
        if let RemovalTarget::Presence { room, id } = &removal.target
            && self.remove_own_in_time(&removal).await? > 0
            && !self.is_there(room, *id).await?
        {
            // A presence is on one node only, and it was on this one.
            return Ok(1);
        }
        let request = Request { id: RequestId::random(), order: Order::Remove(removal.clone()) };
        let mut requests = vec![request.id];
        let there = match removal.target {
            // So few that they can be told from those that come to a node later.
            RemovalTarget::User(_) | RemovalTarget::UserIn { .. } => {
                self.left_of(&removal.target, Duration::MAX).await?
            }
            _ => Vec::new(),
        };
        let removed = match self.node.bounded(self.node.store.send_request(node, request.clone())).await {
            Ok(sent) => self.remove_everywhere(node, &request, &removal, (sent, there), &mut requests).await,
            // The request may be in the database although there was no answer, so it is withdrawn below.
            Err(error) => Err(error),
        };
        self.node.registration.finished_requests().extend(requests);
        if let Err(error) = self.withdraw().await {
            debug!(error = %report(&error), "a request could not be withdrawn; it will be tried again");
        }
        removed
    }

    /// Withdraws the requests of this node that are over, so that no node carries them out later.
    pub(super) async fn withdraw(&self) -> Result<()> {
        let over: Vec<_> = self.node.registration.finished_requests().iter().copied().collect();
        for request in over {
            self.node.bounded(self.node.store.withdraw(self.id()?, request)).await?;
            self.node.registration.finished_requests().remove(&request);
        }
        Ok(())
    }

    /// Removes the target here, and waits until the other nodes have done so. `sent` is the time of the database at which they were asked, and
    /// `there` are presences that were there before. What is at another node when they have answered, because it was resumed there meanwhile,
    /// is asked for again. The `requests` are to be withdrawn.
    async fn remove_everywhere(
        &self,
        node: NodeId,
        request: &Request,
        removal: &Removal,
        (sent, there): (Duration, Vec<Remaining>),
        requests: &mut Vec<RequestId>,
    ) -> Result<usize> {
        let (mut own, mut orphans) = (self.remove_own_in_time(removal).await?, 0);
        let until = Instant::now() + self.node.config.lease() + self.node.config.sweep_interval();
        let (mut asked, mut there) = (None, Some(there));
        loop {
            let answers = self.await_answers(requests, until).await;
            // This comes after the answers: live nodes have removed and counted their held presences by now, and only those of dead nodes are left.
            orphans += self.batches(|limit| self.node.store.remove(node, removal.target.clone(), limit)).await?;
            let Answers { removed: others, silent, nodes } = answers?;
            let removed = own + others + orphans;
            if !silent.is_empty() {
                return Err(Error::Unanswered { nodes: silent, removed });
            }
            let left = self.left_of(&removal.target, sent).await?;
            let first = || AskedNodes::new(nodes.into_iter().chain([node]), there.take().unwrap_or_default());
            let next = asked.get_or_insert_with(first).next(left);
            if next.is_nothing() {
                return Ok(removed);
            }
            if next.again {
                self.node.bounded(self.node.store.send_request(node, request.clone())).await?;
            }
            for one in next.single {
                let target = RemovalTarget::Presence { room: one.room, id: one.id };
                let single = Removal { target, close: removal.close.clone() };
                if one.node == node {
                    own += self.remove_own_in_time(&single).await?;
                    continue;
                }
                let request = Request { id: RequestId::random(), order: Order::Remove(single) };
                requests.push(request.id);
                self.node.bounded(self.node.store.send_request(node, request)).await?;
            }
        }
    }

    /// The presences of the target that joined before this time of the database and are still there. A channel has none: a presence that is
    /// resumed elsewhere has another channel.
    async fn left_of(&self, target: &RemovalTarget, joined_before: Duration) -> Result<Vec<Remaining>> {
        if let RemovalTarget::Channel { .. } = target {
            return Ok(Vec::new());
        }
        self.node.bounded(self.node.store.remaining(target.clone(), joined_before, LEFT)).await
    }

    async fn remove_own_in_time(&self, removal: &Removal) -> Result<usize> {
        let timeout = self.node.config.store_timeout();
        let own = tokio::time::timeout(timeout, self.remove_own(removal)).await;
        own.map_err(|_| Error::StoreUnavailable(None))
    }

    /// Whether the database still has the presence: another node may have resumed one that this node considered its own.
    async fn is_there(&self, room: &RoomName, id: PresenceId) -> Result<bool> {
        let snapshot = self.node.bounded(self.node.store.load(room.clone())).await?;
        Ok(snapshot.is_some_and(|snapshot| snapshot.presences.iter().any(|presence| presence.id == id)))
    }

    /// Waits for the answers of other nodes to these requests, and at the longest `until` then. Dead nodes need not answer.
    async fn await_answers(&self, requests: &[RequestId], until: Instant) -> Result<Answers> {
        let look = self.node.config.sweep_interval();
        let mut look_at = Instant::now() + look;
        let mut alive: Option<HashSet<NodeId>> = None;
        loop {
            let now = Instant::now();
            let over = now >= until;
            // This must come before the answers are read: a node that is dead by now has written its answer, or never will.
            if over || now >= look_at {
                alive = Some(self.alive(over).await?);
                look_at = now + look;
            }
            let mut answers = Vec::new();
            for request in requests {
                answers.extend(self.node.bounded(self.node.store.answers(*request)).await?);
            }
            let lives = |node| alive.as_ref().is_none_or(|alive| alive.contains(node));
            let silent = answers.iter().filter(|answer| answer.removed.is_none() && lives(&answer.node));
            let silent: Vec<_> = silent.map(|answer| answer.name.clone()).collect();
            if over || silent.is_empty() {
                let removed: u64 = answers.iter().filter_map(|answer| answer.removed).sum();
                let nodes = answers.iter().map(|answer| answer.node).collect();
                return Ok(Answers { removed: usize::try_from(removed).unwrap_or(usize::MAX), silent, nodes });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The nodes that are alive. A node whose lease has expired counts as alive until the time to wait is `over`.
    async fn alive(&self, over: bool) -> Result<HashSet<NodeId>> {
        let nodes = self.node.bounded(self.node.store.live_nodes()).await?;
        let alive = nodes.into_iter().filter(|node| match node.state {
            NodeState::Live { .. } => true,
            NodeState::Expired { .. } => !over,
            NodeState::Fenced { .. } => false,
        });
        Ok(alive.map(|node| node.node).collect())
    }
}

/// Repeats a removal until it is durable, however long the database takes.
async fn until_done<T: Default, F: Future<Output = Result<T>>>(remove: impl Fn() -> F) -> T {
    loop {
        match remove().await {
            Ok(removed) => return removed,
            Err(error) if error.is_retryable() => {
                debug!(error = %report(&error), "a presence could not be removed; it will be tried again");
                tokio::time::sleep(LOOK).await;
            }
            Err(error) => {
                warn!(error = %report(&error), "a presence could not be removed");
                return T::default();
            }
        }
    }
}

/// The answers of the other nodes to requests.
struct Answers {
    /// The nodes that received them.
    nodes: Vec<NodeId>,
    /// The number of presences that they removed.
    removed: usize,
    /// The live nodes that did not answer in time.
    silent: Vec<NodeName>,
}
