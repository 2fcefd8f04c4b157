//! What is said to a hub and to a connection, and what they answer.

use std::{
    ops::Deref,
    sync::{Arc, Weak},
};

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use crate::{
    CloseCode, Error,
    model::{Close, Presence},
    name::{ChannelName, Epoch, GroupName, RoomName, UserId, Version},
};

use super::{
    event::Event,
    inquiry::AskedSilent,
    touch::Touch,
    wire::{FirstFrame, Frames},
};

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
    pub(crate) addr: Recipient<ToHub>,
}

impl HubRef {
    pub(crate) fn new(id: usize, addr: Recipient<ToHub>) -> Self {
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

/// Who of a room is on one hub.
#[derive(Debug, Message)]
#[rtype(result = "()")]
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
    Report { room: RoomName, to: Recipient<Report> },
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
