//! What nodes ask each other to do by way of the database, each with the presences that it answers for itself.

use std::{cmp::Ordering, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    model::Close,
    name::{ChannelName, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId},
};

use super::StoreError;

/// What a node asks the others to do, each with the presences that it answers for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which request.
    pub id: RequestId,
    /// What is to be done.
    pub order: Order,
}

/// What nodes may be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Remove the presences that it last saw longer ago than this, by its own clock.
    Prune {
        /// The age that is too old.
        max_age: Duration,
    },
    /// Remove presences.
    Remove(Removal),
}

/// Who is to be removed, and what becomes of their sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Removal {
    /// Who.
    pub whom: Whom,
    /// How their sockets are closed; `None`: they stay open, and their consumers are told.
    pub close: Option<Close>,
}

/// Whom a [`Removal`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// Everyone in this room.
    Room(RoomName),
    /// This user, in whichever rooms.
    User(UserId),
    /// This user, in one room.
    UserIn {
        /// The user.
        user: UserId,
        /// The room.
        room: RoomName,
    },
    /// This channel.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// In this room; `None`: in whichever rooms.
        room: Option<RoomName>,
    },
    /// One presence.
    Presence {
        /// Its room.
        room: RoomName,
        /// Which one.
        id: PresenceId,
    },
}

/// One node that was asked to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its life.
    pub node: NodeId,
    /// Its name when it was asked.
    pub name: NodeName,
    /// How many presences it removed; `None`: it has not answered yet.
    pub removed: Option<u64>,
}

impl Answer {
    pub(super) fn in_order(&self, other: &Self) -> Ordering {
        (&self.name, self.node).cmp(&(&other.name, other.node))
    }
}

/// The part of a [`Store`](super::Store) by which nodes ask each other to do something.
#[async_trait]
pub trait RequestStore {
    /// Asks every other live node that has a presence to do something with its own. One that is held counts: by its token
    /// it could be taken back on that node, which has to forget it. Asking again under the same id also asks those that came
    /// to life in the meantime, and nobody twice.
    ///
    /// The request ends when it is [withdrawn](Self::withdraw), or with the life of the one who asks: its nodes are then no
    /// longer asked, and their answers are forgotten with it. So one that is abandoned does no harm.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn ask(&self, node: NodeId, request: Request) -> Result<(), StoreError>;

    /// What `node` is asked and has not answered, the oldest request first. The requests of one whose lease ran out are left
    /// out, and orders that this version does not know.
    async fn asked(&self, node: NodeId) -> Result<Vec<Request>, StoreError>;

    /// Says how many presences `node` removed when it was asked. The first answer counts; one to a request that has ended, or
    /// that did not ask this node, is nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that answers is over.
    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError>;

    /// Whom the request asked, and what they answered, sorted by the bytes of their names. An answer stays when the node that
    /// gave it ends.
    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError>;

    /// Ends a request of `node`: nobody is asked any more, and the answers are forgotten. One that has ended: nothing happens.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError>;
}
