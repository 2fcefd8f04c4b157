//! What nodes ask of one another through the store: to prune, or to remove a user or a room.
//!
//! Each removes its own presences by its rooms, so that none of them takes the removal for a mistake, sockets are told or
//! closed where they are, and the events are fired where the change was made.

use std::time::Duration;

use actix::{Handler, Message, ResponseFuture};
use tokio::{sync::oneshot, time::Instant};
use tracing::{debug, info};

use crate::{
    Error, Result,
    name::{NodeId, NodeName, RequestId, RoomName},
    room::message::ToRoom,
    store::{Order, Removal, Request, Store, Whom, writer::report},
};

use super::{BATCH, PruningSupervisor, Work};

/// Time between two looks at the answers.
const LOOK: Duration = Duration::from_millis(100);

/// Asks for [`Rooms::remove_room`](crate::Rooms::remove_room) or [`Rooms::remove_user`](crate::Rooms::remove_user).
#[derive(Debug, Message)]
#[rtype(result = "Result<usize>")]
pub(crate) struct Remove(pub(crate) Removal);

impl Handler<Remove> for PruningSupervisor {
    type Result = ResponseFuture<Result<usize>>;

    fn handle(&mut self, Remove(removal): Remove, _: &mut Self::Context) -> Self::Result {
        let work = self.work.clone();
        Box::pin(async move { work.remove(removal).await })
    }
}

impl Work {
    /// Does what others ask of this node: the command line, say.
    pub(super) async fn answer_others(&self) -> Result<()> {
        let node = self.node()?;
        let asked = self.rooms.bounded(self.store().asked(node)).await?;
        self.done.borrow_mut().retain(|id, _| asked.iter().any(|request| request.id == *id));
        for Request { id, order } in asked {
            let done = self.done.borrow().get(&id).copied();
            let count = match done {
                // The answer was not heard. Doing it again would catch those who came since.
                Some(count) => count,
                None => {
                    let count = u64::try_from(self.carry_out(&order).await).unwrap_or(u64::MAX);
                    info!(count, ?order, "done, as asked through the store");
                    self.done.borrow_mut().insert(id, count);
                    count
                }
            };
            self.rooms.bounded(self.store().answer(node, id, count)).await?;
            self.done.borrow_mut().remove(&id);
        }
        Ok(())
    }

    /// Resolves when it is durable, however long that takes: an answer says that it is.
    async fn carry_out(&self, order: &Order) -> usize {
        match order {
            Order::Prune { max_age } => {
                self.remove_in(self.rooms.names(), |reply| ToRoom::Prune { max_age: *max_age, reply }).await
            }
            Order::Remove(removal) => self.remove_own(removal).await,
        }
    }

    async fn remove_own(&self, Removal { whom, close }: &Removal) -> usize {
        let (rooms, user) = match whom {
            Whom::Room(room) => (vec![room.clone()], None),
            Whom::User(user) => (self.rooms.names(), Some(user)),
        };
        let remove = |reply| ToRoom::Remove { user: user.cloned(), close: close.clone(), reply };
        self.remove_in(rooms, remove).await
    }

    /// Has these rooms remove presences of this node, and counts them when they are gone.
    pub(super) async fn remove_in(
        &self,
        rooms: Vec<RoomName>,
        message: impl Fn(oneshot::Sender<usize>) -> ToRoom,
    ) -> usize {
        let answers = rooms.into_iter().map(|room| {
            let (reply, answer) = oneshot::channel();
            self.rooms.tell_running(&room, message(reply));
            answer
        });
        // A room that does not run has no presence of this node.
        let answers = futures_util::future::join_all(answers.collect::<Vec<_>>()).await;
        answers.into_iter().map(|answer| answer.unwrap_or(0)).sum()
    }

    /// Removes a user or a room, on all nodes.
    async fn remove(&self, removal: Removal) -> Result<usize> {
        let node = self.node()?;
        let request = Request { id: RequestId::random(), order: Order::Remove(removal.clone()) };
        let removed = match self.rooms.bounded(self.store().ask(node, &request)).await {
            Ok(()) => self.remove_everywhere(node, request.id, &removal).await,
            // Others may have been asked all the same.
            Err(error) => Err(error),
        };
        self.over.borrow_mut().insert(request.id);
        if let Err(error) = self.withdraw().await {
            debug!(error = %report(&error), "a request is not withdrawn; it will be tried again");
        }
        removed
    }

    /// Withdraws what this node asked and is over: who has not done it by now must not do it when it may not be wanted any
    /// more.
    pub(super) async fn withdraw(&self) -> Result<()> {
        let over: Vec<_> = self.over.borrow().iter().copied().collect();
        for request in over {
            self.rooms.bounded(self.store().withdraw(self.node()?, request)).await?;
            self.over.borrow_mut().remove(&request);
        }
        Ok(())
    }

    async fn remove_everywhere(&self, node: NodeId, request: RequestId, removal: &Removal) -> Result<usize> {
        let timeout = self.rooms.config().store_timeout();
        let own = tokio::time::timeout(timeout, self.remove_own(removal)).await;
        let mut removed = own.map_err(|_| Error::StoreUnavailable(None))?;
        let orphans = || self.batches(|| self.store().remove(node, &removal.whom, BATCH));
        removed += orphans().await?;
        let (others, silent) = self.await_answers(request).await?;
        removed += others;
        if silent.is_empty() {
            return Ok(removed);
        }
        // The lease of one that did not answer may have run out by now.
        removed += orphans().await?;
        Err(Error::Unanswered { nodes: silent, removed })
    }

    /// How many presences others removed, and who has not answered within the time that a node has to show that it lives.
    async fn await_answers(&self, request: RequestId) -> Result<(usize, Vec<NodeName>)> {
        let until = Instant::now() + self.rooms.config().lease() + self.rooms.config().sweep_interval();
        loop {
            let answers = self.rooms.bounded(self.store().answers(request)).await?;
            let silent = answers.iter().filter(|answer| answer.removed.is_none()).count();
            if silent == 0 || Instant::now() >= until {
                let removed: u64 = answers.iter().filter_map(|answer| answer.removed).sum();
                let silent = answers.into_iter().filter(|answer| answer.removed.is_none());
                let silent = silent.map(|answer| answer.name).collect();
                return Ok((usize::try_from(removed).unwrap_or(usize::MAX), silent));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
