//! What a store says of everything it holds, for those who look after it.

use std::{cmp::Ordering, process, sync::LazyLock, time::Duration};

use crate::name::{Epoch, NodeId, NodeName, RoomName, Version};

/// A room, and how many are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomSummary {
    /// The room.
    pub room: RoomName,
    /// Its life.
    pub epoch: Epoch,
    /// The position in its changes.
    pub version: Version,
    /// Distinct users.
    pub users: u64,
    /// Anonymous sockets.
    pub anonymous: u64,
    /// Presences of users and anonymous sockets together.
    pub presences: u64,
    /// Those of the presences whose socket is lost, and which are kept for their grace.
    pub held: u64,
}

/// One life of a node. Times are as of the listing, by the clock of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeSummary {
    /// The life.
    pub node: NodeId,
    /// The name that it has, or had until a later life took it.
    pub name: NodeName,
    /// The process that began it, as `pid PID on HOST`. `None` if a version of this crate did that which did not say.
    pub process: Option<String>,
    /// How long ago it began.
    pub age: Duration,
    /// Whether it is believed.
    pub state: NodeState,
    /// How many presences are its own, held ones included.
    pub presences: u64,
    /// Those of the presences that are held.
    pub held: u64,
}

impl NodeSummary {
    pub(super) fn in_order(&self, other: &Self) -> Ordering {
        // Ids are made in the order of time.
        (&self.name, self.node).cmp(&(&other.name, other.node))
    }
}

/// Whether a life of a node is believed, as of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It has a lease.
    Live {
        /// For so long, unless it is renewed.
        left: Duration,
    },
    /// Its lease ran out, but nobody fenced it yet: it may still renew it and keep everything.
    Expired {
        /// So long ago.
        since: Duration,
    },
    /// It is over. It is listed until it is forgotten.
    Fenced {
        /// Since so long ago.
        since: Duration,
        /// Because a later life took its name.
        superseded: bool,
    },
}

impl NodeState {
    /// By the moments of the database, in milliseconds.
    pub(super) fn at(now: i64, lease_until: i64, fenced_at: Option<i64>, superseded: bool) -> Self {
        match fenced_at {
            Some(at) => Self::Fenced { since: between(at, now), superseded },
            None if lease_until < now => Self::Expired { since: between(lease_until, now) },
            None => Self::Live { left: between(now, lease_until) },
        }
    }
}

/// The time from one moment of the database to another; zero if the database's clock was set back in between.
pub(super) fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

/// By which process number, on which machine, an operator finds this process.
pub(super) fn this_process() -> &'static str {
    static THIS: LazyLock<String> =
        LazyLock::new(|| format!("pid {} on {}", process::id(), gethostname::gethostname().to_string_lossy()));
    &THIS
}
