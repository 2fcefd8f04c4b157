//! What is said to a room, to a hub, to a connection, and what they answer.

use std::{
    collections::HashSet,
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix::{Addr, Message};
use tokio::sync::oneshot;

use crate::{
    CloseCode, Error,
    clock::Tick,
    delivery::{
        event::Event,
        hub::HubActor,
        inquiry::AskedSilent,
        touch::Touch,
        wire::{FirstFrame, Frames},
    },
    model::{Close, Meta, Presence, replica::Reading, roster::Roster},
    name::{ChannelName, Epoch, GroupName, PresenceId, RoomName, UserId, Version},
    session::Session,
    store::{RoomCommit, StoreError},
};

use super::{actor::RoomActor, leaving::Farewell};

/// Where an answer goes. Nobody needs to wait for it.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// Held by everyone who has still to deliver a frame in good time; its sender waits until the last of them lets go.
pub(crate) type Pressure = Arc<Claim>;

/// A frame's claim on its sender's patience.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The socket whose consumer sends, if one does.
    pub(crate) sender: Option<ChannelName>,
    /// Its sender waits as long as this is there.
    _relieved: oneshot::Sender<()>,
}

impl Claim {
    /// A claim of this socket's consumer, or of whoever else sends; and what resolves when everyone has let go of it.
    pub(crate) fn new(sender: Option<ChannelName>) -> (Pressure, oneshot::Receiver<()>) {
        let (relieved, is_relieved) = oneshot::channel();
        (Arc::new(Self { sender, _relieved: relieved }), is_relieved)
    }
}

/// The hub that a socket is on. Every presence keeps one, so it is shared: another copy of an address takes two allocations.
#[derive(Debug, Clone)]
pub(crate) struct HubRef(Arc<Hub>);

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) id: usize,
    pub(crate) addr: Addr<HubActor>,
}

impl HubRef {
    pub(crate) fn new(id: usize, addr: Addr<HubActor>) -> Self {
        Self(Arc::new(Hub { id, addr }))
    }

    pub(crate) fn downgrade(&self) -> WeakHub {
        WeakHub(Arc::downgrade(&self.0))
    }
}

/// A [`HubRef`] that keeps no hub alive.
#[derive(Debug)]
pub(crate) struct WeakHub(Weak<Hub>);

impl WeakHub {
    pub(crate) fn upgrade(&self) -> Option<HubRef> {
        self.0.upgrade().map(HubRef)
    }
}

impl Deref for HubRef {
    type Target = Hub;

    fn deref(&self) -> &Hub {
        &self.0
    }
}

/// Said to a room by one who found it in the table: it does not stop before it has heard.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Told {
    pub(crate) message: ToRoom,
    pub(crate) under_way: UnderWay,
}

/// Counts the messages that are on their way to a room.
pub(crate) struct UnderWay(Arc<AtomicUsize>);

impl UnderWay {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A channel that enters a room, with all that a join needs. It is passed on as one value, from the channel to the room's list of
/// joins under way.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    /// As what it enters.
    pub(crate) presence: Arc<Presence>,
    /// By what its presence can be resumed. If a presence has this already, the channel takes that one over.
    pub(crate) session: Option<Session>,
    /// How many presences the room may have with it, unless it takes one over.
    pub(crate) limit: Option<usize>,
    /// Where its socket is; `None` for a presence without a socket.
    pub(crate) hub: Option<HubRef>,
    pub(crate) touch: Touch,
}

/// One presence of a room.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    /// That with this id.
    Id(PresenceId),
    /// That of this channel.
    Of(ChannelName),
}

/// Said to a room.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum ToRoom {
    /// A socket joins. Answered when its first frame is on its way, or at once if it is in already.
    Join {
        entrant: Entrant,
        /// Its channel is in the room already, or was when it asked.
        again: bool,
        reply: Reply<()>,
    },
    /// A socket leaves, by itself or, with a farewell, because somebody else wants it to. Answered when that is durable.
    Leave { id: PresenceId, channel: ChannelName, farewell: Option<Farewell>, reply: Option<Reply<()>> },
    /// A socket is lost: its presence is held for its grace if it can be resumed, and leaves if not.
    Lose { id: PresenceId, channel: ChannelName },
    /// The node is about to end: have the database hold all that can be resumed, from now on.
    HoldAll,
    /// The node is about to end and its sockets are closed: the presences leave that have none.
    LeaveSocketless,
    /// A socket says something else of itself. Without a reply nobody would try it again, so it is taken on though many wait.
    Update { id: PresenceId, channel: ChannelName, meta: Meta, reply: Option<Reply<()>> },
    /// A frame for everyone in the room, or for all but one.
    Send { frames: Frames, except: Option<ChannelName>, pressure: Pressure },
    /// An event for the consumer of everyone in the room.
    Event(Arc<Event>),
    /// Look at the roster, once it is known.
    Read(Box<dyn FnOnce(&Roster) + Send>),
    /// Remove the presences of this node that were last seen longer ago than this.
    Prune { max_age: std::time::Duration, reply: oneshot::Sender<usize> },
    /// Remove the presences of this node: those of this user, or all.
    Remove { user: Option<UserId>, close: Option<Close>, reply: oneshot::Sender<usize> },
    /// Remove one presence of this node, and count it if it is there. Answered when it is gone for good.
    RemoveOne { which: Which, close: Option<Close>, count: Arc<AtomicUsize>, reply: Reply<()> },
    /// A deadline passed.
    Stale(PresenceId),
    /// These were asked, and are silent, or have not answered: remove those of them that were last seen longer ago than this, or
    /// much longer.
    Silent {
        ids: Vec<PresenceId>,
        unanswered: HashSet<PresenceId>,
        max_age: std::time::Duration,
        reply: Option<oneshot::Sender<usize>>,
    },
    /// A child is gone that should not be.
    ChildDied(PresenceId),
    /// The room changed by another hand: a sweep, or another node.
    Changed(RoomCommit),
    /// The database was read: in the reading with this number.
    Loaded(u64, Result<Option<Reading>, StoreError>),
    /// Where the database says the room stood when it was asked, which was at `asked` or later; `None`: it had no such room.
    Position { position: Option<(Epoch, Version)>, asked: Tick },
    /// This node has a new life: its presences must be made its own again.
    Rejoin,
    /// A hub says who of this room is on it, after the room lost its memory.
    Report(Report),
    /// The shutdown of the node is over: stop.
    End,
    /// Look at what is due.
    Tick,
    /// Tell the writer when each presence of this node was last seen: the node is about to end. Then look at what is due.
    TellTouches,
    /// Fail, to show that it does no harm.
    #[cfg(any(test, feature = "testing"))]
    Panic,
    /// Fail while the model changes, so that it cannot be trusted.
    #[cfg(test)]
    PanicInModel,
    /// Fail over the next commit, there.
    #[cfg(test)]
    PanicAt(super::actor::Point),
    /// Make the child of this presence fail.
    #[cfg(any(test, feature = "testing"))]
    PanicChild(PresenceId),
}

impl ToRoom {
    /// Whether it is about presences of this node, so that it has to wait while those are being found out.
    pub(crate) const fn is_about_ours(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Leave { .. } | Self::Lose { .. } | Self::Update { .. })
            || matches!(self, Self::Prune { .. } | Self::Silent { .. } | Self::Remove { .. } | Self::RemoveOne { .. })
            || matches!(self, Self::HoldAll | Self::LeaveSocketless | Self::Rejoin)
    }
}

/// Who of a room is on one hub.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) hub: HubRef,
    pub(crate) announced: Option<(Epoch, Version)>,
    pub(crate) members: Vec<(Arc<Presence>, Touch)>,
}

/// Said to a hub.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum ToHub {
    /// News for the members of a room, then first frames for those who join it.
    Flush(Box<RoomFlush>),
    /// A frame for the members of a room, or for all but one.
    Send { room: RoomName, frames: Frames, except: Option<ChannelName>, pressure: Pressure },
    /// An event for the consumers of the members of a room.
    Event { room: RoomName, event: Arc<Event> },
    /// These are no longer members.
    Leave { room: RoomName, channels: Vec<ChannelName> },
    /// `members` are no longer members. The sockets of `channels` were removed from the room: they are notified, or closed with a code
    /// if there is one.
    Removed { room: RoomName, channels: Vec<ChannelName>, members: Vec<ChannelName>, close: Option<Close> },
    /// Find out which of these are silent.
    AskSilent(Vec<(ChannelName, AskedSilent)>),
    /// The room has failed for good: its members are to be closed.
    CloseRoom { room: RoomName },
    /// A frame for the members of a group.
    SendToGroup { group: GroupName, frames: Frames, pressure: Pressure },
    /// An event for the consumers of the members of a group.
    EventToGroup { group: GroupName, event: Arc<Event> },
    /// A frame for the sockets of a user. So many of them have had it.
    SendToUser { user: UserId, frames: Frames, pressure: Pressure, done: usize },
    /// An event for the consumers of a user's sockets. So many of them have had it.
    EventToUser { user: UserId, event: Arc<Event>, done: usize },
    /// A frame for one socket.
    SendTo { channel: ChannelName, frames: Frames, pressure: Pressure },
    /// An event for the consumer of one socket.
    EventTo { channel: ChannelName, event: Arc<Event> },
    /// Close every socket.
    CloseAll { code: CloseCode, reason: &'static str },
    /// The node ends: close every socket with 1012, those that can resume spread over this time.
    Restart { within: std::time::Duration },
    /// The shutdown of the node is over: forget all sockets.
    End,
    /// Say who of this room is here.
    Report { room: RoomName, to: Addr<RoomActor> },
    /// First frames of this room, or of all rooms, take so much memory that nobody can join. Cut off those who read them slowest.
    CutSlowest { room: Option<RoomName> },
    /// Outboxes are filling: look after them.
    Watch,
    /// Fail, to show that it does no harm.
    #[cfg(any(test, feature = "testing"))]
    Panic,
}

/// What goes out to the members of a room on one hub at one moment.
pub(crate) struct RoomFlush {
    pub(crate) room: RoomName,
    /// What members know afterwards.
    pub(crate) announced: (Epoch, Version),
    pub(crate) news: Option<Frames>,
    /// The whole state: for joiners, and for everyone if `renew`.
    pub(crate) first: Option<FirstFrame>,
    pub(crate) renew: bool,
    pub(crate) joiners: Vec<Joiner>,
    /// What was said in the room while they waited.
    pub(crate) meanwhile: Arc<[Said]>,
}

/// What was said in a room: to the clients of its members, or to their consumers.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// To all, or to all but one.
    Frames(Frames, Option<ChannelName>),
    Event(Arc<Event>),
}

/// One who waits for its first frame.
#[derive(Debug)]
pub(crate) struct Joiner {
    pub(crate) hub: HubRef,
    pub(crate) presence: Arc<Presence>,
    pub(crate) touch: Touch,
    pub(crate) replies: Vec<Reply<()>>,
    /// How much of what is said meanwhile was said before it joined.
    pub(crate) before: usize,
}

/// What a consumer decided about a new socket.
#[derive(Debug)]
pub(crate) enum Decision {
    Accepted,
    /// The handshake is answered all the same, so that the client can read this code and reason.
    Refused {
        code: CloseCode,
        reason: String,
    },
    /// The handshake is answered with a status.
    Denied,
}

/// Said to a connection.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum ToConnection {
    /// Close the socket with this code.
    Close { code: CloseCode, reason: &'static str },
    /// The node ends: close the socket, if it can resume after this part (0 to 1) of the time that this may be spread over.
    Restart { within: std::time::Duration, part: f64 },
    /// The presence of the socket was removed from this room. With a code, the socket is closed.
    Removed { room: RoomName, close: Option<Close> },
    /// Answer if nothing has come from the client that was not handled.
    AskSilent(AskedSilent),
    /// The client does not read.
    TooSlow,
    /// The first frames that the client reads too slowly keep others out.
    MakeRoom,
    /// The client was slowed down for as long as may be, and goes on: what there is too much of.
    TooFast(&'static str),
    /// Hand this to the consumer.
    Event(Arc<Event>),
    /// The consumer accepted the socket, or turned it away.
    Decided(Decision),
    /// The consumer asks for a close.
    CloseByConsumer { code: CloseCode, reason: String },
    /// The consumer failed.
    ConsumerFailed,
    /// The consumer's work is over.
    ConsumerDone,
    /// All that was to be written is.
    Flushed,
    /// The response is gone.
    BodyGone,
}
