//! The pruning supervisor, which removes what has become too old.
//!
//! The work on which sockets depend, above all the renewal of the lease, is done by the [`NodeActor`], which also runs without a
//! supervisor. Both actors run on the thread of the store, so that a consumer that blocks its own thread cannot delay a renewal.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    Error, Result,
    config::unwritten,
    name::NodeId,
    node::{Node, RemovalPermit},
    room::ToRoom,
    store::{
        Batch, ClearMode, LiveNode, NodeState, NodeStore, RoomStore, StoreError, Survey, SweepShare, pace::RemovalPace,
    },
    telemetry::report,
};

use super::Rooms;

mod bulk;
mod lease;
mod node_actor;
mod reconcile;
mod requests;

pub(crate) use self::bulk::Bulk;
pub(crate) use self::node_actor::NodeActor;
pub(crate) use self::requests::RemoveEverywhere;

/// The prefix of the node names under which the command line registers itself while it runs.
pub(crate) const CLI: &str = "presence-cli:";

/// Removes presences and rooms that nobody else removes. An application spawns it once:
///
/// ```
/// # use presence::{Config, MemoryStore, NodeName, PruningSupervisor, Rooms};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("web-1")?);
/// PruningSupervisor::spawn(&rooms);
/// # Ok(())
/// # }
/// ```
///
/// It does three kinds of rounds, at the intervals of [`Config`](crate::Config):
/// - It removes the presences of dead nodes and of earlier incarnations of this node, after their grace (`sweep_interval`).
/// - It prunes stale presences (`prune_interval`).
/// - It prunes empty rooms (`prune_rooms_interval`).
///
/// The messages [`Sweep`], [`PrunePresences`], [`PruneRooms`] and [`Reconcile`] request a round at once. Each is answered with a count.
///
/// Without a supervisor sockets work, and presences of this node that are stale or lost leave. But what dead nodes leave and empty rooms
/// are not removed, and the first socket logs a warning. Of the nodes on one database, one with a supervisor is enough.
#[derive(Debug)]
pub struct PruningSupervisor {
    work: Upkeep,
}

/// The work that both actors do for a node, in rounds and on request.
#[derive(Debug, Clone)]
struct Upkeep {
    rooms: Rooms,
    node: Arc<Node>,
}

impl PruningSupervisor {
    /// Starts the supervisor of these rooms and returns its address. Later calls return the address of the same supervisor.
    pub fn spawn(rooms: &Rooms) -> Addr<Self> {
        let spawned = rooms.0.supervisor.get_or_init(|| {
            let work = Upkeep::new(rooms);
            Self::start_in_arbiter(rooms.0.node.threads.store(), move |_: &mut Context<Self>| Self { work })
        });
        spawned.clone()
    }
}

impl Actor for PruningSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (work, config) = (&self.work, &self.work.node.config);
        if work.node.check_name().is_err() {
            return;
        }
        work.every(ctx, config.sweep_interval(), |work| async move { log("swept", work.sweep().await) });
        work.every(ctx, config.prune_interval(), |work| async move { log("pruned", work.prune_presences(None).await) });
        work.every(ctx, config.prune_rooms_interval(), |work| async move {
            log("pruned empty rooms", work.prune_rooms_in_turn().await);
        });
    }
}

fn log(what: &'static str, outcome: Result<usize>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => info!(count, "{what}"),
        Err(error) => debug!(error = %report(&error), "not {what}"),
    }
}

impl Upkeep {
    fn new(rooms: &Rooms) -> Self {
        Self { rooms: rooms.clone(), node: rooms.0.node.clone() }
    }

    /// Runs `round` in an actor once in each `interval`. After a panic in one round the next one still runs.
    fn every<A, F>(&self, ctx: &mut Context<A>, interval: Duration, round: impl Fn(Self) -> F + 'static)
    where
        A: Actor<Context = Context<A>>,
        F: Future<Output = ()> + 'static,
    {
        self.every_or_when(ctx, interval, |_| std::future::pending(), round);
    }

    /// As [`every`](Self::every), and also whenever `early` resolves.
    fn every_or_when<A, E, F>(
        &self,
        ctx: &mut Context<A>,
        interval: Duration,
        early: impl Fn(Self) -> E + 'static,
        round: impl Fn(Self) -> F + 'static,
    ) where
        A: Actor<Context = Context<A>>,
        E: Future<Output = ()> + 'static,
        F: Future<Output = ()> + 'static,
    {
        let work = self.clone();
        let rounds = async move {
            loop {
                let _ = tokio::time::timeout(interval, early(work.clone())).await;
                if AssertUnwindSafe(round(work.clone())).catch_unwind().await.is_err() {
                    error!("a periodic task of this node panicked; it goes on");
                }
            }
        };
        ctx.spawn(actix::fut::wrap_future(rounds));
    }

    fn id(&self) -> Result<NodeId> {
        self.node.check_name()?;
        self.node.id().ok_or(Error::StoreUnavailable(None))
    }

    /// Waits until no other task of this node removes presences. Each removal before this one takes at most one `store_timeout`.
    async fn removal_permit(&self) -> RemovalPermit {
        self.node.writer.removal_permit().await
    }

    /// Calls `call` with the largest number of presences to remove at once, until there are no more, and publishes the changes. Returns the
    /// number of presences.
    async fn batches<F>(&self, call: impl Fn(u64) -> F) -> Result<usize>
    where
        F: Future<Output = Result<Batch, StoreError>>,
    {
        self.batches_of(&mut Bulk::new(&self.rooms), call).await
    }

    /// As [`batches`](Self::batches), as a part of a larger removal.
    async fn batches_of<F>(&self, bulk: &mut Bulk, call: impl Fn(u64) -> F) -> Result<usize>
    where
        F: Future<Output = Result<Batch, StoreError>>,
    {
        let (mut handled, mut pace) = (0, RemovalPace::default());
        loop {
            let permit = self.removal_permit().await;
            let (limit, begun) = (pace.size() as u64, Instant::now());
            let batch = self.node.bounded(call(limit)).await?;
            drop(permit);
            pace.took(begun.elapsed(), batch.commits.len());
            if self.node.writer.is_writing() {
                pace.slow_down();
            }
            handled += batch.handled;
            bulk.add(batch.commits);
            if !batch.more {
                return Ok(usize::try_from(handled).unwrap_or(usize::MAX));
            }
        }
    }

    /// Holds the presences that earlier incarnations of this node left, since their clients are about to return.
    async fn hold_former(&self) -> Result<()> {
        let former = self.node.registration.uncleared().clone();
        for dead in former {
            let (node, mode) = (self.id()?, ClearMode::HoldAll(self.node.config.grace()));
            let held = self.batches(|limit| self.node.store.clear(node, dead, mode, limit)).await?;
            info!(count = held, "presences of an earlier incarnation of this node are held");
            self.node.registration.uncleared().remove(&dead);
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<usize> {
        let node = self.id()?;
        if self.node.is_shutting_down() {
            // The shutdown is about to extend the graces of held presences.
            return Ok(0);
        }
        self.hold_former().await?;
        let asked = self.node.now();
        let survey = self.node.bounded(self.node.store.survey(node)).await?;
        let Survey { live, has_dead, has_expired_graces, has_requests } = survey;
        // The next sweep may come a little late.
        let interval = self.node.config.sweep_interval();
        self.node.registration.surveyed(has_requests, asked.after(interval + interval / 8));
        let others = Self::others_that_sweep(node, live);
        let (mut count, mut bulk) = (0, Bulk::new(&self.rooms));
        if has_dead && self.may_judge().await {
            for dead in self.dead_to_clear(node, &others).await? {
                warn!(node = %dead, "a node is dead; its presences are removed");
                let mode = ClearMode::HoldResumable(self.node.config.grace());
                count += self.batches_of(&mut bulk, |limit| self.node.store.clear(node, dead, mode, limit)).await?;
            }
        }
        // Clients could not return while this node stood still, but their graces went on in the database. So no presence is swept for one
        // grace after a standstill. The wait is not longer, or presences would be held for ever on a machine that often stands still.
        if !has_expired_graces || self.node.standstills.has_just_resumed(self.node.now(), self.node.config.grace()) {
            return Ok(count);
        }
        let share = SweepShare::beside(others, self.node.config.sweep_interval());
        Ok(count + self.batches_of(&mut bulk, |limit| self.node.store.sweep(node, share.clone(), limit)).await?)
    }

    /// The other nodes that have a lease, and that sweep as far as this one can know.
    fn others_that_sweep(here: NodeId, live: Vec<LiveNode>) -> Vec<NodeId> {
        let sweeps = |other: &LiveNode| {
            other.node != here && matches!(other.state, NodeState::Live { .. }) && !other.name.as_str().starts_with(CLI)
        };
        live.into_iter().filter(sweeps).map(|live| live.node).collect()
    }

    /// Fences the nodes that are dead, and returns those after which this one cleans up.
    async fn dead_to_clear(&self, node: NodeId, others: &[NodeId]) -> Result<Vec<NodeId>> {
        let mut dead = self.node.bounded(self.node.store.fence(node)).await?;
        dead.retain(|dead| !self.node.registration.uncleared().contains(dead));
        Ok(self.node.registration.cleaners().choose(node, others, &dead))
    }

    /// After an outage of the database the leases of all nodes have expired, and the rows of their presences are old. The first node that
    /// returns must give the others time, so until then it prunes its own presences only, also on request.
    async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        let node = self.id()?;
        let config = &self.node.config;
        let max_age = max_age.unwrap_or_else(|| config.max_age());
        let own = self.prune_own(max_age).await?;
        if !self.may_judge().await {
            return Ok(own);
        }
        // What a node had not written when it ended may be newer. A presence with a token would lose its grace.
        let unwritten = unwritten(config.touch_flush_interval(), max_age);
        Ok(own + self.batches(|limit| self.node.store.prune(node, max_age, unwritten, limit)).await?)
    }

    /// Removes stale presences of this node, as measured by its own clock.
    async fn prune_own(&self, max_age: Duration) -> Result<usize> {
        // Rooms with similar names often have a similar age, so their rows are near each other in tables and indexes. In this order a
        // transaction changes fewer pages.
        let mut names = self.rooms.table().names();
        names.sort_unstable();
        let pruned = self.remove_in(names, |reply| ToRoom::Prune { max_age, reply });
        let timeout = self.node.config.store_timeout();
        tokio::time::timeout(timeout, pruned).await.map_err(|_| Error::StoreUnavailable(None))
    }

    /// A round, in which empty rooms are removed by one of the nodes.
    async fn prune_rooms_in_turn(&self) -> Result<usize> {
        let registration = &self.node.registration;
        let prunes = registration.comparisons().prunes();
        if !registration.prune_turns().take(prunes) {
            return Ok(0);
        }
        let count = self.prune_rooms().await?;
        if count > 0 {
            registration.prune_turns().count_own();
        }
        Ok(count)
    }

    async fn prune_rooms(&self) -> Result<usize> {
        let node = self.id()?;
        let _permit = self.removal_permit().await;
        let count = self.node.bounded(self.node.store.prune_rooms(node)).await?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

macro_rules! round {
    ($(#[$doc:meta])* $message:ident $( ( $(#[$field_doc:meta])* $arg:ident: $type:ty ) )?: $method:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Message)]
        #[rtype(result = "Result<usize>")]
        pub struct $message $( ( $(#[$field_doc])* pub $type ) )?;

        handle!(PruningSupervisor, $message $( ( $arg ) )?: $method);
        handle!(NodeActor, $message $( ( $arg ) )?: $method);
    };
}

macro_rules! handle {
    ($actor:ident, $message:ident $( ( $arg:ident ) )?: $method:ident) => {
        impl Handler<$message> for $actor {
            type Result = ResponseFuture<Result<usize>>;

            fn handle(&mut self, $message $( ( $arg ) )?: $message, _: &mut Self::Context) -> Self::Result {
                let work = self.work.clone();
                Box::pin(async move {
                    let count = work.$method($($arg)?).await?;
                    debug!(count, concat!("on request: ", stringify!($method)));
                    Ok(count)
                })
            }
        }
    };
}

round! {
    /// Requests a sweep: held presences whose grace is over are removed, and presences of dead nodes are removed or held. The answer is their
    /// number.
    Sweep: sweep
}
round! {
    /// Requests [`Rooms::prune_presences`].
    PrunePresences(
        /// The age from which a presence is removed; for `None` the setting `max_age` counts.
        max_age: Option<Duration>
    ): prune_presences
}
round! {
    /// Requests [`Rooms::prune_rooms`].
    PruneRooms: prune_rooms
}
round! {
    /// Compares the rooms in memory with the database, and reloads those that are stale. The answer is the number of rooms that were
    /// compared.
    Reconcile: reconcile
}

/// Stops all rounds, since the node is shutting down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop;

macro_rules! stop {
    ($($actor:ident),*) => {
        $(impl Handler<Stop> for $actor {
            type Result = ();

            fn handle(&mut self, Stop: Stop, ctx: &mut Self::Context) {
                ctx.stop();
            }
        })*
    };
}
stop!(PruningSupervisor, NodeActor);
