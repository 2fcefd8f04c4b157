//! Rooms: the handle that applications hold, and the actors behind it.

pub(crate) mod actor;
pub(crate) mod channel;
pub mod close_code;
pub(crate) mod command;
pub(crate) mod event;
mod handle;
pub(crate) mod hub;
pub(crate) mod message;
mod node;
pub(crate) mod outbox;
pub(crate) mod presence;
pub(crate) mod pruning;
pub(crate) mod query;
pub(crate) mod registry;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod threads;
pub(crate) mod touch;
pub(crate) mod wire;

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use actix::{Actor, Addr, Context, Recipient};
use tokio::sync::{oneshot, watch};

use crate::{
    CloseCode, Config, Error, Result,
    clock::Clock,
    model::{Close, Member, roster::Roster},
    name::{ChannelName, GroupName, NodeId, RoomName, UserId},
    signal::{PresenceChanged, Signals, Subscription},
    store::{Removal, Store, StoreError, Whom, apart::Apart, health::Health, writer::Writer},
};

pub use event::Event;
pub use handle::Room;
pub use pruning::PruningSupervisor;
pub use query::RoomsActor;

use actor::RoomActor;
use channel::Channels;
use message::{HubRef, Pressure, ToHub, ToRoom};
use threads::{Threads, within};
use wire::Frames;

/// What is sent to clients: one WebSocket frame, encoded once for all who get it.
#[derive(Debug, Clone)]
pub struct Outgoing(Frames);

impl Outgoing {
    /// A text frame.
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self(wire::text(text.as_ref()))
    }

    /// A binary frame.
    #[must_use]
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self(wire::binary(bytes.as_ref()))
    }

    /// A text frame that holds `value` as JSON.
    ///
    /// # Errors
    /// [`Error::Consumer`] if `value` does not serialize.
    pub fn json(value: &impl serde::Serialize) -> Result<Self> {
        Ok(Self::text(serde_json::to_string(value)?))
    }

    pub(crate) const fn frames(&self) -> &Frames {
        &self.0
    }
}

impl From<&str> for Outgoing {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Outgoing {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

/// How many rooms of one process share a lock.
const SHARDS: usize = 16;
/// How often an operation that a failing room lost is asked again.
const ATTEMPTS: usize = 4;
/// How long touches are gathered at most before they are written.
const MAX_GATHER: Duration = Duration::from_secs(1);

/// The rooms of this node: the cheap handle that applications hold and clone.
///
/// Sockets join through [`Socket::join`](crate::Socket::join); everything else, an HTTP handler, a job, an actor, asks
/// here. Rooms come into being with the first join and stop when they are empty.
///
/// ```
/// # use presence::{Config, PruningSupervisor, Rooms, name::{NodeName, RoomName}, store::MemoryStore};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rooms = Rooms::start(Config::default(), MemoryStore::default());
/// PruningSupervisor::spawn(&rooms, NodeName::new("web-1")?);
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
    node: watch::Sender<Option<NodeId>>,
    health: Health,
    draining: AtomicBool,
    /// The shutdown is over: no room is started any more.
    ended: AtomicBool,
    superseded: watch::Sender<bool>,
    sockets: watch::Sender<usize>,
    supervisor: OnceLock<Addr<PruningSupervisor>>,
    front: Addr<RoomsActor>,
    /// How many presences are looked after.
    #[cfg(test)]
    children: std::sync::atomic::AtomicIsize,
}

struct Entry {
    actor: Addr<RoomActor>,
    under_way: Arc<AtomicUsize>,
}

/// How many are in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Counts {
    /// Distinct users.
    pub users: usize,
    /// Anonymous sockets.
    pub anonymous: usize,
    /// Presences of users and anonymous sockets together.
    pub presences: usize,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("node", &self.node()).field("running", &self.running()).finish_non_exhaustive()
    }
}

impl Rooms {
    /// Starts the rooms of this node. Must be called on a thread of an actix system, and be followed by
    /// [`PruningSupervisor::spawn`] before the first join.
    ///
    /// # Panics
    /// Without a running actix system.
    #[must_use]
    pub fn start(config: Config, store: impl Store) -> Self {
        Self::with_clock(config, store, Clock::system())
    }

    /// As [`start`](Self::start), with another clock.
    ///
    /// # Panics
    /// Without a running actix system.
    #[must_use]
    pub fn with_clock(config: Config, store: impl Store, clock: Clock) -> Self {
        let threads = Threads::start(config.room_threads());
        let store: Arc<dyn Store> = Arc::new(store);
        let health = Health::default();
        let rooms = Arc::new_cyclic(|rooms: &std::sync::Weak<Inner>| {
            let fenced = {
                let rooms = rooms.clone();
                move |node| {
                    if let Some(supervisor) = rooms.upgrade().and_then(|rooms| rooms.supervisor.get().cloned()) {
                        supervisor.do_send(pruning::Fenced(node));
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
                node: watch::Sender::new(None),
                health,
                draining: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                superseded: watch::Sender::new(false),
                sockets: watch::Sender::new(0),
                supervisor: OnceLock::new(),
                front,
                #[cfg(test)]
                children: Default::default(),
            }
        });
        let rooms = Self(rooms);
        let (writer, clock) = (rooms.0.writer.clone(), rooms.0.clock.clone());
        let (node, timeout) = (rooms.0.node.subscribe(), rooms.0.config.store_timeout());
        let gather = MAX_GATHER.min(rooms.0.config.touch_flush_interval() / 16);
        rooms.0.threads.runtime().spawn(writer.run(store, clock, node, timeout, gather));
        rooms
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The actor that answers [`Members`](crate::Members), [`Users`](crate::Users), [`Count`](crate::Count) and the
    /// other messages about rooms, carries out [`Add`](crate::Add), [`Remove`](crate::Remove) and the other calls of this
    /// handle, and takes on [`Subscribe`](crate::Subscribe).
    #[must_use]
    pub fn addr(&self) -> Addr<RoomsActor> {
        self.0.front.clone()
    }

    // ---- reading ----

    /// Everyone in the room: users sorted by the bytes of their ids, each once with all its presences, then anonymous
    /// sockets. Members on other nodes are included.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn members(&self, room: &RoomName) -> Result<Vec<Member>> {
        self.read(room, Roster::members).await
    }

    /// The distinct users in the room, each once however many tabs it has, sorted by bytes; anonymous sockets left out. As
    /// `get_users` of django-channels-presence.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn users(&self, room: &RoomName) -> Result<Vec<UserId>> {
        self.read(room, |roster| roster.users().cloned().collect()).await
    }

    /// How many anonymous sockets (not visitors) are in the room. As `get_anonymous_count` of django-channels-presence.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn anonymous_count(&self, room: &RoomName) -> Result<usize> {
        self.read(room, Roster::anonymous).await
    }

    /// How many are in the room. Costs the same however many that are.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn count(&self, room: &RoomName) -> Result<Counts> {
        self.read(room, |roster| Counts {
            users: roster.users().len(),
            anonymous: roster.anonymous(),
            presences: roster.len(),
        })
        .await
    }

    /// Whether the user has a presence in the room.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if the room is not in memory and could not be read.
    pub async fn is_here(&self, room: &RoomName, user: &UserId) -> Result<bool> {
        let user = user.clone();
        self.read(room, move |roster| roster.presences_of(&user) > 0).await
    }

    /// The rooms that the user is in, on any node, sorted by bytes. Asks the database.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] if it does not answer in time.
    pub async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>> {
        self.bounded(self.0.store.rooms_of(user)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        room: &RoomName,
        look: impl FnOnce(&Roster) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let reader = move |roster: &Roster| drop(reply.send(look(roster)));
        self.tell(room, ToRoom::Read(Box::new(reader)));
        match within(self.0.config.store_timeout(), answer).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(_)) => Err(self.gave_no_answer(room)),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T> {
        match within(self.0.config.store_timeout(), call).await {
            Some(answer) => Ok(answer?),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    // ---- sending ----

    /// Sends a frame to every socket in the room, on this node, the sender's own included. Nobody is there: nothing happens.
    /// It is sent at most once and not stored.
    ///
    /// Frames and notices reach each socket in the order in which the room got them. While a socket of the room has more
    /// waiting for it than it may but goes on reading, this waits for it, at most 1 s: a flood slows itself.
    pub async fn send(&self, room: &RoomName, message: impl Into<Outgoing>) {
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        self.tell_running(room, ToRoom::Send { frames, pressure });
        let _ = relieved.await;
    }

    /// Sends a frame to one socket of this node. No such socket: nothing happens.
    pub async fn send_to(&self, channel: &ChannelName, message: impl Into<Outgoing>) {
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        // Without a hub nobody else holds the pressure, and this would wait for itself.
        let Some(hub) = self.hub_of(channel) else { return };
        hub.addr.do_send(ToHub::SendTo { channel: channel.clone(), frames, pressure });
        let _ = relieved.await;
    }

    /// Hands an event to the consumer of every socket in the room, on this node.
    pub fn send_event(&self, room: &RoomName, event: Event) {
        self.tell_running(room, ToRoom::Event(Arc::new(event)));
    }

    /// Hands an event to the consumer of one socket of this node. No such socket: nothing happens.
    pub fn send_event_to(&self, channel: &ChannelName, event: Event) {
        if let Some(hub) = self.hub_of(channel) {
            hub.addr.do_send(ToHub::EventTo { channel: channel.clone(), event: Arc::new(event) });
        }
    }

    /// Sends a frame to every member of a group, on this node, the sender included if it is one. A group without members:
    /// nothing happens. Frames of one sender reach each member in order. Waits as [`send`](Self::send) does. As `group_send` of
    /// django-channels.
    pub async fn group_send(&self, group: &GroupName, message: impl Into<Outgoing>) {
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        for hub in self.hubs() {
            let (group, frames, pressure) = (group.clone(), frames.clone(), pressure.clone());
            hub.addr.do_send(ToHub::SendToGroup { group, frames, pressure });
        }
        drop(pressure);
        let _ = relieved.await;
    }

    /// Hands an event to the consumer of every member of a group, on this node.
    pub fn group_event(&self, group: &GroupName, event: Event) {
        let event = Arc::new(event);
        for hub in self.hubs() {
            hub.addr.do_send(ToHub::EventToGroup { group: group.clone(), event: event.clone() });
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
        self.0.threads.store().spawn(subscription.forward(subscriber));
    }

    fn hear(&self, room: Option<&RoomName>) -> Subscription {
        self.store().tell_turns();
        self.0.signals.subscribe(room.cloned())
    }

    // ---- pruning ----

    /// Removes the presences that were last seen more than `max_age` ago (`None`: the setting), those of this node by its
    /// own clock, those that nobody answers for by the database's; an age of zero: all of them, and who is just joining this
    /// node is refused. Returns how many. As
    /// `prune_presences` of django-channels-presence, but they also leave their group, are told or closed, and the event says who left.
    ///
    /// Those that nobody answers for are left alone as long as this node has not renewed its lease for one full lease without
    /// a break: after an outage of the database all others seem dead at first.
    ///
    /// # Errors
    /// [`Error::NoSupervisor`] without one, [`Error::StoreUnavailable`] if the database does not answer; what was pruned by
    /// then stays pruned.
    pub async fn prune_presences(&self, max_age: Option<Duration>) -> Result<usize> {
        self.ask(pruning::PrunePresences(max_age)).await
    }

    /// Removes every room that nobody is in from the database. Returns how many. As `prune_rooms` of
    /// django-channels-presence, but a room that is being joined stays.
    ///
    /// # Errors
    /// [`Error::NoSupervisor`] without one, [`Error::StoreUnavailable`] if the database does not answer.
    pub async fn prune_rooms(&self) -> Result<usize> {
        self.ask(pruning::PruneRooms).await
    }

    /// As [`prune_presences`](Self::prune_presences), for the presences of this node in one room.
    pub(crate) async fn prune_room(&self, room: &RoomName, max_age: Option<Duration>) -> Result<usize> {
        let (reply, pruned) = oneshot::channel();
        let max_age = max_age.unwrap_or(self.0.config.max_age());
        self.tell_running(room, ToRoom::Prune { max_age, reply });
        match within(self.0.config.store_timeout(), pruned).await {
            // A room that does not run has no presence of this node.
            Some(pruned) => Ok(pruned.unwrap_or(0)),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    /// Removes a room with everyone in it, on every node: members and subscribers are told, one event on each node says who
    /// left there. With `close` their sockets are closed so, else they stay open and their consumers are told
    /// ([`Consumer::removed`](crate::Consumer::removed)). Returns how many left. The empty room itself goes with the next
    /// [`prune_rooms`](Self::prune_rooms), if nobody has joined it by then.
    ///
    /// Whoever joined before this was called is removed, also one that is held. Who is just joining is refused
    /// ([`Error::LeftWhileJoining`]), and its socket told or closed with the rest. Who joins while this waits for other nodes may
    /// be removed; who joins after it returned stays.
    ///
    /// Other nodes on the same database look for such requests every `sweep_interval`. This waits for them, at most for
    /// `lease` and `sweep_interval` together.
    ///
    /// # Errors
    /// [`Error::CloseCode`] if `close` may not be sent: nothing happened. [`Error::NoSupervisor`] without one,
    /// [`Error::StoreUnavailable`] if the database does not answer; who was removed by then stays removed.
    /// [`Error::Unanswered`] if other nodes that live did not answer in time: it names them.
    pub async fn remove_room(&self, room: &RoomName, close: Option<Close>) -> Result<usize> {
        self.ask(pruning::Remove(Removal { whom: Whom::Room(room.clone()), close: sendable(close)? })).await
    }

    /// Removes a user from every room, on every node, with one event for each room and node. The rest is as for
    /// [`remove_room`](Self::remove_room).
    ///
    /// # Errors
    /// As [`remove_room`](Self::remove_room).
    pub async fn remove_user(&self, user: &UserId, close: Option<Close>) -> Result<usize> {
        self.ask(pruning::Remove(Removal { whom: Whom::User(user.clone()), close: sendable(close)? })).await
    }

    async fn ask<M>(&self, message: M) -> Result<usize>
    where
        M: actix::Message<Result = Result<usize>> + Send + 'static,
        PruningSupervisor: actix::Handler<M>,
    {
        let supervisor = self.0.supervisor.get().ok_or(Error::NoSupervisor)?;
        supervisor.send(message).await.map_err(|_| Error::ShuttingDown)?
    }
}

/// A code that may be sent.
fn sendable(close: Option<Close>) -> Result<Option<Close>> {
    match close {
        Some(Close { code, .. }) if !CloseCode(code).is_sendable() => Err(Error::CloseCode { code }),
        close => Ok(close),
    }
}

/// A frame's claim on its sender's patience, and what resolves when all who delivered it have let go.
fn pressure() -> (Pressure, oneshot::Receiver<()>) {
    let (pressure, relieved) = oneshot::channel();
    (Arc::new(pressure), relieved)
}
