//! What a sweep would find, and which part of it is for which node.

use std::{sync::Arc, time::Duration};

use crate::{
    model::cleaner,
    name::{Epoch, NodeId},
};

use super::LiveNode;
#[cfg(doc)]
use super::{NodeStore, RequestStore, RoomStore};

/// What there is to clean up, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// As [`live_nodes`](NodeStore::live_nodes).
    pub live: Vec<LiveNode>,
    /// Whether [`fence`](NodeStore::fence) would fence, forget or return an incarnation.
    pub has_dead: bool,
    /// Whether a presence is held whose grace has expired.
    pub has_expired_graces: bool,
    /// Whether there are requests to the asking node that it has not answered. Those of a node without a lease count, although
    /// [`open_requests`](RequestStore::open_requests) leaves them out.
    pub has_requests: bool,
}

/// The rooms that one of several nodes [sweeps](RoomStore::sweep) at once. The others leave them to it for a while.
#[derive(Debug, Clone)]
pub struct SweepShare {
    others: Arc<[NodeId]>,
    delay: Duration,
}

impl SweepShare {
    /// The share of a node beside these `others`, which sweep as well. Each room is in the share of exactly one of them. A presence in a room
    /// of another node's share is left to that node for `delay` after its grace.
    #[must_use]
    pub fn beside(others: impl Into<Arc<[NodeId]>>, delay: Duration) -> Self {
        Self { others: others.into(), delay }
    }

    /// All rooms.
    #[must_use]
    pub fn whole() -> Self {
        Self::beside([], Duration::ZERO)
    }

    /// Whether this is the share of a node that sweeps alone.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.others.is_empty()
    }

    /// Whether the room is in the share of `node`.
    #[must_use]
    pub fn has(&self, node: NodeId, room: Epoch) -> bool {
        cleaner::is_chosen(node, &self.others, room.as_uuid())
    }

    /// For how long after its grace a presence in another node's share is left to that node.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.delay
    }
}
