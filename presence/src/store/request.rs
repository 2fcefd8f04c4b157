//! Requests between nodes, which the database carries: each node applies them to its own presences.

use std::{cmp::Ordering, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    model::Close,
    name::{ChannelName, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId},
};

use super::StoreError;

/// A request to all other nodes. Each of them applies it to its own presences.
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
    /// Sends the request to every other live node that has a presence. Held presences count, since their clients could still
    /// resume them on that node. Sending a request again under the same id sends it to nodes that were started in the meantime,
    /// and to no node twice.
    ///
    /// The request ends when it is [withdrawn](Self::withdraw), or with the incarnation that sent it. Then no node sees it any
    /// more, and its answers are forgotten. So an abandoned request does no harm.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn send_request(&self, node: NodeId, request: Request) -> Result<(), StoreError>;

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
