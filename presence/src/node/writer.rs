//! Group commit: one writer makes all writes of a node.
//!
//! While one transaction is in progress, new changes wait. The next transaction takes all of them, up to a bound. So a lone
//! join is written at once, and a thousand joins that come together share a commit. Only [a few leaves](leave_delay) wait a
//! moment for a join. Changes of one presence are merged while they wait, and keep their order.
//!
//! A transaction that takes long keeps nobody waiting: the writer has several [lanes](lanes), each with a transaction of its own. A room is
//! in one of them at a time, and a room whose lock another node has is set aside.
//!
//! While the database is away, leaves and touches wait for it, and rooms take joins back when their callers give up. Touches
//! are gathered for a while, so that they need few transactions.
//!
//! If the answer to a transaction is lost, its lane asks the database what became of it before it writes anything else, and no other lane
//! writes changes of its rooms. So each change is announced exactly once.

mod batch;
mod lane;
mod lanes;
mod leave_delay;
mod merge;
mod own_writes;
mod queue;
mod removal_lock;
mod room_queue;
mod run;
#[cfg(test)]
mod tests;
mod touches;

use std::{fmt, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::{
    clock::{Clock, Tick},
    name::{NodeId, PresenceId, RoomName},
    store::{RoomCommit, Store, StoreError, Write},
};

use super::health::Health;

use self::{merge::Change, own_writes::OwnWrites, queue::WriteQueue, removal_lock::RemovalLock, run::Worker};

pub(crate) use self::{
    merge::Tried,
    queue::{Priority, Submitted},
    removal_lock::RemovalPermit,
};

/// How many changes of one presence may wait before the last update of one of its sockets is refused.
const MAX_PENDING_OF_PRESENCE: usize = 8;

/// Queues changes for the task that writes them. Clones share one queue.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<WriteQueue>,
    /// Notified when there is something new to write.
    work: Notify,
    /// Notified when there is nothing left to write.
    idle: Notify,
    removal_lock: RemovalLock,
    max_pending: usize,
    /// How many lanes there may be, without the one for rooms that are set aside.
    lanes: u16,
    health: Health,
    own_writes: OwnWrites,
    fenced: Box<dyn Fn(NodeId) + Send + Sync>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("pending", &self.queue().pending()).finish_non_exhaustive()
    }
}

/// The outcome of changes that a room submitted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Committed {
    /// The number of the batch with the changes.
    pub(crate) batch: u64,
    pub(crate) writes: Vec<Write>,
    pub(crate) result: Result<RoomCommit, StoreError>,
}

/// The limit on pending changes is reached.
#[derive(Debug)]
pub(crate) struct Full {
    pub(crate) limit: usize,
}

impl Writer {
    /// The writer reports to `health` whether the database accepts writes. It calls `fenced` when the database answers that
    /// this incarnation of the node is fenced.
    pub(crate) fn new(
        max_pending: usize,
        lanes: u16,
        health: Health,
        fenced: impl Fn(NodeId) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(WriteQueue::new(1)),
            work: Notify::new(),
            idle: Notify::new(),
            removal_lock: RemovalLock::default(),
            max_pending,
            lanes,
            health,
            own_writes: OwnWrites::default(),
            fenced: Box::new(fenced),
        }))
    }

    pub(crate) fn own_writes(&self) -> &OwnWrites {
        &self.0.own_writes
    }

    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.0.queue.lock()
    }

    /// Queues a change. `room_actor` receives a [`Committed`] when it was written. Leaves are never refused.
    pub(crate) fn submit(
        &self,
        room: &RoomName,
        room_actor: &Recipient<Committed>,
        write: Write,
        tried: Tried,
    ) -> Result<Submitted, Full> {
        let mut queue = self.queue();
        if queue.pending() >= self.0.max_pending && !matches!(write, Write::Leave { .. }) {
            return Err(Full { limit: self.0.max_pending });
        }
        let submitted = queue.add(room, room_actor, Change { write, tried }, Priority::Requested);
        drop(queue);
        self.0.work.notify_one();
        Ok(submitted)
    }

    /// Queues the last update of a socket, which nobody could repeat. The limit applies only if [`MAX_PENDING_OF_PRESENCE`]
    /// changes of the presence wait: without that, a presence that is resumed again and again could queue any number.
    pub(crate) fn submit_last(
        &self,
        room: &RoomName,
        room_actor: &Recipient<Committed>,
        write: Write,
    ) -> Result<Submitted, Full> {
        if self.queue().pending_of(room, write.id()) >= MAX_PENDING_OF_PRESENCE {
            return self.submit(room, room_actor, write, Tried::No);
        }
        Ok(self.submit_always(room, room_actor, write, Tried::No))
    }

    /// Queues a change whatever the limit. This is for changes of which there are no more than sockets: to restore, resume
    /// or hold a presence.
    pub(crate) fn submit_always(
        &self,
        room: &RoomName,
        room_actor: &Recipient<Committed>,
        write: Write,
        tried: Tried,
    ) -> Submitted {
        let submitted = self.queue().add(room, room_actor, Change { write, tried }, Priority::Requested);
        self.0.work.notify_one();
        submitted
    }

    /// Queues leaves of one room.
    pub(crate) fn submit_leaves(
        &self,
        room: &RoomName,
        room_actor: &Recipient<Committed>,
        leaves: Vec<(Write, Priority)>,
    ) -> Vec<Submitted> {
        let mut queue = self.queue();
        let leaves = leaves.into_iter().map(|(write, priority)| (Change { write, tried: Tried::No }, priority));
        let submitted = leaves.map(|(leave, priority)| queue.add(room, room_actor, leave, priority)).collect();
        drop(queue);
        self.0.work.notify_one();
        submitted
    }

    /// Records that the presence was seen at `seen`. The database learns of it later, with other touches.
    pub(crate) fn touch(&self, id: PresenceId, seen: Tick) {
        self.queue().touches().add(id, seen);
        self.0.work.notify_one();
    }

    /// From now on touches are written at once. The node is about to stop.
    pub(crate) fn stop_gathering_touches(&self) {
        self.queue().touches().stop_gathering();
        self.0.work.notify_one();
    }

    /// How many changes wait.
    pub(crate) fn pending(&self) -> usize {
        self.queue().pending()
    }

    /// The number of the latest batch.
    pub(crate) fn last_batch(&self) -> u64 {
        self.queue().last_batch()
    }

    /// Whether a change that a caller requested is queued or being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.queue().is_writing()
    }

    /// Waits until nothing else of this node removes presences, neither a call of the supervisor nor a transaction of the
    /// writer with pruned presences. None of them begins before the permit is dropped.
    pub(crate) async fn removal_permit(&self) -> RemovalPermit {
        self.0.removal_lock.acquire().await
    }

    /// Whether a transaction that removes presences is in progress.
    pub(crate) fn is_removing(&self) -> bool {
        self.0.removal_lock.is_held()
    }

    /// Resolves when nothing waits and nothing is in progress.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            tokio::pin!(idle);
            // Without this, a notification between the check and the await would be missed.
            idle.as_mut().enable();
            if self.queue().is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Writes what is queued until `node` closes. A call to the store may take `timeout`. Touches are gathered for `gather`.
    pub(crate) async fn run(
        self,
        store: Arc<dyn Store>,
        clock: Clock,
        node: watch::Receiver<Option<NodeId>>,
        timeout: Duration,
        gather: Duration,
    ) {
        Worker::new(self, store, clock, node, timeout, gather).run().await;
    }
}
