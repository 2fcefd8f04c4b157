//! Group commit: all writes of a node go through one writer.
//!
//! While a transaction is under way, what comes in waits; the next transaction takes all of it, up to a bound. No join or
//! update is delayed for the sake of batching: a lone join is written at once, a thousand that come together share a commit. A
//! few leaves alone wait [`LEAVE_DELAY`] for a join, since who leaves often comes back at once, or goes to another room. What
//! waits for one presence is merged, and the order of what happens to one presence is kept. While the database is away,
//! leaves and touches wait for it; joins are taken back by those who gave up on them. Touches are in no hurry: they are
//! gathered for a while, so that they take few transactions.
//!
//! A transaction whose answer is lost is in doubt. Nothing else is written before the database has said what became of it, so
//! that each change is told, and told once.

mod batch;
mod line;
mod merge;
mod queue;
#[cfg(test)]
mod tests;
mod touches;
mod waiting;

use std::{fmt, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use backon::{BackoffBuilder, ExponentialBuilder};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};
use tracing::{debug, warn};

use crate::{
    clock::{Clock, Tick},
    model::Presence,
    name::{NodeId, PresenceId, RoomName},
    session::Session,
    store::{Attempt, Changes, RoomCommit, RoomWrites, Store, StoreError, Write},
};

use super::health::Health;

use self::{
    batch::Batch,
    line::{Line, Place},
    merge::{Change, Tried},
    queue::{Queue, Work},
};

pub(crate) use self::{
    line::Turn,
    queue::{Haste, Submitted},
};

/// How many changes of one presence may wait when the last update of one of its sockets is taken on beyond the bound.
const MOST_OF_ONE: usize = 8;

/// How long a few leaves wait for a join to share its transaction with. Whoever sees the presence go sees it no later than that.
const LEAVE_DELAY: Duration = Duration::from_millis(5);

/// The writer's front: gives it work.
#[derive(Clone)]
pub(crate) struct Writer(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    work: Notify,
    idle: Notify,
    line: Line,
    max_pending: usize,
    health: Health,
    fenced: Box<dyn Fn(NodeId) + Send + Sync>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("pending", &self.queue().pending()).finish_non_exhaustive()
    }
}

/// What became of changes that the room gave to the writer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Committed {
    /// The number of the batch that they went in.
    pub(crate) batch: u64,
    pub(crate) writes: Vec<Write>,
    pub(crate) result: Result<RoomCommit, StoreError>,
}

/// More changes wait for the database than may.
#[derive(Debug)]
pub(crate) struct Full {
    pub(crate) limit: usize,
}

impl Writer {
    /// `health` is told whether the database takes what is written, and `fenced` is called when it says that this life of the
    /// node is over.
    pub(crate) fn new(max_pending: usize, health: Health, fenced: impl Fn(NodeId) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            work: Notify::new(),
            idle: Notify::new(),
            line: Line::default(),
            max_pending,
            health,
            fenced: Box::new(fenced),
        }))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock()
    }

    /// Takes on a change; the room is told when it is committed. Leaves are always taken.
    pub(crate) fn submit(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        write: Write,
    ) -> Result<Submitted, Full> {
        self.submit_as(room, actor, write, Tried::No)
    }

    /// As [`submit`](Self::submit), for a change that may have been done already: it does not cancel out with what takes it
    /// back.
    pub(crate) fn submit_again(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        write: Write,
    ) -> Result<Submitted, Full> {
        self.submit_as(room, actor, write, Tried::Yes)
    }

    /// As [`submit`](Self::submit), for the last update of a socket, which nobody would try again. It is refused only if at the same time
    /// more changes of its presence wait than [`MOST_OF_ONE`]: one that is taken over again and again could make any number wait.
    pub(crate) fn submit_last(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        write: Write,
    ) -> Result<Submitted, Full> {
        if self.queue().pending_of(room, write.id()) >= MOST_OF_ONE {
            return self.submit(room, actor, write);
        }
        Ok(self.take_on(room, actor, write, Tried::No))
    }

    fn take_on(&self, room: &RoomName, actor: &Recipient<Committed>, write: Write, tried: Tried) -> Submitted {
        let submitted = self.queue().add(room, actor, Change { write, tried }, Haste::Asked);
        self.0.work.notify_one();
        submitted
    }

    fn submit_as(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        write: Write,
        tried: Tried,
    ) -> Result<Submitted, Full> {
        let mut queue = self.queue();
        if queue.pending() >= self.0.max_pending && !matches!(write, Write::Leave { .. }) {
            return Err(Full { limit: self.0.max_pending });
        }
        let submitted = queue.add(room, actor, Change { write, tried }, Haste::Asked);
        drop(queue);
        self.0.work.notify_one();
        Ok(submitted)
    }

    /// Takes on leaves of one room.
    pub(crate) fn submit_leaves(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        leaves: Vec<(Write, Haste)>,
    ) -> Vec<Submitted> {
        let mut queue = self.queue();
        let leaves = leaves.into_iter().map(|(write, haste)| (Change { write, tried: Tried::No }, haste));
        let submitted = leaves.map(|(leave, haste)| queue.add(room, actor, leave, haste)).collect();
        drop(queue);
        self.0.work.notify_one();
        submitted
    }

    /// Makes sure that a presence of a live socket, which was in the database and may be there still, is there and this
    /// node's. Always taken: there are no more of these than sockets.
    pub(crate) fn restore(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        presence: Arc<Presence>,
        session: Option<Session>,
    ) {
        let write = match session {
            Some(session) => Write::Restore { presence, session },
            None => Write::Join(presence),
        };
        self.take_on(room, actor, write, Tried::Yes);
    }

    /// Makes a presence of this node that of another socket. Always taken, as [`restore`](Self::restore).
    pub(crate) fn resume(
        &self,
        room: &RoomName,
        actor: &Recipient<Committed>,
        presence: Arc<Presence>,
        session: Session,
    ) {
        self.take_on(room, actor, Write::Resume { presence, session }, Tried::Yes);
    }

    /// Holds a presence whose socket is lost. Always taken.
    pub(crate) fn hold(&self, room: &RoomName, actor: &Recipient<Committed>, hold: Write) {
        self.take_on(room, actor, hold, Tried::No);
    }

    /// The presence was seen at `seen`; the database learns of it in time.
    pub(crate) fn touch(&self, id: PresenceId, seen: Tick) {
        self.queue().touches().add(id, seen);
        self.0.work.notify_one();
    }

    /// The end is near: from here on touches are written at once.
    pub(crate) fn hurry(&self) {
        self.queue().touches().hurry();
        self.0.work.notify_one();
    }

    /// How many changes wait.
    pub(crate) fn pending(&self) -> usize {
        self.queue().pending()
    }

    /// The number of the last batch that was begun.
    pub(crate) fn begun(&self) -> u64 {
        self.queue().begun()
    }

    /// Whether somebody waits for a change.
    pub(crate) fn is_writing(&self) -> bool {
        self.queue().is_writing()
    }

    /// Resolves when nobody of this node removes presences: no other supervisor's call, and no transaction of the writer with
    /// presences that are pruned. None begins until the turn is dropped.
    pub(crate) async fn turn(&self) -> Turn {
        self.0.line.next().await
    }

    /// Whether a transaction that removes presences is under way.
    pub(crate) fn removes(&self) -> bool {
        self.0.line.is_taken()
    }

    /// Resolves when nothing waits and nothing is under way.
    pub(crate) async fn idle(&self) {
        loop {
            let idle = self.0.idle.notified();
            tokio::pin!(idle);
            // From here on no notification is lost.
            idle.as_mut().enable();
            if self.queue().is_idle() {
                return;
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
        let mut doubt = None;
        let mut place = Place::new(&self.0.line);
        loop {
            if let Some(lost) = doubt.take() {
                match self.settle(&*store, lost, timeout).await {
                    Ok(was_done) if was_done => {
                        self.0.health.writes();
                        pauses.end();
                    }
                    Ok(_) => {}
                    Err((lost, error)) => {
                        doubt = Some(lost);
                        if node.has_changed().is_err() {
                            return;
                        }
                        self.0.health.cannot_write(&store, &error);
                        pauses.next().await;
                        continue;
                    }
                }
            }
            let work = self.0.work.notified();
            if node.borrow().is_none() {
                place.leave();
            }
            let Ok(id) = node.wait_for(Option::is_some).await.map(|id| *id) else { return };
            let Some(id) = id else { continue };
            let mut turn = if self.queue().prunes() {
                place.take()
            } else {
                place.leave();
                None
            };
            self.delay_few_leaves().await;
            let (next, begun) = (self.queue().next(clock.now(), gather, turn.is_some()), Instant::now());
            let outcome = match next {
                // All that waited cancelled out.
                Work::Changes(batch) if batch.writes.is_empty() => continue,
                Work::Changes(batch) => self.write(&*store, id, batch, timeout, &mut doubt).await,
                Work::Touches(touches) => {
                    // They remove nothing.
                    turn = None;
                    self.write_touches(&*store, &clock, id, touches, timeout).await
                }
                Work::Nothing { touches_in } => {
                    self.0.idle.notify_waiters();
                    if touches_in.is_none() && !self.queue().prunes() {
                        self.0.health.has_nothing_to_write();
                    }
                    let something = async {
                        tokio::select! {
                            () = work => {}
                            () = place.comes() => {}
                        }
                    };
                    match touches_in {
                        Some(wait) => drop(tokio::time::timeout(wait, something).await),
                        None => something.await,
                    }
                    continue;
                }
            };
            drop(turn);
            match outcome {
                Ok(()) => {
                    self.queue().written(begun.elapsed());
                    self.0.health.writes();
                    pauses.end();
                }
                Err(error) => {
                    // Nobody is to wait for what comes of this.
                    place.leave();
                    self.queue().not_written(doubt.is_some());
                    if let StoreError::Fenced { node: dead, .. } = error {
                        // Nothing was written. A new life is coming; wait for it.
                        (self.0.fenced)(dead);
                        let other = node.wait_for(|now| now.is_some_and(|now| now != dead));
                        let _ = tokio::time::timeout(timeout, other).await;
                    } else {
                        self.0.health.cannot_write(&store, &error);
                        pauses.next().await;
                    }
                }
            }
        }
    }

    /// Resolves when something else than a few leaves waits, or after [`LEAVE_DELAY`].
    async fn delay_few_leaves(&self) {
        let until = Instant::now() + LEAVE_DELAY;
        loop {
            let work = self.0.work.notified();
            if !self.queue().has_only_few_leaves() || timeout_at(until, work).await.is_err() {
                return;
            }
        }
    }

    async fn write(
        &self,
        store: &dyn Store,
        node: NodeId,
        mut batch: Batch,
        timeout: Duration,
        doubt: &mut Option<Doubt>,
    ) -> Result<(), StoreError> {
        for writes in &mut batch.writes {
            writes.writes.iter_mut().for_each(|write| belong(write, node));
        }
        let attempt = Attempt::next();
        let changes = Changes::from(std::mem::take(&mut batch.writes));
        let outcome = bounded(timeout, store.commit(node, attempt, changes.clone())).await;
        batch.writes = changes.into_vec();
        match outcome {
            Ok(commits) => {
                batch.answer(commits.into_iter().map(Ok));
                Ok(())
            }
            Err(error @ StoreError::Refused(_)) => {
                // One change is not the fault of its neighbours: find the one.
                let Some(second) = batch.split_off() else {
                    let RoomWrites { room, writes } = &batch.writes[0];
                    if error.is_channel_taken() && matches!(writes[..], [Write::Join(_)]) {
                        // The mistake of whoever chose the name, who is told.
                        debug!(%room, error = %report(&error), "the store refused a join");
                    } else {
                        warn!(%room, error = %report(&error), "the store refused a change");
                    }
                    batch.answer([Err(error)]);
                    return Ok(());
                };
                let first = Box::pin(self.write(store, node, batch, timeout, doubt)).await;
                match first {
                    Ok(()) => Box::pin(self.write(store, node, second, timeout, doubt)).await,
                    Err(error) => {
                        self.queue().put_back(second);
                        Err(error)
                    }
                }
            }
            Err(error @ StoreError::Unavailable(_)) => {
                *doubt = Some(Doubt { node, attempt, batch });
                Err(error)
            }
            Err(error) => {
                self.queue().put_back(batch);
                Err(error)
            }
        }
    }

    /// Asks what became of a batch in doubt, and says whether it was done. If not, it waits to be written again.
    async fn settle(&self, store: &dyn Store, lost: Doubt, timeout: Duration) -> Result<bool, (Doubt, StoreError)> {
        let outcome = bounded(timeout, store.outcome(lost.node, lost.attempt)).await;
        let commits = match outcome {
            Ok(commits) => commits,
            Err(error) => return Err((lost, error)),
        };
        let was_done = commits.is_some();
        match commits {
            Some(commits) => lost.batch.answer(commits.into_iter().map(Ok)),
            None => self.queue().put_back(lost.batch),
        }
        self.queue().settled();
        Ok(was_done)
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
        let outcome = bounded(timeout, store.touch(node, seen.clone().into())).await;
        if let Err(error @ StoreError::Refused(_)) = &outcome {
            // Asked again for ever, they would keep everything else waiting. The next touches tell more anyway.
            warn!(count = seen.len(), error = %report(error), "the store refused touches");
            return Ok(());
        }
        if outcome.is_err() {
            self.queue().touches().put_back(touches);
        }
        outcome
    }
}

/// A batch of which it is not known whether it was written.
struct Doubt {
    node: NodeId,
    attempt: Attempt,
    batch: Batch,
}

/// The database must answer in time; if not, what it did is not known.
async fn bounded<T>(timeout: Duration, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(outcome) => outcome,
        Err(elapsed) => Err(StoreError::Unavailable(Arc::new(elapsed))),
    }
}

/// One that waited while the node began a new life belongs to that one.
fn belong(write: &mut Write, node: NodeId) {
    if let Write::Join(presence)
    | Write::Restore { presence, .. }
    | Write::Resume { presence, .. }
    | Write::JoinWithin { presence, .. } = write
        && presence.node != node
    {
        *presence = Arc::new(Presence { node, ..(**presence).clone() });
    }
}

/// An error and what caused it, on one line. Some errors tell their causes themselves, which are not told again.
pub(crate) fn report(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
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
