//! The messages to hubs and to connections, and their answers.

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
    inquiry::SilenceQuestion,
    touch::Touch,
    wire::{FirstFrame, Frames},
};

/// The sender of an answer. The receiver may be dropped before the answer comes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// A shared claim. Each part that still has to deliver a frame holds a clone, and the sender of the frame waits until the last clone is
/// dropped. So a slow reader slows its senders.
pub(crate) type Pressure = Arc<Claim>;

/// The claim of a frame on its sender: as long as the claim exists, the sender waits.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The socket whose consumer sent the frame; `None` if it was sent from elsewhere.
    pub(crate) sender: Option<ChannelName>,
    /// The sender of the frame waits until this is dropped.
    _relieved: oneshot::Sender<()>,
}

impl Claim {
    /// A new claim, and a receiver that resolves when all clones of the claim are dropped.
    pub(crate) fn new(sender: Option<ChannelName>) -> (Pressure, oneshot::Receiver<()>) {
        let (relieved, is_relieved) = oneshot::channel();
        (Arc::new(Self { sender, _relieved: relieved }), is_relieved)
    }
}

/// The hub of a socket. Every presence keeps one. It is shared, since a clone of an actor's address takes two allocations.
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

/// A weak [`HubRef`]: it does not keep the hub running.
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

/// The members of a room on one hub, as an answer to [`ToHub::Report`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct HubMembers {
    pub(crate) hub: HubRef,
    pub(crate) announced: Option<(Epoch, Version)>,
    pub(crate) members: Vec<(Arc<Presence>, Touch)>,
}

/// A message to a hub.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum ToHub {
    /// A notice for the members of a room, and then first frames for the sockets that join it.
    Flush(Box<RoomFlush>),
    /// A frame for the members of a room, or for all but one.
    Send { room: RoomName, frames: Frames, except: Option<ChannelName>, pressure: Pressure },
    /// An event for the consumers of the members of a room.
    Event { room: RoomName, event: Arc<Event> },
    /// Removes these sockets from the members of a room, without a notification.
    Leave { room: RoomName, channels: Vec<ChannelName> },
    /// Removes `members` from the members of a room. The sockets of `channels` were removed by the application or pruned: they are notified,
    /// or closed if there is a `close`.
    Removed { room: RoomName, channels: Vec<ChannelName>, members: Vec<ChannelName>, close: Option<Close> },
    /// Checks which of these connections are silent.
    CheckSilence(Vec<(ChannelName, SilenceQuestion)>),
    /// Closes the sockets of all members, since the room failed and cannot recover.
    CloseRoom { room: RoomName },
    /// A frame for the members of a group.
    SendToGroup { group: GroupName, frames: Frames, pressure: Pressure },
    /// An event for the consumers of the members of a group.
    EventToGroup { group: GroupName, event: Arc<Event> },
    /// A frame for the sockets of a user. `done` is the number of the last socket that has had it.
    SendToUser { user: UserId, frames: Frames, pressure: Pressure, done: u64 },
    /// An event for the consumers of a user's sockets. `done` is the number of the last socket that has had it.
    EventToUser { user: UserId, event: Arc<Event>, done: u64 },
    /// A frame for one socket.
    SendTo { channel: ChannelName, frames: Frames, pressure: Pressure },
    /// An event for the consumer of one socket.
    EventTo { channel: ChannelName, event: Arc<Event> },
    /// Closes every socket.
    CloseAll { code: CloseCode, reason: &'static str },
    /// Closes every socket with 1012, since the node shuts down. Sockets that can resume are closed one after another within this time.
    Restart { within: std::time::Duration },
    /// Forgets all sockets, since the shutdown of the node is over.
    End,
    /// Requests the members of this room on this hub.
    Report { room: RoomName, to: Recipient<HubMembers> },
    /// Cuts off the clients that read first frames slowest, of this room or of all rooms: the first frames take so much memory that joins are
    /// refused.
    CutSlowest { room: Option<RoomName> },
    /// Starts to watch the outboxes that are not empty.
    Watch,
    /// Starts to watch how old connections are.
    WatchAge,
    /// Starts to watch the outboxes for which senders wait.
    WatchPauses,
    /// Writes the outboxes to which something was added. It comes after all that had arrived by then.
    Write,
    /// Panics, so that a test can show that this does no harm.
    #[cfg(any(test, feature = "testing"))]
    Panic,
}

/// What one flush of a room sends to its members on one hub.
pub(crate) struct RoomFlush {
    pub(crate) room: RoomName,
    /// The position of the room that members know after this flush.
    pub(crate) announced: (Epoch, Version),
    pub(crate) notice: Option<Frames>,
    /// The first frame for joiners; with `resend` it replaces the notice for all members.
    pub(crate) first: Option<FirstFrame>,
    pub(crate) resend: bool,
    pub(crate) joiners: Vec<Joiner>,
    /// What was sent to the room while the joiners waited for their first frame.
    pub(crate) broadcasts: Arc<[Broadcast]>,
}

/// A broadcast to a room: a frame for the clients of its members, or an event for their consumers.
#[derive(Debug, Clone)]
pub(crate) enum Broadcast {
    /// Frames for all members, or for all but one.
    Frames(Frames, Option<ChannelName>),
    Event(Arc<Event>),
}

/// A new member that waits for its first frame.
#[derive(Debug)]
pub(crate) struct Joiner {
    pub(crate) hub: HubRef,
    pub(crate) presence: Arc<Presence>,
    pub(crate) touch: Touch,
    pub(crate) replies: Vec<Reply<()>>,
    /// How many of the broadcasts were sent before it joined, so that it does not receive them.
    pub(crate) skipped: usize,
}

/// The decision of a consumer about a new socket.
#[derive(Debug)]
pub(crate) enum Decision {
    Accepted,
    /// The socket is closed with this code and reason. The handshake succeeds first, since a page can only read them from a Close.
    Refused {
        code: CloseCode,
        reason: String,
    },
    /// The handshake is answered with an HTTP status.
    Denied,
}

/// A message to a connection.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum ToConnection {
    /// Closes the socket with this code.
    Close { code: CloseCode, reason: &'static str },
    /// Closes the socket with 1012, since the node shuts down. A socket that can resume is closed after `part` (0 to 1) of the time `within`.
    Restart { within: std::time::Duration, part: f64 },
    /// The presence of the socket was removed from this room. With a code, the socket is closed.
    Removed { room: RoomName, close: Option<Close> },
    /// Checks whether the client is silent: whether all its frames that have arrived are handled.
    CheckSilence(SilenceQuestion),
    /// Cuts the socket off, since its client reads too slowly.
    TooSlow,
    /// Cuts the socket off, since joins are refused because of the first frames that its client reads too slowly.
    MakeRoom,
    /// Cuts the socket off, since its client was slowed down for longer than `rate_patience`. The value names what it sends too much of.
    TooFast(&'static str),
    /// An event for the consumer.
    Event(Arc<Event>),
    /// The consumer accepted or refused the socket.
    Decided(Decision),
    /// The consumer closes the socket.
    CloseByConsumer { code: CloseCode, reason: String },
    /// The client is no longer read, because it closed, broke the protocol, or is lost.
    ReadingEnded,
    /// The consumer failed.
    ConsumerFailed,
    /// The consumer has ended.
    ConsumerDone,
    /// All frames in the outbox, a Close last, are written.
    Flushed,
    /// The server dropped the body of the response.
    BodyGone,
}
