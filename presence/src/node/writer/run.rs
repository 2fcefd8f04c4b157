//! The task that takes what is queued, and gives it to the lanes that are free.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use crate::{clock::Clock, name::NodeId, node::backoff::Backoff, store::Store, telemetry::LineLimit};

use super::{
    Writer,
    lane::{Ended, Lane, LaneContext},
    leave_delay::LeaveDelay,
    queue::NextWrite,
    removal_lock::RemovalClaim,
};

/// How long a transaction is the only one of its node. Changes that come meanwhile are written together by the next one, which costs the
/// database less than a transaction for each. When it takes longer, it keeps nobody waiting.
const HEAD_START: Duration = Duration::from_millis(10);
/// So many changes are worth a transaction of their own at once.
const FOR_ANOTHER_LANE: usize = 256;

pub(super) struct Worker {
    context: Arc<LaneContext>,
    node: watch::Receiver<Option<NodeId>>,
    /// How long touches are gathered.
    gather: Duration,
    /// The pauses of each lane.
    backoffs: Vec<Backoff>,
    in_progress: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// When the last transaction of an ordinary lane began.
    begun: Option<Instant>,
    leave_delay: LeaveDelay,
    removal_claim: RemovalClaim,
    /// The incarnation for which the database writes nothing, and how long the node may take to begin another one.
    fenced: Option<(NodeId, Instant)>,
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
        let lanes = match writer.0.lanes {
            1 => 1,
            lanes => store.allow_lanes(lanes.saturating_add(1)),
        };
        writer.queue().set_lanes(lanes);
        let removal_claim = RemovalClaim::new(&writer.0.removal_lock);
        let context = LaneContext {
            writer,
            store,
            clock,
            node: node.clone(),
            store_timeout,
            failing: AtomicUsize::new(0),
            fails: Notify::new(),
            locked: LineLimit::default(),
        };
        Self {
            context: Arc::new(context),
            node,
            gather,
            backoffs: (0..lanes).map(|_| Backoff::default()).collect(),
            in_progress: FuturesUnordered::new(),
            begun: None,
            leave_delay: LeaveDelay::default(),
            removal_claim,
            fenced: None,
        }
    }

    pub(super) async fn run(mut self) {
        let shared = self.context.writer.0.clone();
        let mut is_over = false;
        while !is_over || !self.in_progress.is_empty() {
            let work = shared.work.notified();
            let again = match self.incarnation() {
                _ if is_over => None,
                Ok(node) => self.begin(node),
                Err(again) => {
                    self.removal_claim.withdraw();
                    again
                }
            };
            self.note_idle();
            // What is queued while no lane is free waits for a lane anyway. Each change would wake this task for nothing.
            let is_lane_free = shared.queue.lock().lanes().is_any_free();
            let again_at = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.in_progress.next(), if !self.in_progress.is_empty() => self.ended(ended),
                () = work, if is_lane_free => {}
                () = self.context.fails.notified() => {}
                () = self.removal_claim.granted(), if !self.removal_claim.is_granted() => {}
                () = again_at => {}
                changed = self.node.changed(), if !is_over => is_over = changed.is_err(),
            }
        }
    }

    /// The incarnation in whose name lanes write. Without one, when to look again, unless that is when the node begins another one.
    fn incarnation(&mut self) -> Result<NodeId, Option<Instant>> {
        let node = (*self.node.borrow()).ok_or(None)?;
        match self.fenced {
            Some((dead, until)) if dead == node && Instant::now() < until => Err(Some(until)),
            _ => Ok(node),
        }
    }

    /// Gives what is queued to the lanes that are free. Returns when to look again if nothing happens before.
    fn begin(&mut self, node: NodeId) -> Option<Instant> {
        let (prunes, is_full) = {
            let queue = self.context.writer.queue();
            (queue.waits_to_prune(), queue.lanes().free().is_none())
        };
        // Other removals do not wait until the store is back.
        if !prunes || is_full && self.context.failing.load(Ordering::Relaxed) > 0 {
            self.removal_claim.withdraw();
        }
        // While the database is away, what waits can still be merged or cancel out, for example the join of a caller who has given up. So
        // no lane tries it before the lane that failed knows what became of its transaction.
        if self.context.failing.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.begin_aside(node);
        loop {
            let lane = self.context.writer.queue().lanes().free()?;
            if let Some(until) = self.head_start() {
                return Some(until);
            }
            let (only_few_leaves, prunes) = {
                let queue = self.context.writer.queue();
                (queue.has_only_few_leaves(), queue.prunes())
            };
            if let Some(until) = self.leave_delay.until(only_few_leaves) {
                return Some(until);
            }
            let permit = if prunes { self.removal_claim.try_take() } else { None };
            let next = self.context.writer.queue().next(lane, self.context.clock.now(), self.gather, permit.is_some());
            match next {
                // All changes cancelled out.
                NextWrite::Changes(batch) if batch.writes.is_empty() => continue,
                NextWrite::Changes(batch) => {
                    let lane = self.lane(lane, node);
                    self.in_progress.push(lane.write(batch, permit).boxed());
                }
                // Touches remove nothing.
                NextWrite::Touches(touches) => {
                    let lane = self.lane(lane, node);
                    self.in_progress.push(lane.write_touches(touches).boxed());
                }
                NextWrite::Nothing { touches_in } => return touches_in.map(|wait| Instant::now() + wait),
            }
            self.begun = Some(Instant::now());
        }
    }

    /// As [`begin`](Self::begin), for the rooms that were set aside.
    fn begin_aside(&mut self, node: NodeId) {
        let Some(lane) = self.context.writer.queue().lanes().free_aside() else { return };
        let (has_aside, prunes) = {
            let queue = self.context.writer.queue();
            (queue.has_aside(), queue.prunes_aside())
        };
        if has_aside {
            let permit = if prunes { self.removal_claim.try_take() } else { None };
            let ordinary = self.context.store_timeout / 2;
            let next = self.context.writer.queue().next_aside(lane, ordinary, permit.is_some());
            if let Some(batch) = next {
                let lane = self.lane(lane, node);
                self.in_progress.push(lane.write(batch, permit).boxed());
            }
        }
    }

    /// Until when the transaction in progress stays the only one.
    fn head_start(&self) -> Option<Instant> {
        let until = self.begun? + HEAD_START;
        let waits = || {
            let queue = self.context.writer.queue();
            queue.lanes().is_one_ordinary_in_progress() && !queue.has_requested(FOR_ANOTHER_LANE)
        };
        (Instant::now() < until && waits()).then_some(until)
    }

    fn lane(&mut self, number: u16, node: NodeId) -> Lane {
        let backoff = std::mem::take(&mut self.backoffs[usize::from(number)]);
        Lane { context: self.context.clone(), number, node, backoff }
    }

    fn ended(&mut self, Ended { lane, backoff, fenced }: Ended) {
        self.backoffs[usize::from(lane)] = backoff;
        let Some(dead) = fenced else { return };
        // All lanes receive this answer. Nothing was written, and the node begins another incarnation.
        let is_known = self.fenced.is_some_and(|(known, until)| known == dead && Instant::now() < until);
        if !is_known {
            self.fenced = Some((dead, Instant::now() + self.context.store_timeout));
            self.removal_claim.withdraw();
            (self.context.writer.0.fenced)(dead);
        }
    }

    /// Tells those who wait for it that nothing is left to write.
    fn note_idle(&self) {
        let shared = &self.context.writer.0;
        if self.in_progress.is_empty() && self.context.writer.queue().is_idle() {
            shared.health.queue_is_empty();
            shared.idle.notify_waiters();
        }
    }
}
