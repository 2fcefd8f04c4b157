//! Decides what the writes of one room change, given the presences that exist.
//!
//! The rules are plain values and exist once, so that all stores behave alike. A store finds the presences that the writes
//! name, makes a plan, and carries it out.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{Delta, Presence},
    name::{ChannelName, Epoch, NodeId, PresenceId, RoomName, UserId},
    session::{Session, SessionHash},
};

use super::{Resumed, RoomWrites, StoreError, Write, count_changes::CountChanges};

/// Why writes are invalid. No store carries them out.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidWrites {
    #[error("room `{0}` is named twice in one commit")]
    RoomTwice(RoomName),
    #[error("presence `{0}` is named twice in one commit")]
    PresenceTwice(PresenceId),
    #[error("presence `{0}` is in another room")]
    OtherRoom(PresenceId),
    #[error("channel `{0}` has another presence in the room")]
    OtherPresence(ChannelName),
    #[error("presence `{0}` comes with a resume token that another write of the commit has, too")]
    SessionTwice(PresenceId),
}

impl From<InvalidWrites> for StoreError {
    fn from(invalid: InvalidWrites) -> Self {
        match invalid {
            InvalidWrites::OtherPresence(_) => Self::channel_taken(invalid),
            _ => Self::Refused(Arc::new(invalid)),
        }
    }
}

/// Refuses a commit that names a room or a presence twice, since its writes have no order.
pub(super) fn check(rooms: &[RoomWrites]) -> Result<(), InvalidWrites> {
    let mut names = HashSet::with_capacity(rooms.len());
    let mut ids = HashSet::with_capacity(rooms.iter().map(|room| room.writes.len()).sum());
    for RoomWrites { room, writes } in rooms {
        if !names.insert(room) {
            return Err(InvalidWrites::RoomTwice(room.clone()));
        }
        if let Some(twice) = writes.iter().map(Write::id).find(|id| !ids.insert(*id)) {
            return Err(InvalidWrites::PresenceTwice(twice));
        }
    }
    Ok(())
}

/// A presence in a store, and its room.
#[derive(Debug, Clone)]
pub(super) struct StoredPresence {
    pub(super) room: Epoch,
    pub(super) presence: Arc<Presence>,
}

/// What exists of the presences and tokens that the writes name.
#[derive(Debug, Default)]
pub(super) struct Existing {
    /// The presences that the writes name, and the owners of the resume tokens that they name.
    pub(super) presences: HashMap<PresenceId, StoredPresence>,
    /// The owners of the resume tokens.
    pub(super) sessions: HashMap<SessionHash, PresenceId>,
    /// The size that each room with limited joins had before. Empty rooms may be left out.
    pub(super) sizes: HashMap<Epoch, usize>,
}

impl Existing {
    /// Adds a presence, and the hash of its resume token if it has one.
    #[cfg(feature = "sql")]
    pub(super) fn add(&mut self, (found, session): (StoredPresence, Option<SessionHash>)) {
        self.sessions.extend(session.map(|session| (session, found.presence.id)));
        self.presences.insert(found.presence.id, found);
    }

    /// The presence, if it is in this room.
    fn here(&self, room: Epoch, id: PresenceId) -> Option<&Arc<Presence>> {
        self.presences.get(&id).filter(|found| found.room == room).map(|found| &found.presence)
    }
}

/// A row to write, and its session if the presence can be resumed.
pub(super) type NewRow = (Arc<Presence>, Option<Session>);

/// The changes to make in one room, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows to delete.
    pub(super) delete: Vec<PresenceId>,
    /// Rows to mark as held for this long, and as seen now.
    pub(super) hold: Vec<(PresenceId, Duration)>,
    /// Rows to overwrite for another owner: node, channel, user, meta and session. They are no longer held, and seen now.
    pub(super) take_over: Vec<NewRow>,
    /// Rows of which only the meta is overwritten.
    pub(super) set_meta: Vec<Arc<Presence>>,
    /// Rows to insert.
    pub(super) insert: Vec<NewRow>,
    /// The change that gives the room a new version.
    pub(super) delta: Delta,
    /// The presences that these writes resume, or that another socket has resumed before.
    pub(super) resumed: Vec<Resumed>,
    /// The presences that the limit of their join refuses.
    pub(super) refused: Vec<PresenceId>,
    /// The former user of each presence whose user changes.
    pub(super) former_users: HashMap<PresenceId, Option<UserId>>,
}

impl Plan {
    /// Whether the room gets a new version.
    pub(super) fn is_new_version(&self) -> bool {
        !self.delta.is_empty()
    }

    /// How the numbers of presences per user change.
    pub(super) fn count_changes(&self) -> CountChanges {
        CountChanges::of(&self.delta, &self.former_users)
    }

    fn join(&mut self, now: Arc<Presence>, session: Option<Session>) {
        self.delta.joined.push(now.clone());
        self.insert.push((now, session));
    }

    /// Overwrites the row of a presence. `requested` is the presence that the write names: two writes of one commit may come to the same
    /// row, since a token leads to the presence that has it. They have no order, so they do not belong into one commit.
    fn take_over(&mut self, requested: PresenceId, row: NewRow) -> Result<(), InvalidWrites> {
        if self.is_taken_over(row.0.id) {
            return Err(InvalidWrites::SessionTwice(requested));
        }
        self.take_over.push(row);
        Ok(())
    }

    /// The presence that a write names, if the channel of the write still has it. If another socket has resumed it, the caller is told.
    fn owned_by<'a>(&mut self, channel: &ChannelName, there: Option<&'a Arc<Presence>>) -> Option<&'a Arc<Presence>> {
        let there = there?;
        if there.channel == *channel {
            return Some(there);
        }
        self.resumed.push(Resumed { requested: there.id, presence: there.clone() });
        None
    }

    fn is_taken_over(&self, id: PresenceId) -> bool {
        self.take_over.iter().any(|(presence, _)| presence.id == id)
    }

    /// Whether the presence loses its token because it leaves or its user is set.
    fn ends_token(&self, id: PresenceId) -> bool {
        self.delete.contains(&id)
            || self.take_over.iter().any(|(presence, session)| presence.id == id && session.is_none())
    }
}

/// Plans the writes of one room.
pub(super) fn plan(node: NodeId, room: Epoch, writes: &[Write], found: &Existing) -> Result<Plan, InvalidWrites> {
    let (mut plan, mut limited) = (Plan::default(), Vec::new());
    for write in writes.iter().filter(|write| write.session().is_none()) {
        let id = write.id();
        let there = found.here(room, id);
        match write {
            Write::Join(joins) => plan_join(&mut plan, owned(joins, node), None, there, found)?,
            Write::JoinWithin { presence, limit, .. } => match there {
                None => limited.push((owned(presence, node), None, *limit)),
                there => plan_join(&mut plan, owned(presence, node), None, there, found)?,
            },
            Write::Leave { channel, .. } => {
                if let Some(was) = there.filter(|was| was.channel == *channel) {
                    plan.delete.push(id);
                    plan.delta.left.push(was.clone());
                }
            }
            Write::Update { channel, user, meta, .. } => {
                let Some(was) = plan.owned_by(channel, there) else { continue };
                let now = was.changed(user.clone(), meta.clone());
                if user.is_some() {
                    // It loses its token even if the user is the same: it may have been another one in between.
                    let now = Arc::new(Presence { held: false, ..now });
                    if was.user != now.user {
                        plan.former_users.insert(id, was.user.clone());
                    }
                    if !was.looks_like(&now) {
                        plan.delta.updated.push(now.clone());
                    }
                    plan.take_over(id, (now, None))?;
                } else if was.meta != now.meta {
                    let now = Arc::new(now);
                    plan.delta.updated.push(now.clone());
                    plan.set_meta.push(now);
                }
            }
            Write::Hold { channel, grace, .. } => {
                if plan.owned_by(channel, there).is_some() {
                    plan.hold.push((id, *grace));
                }
            }
            Write::Restore { .. } | Write::Resume { .. } => {}
        }
    }
    // A presence that leaves in this commit cannot be resumed: its token adds a new one. A presence that is held in this commit
    // can be.
    let mut tokens = HashSet::new();
    for write in writes {
        let (Write::Restore { presence, session }
        | Write::Resume { presence, session }
        | Write::JoinWithin { presence, session: Some(session), .. }) = write
        else {
            continue;
        };
        if !tokens.insert(session.hash) {
            return Err(InvalidWrites::SessionTwice(presence.id));
        }
        let has_token = found.sessions.get(&session.hash).copied().filter(|id| !plan.ends_token(*id));
        let has_token = has_token.and_then(|id| found.here(room, id));
        let there = found.here(room, presence.id);
        let now = owned(presence, node);
        match write {
            Write::Resume { .. } | Write::JoinWithin { .. } => match (has_token.or(there), write) {
                (Some(was), _) => plan_resume(&mut plan, presence.id, was, &now, *session)?,
                (None, Write::JoinWithin { limit, .. }) => limited.push((now, Some(*session), *limit)),
                (None, _) => plan_join(&mut plan, now, Some(*session), None, found)?,
            },
            _ => match (has_token.filter(|other| other.id != presence.id), there) {
                (Some(other), None) => {
                    plan.resumed.push(Resumed { requested: presence.id, presence: other.clone() });
                }
                // Another presence has the token by now. The socket of this one is alive, so it stays without a token.
                (Some(_), there) => plan_join(&mut plan, now, None, there, found)?,
                (None, there) => plan_join(&mut plan, now, Some(*session), there, found)?,
            },
        }
    }
    // Presences that leave in this transaction free their places. Ids are in the order of the joins.
    limited.sort_unstable_by_key(|(presence, ..)| presence.id);
    let before = found.sizes.get(&room).copied().unwrap_or_default();
    for (now, session, limit) in limited {
        if (before + plan.insert.len()).saturating_sub(plan.delete.len()) < limit {
            plan_join(&mut plan, now, session, None, found)?;
        } else {
            plan.refused.push(now.id);
        }
    }
    Ok(plan)
}

/// A join of a new presence, or of one that exists already.
fn plan_join(
    plan: &mut Plan,
    now: Arc<Presence>,
    session: Option<Session>,
    there: Option<&Arc<Presence>>,
    found: &Existing,
) -> Result<(), InvalidWrites> {
    match there {
        None if found.presences.contains_key(&now.id) => return Err(InvalidWrites::OtherRoom(now.id)),
        None => plan.join(now, session),
        Some(was) if *was == now => {}
        Some(was) if was.channel != now.channel => {
            plan.resumed.push(Resumed { requested: now.id, presence: was.clone() });
        }
        Some(was) => {
            if was.user != now.user {
                plan.former_users.insert(now.id, was.user.clone());
            }
            if !was.looks_like(&now) {
                plan.delta.updated.push(now.clone());
            } else if was.node != now.node {
                plan.delta.moved.push(now.clone());
            }
            plan.take_over(now.id, (now, session))?;
        }
    }
    Ok(())
}

/// A socket resumes the presence `was`.
fn plan_resume(
    plan: &mut Plan,
    requested: PresenceId,
    was: &Arc<Presence>,
    socket: &Presence,
    session: Session,
) -> Result<(), InvalidWrites> {
    if plan.is_taken_over(was.id) {
        return Err(InvalidWrites::SessionTwice(requested));
    }
    let updated = plan.set_meta.extract_if(.., |presence| presence.id == was.id).next();
    let held = was.held || plan.hold.iter().any(|(id, _)| *id == was.id);
    let now = Arc::new(Presence {
        channel: socket.channel.clone(),
        node: socket.node,
        held: false,
        ..Presence::clone(updated.as_ref().unwrap_or(was))
    });
    if held || now != *was {
        plan.take_over(requested, (now.clone(), Some(session)))?;
    }
    if let Some(updated) = plan.delta.updated.iter_mut().find(|updated| updated.id == now.id) {
        *updated = now.clone();
    } else if was.node != now.node {
        plan.delta.moved.push(now.clone());
    }
    plan.resumed.push(Resumed { requested, presence: now });
    Ok(())
}

/// The presence as one of this node with a live socket.
fn owned(presence: &Arc<Presence>, node: NodeId) -> Arc<Presence> {
    if presence.node == node && !presence.held {
        presence.clone()
    } else {
        Arc::new(Presence { node, held: false, ..Presence::clone(presence) })
    }
}
