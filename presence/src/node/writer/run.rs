//! The task that takes what is queued, one transaction after the other, and writes it.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use crate::{
    clock::{Clock, Tick},
    model::Presence,
    name::{NodeId, PresenceId},
    node::backoff::Backoff,
    store::{Attempt, Changes, RoomWrites, Store, StoreError, Write},
    telemetry::report,
};

use super::{
    Writer,
    batch::WriteBatch,
    queue::NextWrite,
    removal_lock::{RemovalClaim, RemovalPermit},
};

/// What the task needs besides the queue.
pub(super) struct Worker {
    writer: Writer,
    store: Arc<dyn Store>,
    clock: Clock,
    node: watch::Receiver<Option<NodeId>>,
    /// How long a call to the store may take.
    store_timeout: Duration,
    /// How long touches are gathered.
    gather: Duration,
    backoff: Backoff,
    removal_claim: RemovalClaim,
    unconfirmed: Option<Unconfirmed>,
}

/// A batch that the database may have written: its answer did not arrive.
struct Unconfirmed {
    node: NodeId,
    attempt: Attempt,
    batch: WriteBatch,
}

impl Worker {
    pub(super) fn new(
        writer: Writer,
        store: Arc<dyn Store>,
        clock: Clock,
        node: watch::Receiver<Option<NodeId>>,
        store_timeout: Duration,
        gather: Duration,
    ) -> Self {
        let removal_claim = RemovalClaim::new(&writer.0.removal_lock);
        let backoff = Backoff::default();
        Self { writer, store, clock, node, store_timeout, gather, backoff, removal_claim, unconfirmed: None }
    }

    pub(super) async fn run(mut self) {
        let shared = self.writer.0.clone();
        loop {
            if let Some(unconfirmed) = self.unconfirmed.take()
                && let Err(error) = self.resolve(unconfirmed).await
            {
                if self.node.has_changed().is_err() {
                    return;
                }
                self.store_failed(&error).await;
                continue;
            }
            let work = shared.work.notified();
            if self.node.borrow().is_none() {
                self.removal_claim.withdraw();
            }
            let Ok(node) = self.node.wait_for(Option::is_some).await.map(|node| *node) else { return };
            let Some(node) = node else { continue };
            let mut permit = self.removal_permit();
            self.writer.delay_few_leaves().await;
            let next = self.writer.queue().next(self.clock.now(), self.gather, permit.is_some());
            let begun = Instant::now();
            let outcome = match next {
                // All changes cancelled out.
                NextWrite::Changes(batch) if batch.writes.is_empty() => continue,
                NextWrite::Changes(batch) => self.write(node, batch).await,
                NextWrite::Touches(touches) => {
                    // Touches remove nothing.
                    permit = None;
                    self.write_touches(node, touches).await
                }
                NextWrite::Nothing { touches_in } => {
                    self.wait_for_work(work, touches_in).await;
                    continue;
                }
            };
            drop(permit);
            match outcome {
                Ok(()) => {
                    self.writer.queue().written(begun.elapsed());
                    self.store_answered();
                }
                Err(error) => {
                    // Other removals do not wait until the store is back.
                    self.removal_claim.withdraw();
                    self.writer.queue().not_written(self.unconfirmed.is_some());
                    match error {
                        StoreError::Fenced { node: dead, .. } => self.wait_for_incarnation_after(dead).await,
                        error => self.store_failed(&error).await,
                    }
                }
            }
        }
    }

    /// The permit that a transaction with pruned presences needs, if there are such and the permit is free.
    fn removal_permit(&mut self) -> Option<RemovalPermit> {
        if self.writer.queue().prunes() {
            return self.removal_claim.try_take();
        }
        self.removal_claim.withdraw();
        None
    }

    async fn wait_for_work(&mut self, work: impl Future<Output = ()>, touches_in: Option<Duration>) {
        self.writer.0.idle.notify_waiters();
        if touches_in.is_none() && !self.writer.queue().prunes() {
            self.writer.0.health.queue_is_empty();
        }
        let work_or_permit = async {
            tokio::select! {
                () = work => {}
                () = self.removal_claim.granted() => {}
            }
        };
        match touches_in {
            Some(wait) => drop(timeout(wait, work_or_permit).await),
            None => work_or_permit.await,
        }
    }

    fn store_answered(&mut self) {
        self.writer.0.health.write_succeeded();
        self.backoff = Backoff::default();
    }

    async fn store_failed(&mut self, error: &StoreError) {
        self.writer.0.health.write_failed(&self.store, error);
        self.backoff.pause().await;
    }

    /// The store refused to write for an incarnation that is fenced. Nothing was written, and the node begins another one.
    async fn wait_for_incarnation_after(&mut self, dead: NodeId) {
        (self.writer.0.fenced)(dead);
        let other = self.node.wait_for(|now| now.is_some_and(|now| now != dead));
        let _ = timeout(self.store_timeout, other).await;
    }

    async fn write(&mut self, node: NodeId, mut batch: WriteBatch) -> Result<(), StoreError> {
        for room in &mut batch.writes {
            room.writes.iter_mut().for_each(|write| set_node(write, node));
        }
        let attempt = Attempt::next();
        let changes = Changes::from(std::mem::take(&mut batch.writes));
        let outcome = bounded(self.store_timeout, self.store.commit(node, attempt, changes.clone())).await;
        batch.writes = changes.into_vec();
        match outcome {
            Ok(commits) => {
                batch.send_results(commits.into_iter().map(Ok));
                Ok(())
            }
            Err(error @ StoreError::Refused(_)) => {
                // One change was refused. The others are written: halve the batch until only that change is left.
                let Some(second) = batch.split_off() else {
                    log_refusal(&batch.writes[0], &error);
                    batch.send_results([Err(error)]);
                    return Ok(());
                };
                match Box::pin(self.write(node, batch)).await {
                    Ok(()) => Box::pin(self.write(node, second)).await,
                    Err(error) => {
                        self.writer.queue().put_back(second);
                        Err(error)
                    }
                }
            }
            Err(error @ StoreError::Unavailable(_)) => {
                self.unconfirmed = Some(Unconfirmed { node, attempt, batch });
                Err(error)
            }
            Err(error) => {
                self.writer.queue().put_back(batch);
                Err(error)
            }
        }
    }

    /// Asks the store whether it wrote an unconfirmed batch. If it did not, the batch waits to be written again.
    async fn resolve(&mut self, unconfirmed: Unconfirmed) -> Result<(), StoreError> {
        let call = self.store.outcome(unconfirmed.node, unconfirmed.attempt);
        match bounded(self.store_timeout, call).await {
            Ok(Some(commits)) => {
                unconfirmed.batch.send_results(commits.into_iter().map(Ok));
                self.writer.queue().resolved();
                self.store_answered();
                Ok(())
            }
            Ok(None) => {
                let mut queue = self.writer.queue();
                queue.put_back(unconfirmed.batch);
                queue.resolved();
                Ok(())
            }
            Err(error) => {
                self.unconfirmed = Some(unconfirmed);
                Err(error)
            }
        }
    }

    async fn write_touches(&mut self, node: NodeId, touches: Vec<(PresenceId, Tick)>) -> Result<(), StoreError> {
        let now = self.clock.now();
        let seen: Vec<_> = touches.iter().map(|(id, seen)| (*id, now.since(*seen))).collect();
        let outcome = bounded(self.store_timeout, self.store.touch(node, seen.into())).await;
        match outcome {
            Err(error @ StoreError::Refused(_)) => {
                // Repeating them for ever would block everything else, and the next touches replace them anyway.
                warn!(count = touches.len(), error = %report(&error), "the store refused touches");
                Ok(())
            }
            Err(error) => {
                self.writer.queue().touches().put_back(touches);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }
}

fn log_refusal(RoomWrites { room, writes }: &RoomWrites, error: &StoreError) {
    if error.is_channel_taken() && matches!(writes[..], [Write::Join(_)]) {
        // The application chose the channel name, and receives the error.
        debug!(%room, error = %report(error), "the store refused a join");
    } else {
        warn!(%room, error = %report(error), "the store refused a change");
    }
}

/// A call without an answer in time has failed, and may still have had its effect.
async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(limit, call).await.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))))
}

/// Stamps a queued join with the node's current incarnation, which may have begun while the join waited.
fn set_node(write: &mut Write, node: NodeId) {
    if let Write::Join(presence)
    | Write::Restore { presence, .. }
    | Write::Resume { presence, .. }
    | Write::JoinWithin { presence, .. } = write
        && presence.node != node
    {
        *presence = Arc::new(Presence { node, ..(**presence).clone() });
    }
}
