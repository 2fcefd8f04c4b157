//! Decides what the writes of one room change, given the presences that exist.
//!
//! The rules are plain values and exist once, so that all stores behave alike. A store finds the presences that the writes
//! name, makes a plan, and carries it out.

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
    /// The change that members can see.
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
        !self.delta.is_empty() || self.resumed.iter().any(|resumed| resumed.moved)
    }

    /// How the numbers of presences per user change.
    pub(super) fn count_changes(&self) -> CountChanges {
        CountChanges::of(&self.delta, &self.former_users)
    }

    fn join(&mut self, now: Arc<Presence>, session: Option<Session>) {
        self.delta.joined.push(now.clone());
        self.insert.push((now, session));
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
                let Some(was) = there.filter(|was| was.channel == *channel) else { continue };
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
                    plan.take_over.push((now, None));
                } else if was.meta != now.meta {
                    let now = Arc::new(now);
                    plan.delta.updated.push(now.clone());
                    plan.set_meta.push(now);
                }
            }
            Write::Hold { channel, grace, .. } => {
                if there.is_some_and(|was| was.channel == *channel) {
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
                    plan.resumed.push(Resumed { requested: presence.id, presence: other.clone(), moved: false });
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
            plan.resumed.push(Resumed { requested: now.id, presence: was.clone(), moved: false });
        }
        Some(was) => {
            if was.user != now.user {
                plan.former_users.insert(now.id, was.user.clone());
            }
            if !was.looks_like(&now) {
                plan.delta.updated.push(now.clone());
            }
            plan.take_over.push((now, session));
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
    if plan.take_over.iter().any(|(presence, _)| presence.id == was.id) {
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
        plan.take_over.push((now.clone(), Some(session)));
    }
    plan.resumed.push(Resumed { requested, presence: now, moved: !held && was.node != socket.node });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Meta;

    fn presence(channel: &str) -> Presence {
        Presence::new(PresenceId::random(), ChannelName::new(channel).unwrap(), None, NodeId::random())
    }

    fn session(n: u8) -> Session {
        Session { hash: SessionHash::from_bytes([n; 32]), grace: Duration::from_secs(10) }
    }

    /// One presence exists, with the token of session 1.
    fn find(room: Epoch, there: &Presence) -> Existing {
        let found = StoredPresence { room, presence: Arc::new(there.clone()) };
        Existing {
            presences: HashMap::from([(there.id, found)]),
            sessions: HashMap::from([(session(1).hash, there.id)]),
            sizes: HashMap::from([(room, 1)]),
        }
    }

    fn all_planned(there: &Presence, writes: &[Write]) -> Plan {
        let room = Epoch::random();
        plan(there.node, room, writes, &find(room, there)).unwrap()
    }

    fn planned(there: &Presence, write: Write) -> Plan {
        all_planned(there, &[write])
    }

    #[test]
    fn a_repeated_join_changes_nothing() {
        let there = presence("a");
        let plan = planned(&there, Write::Join(Arc::new(there.clone())));
        assert!(plan.take_over.is_empty() && plan.delta.is_empty());
    }

    #[test]
    fn a_resume_changes_the_row_and_gives_no_version() {
        let held = Presence { held: true, meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..presence("a") };
        let socket = Presence { node: held.node, ..presence("b") };
        let resume = Write::Resume { presence: Arc::new(socket.clone()), session: session(1) };
        let plan = planned(&held, resume);
        let back = Arc::new(Presence { channel: ChannelName::new("b").unwrap(), held: false, ..held.clone() });
        assert_eq!(plan.take_over, [(back.clone(), Some(session(1)))]);
        assert_eq!(plan.resumed, [Resumed { requested: socket.id, presence: back, moved: false }]);
        assert!(!plan.is_new_version());
    }

    #[test]
    fn a_resume_from_a_live_socket_of_another_node_gives_a_version() {
        let there = presence("a");
        let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
        let room = Epoch::random();
        let plan = plan(NodeId::random(), room, &[resume], &find(room, &there)).unwrap();
        assert!(plan.is_new_version() && plan.delta.is_empty());
    }

    #[test]
    fn a_token_of_a_presence_that_leaves_in_the_same_commit_adds_a_new_presence() {
        let there = presence("a");
        let socket = Arc::new(presence("b"));
        let resume = Write::Resume { presence: socket.clone(), session: session(1) };
        let leave = Write::Leave { id: there.id, channel: there.channel.clone() };
        let plan = all_planned(&there, &[resume, leave]);
        assert_eq!((plan.delete.as_slice(), plan.insert.len(), plan.resumed.len()), ([there.id].as_slice(), 1, 0));
        assert_eq!((plan.delta.left.len(), plan.delta.joined[0].id), (1, socket.id));
    }

    #[test]
    fn a_token_of_a_presence_whose_user_changes_in_the_same_commit_adds_a_new_presence() {
        let there = presence("a");
        let socket = Arc::new(presence("b"));
        let resume = Write::Resume { presence: socket.clone(), session: session(1) };
        let user = Some(Some(crate::name::UserId::new("eve").unwrap()));
        let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
        let plan = all_planned(&there, &[resume, update]);
        assert_eq!((plan.take_over.len(), plan.take_over[0].1, plan.insert.len(), plan.resumed.len()), (1, None, 1, 0));
        assert_eq!((plan.take_over[0].0.id, plan.insert[0].1), (there.id, Some(session(1))));
    }

    #[test]
    fn a_presence_that_is_held_and_resumed_in_one_commit_is_not_held_and_keeps_its_last_meta() {
        let there = presence("a");
        let meta = Meta::from_json(r#"{"busy":true}"#).unwrap();
        for first in [
            Write::Hold { id: there.id, channel: there.channel.clone(), grace: Duration::from_secs(1) },
            Write::Update { id: there.id, channel: there.channel.clone(), user: None, meta: Some(meta.clone()) },
        ] {
            let busy = matches!(first, Write::Update { .. });
            let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
            let plan = all_planned(&there, &[resume, first]);
            assert_eq!(plan.take_over.len(), 1);
            assert!(plan.set_meta.is_empty() && !plan.take_over[0].0.held);
            assert_eq!(plan.take_over[0].0.meta == meta, busy);
        }
    }

    #[test]
    fn limited_joins_are_admitted_last_and_in_the_order_of_ids() {
        let there = presence("there");
        let limited =
            |presence: &Arc<Presence>, session| Write::JoinWithin { presence: presence.clone(), session, limit: 2 };
        let [plain, first, second, third] = ["a", "b", "c", "d"].map(|channel| Arc::new(presence(channel)));
        let leave = Write::Leave { id: there.id, channel: there.channel.clone() };
        let last = [limited(&third, None), limited(&second, Some(session(2))), limited(&first, None)];
        let plan = all_planned(&there, &[&last[..], &[leave, Write::Join(plain.clone())]].concat());
        let new: Vec<_> = plan.insert.iter().map(|(presence, _)| presence.id).collect();
        assert_eq!((new, plan.refused), (vec![plain.id, first.id], vec![second.id, third.id]));
    }

    #[test]
    fn a_resume_needs_no_place() {
        let there = presence("there");
        let (back, guest) = (Arc::new(presence("back")), Arc::new(presence("guest")));
        let back = Write::JoinWithin { presence: back, session: Some(session(1)), limit: 1 };
        let guest = Write::JoinWithin { presence: guest, session: Some(session(2)), limit: 1 };
        let plan = all_planned(&there, &[guest.clone(), back]);
        assert_eq!((plan.take_over[0].0.id, plan.insert.len(), plan.refused), (there.id, 0, vec![guest.id()]));
    }

    #[test]
    fn a_commit_may_have_each_token_once() {
        let room = Epoch::random();
        let resume = || Write::Resume { presence: Arc::new(presence("b")), session: session(2) };
        let planned = plan(NodeId::random(), room, &[resume(), resume()], &Existing::default());
        assert!(matches!(planned, Err(InvalidWrites::SessionTwice(_))));
    }

    #[test]
    fn a_restored_socket_does_not_take_its_presence_back_from_the_socket_that_resumed_it() {
        let there = presence("new");
        let late = Arc::new(Presence { channel: ChannelName::new("old").unwrap(), ..there.clone() });
        for write in [Write::Join(late.clone()), Write::Restore { presence: late, session: session(1) }] {
            let plan = planned(&there, write);
            assert!(plan.take_over.is_empty() && plan.insert.is_empty() && plan.delta.is_empty());
            let theirs = Resumed { requested: there.id, presence: Arc::new(there.clone()), moved: false };
            assert_eq!(plan.resumed, [theirs]);
        }
        let other = Write::Restore { presence: Arc::new(presence("older")), session: session(1) };
        assert_eq!(planned(&there, other).resumed[0].presence.id, there.id, "it was resumed as another presence");
    }

    #[test]
    fn a_restored_presence_stays_without_a_token_that_another_presence_has() {
        let (room, other, there) = (Epoch::random(), presence("a"), presence("b"));
        let mut found = find(room, &other);
        found.presences.insert(there.id, StoredPresence { room, presence: Arc::new(there.clone()) });
        let restore = Write::Restore { presence: Arc::new(there.clone()), session: session(1) };
        let node = NodeId::random();
        let plan = plan(node, room, &[restore], &found).unwrap();
        assert_eq!(plan.take_over, [(Arc::new(Presence { node, ..there }), None)]);
        assert!(plan.resumed.is_empty() && plan.insert.is_empty() && plan.delta.is_empty());
    }

    #[test]
    fn a_presence_whose_user_is_set_loses_its_token() {
        let there = presence("a");
        let user = Some(Some(crate::name::UserId::new("ann").unwrap()));
        let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
        assert_eq!(planned(&there, update).take_over[0].1, None);
    }

    #[test]
    fn the_meta_of_a_repeated_join_replaces_the_old_one() {
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
        let found = find(Epoch::random(), &there);
        let planned = plan(there.node, Epoch::random(), &[Write::Join(Arc::new(there.clone()))], &found);
        assert!(matches!(planned, Err(InvalidWrites::OtherRoom(id)) if id == there.id));
    }
}
