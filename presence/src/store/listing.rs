//! Summaries of the content of a store, for operators.

use std::{cmp::Ordering, process, sync::LazyLock, time::Duration};

use crate::name::{Epoch, NodeId, NodeName, RoomName, Version};

/// A room and its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomSummary {
    /// The room.
    pub room: RoomName,
    /// Its epoch.
    pub epoch: Epoch,
    /// The position in its changes.
    pub version: Version,
    /// Distinct users.
    pub users: u64,
    /// Anonymous sockets.
    pub anonymous: u64,
    /// Presences of users and anonymous sockets together.
    pub presences: u64,
    /// Those of the presences that are held.
    pub held: u64,
}

/// One incarnation of a node. Times are by the clock of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeSummary {
    /// The incarnation.
    pub node: NodeId,
    /// Its name, or the name that a later incarnation took from it.
    pub name: NodeName,
    /// The process that began it, as `pid PID on HOST`. `None` if an early version of this crate began it.
    pub process: Option<String>,
    /// How long ago it began.
    pub age: Duration,
    /// Whether other nodes consider it alive.
    pub state: NodeState,
    /// How many presences it has, held ones included.
    pub presences: u64,
    /// Those of the presences that are held.
    pub held: u64,
}

/// An incarnation that is not fenced. Times are by the clock of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveNode {
    /// The incarnation.
    pub node: NodeId,
    /// Its name.
    pub name: NodeName,
    /// The process that began it, as `pid PID on HOST`. `None` if an early version of this crate began it.
    pub process: Option<String>,
    /// How long ago it began.
    pub age: Duration,
    /// [`NodeState::Live`], or [`NodeState::Expired`] if its lease has expired.
    pub state: NodeState,
}

impl LiveNode {
    pub(super) fn in_order(&self, other: &Self) -> Ordering {
        (&self.name, self.node).cmp(&(&other.name, other.node))
    }
}

impl NodeSummary {
    pub(super) fn in_order(&self, other: &Self) -> Ordering {
        // Later incarnations have larger ids.
        (&self.name, self.node).cmp(&(&other.name, other.node))
    }
}

/// Whether other nodes consider an incarnation alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It has a lease.
    Live {
        /// When the lease expires, unless it is renewed.
        left: Duration,
    },
    /// Its lease has expired, but it is not fenced yet: it may still renew the lease and keep its presences.
    Expired {
        /// How long ago the lease expired.
        since: Duration,
    },
    /// It is fenced. It is listed until it is forgotten.
    Fenced {
        /// How long ago it was fenced.
        since: Duration,
        /// Whether a later incarnation took its name.
        superseded: bool,
    },
}

impl NodeState {
    /// All times are of the database, in milliseconds.
    pub(super) fn at(now: i64, lease_until: i64, fenced_at: Option<i64>, superseded: bool) -> Self {
        match fenced_at {
            Some(at) => Self::Fenced { since: between(at, now), superseded },
            None if lease_until < now => Self::Expired { since: between(lease_until, now) },
            None => Self::Live { left: between(now, lease_until) },
        }
    }
}

/// The time between two moments of the database. Zero if its clock was set back in between.
pub(super) fn between(from: i64, to: i64) -> Duration {
    Duration::from_millis(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

/// The process id and the machine, by which an operator finds this process.
pub(super) fn this_process() -> &'static str {
    static THIS: LazyLock<String> =
        LazyLock::new(|| format!("pid {} on {}", process::id(), gethostname::gethostname().to_string_lossy()));
    &THIS
}
