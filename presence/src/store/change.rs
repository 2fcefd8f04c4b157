//! The changes that a commit makes, and what it changed.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{self, AtomicI64},
    },
    time::Duration,
};

use crate::{
    model::{Delta, Meta, OnlineChanges, Presence},
    name::{ChannelName, Epoch, PresenceId, RoomName, UserId, Version},
};

use super::Session;
#[cfg(doc)]
use super::{RoomStore, Store, StoreError};

/// One change of one presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds the presence. If the presence exists under this channel, it becomes this node's, is no longer held, and gets the
    /// user and meta given here. If it exists under another channel, another socket has resumed it: it stays as it is, and is
    /// listed in [`RoomCommit::resumed`].
    Join(Arc<Presence>),
    /// As `Join`, for a presence that can be resumed. If its token already belongs to another presence, it is not added.
    Restore {
        /// The presence.
        presence: Arc<Presence>,
        /// The token by which it can be resumed, and its grace.
        session: Session,
    },
    /// A socket joins with a resume token. If a presence of the room has this token, that presence becomes this node's under
    /// this channel, whether it is held or not and on whichever node. It is no longer held; its id, user and meta stay, and
    /// [`RoomCommit::resumed`] lists it. If no presence has the token, the given one is added.
    ///
    /// It takes effect after the leaves, holds and updates of the room in the same commit.
    Resume {
        /// The presence to add if there is none to resume.
        presence: Arc<Presence>,
        /// The token of the client, and the grace of the presence.
        session: Session,
    },
    /// As `Join`, or with a session as `Resume`. But the presence is not added if the room already has `limit` presences,
    /// held ones included. Then [`RoomCommit::refused`] names it.
    ///
    /// It takes effect after all other changes of the room in the same commit, and several of them in the order of their ids.
    JoinWithin {
        /// The presence to add if there is none to resume.
        presence: Arc<Presence>,
        /// The token by which it can be resumed, and its grace.
        session: Option<Session>,
        /// How many presences the room may have with it.
        limit: usize,
    },
    /// Holds the presence of a lost socket for its grace from now, if it exists under this channel. It counts as seen now.
    Hold {
        /// Which presence.
        id: PresenceId,
        /// The channel that the presence must have. A resumed presence has another one, and is not held; [`RoomCommit::resumed`] has
        /// it then.
        channel: ChannelName,
        /// How long it is held.
        grace: Duration,
    },
    /// Removes the presence if it exists under this channel.
    Leave {
        /// Which presence.
        id: PresenceId,
        /// The channel that the presence must have. A resumed presence has another one, and stays.
        channel: ChannelName,
    },
    /// Changes the presence if it exists under this channel.
    Update {
        /// Which presence.
        id: PresenceId,
        /// The channel that the presence must have. A resumed presence has another one, and is not changed;
        /// [`RoomCommit::resumed`] has it then.
        channel: ChannelName,
        /// The new user; `Some(None)` makes the presence anonymous, and `None` keeps the user. A presence whose user is set,
        /// even to the same one, can no longer be resumed.
        user: Option<Option<UserId>>,
        /// The new meta. `None` keeps the meta.
        meta: Option<Meta>,
    },
}

impl Write {
    /// The id of the presence.
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

    /// The session of the presence that this write adds.
    pub(crate) const fn session(&self) -> Option<&Session> {
        match self {
            Self::Restore { session, .. }
            | Self::Resume { session, .. }
            | Self::JoinWithin { session: Some(session), .. } => Some(session),
            _ => None,
        }
    }

    /// Whether this write depends on the size of the room.
    #[cfg(feature = "sql")]
    pub(crate) const fn is_limited(&self) -> bool {
        matches!(self, Self::JoinWithin { .. })
    }
}

/// One attempt of a [`commit`](RoomStore::commit): its number, in case its answer is lost, its lane, and how long it waits for locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    number: i64,
    lane: u16,
    patience: Option<Duration>,
}

impl Attempt {
    /// An attempt in lane 0 that waits for locks as long as the store is set to. It has a number that this process has not used before.
    /// Since a node is one process, all attempts of a node differ.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicI64 = AtomicI64::new(0);
        Self { number: LAST.fetch_add(1, atomic::Ordering::Relaxed) + 1, lane: 0, patience: None }
    }

    /// The same attempt in another lane, one of those that [`allow_lanes`](Store::allow_lanes) allowed.
    #[must_use]
    pub const fn in_lane(self, lane: u16) -> Self {
        Self { lane, ..self }
    }

    /// The same attempt, which waits for locks for this long. Then it fails as [`StoreError::Busy`], if the store can tell which rooms are
    /// locked.
    #[must_use]
    pub const fn with_patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// What identifies the attempt among those of its node.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.number
    }

    /// The lane in which the node makes the commit.
    #[must_use]
    pub const fn lane(self) -> u16 {
        self.lane
    }

    /// How long the commit waits for locks. `None`: as long as the store is set to.
    #[must_use]
    pub const fn patience(self) -> Option<Duration> {
        self.patience
    }
}

/// The changes of one room. A commit names each room and each presence at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomWrites {
    /// The room.
    pub room: RoomName,
    /// The changes. Their order does not matter, since each is about another presence.
    pub writes: Vec<Write>,
}

/// The changes of one commit. Clones share them, so that a store can pass them on without a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes(Arc<Vec<RoomWrites>>);

impl Changes {
    /// The changes. They are copied only if another clone exists.
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

/// The position of a room after a transaction, and what the transaction changed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomCommit {
    /// The room.
    pub room: RoomName,
    /// The epoch of the room.
    pub epoch: Epoch,
    /// The version after the transaction: [a new one](Self::is_new_version), or the one before.
    pub version: Version,
    /// What changed.
    pub delta: Delta,
    /// The presences that these writes resumed, and those that a write named and another socket had resumed before. Members are not
    /// notified of a resume.
    pub resumed: Vec<Resumed>,
    /// The presences that were not added, because the room had as many as their [joins](Write::JoinWithin) allow.
    pub refused: Vec<PresenceId>,
    /// The users who went online or offline with this version. Empty before [`track_online`](Store::track_online).
    pub online_changes: OnlineChanges,
}

impl RoomCommit {
    /// A commit in which no presence was resumed, and no user went online or offline.
    #[must_use]
    pub fn new(room: RoomName, epoch: Epoch, version: Version, delta: Delta) -> Self {
        Self {
            room,
            epoch,
            version,
            delta,
            resumed: Vec::new(),
            refused: Vec::new(),
            online_changes: OnlineChanges::default(),
        }
    }

    /// Whether the transaction gave the room a new version: a presence joined, left or changed, or belongs to another node now.
    #[must_use]
    pub fn is_new_version(&self) -> bool {
        !self.delta.is_empty()
    }
}

/// A presence that a socket resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// The presence that the write named.
    pub requested: PresenceId,
    /// The presence that the socket has, as it is now. If its channel is not the one of the write, another socket has it, and
    /// the write had no effect.
    pub presence: Arc<Presence>,
}

/// What one batch of a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The rooms that changed.
    pub commits: Vec<RoomCommit>,
    /// How many presences the batch removed or held.
    pub handled: u64,
    /// Whether there may be more: the batch reached its limit, or 512 rooms, which is the most for one transaction.
    pub more: bool,
}

/// What [`clear`](super::NodeStore::clear) does with the presences of a fenced incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearMode {
    /// Holds all of them, which then count as seen now, because the node has restarted and its clients are about to return: presences with a resume token
    /// for the grace that they joined with, the others for this time.
    HoldAll(Duration),
    /// Holds presences with a resume token, for the grace that they joined with, or for this time if that is not known. They count as seen now.
    /// Removes the others.
    HoldResumable(Duration),
}
