//! Requests between nodes, which the database carries: each node applies them to its own presences.

use std::{cmp::Ordering, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Close, Presence},
    name::{ChannelName, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId},
};

use super::StoreError;

/// A request to other nodes. Each of them applies it to its own presences.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The id of the request.
    pub id: RequestId,
    /// What the nodes should do.
    pub order: Order,
}

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Remove the presences that the node last saw longer ago than `max_age`, by its own clock.
    Prune {
        /// The age above which a presence is stale.
        max_age: Duration,
    },
    /// Remove presences.
    Remove(Removal),
}

impl Order {
    /// The presences that it names. `None` if it may be for any presence.
    pub(super) const fn target(&self) -> Option<&RemovalTarget> {
        match self {
            Self::Prune { .. } => None,
            Self::Remove(removal) => Some(&removal.target),
        }
    }
}

/// Which presences to remove, and what happens to their sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Removal {
    /// Which presences to remove.
    pub target: RemovalTarget,
    /// How their sockets are closed. With `None` they stay open, and their consumers are called.
    pub close: Option<Close>,
}

/// The presences that a [`Removal`] is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalTarget {
    /// All presences of this room.
    Room(RoomName),
    /// All presences of this user.
    User(UserId),
    /// The presences of this user in one room.
    UserIn {
        /// The user.
        user: UserId,
        /// The room.
        room: RoomName,
    },
    /// The presences of this channel.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// Only in this room. `None` for all rooms.
        room: Option<RoomName>,
    },
    /// One presence.
    Presence {
        /// Its room.
        room: RoomName,
        /// Its id.
        id: PresenceId,
    },
}

impl RemovalTarget {
    /// Whether a presence in this room is one of them.
    pub(super) fn has(&self, of: &RoomName, presence: &Presence) -> bool {
        match self {
            Self::Room(room) => of == room,
            Self::User(user) => presence.user.as_ref() == Some(user),
            Self::UserIn { user, room } => presence.user.as_ref() == Some(user) && of == room,
            Self::Channel { channel, room } => {
                presence.channel == *channel && room.as_ref().is_none_or(|room| of == room)
            }
            Self::Presence { room, id } => presence.id == *id && of == room,
        }
    }
}

/// A presence that a removal has not removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remaining {
    /// Its room.
    pub room: RoomName,
    /// Its id.
    pub id: PresenceId,
    /// The incarnation of the node to which it belongs now.
    pub node: NodeId,
}

/// The answer of one node to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The incarnation of the node.
    pub node: NodeId,
    /// Its name when the request was sent.
    pub name: NodeName,
    /// How many presences it removed. `None` if it has not answered yet.
    pub removed: Option<u64>,
}

impl Answer {
    pub(super) fn in_order(&self, other: &Self) -> Ordering {
        (&self.name, self.node).cmp(&(&other.name, other.node))
    }
}

/// The part of a [`Store`](super::Store) that carries requests between nodes.
#[async_trait]
pub trait RequestStore {
    /// Sends the request to every other live node that has a presence for which it is, and returns the time of the database since 1970. A
    /// request to prune is for all presences, and so is the removal of a channel from all rooms. Held presences count, since their clients
    /// could still resume them on that node. Sending a request again under the same id sends it to nodes that have such a presence since, and
    /// to no node twice.
    ///
    /// The request ends when it is [withdrawn](Self::withdraw), or with the incarnation that sent it. Then no node sees it any
    /// more, and its answers are forgotten. So an abandoned request does no harm.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn send_request(&self, node: NodeId, request: Request) -> Result<Duration, StoreError>;

    /// Up to `limit` presences of the target that joined before this time of the database, in no particular order, also those that are held.
    /// A presence that was resumed on another node has joined when it first did. The presences of a channel in all rooms are found by reading
    /// all presences, the others by an index.
    async fn remaining(
        &self,
        target: RemovalTarget,
        joined_before: Duration,
        limit: u64,
    ) -> Result<Vec<Remaining>, StoreError>;

    /// The requests to `node` that it has not answered, the oldest first. Requests of nodes without a lease are left out, and
    /// so are orders that this version does not know.
    async fn open_requests(&self, node: NodeId) -> Result<Vec<Request>, StoreError>;

    /// Answers a request with the number of presences that `node` removed. The first answer counts. An answer to a request
    /// that has ended, or that was not sent to this node, has no effect.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError>;

    /// All nodes to which the request was sent, with their answers, sorted by the bytes of their names. An answer stays when
    /// its node ends.
    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError>;

    /// Ends a request of `node` and forgets its answers. It has no effect if the request has ended already.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError>;
}
