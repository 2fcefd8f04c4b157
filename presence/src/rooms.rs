//! Rooms: the handle that applications hold, and the actors behind it.

pub(crate) mod channel;
pub(crate) mod channels;
pub(crate) mod command;
mod handle;
pub(crate) mod hubs;
mod membership;
pub(crate) mod query;
mod reading;
mod registry;
mod removing;
pub(crate) mod sending;
mod shutdown;
#[cfg(test)]
mod tests;
mod updates;
pub(crate) mod upkeep;

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    sync::{
        Arc, Once, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use actix::{Actor, Addr, Context, Recipient};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tracing::info;

use crate::{
    Config, Error, Result,
    clock::{Clock, Tick},
    name::{NodeId, NodeName, RoomName},
    node::{
        apart::Apart,
        health::Health,
        listening::{Listening, PULSE},
        registration::Registration,
        threads::{Threads, within},
        writer::Writer,
    },
    room::{actor::RoomActor, message::HubRef},
    signal::{PresenceChanged, Signals, Subscription},
    store::{Store, StoreError},
    telemetry::{CutoffLimits, LineLimit},
};

pub use handle::Room;
pub use query::RoomsActor;
pub use reading::Counts;
pub use sending::Outgoing;
pub use shutdown::NotReady;
pub use upkeep::PruningSupervisor;

use channels::Channels;
use upkeep::NodeActor;

/// How many rooms of one process share a lock.
const SHARDS: usize = 16;
/// How often an operation that a failing room lost is asked again.
const ATTEMPTS: usize = 4;
/// How long touches are gathered at most before they are written.
const MAX_GATHER: Duration = Duration::from_secs(4);

/// Why rooms cannot be started here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Rooms are actors of actix, and there is no actix system on this thread: tokio alone is not enough.
    #[error("no actix system runs on this thread: use `#[actix_web::main]` instead of `#[tokio::main]`")]
    NoSystem,
}

/// The rooms of this node: the cheap handle that applications hold and clone.
///
/// Sockets join through [`Socket::join`](crate::Socket::join); everything else, an HTTP handler, a job, an actor, asks
/// here. Rooms come into being with the first join and stop when they are empty.
///
/// ```
/// # use presence::{Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("web-1")?);
/// PruningSupervisor::spawn(&rooms);
/// rooms.ready().await;
///
/// let lobby = RoomName::new("lobby")?;
/// assert_eq!(rooms.count(&lobby).await?.users, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

struct Inner {
    config: Config,
    clock: Clock,
    store: Apart,
    writer: Writer,
    signals: Signals,
    channels: Channels,
    table: [Mutex<HashMap<RoomName, Entry>>; SHARDS],
    hasher: RandomState,
    threads: Threads,
    hubs: RwLock<Vec<HubRef>>,
    /// Tells the channel names of this process from those of others.
    process: String,
    /// How many connections there were: the number of each is the end of its channel name.
    connections: AtomicU64,
    node: watch::Sender<Option<NodeId>>,
    health: Health,
    draining: AtomicBool,
    /// The shutdown is over: no room is started any more.
    ended: AtomicBool,
    /// The name that another process took from this node.
    lost_name: watch::Sender<Option<NodeName>>,
    /// The shutdown is nearly over: nothing changes any more. Whoever forwards events has a receiver until it has none left.
    ending: watch::Sender<bool>,
    sockets: watch::Sender<usize>,
    cutoffs: CutoffLimits,
    /// The limit of the lines about sockets beyond `max_sockets`.
    full: LineLimit,
    /// The limit of the lines about joins that are refused because first frames are not read.
    unread: LineLimit,
    /// The limit of the lines about changes that are refused because too many wait for the database.
    overloaded: LineLimit,
    /// How many bytes of first frames are held in all rooms.
    first_frames: Arc<AtomicUsize>,
    /// When those were last cut off who read first frames of any room too slowly.
    made_room: Mutex<Option<Tick>>,
    listening: Arc<Listening>,
    registration: Registration,
    node_actor: OnceLock<Addr<NodeActor>>,
    supervisor: OnceLock<Addr<PruningSupervisor>>,
    /// The warning that no supervisor was spawned is logged once.
    no_supervisor: Once,
    front: Addr<RoomsActor>,
    /// How many presences are looked after.
    #[cfg(test)]
    children: std::sync::atomic::AtomicIsize,
}

struct Entry {
    actor: Addr<RoomActor>,
    under_way: Arc<AtomicUsize>,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("node", &self.node()).field("running", &self.running()).finish_non_exhaustive()
    }
}

impl Rooms {
    /// Starts the rooms of this node, makes the process known to the database as `name`, and keeps it known until
    /// [`shutdown`](Self::shutdown). Call it once in a process, on a thread of an actix system, before `HttpServer::new`, and clone the
    /// handle into its closure: that runs once for each worker. [`PruningSupervisor::spawn`] then cleans up.
    ///
    /// A process that starts under the name of one that still runs takes its place. Within one process a name is not taken over. If other
    /// rooms of this process have it on the same database, and were not [shut down](Self::shutdown), these rooms never register: an error
    /// is logged at once, every socket is answered with 500, and a join fails with [`Error::NameInUse`].
    ///
    /// # Panics
    /// Without a running actix system, as under `#[tokio::main]`: see [`try_start`](Self::try_start).
    #[must_use]
    pub fn start(config: Config, store: impl Store, name: NodeName) -> Self {
        Self::with_clock(config, store, name, Clock::system())
    }

    /// As [`start`](Self::start), but without an actix system this is an error.
    ///
    /// # Errors
    /// [`StartError::NoSystem`] if there is none on this thread.
    pub fn try_start(config: Config, store: impl Store, name: NodeName) -> Result<Self, StartError> {
        Self::start_if(config, store, name, Clock::system(), upkeep::claim)
    }

    /// As [`start`](Self::start), with another clock.
    ///
    /// # Panics
    /// Without a running actix system.
    #[must_use]
    pub fn with_clock(config: Config, store: impl Store, name: NodeName, clock: Clock) -> Self {
        Self::start_if(config, store, name, clock, upkeep::claim).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`start`](Self::start), for rooms that play another process than this one, so that they take a name over. For tests.
    ///
    /// # Panics
    /// Without a running actix system.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn start_as_another_process(config: Config, store: impl Store, name: NodeName) -> Self {
        let started = Self::start_if(config, store, name, Clock::system(), |_, _| true);
        started.unwrap_or_else(|error| panic!("{error}"))
    }

    fn start_if(
        config: Config,
        store: impl Store,
        name: NodeName,
        clock: Clock,
        may_have: impl FnOnce(&Self, &NodeName) -> bool,
    ) -> Result<Self, StartError> {
        if actix::System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        let threads = Threads::start(config.room_threads());
        let store: Arc<dyn Store> = Arc::new(store);
        let health = Health::default();
        let registration = Registration::new(name, config.lease());
        let rooms = Arc::new_cyclic(|rooms: &std::sync::Weak<Inner>| {
            let fenced = {
                let rooms = rooms.clone();
                move |node| {
                    if let Some(actor) = rooms.upgrade().and_then(|rooms| rooms.node_actor.get().cloned()) {
                        actor.do_send(upkeep::Fenced(node));
                    }
                }
            };
            let front = {
                let rooms = rooms.clone();
                RoomsActor::start_in_arbiter(threads.store(), move |_: &mut Context<RoomsActor>| RoomsActor::new(rooms))
            };
            Inner {
                writer: Writer::new(config.max_pending_writes(), health.clone(), fenced),
                config,
                clock,
                store: Apart::new(store.clone(), threads.runtime().clone()),
                signals: Signals::default(),
                channels: Channels::default(),
                table: Default::default(),
                hasher: RandomState::new(),
                threads,
                hubs: RwLock::default(),
                process: NodeId::random().as_uuid().simple().to_string(),
                connections: AtomicU64::new(0),
                node: watch::Sender::new(None),
                health,
                draining: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                lost_name: watch::Sender::new(None),
                ending: watch::Sender::new(false),
                sockets: watch::Sender::new(0),
                cutoffs: CutoffLimits::default(),
                full: LineLimit::default(),
                unread: LineLimit::default(),
                overloaded: LineLimit::default(),
                first_frames: Arc::default(),
                made_room: Mutex::default(),
                listening: Arc::default(),
                registration,
                node_actor: OnceLock::new(),
                supervisor: OnceLock::new(),
                no_supervisor: Once::new(),
                front,
                #[cfg(test)]
                children: Default::default(),
            }
        });
        let rooms = Self(rooms);
        let (writer, clock) = (rooms.0.writer.clone(), rooms.0.clock.clone());
        let (node, timeout) = (rooms.0.node.subscribe(), rooms.0.config.store_timeout());
        let gather = MAX_GATHER.min(rooms.0.config.touch_flush_interval() / 4);
        rooms.0.threads.runtime().spawn(writer.run(store, clock, node, timeout, gather));
        rooms.0.threads.time().spawn(rooms.pulse());
        rooms.register(may_have);
        Ok(rooms)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The address to which actors send the messages of [`actor`](crate::actor).
    #[must_use]
    pub fn addr(&self) -> Addr<RoomsActor> {
        self.0.front.clone()
    }

    /// When this node was there to listen.
    pub(crate) fn listening(&self) -> &Listening {
        &self.0.listening
    }

    /// Notes again and again that the node runs, as long as it does.
    fn pulse(&self) -> impl Future<Output = ()> + use<> {
        let (rooms, clock, listening) = (Arc::downgrade(&self.0), self.0.clock.clone(), self.0.listening.clone());
        async move {
            while rooms.strong_count() > 0 {
                if let Some(stood) = listening.pulse(clock.now()) {
                    info!(?stood, "this node stood still; that its clients were silent meanwhile does not count");
                }
                tokio::time::sleep(PULSE).await;
            }
        }
    }

    pub(crate) fn full_line(&self) -> &LineLimit {
        &self.0.full
    }

    pub(crate) fn unread_line(&self) -> &LineLimit {
        &self.0.unread
    }

    pub(crate) fn overloaded_line(&self) -> &LineLimit {
        &self.0.overloaded
    }

    /// How many bytes of first frames are held in all rooms.
    pub(crate) fn first_frames(&self) -> &Arc<AtomicUsize> {
        &self.0.first_frames
    }

    /// When those were last cut off who read first frames of any room too slowly.
    pub(crate) fn made_room(&self) -> &Mutex<Option<Tick>> {
        &self.0.made_room
    }

    /// The limits of the lines about sockets that were cut off.
    pub(crate) fn cutoffs(&self) -> &CutoffLimits {
        &self.0.cutoffs
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T> {
        match within(self.0.config.store_timeout(), call).await {
            Some(answer) => Ok(answer?),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    // ---- hearing of changes ----

    /// The changes of all rooms from now on, as a stream. See [`PresenceChanged`].
    #[must_use]
    pub fn changes(&self) -> Subscription {
        self.hear(None)
    }

    /// The changes of one room from now on, as a stream.
    #[must_use]
    pub fn changes_of(&self, room: &RoomName) -> Subscription {
        self.hear(Some(room))
    }

    /// Sends an actor the changes of all rooms, or of one, from now on: each when the actor is done with the one before. It
    /// ends when the actor stops.
    pub fn subscribe(&self, room: Option<&RoomName>, subscriber: Recipient<PresenceChanged>) {
        let subscription = self.hear(room);
        self.0.threads.store().spawn(subscription.forward(subscriber, self.0.ending.subscribe()));
    }

    fn hear(&self, room: Option<&RoomName>) -> Subscription {
        self.store().count_turns();
        self.0.signals.subscribe(room.cloned())
    }
}
