//! [`Rooms`], the handle that applications hold, and the actors that carry out its calls.

mod by_channel;
mod channel;
mod channels;
pub(crate) mod command;
mod following;
mod handle;
mod join_options;
mod membership;
mod node_names;
pub(crate) mod query;
mod reading;
mod removing;
mod sending;
mod shutdown;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{
    fmt,
    sync::{Arc, Once, OnceLock, Weak},
};

use actix::{Actor, Addr, Context, Recipient};
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;

use crate::{
    Config, Result,
    clock::Clock,
    delivery::Hubs,
    descriptors,
    name::{NodeName, RoomName},
    node::Node,
    room::{LocalChannels, RoomActor, RoomTable, ToRoom},
    signal::{PresenceChanged, Subscription},
    store::Store,
};

pub use following::{MemberChanges, MembersChanged};
pub use handle::Room;
pub use join_options::JoinOptions;
pub use query::RoomsActor;
pub use reading::Counts;
pub use sending::Outgoing;
pub use shutdown::NotReady;
pub use upkeep::{PrunePresences, PruneRooms, PruningSupervisor, Reconcile, Sweep};

#[cfg(feature = "cli")]
pub(crate) use upkeep::CLI;
pub(crate) use {
    channel::{Channel, SocketEnd},
    sending::as_consumer_of,
};

use self::{channels::Channels, node_names::NameHolder, upkeep::NodeActor};

/// The shutdown of a node, for which any number of callers can wait.
type Shutdown = Shared<BoxFuture<'static, ()>>;

/// How many times an operation is sent to a room in all, if the room fails before it answers.
const ATTEMPTS: usize = 4;

/// Why [`Rooms::try_start`] cannot start rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// No actix system runs on this thread. Rooms are actors of actix, so a tokio runtime alone is not enough.
    #[error("no actix system runs on this thread: use `#[actix_web::main]` instead of `#[tokio::main]`")]
    NoSystem,
}

/// The rooms of this node. Applications hold and clone this handle; a clone is cheap, and all clones are the same rooms.
///
/// A socket joins a room by [`Socket::join`](crate::Socket::join). HTTP handlers, jobs and actors read and change rooms by the methods of
/// this handle. A room need not be created: it begins with the first join, and its actor stops when the room is empty.
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
pub struct Rooms(Arc<RoomsInner>);

struct RoomsInner {
    node: Arc<Node>,
    hubs: Arc<Hubs>,
    channels: Arc<Channels>,
    table: Arc<RoomTable>,
    shutdown: OnceLock<Shutdown>,
    /// Becomes true at the end of a shutdown, when nothing changes any more. Each task that forwards events to an actor keeps a receiver
    /// until it has forwarded all events, so the shutdown can wait for these tasks.
    ending: watch::Sender<bool>,
    node_actor: OnceLock<Addr<NodeActor>>,
    supervisor: OnceLock<Addr<PruningSupervisor>>,
    /// Makes the warning that no supervisor was spawned appear once.
    no_supervisor: Once,
    front: Addr<RoomsActor>,
}

impl NameHolder for RoomsInner {
    fn is_running(&self) -> bool {
        // The actor is not set yet while it is being started.
        self.node_actor.get().is_none_or(Addr::connected) && !self.table.has_ended()
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("node", &self.node()).field("running", &self.running()).finish_non_exhaustive()
    }
}

impl Rooms {
    /// Starts the rooms of this node, registers the process in the database as `name`, and renews its lease until
    /// [`shutdown`](Self::shutdown). Call it once in a process, on a thread of an actix system, before `HttpServer::new`, and clone the
    /// handle into the closure of the server, since that closure runs once for each worker. Then call [`PruningSupervisor::spawn`], which
    /// removes what dead nodes leave.
    ///
    /// It returns at once and does not wait for the database: see [`ready`](Self::ready).
    ///
    /// If another process runs under this name, the new process takes the name over, and the other one is
    /// [superseded](Self::superseded). Within one process a name is not taken over. If other rooms of this process have the name on the same
    /// database, and were not [shut down](Self::shutdown), these rooms never register: an error is logged at once, every socket is answered
    /// with the status 500, and every join fails with [`Error::NameInUse`](crate::Error::NameInUse).
    ///
    /// # Panics
    /// If no actix system runs on this thread, as under `#[tokio::main]`. [`try_start`](Self::try_start) returns an error instead.
    #[must_use]
    pub fn start(config: Config, store: impl Store, name: NodeName) -> Self {
        Self::with_clock(config, store, name, Clock::system())
    }

    /// As [`start`](Self::start), but returns an error where `start` panics.
    ///
    /// ```
    /// # use presence::{Config, MemoryStore, NodeName, Rooms, StartError};
    /// let started = Rooms::try_start(Config::default(), MemoryStore::default(), NodeName::new("web-1")?);
    /// assert_eq!(started.err(), Some(StartError::NoSystem)); // this program has no actix system
    /// # Ok::<(), presence::NameError>(())
    /// ```
    ///
    /// # Errors
    /// [`StartError::NoSystem`] if no actix system runs on this thread. Nothing was started.
    pub fn try_start(config: Config, store: impl Store, name: NodeName) -> Result<Self, StartError> {
        Self::start_if(config, store, name, Clock::system(), Self::claim_name)
    }

    /// As [`start`](Self::start), with a clock of the caller, so that a test can move time.
    ///
    /// # Panics
    /// If no actix system runs on this thread.
    #[must_use]
    pub fn with_clock(config: Config, store: impl Store, name: NodeName, clock: Clock) -> Self {
        Self::start_if(config, store, name, clock, Self::claim_name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`start`](Self::start), but these rooms take over a name that other rooms of this process have, as rooms of another process do.
    /// It is for tests.
    ///
    /// # Panics
    /// If no actix system runs on this thread.
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
        let rooms = Arc::new_cyclic(|rooms: &Weak<RoomsInner>| {
            let weak = rooms.clone();
            let fenced = move |node| {
                if let Some(rooms) = weak.upgrade() {
                    Self(rooms).report_fenced(node);
                }
            };
            let node = Node::start(config, store, name, clock, fenced);
            let front = RoomsActor::new(rooms.clone());
            RoomsInner {
                hubs: Hubs::new(node.clock.clone(), node.config.paused_bytes()),
                channels: Arc::default(),
                table: Arc::default(),
                shutdown: OnceLock::new(),
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

    /// Claims `name` for these rooms. Returns false if other rooms of this process have it on the same database and still run.
    fn claim_name(&self, name: &NodeName) -> bool {
        let holder: Weak<RoomsInner> = Arc::downgrade(&self.0);
        // Two stores can only be compared if they know which database they use.
        self.0.node.store.database_id().is_none_or(|database| node_names::claim(database, name, holder))
    }

    /// The settings with which the rooms were started.
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

    pub(crate) fn table(&self) -> &Arc<RoomTable> {
        &self.0.table
    }

    /// Sends a message to a room, and starts the room if it does not run.
    pub(crate) fn send_to_room(&self, name: &RoomName, message: ToRoom) {
        let RoomsInner { node, hubs, channels, table, .. } = &*self.0;
        table.send(name, message, |under_way| {
            let (name, node, hubs, table) = (name.clone(), node.clone(), hubs.clone(), table.clone());
            let channels: Arc<dyn LocalChannels> = channels.clone();
            let thread = self.0.node.threads.of_room(table.thread_hash(&name));
            let start = move |_: &mut Context<RoomActor>| RoomActor::new(name, node, hubs, channels, table, under_way);
            RoomActor::start_in_arbiter(thread, start).recipient()
        });
    }

    /// The changes of all rooms from now on, as [`PresenceChanged`] events, one at a time. Only changes that this node makes are in it.
    ///
    /// ```
    /// # use presence::{PresenceChange, Rooms};
    /// async fn log(rooms: &Rooms) {
    ///     let mut changes = rooms.changes();
    ///     while let Some(event) = changes.next().await {
    ///         match &event.change {
    ///             PresenceChange::Added(presence) => println!("{:?} joined {}", presence.user, event.room),
    ///             PresenceChange::Removed(presence) => println!("{:?} left {}", presence.user, event.room),
    ///             PresenceChange::Bulk(left) => println!("{} presences left {}", left.len(), event.room),
    ///             _ => {}
    ///         }
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn changes(&self) -> Subscription {
        self.subscription(None)
    }

    /// The changes of one room from now on, as [`changes`](Self::changes).
    #[must_use]
    pub fn changes_of(&self, room: &RoomName) -> Subscription {
        self.subscription(Some(room))
    }

    /// Sends the changes of all rooms, or of `room`, to an actor from now on. Each event is sent when the actor has handled the one before.
    /// The subscription ends when the actor stops.
    ///
    /// ```
    /// use actix::{Actor, Context, Handler};
    /// use presence::{PresenceChanged, Rooms};
    ///
    /// struct Log;
    ///
    /// impl Actor for Log {
    ///     type Context = Context<Self>;
    /// }
    ///
    /// impl Handler<PresenceChanged> for Log {
    ///     type Result = ();
    ///
    ///     fn handle(&mut self, event: PresenceChanged, _: &mut Self::Context) {
    ///         println!("{:?} came to {}, and {:?} went", event.user_online(), event.room, event.user_offline());
    ///     }
    /// }
    ///
    /// fn log_all(rooms: &Rooms) {
    ///     rooms.subscribe(None, Log.start().recipient());
    /// }
    /// ```
    pub fn subscribe(&self, room: Option<&RoomName>, subscriber: Recipient<PresenceChanged>) {
        let subscription = self.subscription(room);
        self.0.node.threads.store().spawn(subscription.forward(subscriber, self.0.ending.subscribe()));
    }

    fn subscription(&self, room: Option<&RoomName>) -> Subscription {
        self.0.node.store.track_online();
        self.0.node.signals.subscribe(room.cloned())
    }
}
