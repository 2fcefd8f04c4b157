//! The transaction of one lane, until it is known what became of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tracing::{debug, warn};

use crate::{
    clock::{Clock, Tick},
    model::Presence,
    name::{NodeId, PresenceId, RoomName},
    node::backoff::Backoff,
    store::{Attempt, Changes, RoomWrites, Store, StoreError, Write},
    telemetry::{LineLimit, report},
};

use super::{Writer, batch::WriteBatch, lanes::BRIEFLY, removal_lock::RemovalPermit};

/// What the transactions of all lanes need besides the queue.
pub(super) struct LaneContext {
    pub(super) writer: Writer,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) node: watch::Receiver<Option<NodeId>>,
    /// How long a call to the store may take.
    pub(super) store_timeout: Duration,
    /// In how many lanes the last call failed, and it is not known yet what became of it. The database is back when there are none.
    pub(super) failing: AtomicUsize,
    /// Notified when a call fails.
    pub(super) fails: Notify,
    /// The limit of the log lines about rooms that others keep locked.
    pub(super) locked: LineLimit,
}

/// One lane, while it has a transaction.
pub(super) struct Lane {
    pub(super) context: Arc<LaneContext>,
    pub(super) number: u16,
    pub(super) node: NodeId,
    pub(super) backoff: Backoff,
}

/// The transaction of a lane has ended.
pub(super) struct Ended {
    pub(super) lane: u16,
    pub(super) backoff: Backoff,
    /// The incarnation for which the database writes nothing any more, if that is the answer.
    pub(super) fenced: Option<NodeId>,
}

/// A batch that the database may have written: its answer did not arrive.
struct Unconfirmed {
    attempt: Attempt,
    batch: WriteBatch,
}

/// Why a batch was not written. What was not written is queued again, except for what is unconfirmed.
enum Failure {
    Unconfirmed(StoreError, Unconfirmed),
    /// Other transactions have locked these rooms.
    Locked(Vec<RoomName>),
    Other(StoreError),
}

impl Lane {
    /// Writes a batch. `permit` is the one for pruned presences, if there are such.
    pub(super) async fn write(self, batch: WriteBatch, permit: Option<RemovalPermit>) -> Ended {
        let (begun, patience) = (Instant::now(), batch.patience);
        let outcome = self.try_write(batch).await;
        // Other removals do not wait until the store is back.
        drop(permit);
        match outcome {
            Ok(()) => self.written(begun),
            Err(Failure::Locked(rooms)) => {
                self.log_locked(&rooms, patience);
                self.context.writer.queue().set_aside(self.number, &rooms);
                self.ended(None)
            }
            Err(Failure::Other(error)) => self.failed(error).await,
            Err(Failure::Unconfirmed(error, unconfirmed)) => {
                self.context.writer.queue().not_written(self.number, true);
                self.resolve(error, unconfirmed).await
            }
        }
    }

    pub(super) async fn write_touches(self, touches: Vec<(PresenceId, Tick)>) -> Ended {
        let (begun, now) = (Instant::now(), self.context.clock.now());
        let seen: Vec<_> = touches.iter().map(|(id, seen)| (*id, now.since(*seen))).collect();
        match self.bounded(self.context.store.touch(self.node, seen.into())).await {
            Err(error @ StoreError::Refused(_)) => {
                // Repeating them for ever would block everything else, and the next touches replace them anyway.
                warn!(count = touches.len(), error = %report(&error), "the store refused touches");
                self.written(begun)
            }
            Err(error) => {
                self.context.writer.queue().touches().put_back(touches);
                self.failed(error).await
            }
            Ok(()) => self.written(begun),
        }
    }

    fn ended(self, fenced: Option<NodeId>) -> Ended {
        Ended { lane: self.number, backoff: self.backoff, fenced }
    }

    fn written(mut self, begun: Instant) -> Ended {
        self.context.writer.queue().written(self.number, begun.elapsed());
        self.answered();
        self.ended(None)
    }

    /// The store wrote what it was given.
    fn answered(&mut self) {
        if self.context.failing.load(Ordering::Relaxed) == 0 {
            self.context.writer.0.health.write_succeeded();
        }
        self.backoff = Backoff::default();
    }

    /// Nothing was written, and what was to be written is queued again.
    async fn failed(mut self, error: StoreError) -> Ended {
        if let StoreError::Fenced { node, .. } = error {
            self.context.writer.queue().not_written(self.number, false);
            return self.ended(Some(node));
        }
        self.context.writer.queue().not_written(self.number, true);
        let failing = self.fails(&error);
        self.backoff.pause().await;
        drop(failing);
        self.context.writer.queue().resolved(self.number);
        self.ended(None)
    }

    fn fails(&self, error: &StoreError) -> Failing {
        self.context.writer.0.health.write_failed(&self.context.store, error);
        let failing = Failing::new(self.context.clone());
        self.context.fails.notify_one();
        failing
    }

    async fn try_write(&self, mut batch: WriteBatch) -> Result<(), Failure> {
        for room in &mut batch.writes {
            room.writes.iter_mut().for_each(|write| set_node(write, self.node));
        }
        let attempt = Attempt::next().in_lane(batch.lane);
        let attempt = match batch.patience {
            Some(patience) => attempt.with_patience(patience.min(self.context.store_timeout / 2)),
            None => attempt,
        };
        let changes = Changes::from(std::mem::take(&mut batch.writes));
        let outcome = self.bounded(self.context.store.commit(self.node, attempt, changes.clone())).await;
        batch.writes = changes.into_vec();
        match outcome {
            Ok(commits) => {
                self.context.writer.own_writes().confirm(self.node);
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
                match Box::pin(self.try_write(batch)).await {
                    Ok(()) => Box::pin(self.try_write(second)).await,
                    Err(failure) => {
                        self.context.writer.queue().put_back(second);
                        Err(failure)
                    }
                }
            }
            Err(error @ StoreError::Unavailable(_)) => Err(Failure::Unconfirmed(error, Unconfirmed { attempt, batch })),
            Err(error) => {
                self.context.writer.queue().put_back(batch);
                Err(match error {
                    StoreError::Busy { rooms } => Failure::Locked(rooms),
                    error => Failure::Other(error),
                })
            }
        }
    }

    /// Asks the store whether it wrote an unconfirmed batch, until it knows. If it did not, the batch waits to be written again.
    async fn resolve(mut self, mut error: StoreError, unconfirmed: Unconfirmed) -> Ended {
        let Unconfirmed { attempt, batch } = unconfirmed;
        let failing = self.fails(&error);
        let commits = loop {
            self.backoff.pause().await;
            match self.bounded(self.context.store.outcome(self.node, attempt)).await {
                Ok(commits) => break commits,
                // The node is over, and nobody waits for the answer.
                Err(_) if self.context.node.has_changed().is_err() => break None,
                Err(again) => error = again,
            }
            self.context.writer.0.health.write_failed(&self.context.store, &error);
        };
        drop(failing);
        match commits {
            Some(commits) => {
                self.context.writer.own_writes().confirm(self.node);
                batch.send_results(commits.into_iter().map(Ok));
                self.context.writer.queue().resolved(self.number);
                self.answered();
            }
            None => {
                let mut queue = self.context.writer.queue();
                queue.put_back(batch);
                queue.resolved(self.number);
            }
        }
        self.ended(None)
    }

    /// A call without an answer in time has failed, and may still have had its effect.
    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let limit = self.context.store_timeout;
        timeout(limit, call).await.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))))
    }

    /// A short wait is nothing unusual while several nodes write into the same room.
    fn log_locked(&self, rooms: &[RoomName], patience: Option<Duration>) {
        let Some(room) = rooms.first() else { return };
        debug!(count = rooms.len(), %room, ?patience, "rooms whose locks others have are set aside");
        if patience.is_some_and(|patience| patience > BRIEFLY)
            && let Some(left_out) = self.context.locked.admit(self.context.clock.now())
        {
            let left_out = left_out.field();
            warn!(%room, ?patience, left_out, "another transaction keeps a room locked; its changes wait, and other rooms go on");
        }
    }
}

/// Counts a lane as failing until this is dropped.
struct Failing(Arc<LaneContext>);

impl Failing {
    fn new(context: Arc<LaneContext>) -> Self {
        context.failing.fetch_add(1, Ordering::Relaxed);
        Self(context)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        self.0.failing.fetch_sub(1, Ordering::Relaxed);
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
