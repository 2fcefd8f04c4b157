//! What the writes of one room come to, given what is there.
//!
//! The rules are here once, as plain values, so that every store answers alike: a store finds the presences that the
//! writes name, asks for a plan, and carries it out.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    model::{Delta, Presence},
    name::{ChannelName, Epoch, NodeId, PresenceId, RoomName},
};

use super::{RoomWrites, StoreError, Write};

/// Why writes make no sense. No store carries them out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Senseless {
    #[error("room `{0}` is named twice in one commit")]
    RoomTwice(RoomName),
    #[error("presence `{0}` is named twice in one commit")]
    PresenceTwice(PresenceId),
    #[error("presence `{0}` is in another room")]
    OtherRoom(PresenceId),
    #[error("channel `{0}` speaks for another presence of the room")]
    OtherPresence(ChannelName),
}

impl From<Senseless> for StoreError {
    fn from(senseless: Senseless) -> Self {
        Self::Refused(Arc::new(senseless))
    }
}

/// Refuses what names a room or a presence twice: the writes of a commit have no order among them.
pub(super) fn check(rooms: &[RoomWrites]) -> Result<(), Senseless> {
    let mut names = HashSet::with_capacity(rooms.len());
    let mut ids = HashSet::with_capacity(rooms.iter().map(|room| room.writes.len()).sum());
    for RoomWrites { room, writes } in rooms {
        if !names.insert(room) {
            return Err(Senseless::RoomTwice(room.clone()));
        }
        if let Some(twice) = writes.iter().map(Write::id).find(|id| !ids.insert(*id)) {
            return Err(Senseless::PresenceTwice(twice));
        }
    }
    Ok(())
}

/// A presence as a store has it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) room: Epoch,
    pub(super) presence: Arc<Presence>,
}

/// What is to be done in one room, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows to delete.
    pub(super) gone: Vec<PresenceId>,
    /// Rows to overwrite with another owner: node, channel, user and meta; not held any more, and seen just now.
    pub(super) taken: Vec<Arc<Presence>>,
    /// Rows whose meta is to be overwritten, and nothing else.
    pub(super) changed: Vec<Arc<Presence>>,
    /// Rows to insert.
    pub(super) new: Vec<Arc<Presence>>,
    /// What of all this can be told from outside. If it is empty, the room keeps its version.
    pub(super) delta: Delta,
}

/// Plans the writes of one room.
pub(super) fn plan(
    node: NodeId,
    room: Epoch,
    writes: &[Write],
    found: &HashMap<PresenceId, Found>,
) -> Result<Plan, Senseless> {
    let mut plan = Plan::default();
    for write in writes {
        let id = write.id();
        let there = found.get(&id).filter(|found| found.room == room).map(|found| &found.presence);
        match write {
            Write::Join(joins) => {
                let now = owned(joins, node);
                match there {
                    None if found.contains_key(&id) => return Err(Senseless::OtherRoom(id)),
                    None => {
                        plan.delta.joined.push(now.clone());
                        plan.new.push(now);
                    }
                    Some(was) if **was == *now => {}
                    Some(was) => {
                        if !was.looks_like(&now) {
                            plan.delta.updated.push(now.clone());
                        }
                        plan.taken.push(now);
                    }
                }
            }
            Write::Leave { channel, .. } => {
                if let Some(was) = there.filter(|was| was.channel == *channel) {
                    plan.gone.push(id);
                    plan.delta.left.push(was.clone());
                }
            }
            Write::Update { channel, user, meta, .. } => {
                let Some(was) = there.filter(|was| was.channel == *channel) else { continue };
                let now = Arc::new(was.changed(user.clone(), meta.clone()));
                if was.user != now.user {
                    plan.delta.updated.push(now.clone());
                    plan.taken.push(now);
                } else if was.meta != now.meta {
                    plan.delta.updated.push(now.clone());
                    plan.changed.push(now);
                }
            }
        }
    }
    Ok(plan)
}

/// The presence as this node's, and as that of a live socket.
fn owned(presence: &Arc<Presence>, node: NodeId) -> Arc<Presence> {
    if presence.node == node && !presence.held {
        presence.clone()
    } else {
        Arc::new(Presence { node, held: false, ..Presence::clone(presence) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Meta;

    fn presence(channel: &str) -> Presence {
        Presence::new(PresenceId::random(), ChannelName::new(channel).unwrap(), None, NodeId::random())
    }

    fn planned(there: &Presence, write: Write) -> Plan {
        let room = Epoch::random();
        let found = Found { room, presence: Arc::new(there.clone()) };
        plan(there.node, room, &[write], &HashMap::from([(there.id, found)])).unwrap()
    }

    #[test]
    fn a_join_of_one_who_is_there_alike_is_nothing() {
        let there = presence("a");
        let plan = planned(&there, Write::Join(Arc::new(there.clone())));
        assert!(plan.taken.is_empty() && plan.delta.is_empty());
    }

    #[test]
    fn a_resume_changes_the_row_but_nothing_that_others_can_tell() {
        let held = Presence { held: true, ..presence("a") };
        let back = Presence { channel: ChannelName::new("b").unwrap(), held: false, ..held.clone() };
        let plan = planned(&held, Write::Join(Arc::new(back.clone())));
        assert_eq!(plan.taken, [Arc::new(back)]);
        assert!(plan.delta.is_empty());
    }

    #[test]
    fn the_meta_of_a_join_replaces_that_of_the_presence() {
        let there = presence("a");
        let busy = Presence { meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..there.clone() };
        let plan = planned(&there, Write::Join(Arc::new(busy.clone())));
        assert_eq!(plan.delta.updated, [Arc::new(busy)]);
    }

    #[test]
    fn another_user_is_an_update_and_keeps_the_meta() {
        let there = Presence { meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..presence("a") };
        let ann = crate::name::UserId::new("ann").unwrap();
        let user = Some(Some(ann.clone()));
        let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
        let plan = planned(&there, update);
        assert_eq!(plan.delta.updated, [Arc::new(Presence { user: Some(ann), ..there })]);
    }

    #[test]
    fn a_presence_is_in_one_room_only() {
        let there = presence("a");
        let found = Found { room: Epoch::random(), presence: Arc::new(there.clone()) };
        let found = HashMap::from([(there.id, found)]);
        let planned = plan(there.node, Epoch::random(), &[Write::Join(Arc::new(there.clone()))], &found);
        assert!(matches!(planned, Err(Senseless::OtherRoom(id)) if id == there.id));
    }
}
