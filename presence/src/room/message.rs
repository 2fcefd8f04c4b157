//! The messages that a room receives.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use actix::Message;
use tokio::sync::oneshot;

use crate::{
    clock::Tick,
    delivery::{Event, HubMembers, HubRef, Pressure, Reply, SilenceResult, Touch, wire::Frames},
    model::{Close, Meta, Presence, replica::LoadedRoom},
    name::{ChannelName, Epoch, PresenceId, UserId, Version},
    session::Session,
    store::{RoomCommit, StoreError},
};

use super::{following::Follower, leaving::Farewell, loading::Missed, reader::RosterReader};

/// A message to a room that was found in the table. The room does not stop before this has arrived.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RoomEnvelope {
    pub(crate) message: ToRoom,
    pub(crate) in_flight: InFlight,
}

/// Counts one message that was sent to a room, until this is dropped.
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A channel that joins a room, with all that the join needs. It is passed on as one value, from the channel to the room's list of
/// pending joins.
#[derive(Debug, Clone)]
pub(crate) struct Entrant {
    /// The presence as which it joins.
    pub(crate) presence: Arc<Presence>,
    /// The token with which its presence can be resumed. If a presence has this token already, the channel resumes that one.
    pub(crate) session: Option<Session>,
    /// How many presences the room may have, this one included. A join that resumes a presence is not limited.
    pub(crate) limit: Option<usize>,
    /// The hub of its socket; `None` for a presence without a socket.
    pub(crate) hub: Option<HubRef>,
    pub(crate) touch: Touch,
}

/// What identifies one presence of a room.
#[derive(Debug, Clone)]
pub(crate) enum PresenceKey {
    Id(PresenceId),
    Channel(ChannelName),
}

impl PresenceKey {
    pub(crate) fn matches(&self, id: PresenceId, channel: &ChannelName) -> bool {
        match self {
            Self::Id(this) => *this == id,
            Self::Channel(this) => this == channel,
        }
    }
}

/// A message to a room.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) enum ToRoom {
    /// A socket joins. Answered when its first frame is sent, or at once if it is in the room already.
    Join {
        entrant: Entrant,
        /// Its channel was in the room already when this was sent.
        was_in_room: bool,
        reply: Reply<()>,
    },
    /// A socket leaves. With a farewell, it was removed by the application. Answered when the leave is durable.
    Leave { id: PresenceId, channel: ChannelName, farewell: Option<Farewell>, reply: Option<Reply<()>> },
    /// A socket is lost: its presence is held for its grace if it can be resumed, and leaves if not.
    Lose { id: PresenceId, channel: ChannelName },
    /// The node is about to end: write that each presence that can be resumed is held from now on.
    HoldAll,
    /// The node is about to end and its sockets are closed: presences without a socket leave.
    LeaveSocketless,
    /// Changes the meta of a presence. Without a reply the caller cannot repeat it, so it is queued even if too many changes wait.
    /// `fallback` is an earlier meta whose update was answered with success: it is written if this one is refused.
    Update { id: PresenceId, channel: ChannelName, meta: Meta, fallback: Option<Meta>, reply: Option<Reply<()>> },
    /// A frame for everyone in the room, or for all but one.
    Send { frames: Frames, except: Option<ChannelName>, pressure: Pressure },
    /// An event for the consumers of all members.
    Event(Arc<Event>),
    /// Read the roster, once it is known.
    Read(Box<dyn RosterReader>),
    /// Send the follower the roster, once it is known, and all changes after that.
    Follow(Follower),
    /// Remove the presences of this node that were last seen longer ago than this.
    Prune { max_age: std::time::Duration, reply: oneshot::Sender<usize> },
    /// Remove the presences of this node: those of this user, or all.
    Remove { user: Option<UserId>, close: Option<Close>, reply: oneshot::Sender<usize> },
    /// Remove one presence of this node, and count it if it is there. Answered when its leave is durable.
    RemoveOne { key: PresenceKey, close: Option<Close>, count: Arc<AtomicUsize>, reply: Reply<()> },
    /// The deadline of this presence has passed.
    Stale(PresenceId),
    /// Connections have reported which of their presences are silent: remove those.
    SilenceResult(SilenceResult),
    /// The task that watches this presence has panicked.
    ChildDied(PresenceId),
    /// A sweep, or another node, has changed the room.
    Changed(RoomCommit),
    /// The reading with this number has ended, with this result.
    Loaded(u64, Result<Option<LoadedRoom>, StoreError>),
    /// The reading with this number has ended. It was one of the changes that the room misses.
    Missed(u64, Missed),
    /// The position of the room in the database, from a query that was sent at `queried` or later; `None`: there was no such room.
    Position { position: Option<(Epoch, Version)>, queried: Tick },
    /// The database has lost changes, and had the room at `position` afterwards. If the room `may_differ`, then it may have other changes now
    /// under a version that it had before.
    WentBack { position: Option<(Epoch, Version)>, may_differ: bool },
    /// This node has begun a new incarnation: write its presences as those of this incarnation.
    Rejoin,
    /// A hub reports its members of this room, which has failed.
    Report(HubMembers),
    /// The shutdown of the node is over: stop.
    End,
    /// The timer has fired: do what is due.
    Tick,
    /// The node is about to end: have the writer write when each presence of this node was last seen. Then do what is due.
    WriteTouches,
    /// Panic, so that a test can show that no other message is lost.
    #[cfg(any(test, feature = "testing"))]
    Panic,
    /// Panic while the model changes, so that the model cannot be trusted.
    #[cfg(test)]
    PanicInModel,
    /// Panic at this point of the next commit.
    #[cfg(test)]
    PanicAt(FaultPoint),
    /// Make the task that watches this presence panic.
    #[cfg(any(test, feature = "testing"))]
    PanicChild(PresenceId),
}

impl ToRoom {
    /// Whether it is about presences of this node. While a room that has failed does not know them yet, such a message is deferred.
    pub(crate) const fn concerns_own_presences(&self) -> bool {
        matches!(self, Self::Join { .. } | Self::Leave { .. } | Self::Lose { .. } | Self::Update { .. })
            || matches!(
                self,
                Self::Prune { .. } | Self::SilenceResult(_) | Self::Remove { .. } | Self::RemoveOne { .. }
            )
            || matches!(self, Self::HoldAll | Self::LeaveSocketless | Self::Rejoin)
    }
}

/// The points at which a test can make the handling of a commit panic.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FaultPoint {
    Answer,
    Apply,
}
