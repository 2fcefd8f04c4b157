//! Which of its own presences a node supervises, restores, or removes from the room.
//!
//! A roster may be late, and a load may be older than what this node has done since. So whether a presence should be in the room is
//! decided together with what the node knows itself: whether the socket is alive, what is in progress, and which presences
//! [have departed](super::replica::Replica::departs). The room's actor carries the decisions out.

use std::sync::Arc;

use crate::name::{NodeId, PresenceId};

use super::{Presence, delta::RosterChange, replica::Replica};

/// What a node knows of its own presences in a room.
pub(crate) trait OwnPresences {
    /// The presence with this id, if the node supervises it.
    fn supervised(&self, id: PresenceId) -> Option<&Arc<Presence>>;

    /// All presences that the node supervises.
    fn all_supervised(&self) -> impl Iterator<Item = &Arc<Presence>>;

    /// Whether the presence joins, leaves or is held. Then the node knows it without supervising it. The same holds while a socket
    /// resumes it and the node only knows the socket.
    fn is_in_progress(&self, presence: &Presence) -> bool;

    /// Whether its channel is open and still has this presence in the room. A presence without a socket is alive until its channel
    /// is removed.
    fn is_alive(&self, presence: &Presence) -> bool;
}

/// What to do about one presence of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Repair {
    /// It is in the room and its socket is alive, but the node does not supervise it. From now on it does.
    Supervise(Arc<Presence>),
    /// It is in the room, its socket is gone, and nothing in progress will remove it.
    Remove(Arc<Presence>),
    /// Its socket is alive, but it was removed from the room. It joins again.
    Restore(Arc<Presence>),
    /// It is neither in the room nor is its socket alive. The node stops supervising it. It leaves all the same, because the node may
    /// have just written it to the database.
    Forget(Arc<Presence>),
}

/// What to do about the presences of this node in these changes, which the roster has by now.
///
/// An older database, or another node, may bring a presence of this node back after its socket has left.
pub(crate) fn after_changes(
    changes: &[RosterChange],
    replica: &Replica,
    node: Option<NodeId>,
    own: &impl OwnPresences,
) -> Vec<Repair> {
    let repair = |change: &RosterChange| match &change.now {
        None => own.supervised(change.was.as_ref()?.id).map(|presence| missing(presence, own)),
        // A later change of these may have removed it again.
        Some(now) if change.was.is_none() => unknown(replica.roster().get(now.id)?, replica, node, own),
        Some(_) => None,
    };
    changes.iter().filter_map(repair).collect()
}

/// What to do after a load, so that the presences of this node are the same in the database and in its sockets.
pub(crate) fn after_load(replica: &Replica, node: Option<NodeId>, own: &impl OwnPresences) -> Vec<Repair> {
    let roster = replica.roster();
    let missing = own.all_supervised().filter(|one| roster.get(one.id).is_none()).map(|one| missing(one, own));
    let unknown = roster.iter().filter_map(|one| unknown(one, replica, node, own));
    missing.chain(unknown).collect()
}

/// What to do about a presence of the roster that this node should know, and does not.
fn unknown(
    presence: &Arc<Presence>,
    replica: &Replica,
    node: Option<NodeId>,
    own: &impl OwnPresences,
) -> Option<Repair> {
    let is_ours = Some(presence.node) == node && !presence.held;
    let is_known = || own.supervised(presence.id).is_some() || own.is_in_progress(presence);
    // The roster may be late and still have presences that left.
    if !is_ours || is_known() || replica.has_departed(presence) {
        return None;
    }
    let presence = presence.clone();
    Some(if own.is_alive(&presence) { Repair::Supervise(presence) } else { Repair::Remove(presence) })
}

fn missing(presence: &Arc<Presence>, own: &impl OwnPresences) -> Repair {
    if own.is_alive(presence) { Repair::Restore(presence.clone()) } else { Repair::Forget(presence.clone()) }
}
