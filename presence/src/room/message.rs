//! What is said to a room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::Message;
use tokio::sync::oneshot;

use crate::{
    clock::Tick,
    delivery::{
        event::Event,
        inquiry::Silent,
        message::{HubRef, Pressure, Reply, Report},
        touch::Touch,
        wire::Frames,
    },
    model::{Close, Meta, Presence, replica::LoadedRoom, roster::Roster},
    name::{ChannelName, Epoch, PresenceId, UserId, Version},
    session::Session,
    store::{RoomCommit, StoreError},
};

use super::leaving::Farewell;

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
    /// These were asked whether they are silent: remove those of them that are.
    Silent(Silent),
    /// A child is gone that should not be.
    ChildDied(PresenceId),
    /// The room changed by another hand: a sweep, or another node.
    Changed(RoomCommit),
    /// The database was read: in the reading with this number.
    Loaded(u64, Result<Option<LoadedRoom>, StoreError>),
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
    PanicAt(Point),
    /// Make the child of this presence fail.
    #[cfg(any(test, feature = "testing"))]
    PanicChild(PresenceId),
}

impl ToRoom {
    /// Whether it is about presences of this node, so that it has to wait while those are being found out.
    pub(crate) const fn is_about_ours(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Leave { .. } | Self::Lose { .. } | Self::Update { .. })
            || matches!(self, Self::Prune { .. } | Self::Silent(_) | Self::Remove { .. } | Self::RemoveOne { .. })
            || matches!(self, Self::HoldAll | Self::LeaveSocketless | Self::Rejoin)
    }
}

/// Where the handling of a commit can be made to fail.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Answer,
    Apply,
}
