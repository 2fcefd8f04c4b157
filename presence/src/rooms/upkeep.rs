//! The pruning supervisor: everything that is removed because time passed.
//!
//! What sockets depend on, the node's lease above all, is the [`NodeActor`]'s, which runs without a supervisor. Both live on the
//! store's thread, so that no consumer that blocks its own thread can cost the node its lease.

use std::{collections::HashMap, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, ResponseFuture};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    Error, Result,
    name::NodeId,
    node::{Node, writer::RemovalPermit},
    room::message::ToRoom,
    store::{Batch, ClearMode, NodeStore, RoomStore, StoreError, pace::RemovalPace},
    telemetry::report,
};

use super::Rooms;

mod bulk;
mod claims;
mod lease;
mod node_actor;
mod requests;

pub(crate) use bulk::Bulk;
pub(crate) use claims::claim;
pub(crate) use lease::Fenced;
pub(crate) use node_actor::NodeActor;
pub(crate) use requests::Remove;

/// How the names begin under which the command line registers itself for a moment.
pub(crate) const CLI: &str = "presence-cli:";
/// How many rooms are compared in one query.
const COMPARE: usize = 500;

/// Cleans up. Spawned once by the application, in one line:
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
/// On the schedules of [`Config`](crate::Config) it removes the presences of nodes that died, and of former runs of this one when
/// their grace is over; prunes stale presences that no node answers for; and prunes empty rooms. [`Sweep`], [`PrunePresences`], [`PruneRooms`] and [`Reconcile`]
/// request a round at once.
///
/// Without it sockets work, and those that fall silent or are lost leave, but none of this is removed, and the first socket logs a
/// warning. It may run on only some of the nodes of a database.
#[derive(Debug)]
pub struct PruningSupervisor {
    work: Work,
}

/// What is done for a node in rounds, and when it is requested.
#[derive(Debug, Clone)]
struct Work {
    rooms: Rooms,
    node: Arc<Node>,
}

impl PruningSupervisor {
    /// Starts the supervisor of these rooms. Called again, it returns the one that is running.
    pub fn spawn(rooms: &Rooms) -> Addr<Self> {
        let spawned = rooms.0.supervisor.get_or_init(|| {
            let work = Work::new(rooms);
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
            log("pruned empty rooms", work.prune_rooms().await);
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

impl Work {
    fn new(rooms: &Rooms) -> Self {
        Self { rooms: rooms.clone(), node: rooms.0.node.clone() }
    }

    /// Has an actor do `round` again and again. One round that fails must not be the last.
    fn every<A, F>(&self, ctx: &mut Context<A>, interval: Duration, round: impl Fn(Self) -> F + 'static)
    where
        A: Actor<Context = Context<A>>,
        F: Future<Output = ()> + 'static,
    {
        let work = self.clone();
        let rounds = async move {
            loop {
                tokio::time::sleep(interval).await;
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

    /// Waits until nothing else of this node removes presences. Each removal before this one takes one `store_timeout` at most.
    async fn removal_permit(&self) -> RemovalPermit {
        self.node.writer.removal_permit().await
    }

    /// Calls until there are no more, with how many may be removed at once, and tells what changed.
    async fn batches<F>(&self, call: impl Fn(u64) -> F) -> Result<usize>
    where
        F: Future<Output = Result<Batch, StoreError>>,
    {
        self.batches_of(&mut Bulk::new(&self.rooms), call).await
    }

    /// As [`batches`](Self::batches), as a part of what is removed together.
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

    /// What former lives of this node left is held, since its clients are about to return.
    async fn hold_former(&self) -> Result<()> {
        let former = self.node.registration.former().clone();
        for dead in former {
            let (node, mode) = (self.id()?, ClearMode::HoldAll(self.node.config.grace()));
            let held = self.batches(|limit| self.node.store.clear(node, dead, mode, limit)).await?;
            info!(count = held, "presences of a former life of this node are held");
            self.node.registration.former().remove(&dead);
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<usize> {
        let node = self.id()?;
        if self.node.is_shutting_down() {
            // Its graces are about to be extended.
            return Ok(0);
        }
        self.hold_former().await?;
        let (mut count, mut bulk) = (0, Bulk::new(&self.rooms));
        if self.may_judge().await {
            for dead in self.node.bounded(self.node.store.fence(node)).await? {
                if !self.node.registration.former().contains(&dead) {
                    warn!(node = %dead, "a node is dead; its presences are removed");
                    let mode = ClearMode::HoldResumable(self.node.config.grace());
                    count += self.batches_of(&mut bulk, |limit| self.node.store.clear(node, dead, mode, limit)).await?;
                }
            }
        }
        // Those who are held could not return while this node stood still, but in the database their graces went on. What a grace may
        // have lost is given back, and no more: on a machine that often stands still for a moment, nobody is held for ever.
        if self.node.listening.has_just_resumed(self.node.now(), self.node.config.grace()) {
            return Ok(count);
        }
        Ok(count + self.batches_of(&mut bulk, |limit| self.node.store.sweep(node, limit)).await?)
    }

    /// After an outage the leases of all nodes have run out, and the rows of their presences are old: whoever is back first
    /// must give the others time, and until then prunes only its own, whoever asks.
    async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        let node = self.id()?;
        let max_age = max_age.unwrap_or_else(|| self.node.config.max_age());
        let own = self.prune_own(max_age).await?;
        if !self.may_judge().await {
            return Ok(own);
        }
        Ok(own + self.batches(|limit| self.node.store.prune(node, max_age, limit)).await?)
    }

    /// Removes presences of this node, by its own clock.
    async fn prune_own(&self, max_age: Duration) -> Result<usize> {
        // Rooms of like names are often of like age: what they have lies together in tables and indexes, and a transaction changes
        // fewer pages.
        let mut names = self.rooms.table().names();
        names.sort_unstable();
        let pruned = self.remove_in(names, |reply| ToRoom::Prune { max_age, reply });
        let timeout = self.node.config.store_timeout();
        tokio::time::timeout(timeout, pruned).await.map_err(|_| Error::StoreUnavailable(None))
    }

    async fn prune_rooms(&self) -> Result<usize> {
        let node = self.id()?;
        let _permit = self.removal_permit().await;
        let count = self.node.bounded(self.node.store.prune_rooms(node)).await?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    async fn reconcile(&self) -> Result<usize> {
        let names = self.rooms.table().names();
        for names in names.chunks(COMPARE) {
            let asked = self.node.now();
            let positions = self.node.bounded(self.node.store.positions(names.into())).await?;
            let positions: HashMap<_, _> =
                positions.into_iter().map(|(name, epoch, version)| (name, (epoch, version))).collect();
            for name in names {
                self.rooms
                    .table()
                    .send_running(name, ToRoom::Position { position: positions.get(name).copied(), asked });
            }
        }
        Ok(names.len())
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
                    debug!(count, concat!("asked for: ", stringify!($method)));
                    Ok(count)
                })
            }
        }
    };
}

round! {
    /// Removes presences whose grace is over, and those of dead nodes. Answers how many.
    Sweep: sweep
}
round! {
    /// Asks for [`Rooms::prune_presences`].
    PrunePresences(
        /// The age that is too old; `None` for the setting `max_age`.
        max_age: Option<Duration>
    ): prune_presences
}
round! {
    /// Asks for [`Rooms::prune_rooms`].
    PruneRooms: prune_rooms
}
round! {
    /// Compares the rooms in memory with the database, and has those read anew that are behind. Answers how many were
    /// compared.
    Reconcile: reconcile
}

/// The node is shutting down: no more rounds.
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
