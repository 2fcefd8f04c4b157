//! What is to change in rooms, and what a transaction changed.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{self, AtomicI64},
    },
    time::Duration,
};

use crate::{
    model::{Delta, Meta, Presence, Turns},
    name::{ChannelName, Epoch, PresenceId, RoomName, UserId, Version},
};

use super::Session;
#[cfg(doc)]
use super::{RoomStore, Store};

/// One change of one presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds the presence. If its id is there already under this channel, it becomes this node's and is no longer held; its
    /// user and meta become those given here. Under another channel it was resumed by another socket: it stays as it is, and
    /// [`RoomCommit::taken`] says so.
    Join(Arc<Presence>),
    /// As `Join`, for a presence whose client can resume it. One that was resumed as another presence is not added.
    Restore {
        /// The presence.
        presence: Arc<Presence>,
        /// By what it can be resumed.
        session: Session,
    },
    /// A socket comes with a resume token. If a presence of the room has it, held or not and on whichever node, that becomes
    /// this node's, under this channel, and is no longer held; its id, user and meta stay. [`RoomCommit::taken`] says which it
    /// is. If there is none, the presence is added.
    ///
    /// In a commit this comes after the leaves, holds and updates of the room.
    Resume {
        /// The presence as it is if there is none to take over.
        presence: Arc<Presence>,
        /// By what it can be resumed, now and again.
        session: Session,
    },
    /// As `Join`, or with a session as `Resume`; but one that would be added is refused if the room has `limit` presences by
    /// then, those that are held included. Nothing is written of it then, and [`RoomCommit::refused`] names it.
    ///
    /// In a commit this comes after all other changes of the room, and several of these in the order of their ids.
    JoinWithin {
        /// The presence as it is if there is none to take over.
        presence: Arc<Presence>,
        /// By what it can be resumed.
        session: Option<Session>,
        /// How many presences the room may have with it.
        limit: usize,
    },
    /// The socket is lost: keeps the presence, if it is there under this channel, for its grace from now. It counts as seen
    /// now.
    Hold {
        /// Which presence.
        id: PresenceId,
        /// The channel it must have. One that was resumed has another, and is not held.
        channel: ChannelName,
        /// For how long.
        grace: Duration,
    },
    /// Removes the presence if it is there under this channel.
    Leave {
        /// Which presence.
        id: PresenceId,
        /// The channel it must have. One that was resumed has another, and stays.
        channel: ChannelName,
    },
    /// Changes the presence if it is there under this channel.
    Update {
        /// Which presence.
        id: PresenceId,
        /// The channel it must have.
        channel: ChannelName,
        /// Whose it is now, `Some(None)` for nobody's; `None` leaves it as it is. A presence that is given a user, also the one
        /// that it has, can no longer be resumed.
        user: Option<Option<UserId>>,
        /// The new meta; `None` leaves it as it is.
        meta: Option<Meta>,
    },
}

impl Write {
    /// Which presence it is about.
    #[must_use]
    pub fn id(&self) -> PresenceId {
        match self {
            Self::Join(presence)
            | Self::Restore { presence, .. }
            | Self::Resume { presence, .. }
            | Self::JoinWithin { presence, .. } => presence.id,
            Self::Leave { id, .. } | Self::Update { id, .. } | Self::Hold { id, .. } => *id,
        }
    }

    /// By what the presence can be resumed that it adds.
    pub(crate) const fn session(&self) -> Option<&Session> {
        match self {
            Self::Restore { session, .. }
            | Self::Resume { session, .. }
            | Self::JoinWithin { session: Some(session), .. } => Some(session),
            _ => None,
        }
    }

    /// Whether it depends on how many are in the room.
    #[cfg(feature = "sql")]
    pub(crate) const fn is_limited(&self) -> bool {
        matches!(self, Self::JoinWithin { .. })
    }
}

/// What one try of a [`commit`](RoomStore::commit) is known by, in case that its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt(pub(super) i64);

impl Attempt {
    /// One that this process has not had before. A node is of one process, so it has none of its attempts twice.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicI64 = AtomicI64::new(0);
        Self(LAST.fetch_add(1, atomic::Ordering::Relaxed) + 1)
    }
}

/// What is to change in one room. A commit names each room, and each presence, at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomWrites {
    /// The room.
    pub room: RoomName,
    /// The changes; their order does not matter, since no two are about the same presence.
    pub writes: Vec<Write>,
}

/// The changes of one commit. Clones share them, so that a store hands them on without a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes(Arc<Vec<RoomWrites>>);

impl Changes {
    /// The changes themselves; a copy of them only if a clone is still there.
    pub(crate) fn into_vec(self) -> Vec<RoomWrites> {
        Arc::unwrap_or_clone(self.0)
    }
}

impl Deref for Changes {
    type Target = [RoomWrites];

    fn deref(&self) -> &[RoomWrites] {
        &self.0
    }
}

impl From<Vec<RoomWrites>> for Changes {
    fn from(rooms: Vec<RoomWrites>) -> Self {
        Self(Arc::new(rooms))
    }
}

impl<const N: usize> From<[RoomWrites; N]> for Changes {
    fn from(rooms: [RoomWrites; N]) -> Self {
        Vec::from(rooms).into()
    }
}

impl FromIterator<RoomWrites> for Changes {
    fn from_iter<I: IntoIterator<Item = RoomWrites>>(rooms: I) -> Self {
        rooms.into_iter().collect::<Vec<_>>().into()
    }
}

/// Where a room stands after a transaction, and what that transaction changed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomCommit {
    /// The room.
    pub room: RoomName,
    /// Its life.
    pub epoch: Epoch,
    /// Its version now. One more than before if this [took a version](Self::is_new_version), else as before.
    pub version: Version,
    /// What really changed.
    pub delta: Delta,
    /// The presences that were resumed, by these writes or before them. Others are told nothing of that.
    pub taken: Vec<Taken>,
    /// The presences that were not added, since the room had as many as their [joins](Write::JoinWithin) allow.
    pub refused: Vec<PresenceId>,
    /// The users whose first presence came, or whose last one went, as of this very version. Empty before
    /// [`count_turns`](Store::count_turns).
    pub turns: Turns,
}

impl RoomCommit {
    /// What changed in a room, if nobody resumed, came online or went offline.
    #[must_use]
    pub fn new(room: RoomName, epoch: Epoch, version: Version, delta: Delta) -> Self {
        Self { room, epoch, version, delta, taken: Vec::new(), refused: Vec::new(), turns: Turns::default() }
    }

    /// Whether the room has another version than before: somebody came, went or changed, or a presence was taken from a live
    /// socket of another node, which finds out by that.
    #[must_use]
    pub fn is_new_version(&self) -> bool {
        !self.delta.is_empty() || self.taken.iter().any(|taken| taken.moved)
    }
}

/// A presence that belongs to who resumed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The presence that the write named.
    pub asked: PresenceId,
    /// The presence that it came to, as it is now. If its channel is not that of the write, it is another's, and the write did
    /// nothing.
    pub presence: Arc<Presence>,
    /// It was taken from a socket of another node that was not known to be lost.
    pub moved: bool,
}

/// What a call that works in batches did in this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The rooms that changed.
    pub commits: Vec<RoomCommit>,
    /// How many presences this batch handled, those included whose room did not change (they were held).
    pub handled: u64,
    /// Whether there may be more: the limit was reached, or the number of rooms that one transaction changes, 512.
    pub more: bool,
}

/// What becomes of the presences of a life that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// All are held: the node itself has started again, and its clients are about to return. Those with a resume token for the
    /// grace they joined with, the others for this one.
    HoldAll(Duration),
    /// Those with a resume token are held for the grace they joined with, or for this one if that is not known; the others are
    /// removed.
    HoldResumable(Duration),
}
