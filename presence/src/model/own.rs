//! What a node owes its own presences: which of them it looks after, brings back, or takes out of the room.
//!
//! A roster is late, and a reading may be older than what this node has done since. So the absence of a presence, or its being
//! there, is judged together with what the node knows itself: whether the socket lives, what is under way, and who
//! [has departed](super::replica::Replica::departs). The room's actor carries out what is decided here.

#[cfg(test)]
mod properties;

use std::sync::Arc;

use crate::name::{NodeId, PresenceId};

use super::{Presence, delta::Change, replica::Replica};

/// What a node knows of its own presences in a room.
pub(crate) trait Own {
    /// The presence of this id, if the node looks after it.
    fn here(&self, id: PresenceId) -> Option<&Arc<Presence>>;

    /// All presences that the node looks after.
    fn all_here(&self) -> impl Iterator<Item = &Arc<Presence>>;

    /// Whether it joins or leaves, or is held: then it is known without being looked after. So is one that a socket resumes, as long
    /// as the node only knows by which socket.
    fn is_under_way(&self, presence: &Presence) -> bool;

    /// Whether its channel is open and still considers itself in the room as this presence. A presence without a socket lives
    /// as long as nobody has removed its channel.
    fn lives(&self, presence: &Presence) -> bool;
}

/// What is to be done for one presence of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Care {
    /// The room has it, its socket lives, and the node does not look after it: it does from now on.
    Adopt(Arc<Presence>),
    /// The room has it, but its socket is gone, and nothing is under way that would take it out.
    TakeOut(Arc<Presence>),
    /// Its socket lives, but somebody removed it from the room: it joins again.
    BringBack(Arc<Presence>),
    /// Its socket is gone, and so is it: it needs no looking after any more. It leaves all the same, since the node may have written
    /// just now that it is there.
    LetGo(Arc<Presence>),
}

/// What the changes of a roster mean for those whom the node looks after.
pub(crate) fn after_changes(changes: &[Change], own: &impl Own) -> Vec<Care> {
    let gone = changes.iter().filter(|change| change.now.is_none()).filter_map(|change| change.was.as_ref());
    gone.filter_map(|gone| own.here(gone.id)).map(|presence| missing(presence, own)).collect()
}

/// What is needed so that the presences of this node are the same here and in the database, once both are known.
pub(crate) fn after_reading(replica: &Replica, node: Option<NodeId>, own: &impl Own) -> Vec<Care> {
    let roster = replica.roster();
    let missing = own.all_here().filter(|one| roster.get(one.id).is_none()).map(|one| missing(one, own));
    let ours = roster.iter().filter(|one| Some(one.node) == node && !one.held);
    let unknown = ours.filter(|one| own.here(one.id).is_none() && !own.is_under_way(one));
    // The roster is late: who has left is still in it.
    let unknown = unknown.filter(|one| !replica.has_departed(one));
    let unknown = unknown.map(|one| if own.lives(one) { Care::Adopt(one.clone()) } else { Care::TakeOut(one.clone()) });
    missing.chain(unknown).collect()
}

fn missing(presence: &Arc<Presence>, own: &impl Own) -> Care {
    if own.lives(presence) { Care::BringBack(presence.clone()) } else { Care::LetGo(presence.clone()) }
}
