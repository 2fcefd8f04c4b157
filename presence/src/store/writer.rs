//! Group commit: all writes of a node go through one writer.
//!
//! While a transaction is under way, what comes in waits; the next transaction takes all of it, up to a bound. There is no
//! delay for the sake of batching: a lone join is written at once, a thousand that come together share a commit. What
//! waits for one presence is merged, and the order of what happens to one presence is kept. While the database is away,
//! leaves and touches wait for it; joins are taken back by those who gave up on them. Touches are in no hurry: they are
//! gathered for a while, so that they take few transactions.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, btree_map::Entry},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Message, Recipient};
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::{
    clock::{Clock, Tick},
    model::Presence,
    name::{NodeId, PresenceId, RoomName},
};

use super::{RoomCommit, RoomWrites, Store, StoreError, Write, health::Health};

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
    health: Health,
    fenced: Box<dyn Fn(NodeId) + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    rooms: HashMap<RoomName, Waiting>,
    order: VecDeque<RoomName>,
    pending: usize,
    touches: HashMap<PresenceId, Tick>,
    /// No touches are written before this.
    touches_from: Tick,
    /// The last transaction was one of touches, so it is the turn of the changes.
    touched: bool,
    busy: bool,
    /// The number of the last batch.
    taken: u64,
}

struct Waiting {
    actor: Recipient<Committed>,
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

/// What became of changes that the room gave to the writer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Committed {
    /// The number of the batch that they went in.
    pub(crate) batch: u64,
    pub(crate) writes: Vec<Write>,
    /// Those that may have been done by an earlier attempt, whose answer was lost.
    pub(crate) retried: HashSet<PresenceId>,
    pub(crate) result: Result<RoomCommit, StoreError>,
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
    /// `health` is told whether the database takes what is written, and `fenced` is called when it says that this life of the
    /// node is over.
    pub(crate) fn new(max_pending: usize, health: Health, fenced: impl Fn(NodeId) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            work: Notify::new(),
            idle: Notify::new(),
            max_pending,
            health,
            fenced: Box::new(fenced),
        }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes on a change; the room is told when it is committed. Leaves are always taken.
    pub(crate) fn submit(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        write: Write,
    ) -> Result<Submitted, Full> {
        let mut queue = self.queue();
        if queue.pending >= self.0.max_pending && !matches!(write, Write::Leave { .. }) {
            return Err(Full);
        }
        if let Write::Leave { id, .. } = &write {
            queue.touches.remove(id);
        }
        let submitted = queue.add(room, actor, write, Tried::No);
        drop(queue);
        self.0.work.notify_one();
        Ok(submitted)
    }

    /// Takes on leaves of one room, which go into one transaction.
    pub(crate) fn submit_leaves(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        leaves: Vec<Write>,
    ) -> Vec<Submitted> {
        let mut queue = self.queue();
        for leave in &leaves {
            queue.touches.remove(&leave.id());
        }
        let submitted = leaves.into_iter().map(|leave| queue.add(room, actor, leave, Tried::No)).collect();
        drop(queue);
        self.0.work.notify_one();
        submitted
    }

    /// Makes sure that a presence of a live socket, which was in the database and may be there still, is there and this
    /// node's. Always taken: there are no more of these than sockets.
    pub(crate) fn restore(&self, room: &RoomName, actor: &Recipient<Committed>, presence: Arc<Presence>) {
        self.queue().add(room, actor, Write::Join(presence), Tried::Yes);
        self.0.work.notify_one();
    }

    /// The presence was seen at `seen`; the database learns of it in time.
    pub(crate) fn touch(&self, id: PresenceId, seen: Tick) {
        self.queue().touches.insert(id, seen);
        self.0.work.notify_one();
    }

    /// How many changes wait.
    pub(crate) fn pending(&self) -> usize {
        self.queue().pending
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

    /// Writes, until the node is known to be no more (`node` closes). A call that takes longer than `timeout` is given up,
    /// and touches are gathered for `gather`.
    pub(crate) async fn run(
        self,
        store: Arc<dyn Store>,
        clock: Clock,
        mut node: watch::Receiver<Option<NodeId>>,
        timeout: Duration,
        gather: Duration,
    ) {
        let mut pauses = Pauses::default();
        loop {
            let work = self.0.work.notified();
            let Ok(id) = node.wait_for(Option::is_some).await.map(|id| *id) else { return };
            let Some(id) = id else { continue };
            let next = self.queue().next(clock.now(), gather);
            let outcome = match next {
                // All that waited cancelled out.
                Work::Changes(batch) if batch.writes.is_empty() => continue,
                Work::Changes(batch) => self.write(&*store, id, batch, timeout).await,
                Work::Touches(touches) => self.write_touches(&*store, &clock, id, touches, timeout).await,
                Work::Nothing { touches_in } => {
                    self.0.idle.notify_waiters();
                    if touches_in.is_none() {
                        self.0.health.has_nothing_to_write();
                    }
                    match touches_in {
                        Some(wait) => drop(tokio::time::timeout(wait, work).await),
                        None => work.await,
                    }
                    continue;
                }
            };
            self.queue().busy = false;
            match outcome {
                Ok(()) => {
                    self.0.health.writes();
                    pauses.end();
                }
                Err(error) => {
                    if let StoreError::Fenced { node: dead, .. } = error {
                        // Nothing was written. A new life is coming; wait for it.
                        (self.0.fenced)(dead);
                        let other = node.wait_for(|now| now.is_some_and(|now| now != dead));
                        let _ = tokio::time::timeout(timeout, other).await;
                    } else {
                        self.0.health.cannot_write(&error);
                        pauses.next().await;
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
                batch.answer(commits.into_iter().map(Ok));
                Ok(())
            }
            Err(error @ StoreError::Refused(_)) => {
                // One change is not the fault of its neighbours: find the one.
                let Some(second) = batch.split_off() else {
                    warn!(room = %batch.writes[0].room, error = %report(&error), "the store refused a change");
                    batch.answer([Err(error)]);
                    return Ok(());
                };
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
        if let Err(error @ StoreError::Refused(_)) = &outcome {
            // Asked again for ever, they would keep everything else waiting. The next touches tell more anyway.
            warn!(count = seen.len(), error = %report(error), "the store refused touches");
            return Ok(());
        }
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
    /// Where each of them came from.
    origins: Vec<Origin>,
    number: u64,
}

#[derive(Clone)]
struct Origin {
    actor: Recipient<Committed>,
    retried: HashSet<PresenceId>,
}

impl Batch {
    /// Takes the second half off: half of the rooms, or half of the changes of the only one. `None`: it is but one change.
    fn split_off(&mut self) -> Option<Self> {
        let number = self.number;
        if let [RoomWrites { room, writes }] = &mut self.writes[..] {
            if writes.len() < 2 {
                return None;
            }
            let writes = writes.split_off(writes.len() / 2);
            let writes = vec![RoomWrites { room: room.clone(), writes }];
            return Some(Self { writes, origins: self.origins.clone(), number });
        }
        let half = self.writes.len() / 2;
        Some(Self { writes: self.writes.split_off(half), origins: self.origins.split_off(half), number })
    }

    /// Tells the rooms what became of it.
    fn answer(self, commits: impl IntoIterator<Item = Result<RoomCommit, StoreError>>) {
        let rooms = self.writes.into_iter().zip(self.origins);
        for ((RoomWrites { writes, .. }, Origin { actor, retried }), result) in rooms.zip(commits) {
            actor.do_send(Committed { batch: self.number, writes, retried, result });
        }
    }
}

/// What the next transaction is for.
enum Work {
    Changes(Batch),
    Touches(Vec<(PresenceId, Tick)>),
    /// If touches are being gathered, they will be due after this time.
    Nothing {
        touches_in: Option<Duration>,
    },
}

impl Queue {
    /// Changes go first, but touches do not wait for ever: once they are due, they have every other turn.
    fn next(&mut self, now: Tick, gather: Duration) -> Work {
        let due = !self.touches.is_empty() && self.touches_from <= now;
        if due && (self.order.is_empty() || !self.touched) {
            self.touched = true;
            let touches = self.take_touches();
            if self.touches.is_empty() {
                self.touches_from = now.after(gather);
            }
            return Work::Touches(touches);
        }
        if self.order.is_empty() {
            let touches_in = (!self.touches.is_empty()).then(|| self.touches_from.since(now));
            return Work::Nothing { touches_in };
        }
        self.touched = false;
        Work::Changes(self.take())
    }

    fn add(&mut self, room: &RoomName, actor: &Recipient<Committed>, write: Write, tried: Tried) -> Submitted {
        let waiting = self.rooms.entry(room.clone()).or_insert_with(|| {
            self.order.push_back(room.clone());
            Waiting { actor: actor.clone(), writes: BTreeMap::new() }
        });
        waiting.actor = actor.clone();
        self.pending -= waiting.writes.len();
        let submitted = merge(&mut waiting.writes, write, tried);
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
            let retried = waiting.writes.iter().filter(|(_, (_, tried))| *tried == Tried::Yes).map(|(id, _)| *id);
            batch.origins.push(Origin { actor: waiting.actor, retried: retried.collect() });
            let writes = waiting.writes.into_values().map(|(write, _)| write).collect();
            batch.writes.push(RoomWrites { room, writes });
        }
        self.pending -= taken;
        self.taken += 1;
        batch.number = self.taken;
        self.busy = !batch.writes.is_empty();
        batch
    }

    /// What was not committed, or is not known to be, goes before what came since.
    fn put_back(&mut self, batch: Batch) {
        for (RoomWrites { room, writes }, Origin { actor, .. }) in batch.writes.into_iter().zip(batch.origins) {
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
    let (earlier, earlier_tried) = entry.get_mut();
    if tried == Tried::Yes {
        *earlier_tried = Tried::Yes;
    }
    match (&mut *earlier, write) {
        // It never came, so it need not go.
        (Write::Join(_), Write::Leave { .. }) if *earlier_tried == Tried::No => {
            entry.remove();
            return Merged::CancelledOut;
        }
        (Write::Join(presence), Write::Update { user, meta, .. }) => {
            *presence = Arc::new(presence.changed(user, meta));
        }
        (Write::Update { user, meta, .. }, Write::Update { user: later_user, meta: later_meta, .. }) => {
            *user = later_user.or_else(|| user.take());
            *meta = later_meta.or_else(|| meta.take());
        }
        // The same again; but the one that waits may have been updated since.
        (Write::Join(presence), Write::Join(again)) if presence.channel == again.channel => {}
        // What left, or was updated, is in the database: a leave to come must reach it.
        (Write::Update { channel, user, meta, .. }, Write::Join(presence)) if *channel == presence.channel => {
            let presence = presence.changed(user.take(), meta.take());
            (*earlier, *earlier_tried) = (Write::Join(Arc::new(presence)), Tried::Yes);
        }
        (Write::Leave { .. }, write @ Write::Join(_)) => (*earlier, *earlier_tried) = (write, Tried::Yes),
        // Who left cannot be changed.
        (Write::Leave { .. }, Write::Update { .. }) => {}
        (earlier, write) => *earlier = write,
    }
    Merged::Waits
}

/// What the writer waits for before it tries again: longer and longer.
#[derive(Default)]
struct Pauses(Option<backon::ExponentialBackoff>);

impl Pauses {
    async fn next(&mut self) {
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

    fn end(&mut self) {
        self.0 = None;
    }
}
