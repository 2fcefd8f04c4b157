//! Rooms: the handle that applications hold, and the actors behind it.

pub(crate) mod channel;
pub(crate) mod channels;
pub(crate) mod command;
mod handle;
mod membership;
pub(crate) mod query;
mod reading;
mod removing;
pub(crate) mod sending;
mod shutdown;
#[cfg(test)]
mod tests;
mod updates;
pub(crate) mod upkeep;

use std::{
    fmt,
    sync::{Arc, Once, OnceLock},
};

use actix::{Actor, Addr, Context, Recipient};
use tokio::sync::watch;

use crate::{
    Config, Result,
    clock::Clock,
    delivery::hubs::Hubs,
    descriptors,
    name::{NodeName, RoomName},
    node::Node,
    room::{actor::RoomActor, local_channels::LocalChannels, message::ToRoom, table::Table},
    signal::{PresenceChanged, Subscription},
    store::Store,
};

pub use self::handle::Room;
pub use self::query::RoomsActor;
pub use self::reading::Counts;
pub use self::sending::Outgoing;
pub use self::shutdown::NotReady;
pub use self::upkeep::PruningSupervisor;

use self::{channels::Channels, upkeep::NodeActor};

/// How often an operation that a failing room lost is asked again.
const ATTEMPTS: usize = 4;

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
    node: Arc<Node>,
    hubs: Arc<Hubs>,
    channels: Arc<Channels>,
    table: Arc<Table>,
    /// The shutdown is nearly over: nothing changes any more. Whoever forwards events has a receiver until it has none left.
    ending: watch::Sender<bool>,
    node_actor: OnceLock<Addr<NodeActor>>,
    supervisor: OnceLock<Addr<PruningSupervisor>>,
    /// The warning that no supervisor was spawned is logged once.
    no_supervisor: Once,
    front: Addr<RoomsActor>,
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
        descriptors::warn_if_limit_is_too_low(config.max_sockets());
        let rooms = Arc::new_cyclic(|rooms: &std::sync::Weak<Inner>| {
            let weak = rooms.clone();
            let fenced = move |node| {
                if let Some(actor) = weak.upgrade().and_then(|rooms| rooms.node_actor.get().cloned()) {
                    actor.do_send(upkeep::Fenced(node));
                }
            };
            let node = Node::start(config, store, name, clock, fenced);
            let front = RoomsActor::new(rooms.clone());
            Inner {
                hubs: Hubs::new(node.clock.clone()),
                channels: Arc::default(),
                table: Arc::default(),
                ending: watch::Sender::new(false),
                node_actor: OnceLock::new(),
                supervisor: OnceLock::new(),
                no_supervisor: Once::new(),
                front: RoomsActor::start_in_arbiter(node.threads.store(), move |_: &mut Context<RoomsActor>| front),
                node,
            }
        });
        let rooms = Self(rooms);
        rooms.register(may_have);
        Ok(rooms)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.node.config
    }

    /// The address to which actors send the messages of [`actor`](crate::actor).
    #[must_use]
    pub fn addr(&self) -> Addr<RoomsActor> {
        self.0.front.clone()
    }

    pub(crate) fn this_node(&self) -> &Arc<Node> {
        &self.0.node
    }

    pub(crate) fn hubs(&self) -> &Arc<Hubs> {
        &self.0.hubs
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.0.channels
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.0.table
    }

    /// Sends to a room, which is started if it does not run.
    pub(crate) fn tell(&self, name: &RoomName, message: ToRoom) {
        let Inner { node, hubs, channels, table, .. } = &*self.0;
        table.send(name, message, |under_way| {
            let (name, node, hubs, table) = (name.clone(), node.clone(), hubs.clone(), table.clone());
            let channels: Arc<dyn LocalChannels> = channels.clone();
            let thread = self.0.node.threads.of_room(table.thread_hash(&name));
            let start = move |_: &mut Context<RoomActor>| RoomActor::new(name, node, hubs, channels, table, under_way);
            RoomActor::start_in_arbiter(thread, start).recipient()
        });
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
        self.0.node.threads.store().spawn(subscription.forward(subscriber, self.0.ending.subscribe()));
    }

    fn hear(&self, room: Option<&RoomName>) -> Subscription {
        self.0.node.store.track_online();
        self.0.node.signals.subscribe(room.cloned())
    }
}
