//! Group commit: all writes of a node go through one writer.
//!
//! While a transaction is under way, what comes in waits; the next transaction takes all of it, up to a bound. There is no
//! delay for the sake of batching: a lone join is written at once, a thousand that come together share a commit. What
//! waits for one presence is merged, and the order of what happens to one presence is kept. While the database is away,
//! leaves and touches wait for it; joins are taken back by those who gave up on them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque, btree_map::Entry},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::Addr;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::{
    clock::{Clock, Tick},
    model::Presence,
    name::{NodeId, PresenceId, RoomName},
    room::{actor::RoomActor, message::ToRoom},
};

use super::{RoomWrites, Store, StoreError, Write};

/// How many changes go into one transaction; a room's are never split.
const BATCH: usize = 1000;
/// How many touches go into one transaction.
const TOUCH_BATCH: usize = 5000;

/// The writer's front: gives it work.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    work: Notify,
    idle: Notify,
    max_pending: usize,
    fenced: Box<dyn Fn(NodeId) + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    rooms: HashMap<RoomName, Waiting>,
    order: VecDeque<RoomName>,
    pending: usize,
    touches: HashMap<PresenceId, Tick>,
    busy: bool,
    /// The number of the last batch.
    taken: u64,
}

struct Waiting {
    actor: Addr<RoomActor>,
    /// At most one for each presence, in the order in which rows are locked.
    writes: BTreeMap<PresenceId, (Write, Tried)>,
}

/// Whether a write may have reached the database already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tried {
    No,
    Yes,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("pending", &self.queue().pending).finish_non_exhaustive()
    }
}

/// More changes wait for the database than may.
#[derive(Debug)]
pub(crate) struct Full;

/// What became of a change that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It waits for the database; the room will be told. The batch that it goes into has a higher number than this.
    Waits(u64),
    /// It and the join that it takes back cancelled out; the database will hear of neither.
    CancelledOut,
}

impl Writer {
    /// `fenced` is called when the database says that this life of the node is over.
    pub(crate) fn new(max_pending: usize, fenced: impl Fn(NodeId) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            work: Notify::new(),
            idle: Notify::new(),
            max_pending,
            fenced: Box::new(fenced),
        }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes on a change; the room is told when it is committed. Leaves are always taken.
    pub(crate) fn submit(&self, room: &RoomName, actor: &Addr<RoomActor>, write: Write) -> Result<Submitted, Full> {
        let mut queue = self.queue();
        if queue.pending >= self.0.max_pending && !matches!(write, Write::Leave { .. }) {
            return Err(Full);
        }
        if let Write::Leave { id, .. } = &write {
            queue.touches.remove(id);
        }
        let submitted = queue.add(room, actor, write);
        drop(queue);
        self.0.work.notify_one();
        Ok(submitted)
    }

    /// The presence was seen at `seen`; the database learns of it in time.
    pub(crate) fn touch(&self, id: PresenceId, seen: Tick) {
        self.queue().touches.insert(id, seen);
        self.0.work.notify_one();
    }

    /// How many hold this writer: the rooms, the writer's task, and each child of a room.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Resolves when nothing waits and nothing is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            tokio::pin!(idle);
            // From here on no notification is lost.
            idle.as_mut().enable();
            {
                let queue = self.queue();
                if !queue.busy && queue.order.is_empty() && queue.touches.is_empty() {
                    return;
                }
            }
            idle.await;
        }
    }

    /// Writes, until the node is known to be no more (`node` closes).
    pub(crate) async fn run(
        self,
        store: Arc<dyn Store>,
        clock: Clock,
        mut node: watch::Receiver<Option<NodeId>>,
        timeout: Duration,
    ) {
        let mut away = Away::default();
        loop {
            let work = self.0.work.notified();
            let Ok(id) = node.wait_for(Option::is_some).await.map(|id| *id) else { return };
            let Some(id) = id else { continue };
            let batch = self.queue().take();
            let outcome = if batch.is_empty() {
                let touches = self.queue().take_touches();
                if touches.is_empty() {
                    self.0.idle.notify_waiters();
                    work.await;
                    continue;
                }
                self.write_touches(&*store, &clock, id, touches, timeout).await
            } else {
                self.write(&*store, id, batch, timeout).await
            };
            self.queue().busy = false;
            match outcome {
                Ok(()) => away.is_back(),
                Err(error) => {
                    if let StoreError::Fenced { node: dead, .. } = error {
                        // Nothing was written. A new life is coming; wait for it.
                        (self.0.fenced)(dead);
                        let other = node.wait_for(|now| now.is_some_and(|now| now != dead));
                        let _ = tokio::time::timeout(timeout, other).await;
                    } else {
                        away.pause(&error).await;
                    }
                }
            }
        }
    }

    async fn write(
        &self,
        store: &dyn Store,
        node: NodeId,
        mut batch: Batch,
        timeout: Duration,
    ) -> Result<(), StoreError> {
        for writes in &mut batch.writes {
            writes.writes.iter_mut().for_each(|write| belong(write, node));
        }
        match bounded(timeout, store.commit(node, &batch.writes)).await {
            Ok(commits) => {
                for ((actor, writes), commit) in batch.actors.iter().zip(&batch.writes).zip(commits) {
                    let ids = writes.writes.iter().map(Write::id).collect();
                    actor.do_send(ToRoom::Committed { batch: batch.number, ids, result: Ok(commit) });
                }
                Ok(())
            }
            Err(error @ StoreError::Refused(_)) => {
                if let ([actor], [writes]) = (&batch.actors[..], &batch.writes[..]) {
                    warn!(room = %writes.room, error = %report(&error), "the store refused a change");
                    let ids = writes.writes.iter().map(Write::id).collect();
                    actor.do_send(ToRoom::Committed { batch: batch.number, ids, result: Err(error) });
                    return Ok(());
                }
                // One room's data is not the fault of its neighbours: find the one.
                let half = batch.writes.len() / 2;
                let (writes, actors) = (batch.writes.split_off(half), batch.actors.split_off(half));
                let second = Batch { writes, actors, number: batch.number };
                let first = Box::pin(self.write(store, node, batch, timeout)).await;
                match first {
                    Ok(()) => Box::pin(self.write(store, node, second, timeout)).await,
                    Err(error) => {
                        self.queue().put_back(second);
                        Err(error)
                    }
                }
            }
            Err(error) => {
                self.queue().put_back(batch);
                Err(error)
            }
        }
    }

    async fn write_touches(
        &self,
        store: &dyn Store,
        clock: &Clock,
        node: NodeId,
        touches: Vec<(PresenceId, Tick)>,
        timeout: Duration,
    ) -> Result<(), StoreError> {
        let now = clock.now();
        let seen: Vec<_> = touches.iter().map(|(id, seen)| (*id, now.since(*seen))).collect();
        let outcome = bounded(timeout, store.touch(node, &seen)).await;
        if outcome.is_err() {
            let mut queue = self.queue();
            for (id, seen) in touches {
                queue.touches.entry(id).or_insert(seen);
            }
        }
        outcome
    }
}

/// The database must answer in time; if not, what it did is not known.
async fn bounded<T>(timeout: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(StoreError::Unavailable(Arc::new(elapsed))),
    }
}

/// A join that waited while the node began a new life belongs to that one.
fn belong(write: &mut Write, node: NodeId) {
    if let Write::Join(presence) = write
        && presence.node != node
    {
        *presence = Arc::new(Presence { node, ..(**presence).clone() });
    }
}

pub(crate) fn report(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[derive(Default)]
struct Batch {
    writes: Vec<RoomWrites>,
    actors: Vec<Addr<RoomActor>>,
    number: u64,
}

impl Batch {
    const fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

impl Queue {
    fn add(&mut self, room: &RoomName, actor: &Addr<RoomActor>, write: Write) -> Submitted {
        let waiting = self.rooms.entry(room.clone()).or_insert_with(|| {
            self.order.push_back(room.clone());
            Waiting { actor: actor.clone(), writes: BTreeMap::new() }
        });
        waiting.actor = actor.clone();
        self.pending -= waiting.writes.len();
        let submitted = merge(&mut waiting.writes, write, Tried::No);
        self.pending += waiting.writes.len();
        match submitted {
            Merged::Waits => Submitted::Waits(self.taken),
            Merged::CancelledOut => Submitted::CancelledOut,
        }
    }

    /// As many rooms as fit into one transaction.
    fn take(&mut self) -> Batch {
        let mut batch = Batch::default();
        let mut taken = 0;
        while let Some(room) = self.order.front() {
            let next = self.rooms.get(room).map_or(0, |waiting| waiting.writes.len());
            if taken > 0 && taken + next > BATCH {
                break;
            }
            taken += next;
            let Some(room) = self.order.pop_front() else { break };
            let Some(waiting) = self.rooms.remove(&room) else { continue };
            if waiting.writes.is_empty() {
                continue;
            }
            let writes = waiting.writes.into_values().map(|(write, _)| write).collect();
            batch.writes.push(RoomWrites { room, writes });
            batch.actors.push(waiting.actor);
        }
        self.pending -= taken;
        self.taken += 1;
        batch.number = self.taken;
        self.busy = !batch.is_empty();
        batch
    }

    /// What was not committed, or is not known to be, goes before what came since.
    fn put_back(&mut self, batch: Batch) {
        for (RoomWrites { room, writes }, actor) in batch.writes.into_iter().zip(batch.actors) {
            let since = self.rooms.remove(&room);
            match &since {
                Some(since) => self.pending -= since.writes.len(),
                None => self.order.push_front(room.clone()),
            }
            let actor = since.as_ref().map_or(actor, |since| since.actor.clone());
            let mut merged: BTreeMap<_, _> =
                writes.into_iter().map(|write| (write.id(), (write, Tried::Yes))).collect();
            for (write, tried) in since.map(|since| since.writes).unwrap_or_default().into_values() {
                merge(&mut merged, write, tried);
            }
            self.pending += merged.len();
            self.rooms.insert(room, Waiting { actor, writes: merged });
        }
    }

    fn take_touches(&mut self) -> Vec<(PresenceId, Tick)> {
        let touches: Vec<_> = if self.touches.len() <= TOUCH_BATCH {
            mem::take(&mut self.touches).into_iter().collect()
        } else {
            let ids: Vec<_> = self.touches.keys().take(TOUCH_BATCH).copied().collect();
            ids.into_iter().filter_map(|id| self.touches.remove_entry(&id)).collect()
        };
        self.busy = !touches.is_empty();
        touches
    }
}

enum Merged {
    Waits,
    CancelledOut,
}

/// Adds a change to those that wait.
fn merge(waiting: &mut BTreeMap<PresenceId, (Write, Tried)>, write: Write, tried: Tried) -> Merged {
    let mut entry = match waiting.entry(write.id()) {
        Entry::Occupied(entry) => entry,
        Entry::Vacant(entry) => {
            entry.insert((write, tried));
            return Merged::Waits;
        }
    };
    let (earlier, tried) = entry.get_mut();
    match (&mut *earlier, write) {
        // It never came, so it need not go.
        (Write::Join(_), Write::Leave { .. }) if *tried == Tried::No => {
            entry.remove();
            return Merged::CancelledOut;
        }
        (Write::Join(presence), Write::Update { meta, .. }) => {
            *presence = Arc::new(Presence { meta, ..(**presence).clone() });
        }
        // Who left cannot be changed.
        (Write::Leave { .. }, Write::Update { .. }) => {}
        (earlier, write) => *earlier = write,
    }
    Merged::Waits
}

/// Says once that the database is away, and once that it is back; waits longer and longer in between.
#[derive(Default)]
struct Away(Option<backon::ExponentialBackoff>);

impl Away {
    async fn pause(&mut self, error: &StoreError) {
        if self.0.is_none() {
            warn!(error = %report(error), "the presence store is away; changes wait");
        }
        let backoff = self.0.get_or_insert_with(|| {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(20))
                .with_max_delay(Duration::from_secs(1))
                .without_max_times()
                .with_jitter()
                .build()
        });
        tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(1))).await;
    }

    fn is_back(&mut self) {
        if self.0.take().is_some() {
            info!("the presence store is back");
        }
    }
}
