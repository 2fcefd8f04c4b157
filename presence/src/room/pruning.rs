//! The pruning supervisor: everything that is done because time passed.
//!
//! It renews the node's lease, removes what nobody answers for, and compares rooms with the database. It lives on the
//! store's thread, so that no consumer that blocks its own thread can cost the node its lease.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    future::Future,
    panic::AssertUnwindSafe,
    rc::Rc,
    time::Duration,
};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use futures_util::FutureExt;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    Error, Result,
    model::lease::Lease,
    name::{NodeId, NodeName, RequestId},
    store::{
        Batch, NodeStore, Remains, RoomStore, StoreError,
        apart::Apart,
        pace::Pace,
        writer::{Turn, report},
    },
};

use super::{Rooms, message::ToRoom};

mod asking;
mod bulk;
mod claims;
mod life;
mod open_requests;

pub(crate) use asking::Remove;
pub(crate) use bulk::Bulk;
pub(crate) use life::Fenced;
use open_requests::OpenRequests;

/// How the names begin under which the command line registers itself for a moment.
pub(crate) const CLI: &str = "presence-cli:";
/// How many rooms are compared in one query.
const COMPARE: usize = 500;

/// Keeps a node alive and its rooms clean. Spawned once by the application, in one line:
///
/// ```
/// # use presence::{Config, MemoryStore, NodeName, PruningSupervisor, Rooms};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rooms = Rooms::start(Config::default(), MemoryStore::default());
/// PruningSupervisor::spawn(&rooms, NodeName::new("web-1")?);
/// # Ok(())
/// # }
/// ```
///
/// On the schedules of [`Config`](crate::Config) it renews the node's lease, sweeps presences whose grace is over and those
/// of dead nodes, prunes stale presences and empty rooms, and compares rooms with the database. [`Sweep`],
/// [`PrunePresences`], [`PruneRooms`] and [`Reconcile`] ask for a round at once.
#[derive(Debug)]
pub struct PruningSupervisor {
    work: Work,
}

/// What the supervisor's rounds share.
#[derive(Debug, Clone)]
struct Work {
    rooms: Rooms,
    name: NodeName,
    lease: Rc<RefCell<Lease>>,
    /// Former lives of this very node, whose presences are still to be held.
    former: Rc<RefCell<BTreeSet<NodeId>>>,
    /// What other nodes ask of this one, until they have the answer.
    open_requests: Rc<RefCell<OpenRequests>>,
    /// What this node asked of others and does not any more, but the database may still have.
    over: Rc<RefCell<BTreeSet<RequestId>>>,
}

impl PruningSupervisor {
    /// Starts the supervisor of these rooms, which makes the process known to the database as `name`. A process that starts
    /// under the name of one that still runs takes its place. Called again, it returns the one that is running.
    ///
    /// Within one process a name is not taken over. If other rooms of this process have it on the same database, and were not
    /// [shut down](Rooms::shutdown), these rooms never register: an error is logged at once, every socket is answered with 500, and a
    /// join fails with [`Error::NameInUse`]. Most often the rooms were started inside the closure of `HttpServer::new`, which runs
    /// once for each worker: start them before it, and clone the handle into it.
    pub fn spawn(rooms: &Rooms, name: NodeName) -> Addr<Self> {
        Self::spawn_if(rooms, name, claims::claim)
    }

    /// As [`spawn`](Self::spawn), for rooms that play another process than this one, so that they take a name over. For tests.
    #[cfg(any(test, feature = "testing"))]
    pub fn spawn_as_another_process(rooms: &Rooms, name: NodeName) -> Addr<Self> {
        Self::spawn_if(rooms, name, |_, _| true)
    }

    fn spawn_if(rooms: &Rooms, name: NodeName, may_have: impl FnOnce(&Rooms, &NodeName) -> bool) -> Addr<Self> {
        let supervisor = rooms.0.supervisor.get_or_init(|| {
            if !may_have(rooms, &name) {
                error!("{}", Error::NameInUse { name: name.clone() });
                let _ = rooms.0.name_in_use.set(name.clone());
            }
            let rooms = rooms.clone();
            Self::start_in_arbiter(&rooms.0.threads.store().clone(), move |_: &mut Context<Self>| {
                let lease = Rc::new(RefCell::new(Lease::new(rooms.config().lease())));
                let (former, open_requests, over) = (Rc::default(), Rc::default(), Rc::default());
                Self { work: Work { rooms, name, lease, former, open_requests, over } }
            })
        });
        supervisor.clone()
    }

    fn every<F>(&self, ctx: &mut Context<Self>, interval: Duration, round: impl Fn(Work) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let work = self.work.clone();
        let rounds = async move {
            loop {
                tokio::time::sleep(interval).await;
                // One round that fails must not be the last.
                if AssertUnwindSafe(round(work.clone())).catch_unwind().await.is_err() {
                    error!("a round of the pruning supervisor panicked; it goes on");
                }
            }
        };
        ctx.spawn(rounds.into_actor(self));
    }
}

impl Actor for PruningSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.work.rooms.check_name().is_err() {
            return;
        }
        let work = self.work.clone();
        ctx.spawn(async move { work.begin().await }.into_actor(self));
        let config = self.work.rooms.config().clone();
        self.every(ctx, config.lease() / 3, |work| async move { work.renew().await });
        self.every(ctx, config.sweep_interval(), |work| async move { log("swept", work.sweep().await) });
        let supervisor = ctx.address();
        self.every(ctx, config.sweep_interval(), move |work| {
            let supervisor = supervisor.clone();
            async move {
                if let Err(error) = work.answer_others(&supervisor).await {
                    debug!(error = %report(&error), "not known what other nodes ask of this one, or not answered");
                }
            }
        });
        self.every(ctx, config.sweep_interval(), |work| async move {
            if let Err(error) = work.withdraw().await {
                debug!(error = %report(&error), "a request is not withdrawn; it will be tried again");
            }
        });
        self.every(ctx, config.prune_interval(), |work| async move { log("pruned", work.prune_presences(None).await) });
        self.every(ctx, config.prune_rooms_interval(), |work| async move {
            log("pruned empty rooms", work.prune_rooms().await);
        });
        self.every(ctx, config.reconcile_interval(), |work| async move {
            if let Err(error) = work.reconcile().await {
                debug!(error = %report(&error), "rooms could not be compared with the store");
            }
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
    fn node(&self) -> Result<NodeId> {
        self.rooms.check_name()?;
        self.rooms.node().ok_or(Error::StoreUnavailable(None))
    }

    fn store(&self) -> &Apart {
        self.rooms.store()
    }

    /// Waits until nobody else of this node removes. However many stand before it, each takes no longer than the database may.
    async fn turn(&self) -> Turn {
        self.rooms.writer().turn().await
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
        let (mut handled, mut pace) = (0, Pace::default());
        loop {
            let turn = self.turn().await;
            let (limit, begun) = (pace.size() as u64, Instant::now());
            let batch = self.rooms.bounded(call(limit)).await?;
            drop(turn);
            pace.took(begun.elapsed(), batch.commits.len());
            if self.rooms.writer().is_writing() {
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
        let former = self.former.borrow().clone();
        for dead in former {
            let (node, remains) = (self.node()?, Remains::HoldAll(self.rooms.config().grace()));
            let held = self.batches(|limit| self.store().clear(node, dead, remains, limit)).await?;
            info!(count = held, "presences of a former life of this node are held");
            self.former.borrow_mut().remove(&dead);
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<usize> {
        let node = self.node()?;
        if self.rooms.is_shutting_down() {
            // Its graces are about to be extended.
            return Ok(0);
        }
        self.hold_former().await?;
        let (mut count, mut bulk) = (0, Bulk::new(&self.rooms));
        if self.may_judge().await {
            for dead in self.rooms.bounded(self.store().fence(node)).await? {
                if !self.former.borrow().contains(&dead) {
                    warn!(node = %dead, "a node is dead; its presences are removed");
                    let remains = Remains::HoldResumable(self.rooms.config().grace());
                    count += self.batches_of(&mut bulk, |limit| self.store().clear(node, dead, remains, limit)).await?;
                }
            }
        }
        // Those who are held could not return while this node stood still, but in the database their graces went on. What a grace may
        // have lost is given back, and no more: on a machine that often stands still for a moment, nobody is held for ever.
        if self.rooms.listening().has_just_resumed(self.rooms.now(), self.rooms.config().grace()) {
            return Ok(count);
        }
        Ok(count + self.batches_of(&mut bulk, |limit| self.store().sweep(node, limit)).await?)
    }

    /// After an outage the leases of all nodes have run out, and the rows of their presences are old: whoever is back first
    /// must give the others time, and until then prunes only its own, whoever asks.
    async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        let node = self.node()?;
        let max_age = max_age.unwrap_or_else(|| self.rooms.config().max_age());
        let own = self.prune_own(max_age).await?;
        if !self.may_judge().await {
            return Ok(own);
        }
        Ok(own + self.batches(|limit| self.store().prune(node, max_age, limit)).await?)
    }

    /// Removes presences of this node, by its own clock.
    async fn prune_own(&self, max_age: Duration) -> Result<usize> {
        // Rooms of like names are often of like age: what they have lies together in tables and indexes, and a transaction changes
        // fewer pages.
        let mut names = self.rooms.names();
        names.sort_unstable();
        let pruned = self.remove_in(names, |reply| ToRoom::Prune { max_age, reply });
        let timeout = self.rooms.config().store_timeout();
        tokio::time::timeout(timeout, pruned).await.map_err(|_| Error::StoreUnavailable(None))
    }

    async fn prune_rooms(&self) -> Result<usize> {
        let node = self.node()?;
        let _turn = self.turn().await;
        let count = self.rooms.bounded(self.store().prune_rooms(node)).await?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    async fn reconcile(&self) -> Result<usize> {
        let names = self.rooms.names();
        for names in names.chunks(COMPARE) {
            let asked = self.rooms.now();
            let positions = self.rooms.bounded(self.store().positions(names.into())).await?;
            let positions: HashMap<_, _> =
                positions.into_iter().map(|(name, epoch, version)| (name, (epoch, version))).collect();
            for name in names {
                self.rooms.tell_running(name, ToRoom::Position { position: positions.get(name).copied(), asked });
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

        impl Handler<$message> for PruningSupervisor {
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

impl Handler<Stop> for PruningSupervisor {
    type Result = ();

    fn handle(&mut self, Stop: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}
