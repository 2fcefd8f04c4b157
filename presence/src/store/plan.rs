//! What the writes of one room come to, given what is there.
//!
//! The rules are here once, as plain values, so that every store answers alike: a store finds the presences that the
//! writes name, asks for a plan, and carries it out.

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

use super::{RoomWrites, StoreError, Taken, Write, shifts::Shifts};

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
    #[error("presence `{0}` comes with a resume token that another write of the commit is about")]
    SessionTwice(PresenceId),
}

impl From<Senseless> for StoreError {
    fn from(senseless: Senseless) -> Self {
        match senseless {
            Senseless::OtherPresence(_) => Self::channel_taken(senseless),
            _ => Self::Refused(Arc::new(senseless)),
        }
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

/// What a store has of what the writes name.
#[derive(Debug, Default)]
pub(super) struct Finds {
    /// Those that are named, and those that have a resume token that is named.
    pub(super) presences: HashMap<PresenceId, Found>,
    /// Who has the resume tokens that are named.
    pub(super) sessions: HashMap<SessionHash, PresenceId>,
    /// How many presences each of those rooms had before that is joined with a limit. One that nobody is in may be left out.
    pub(super) sizes: HashMap<Epoch, usize>,
}

impl Finds {
    /// The presence, if it is in this room.
    fn here(&self, room: Epoch, id: PresenceId) -> Option<&Arc<Presence>> {
        self.presences.get(&id).filter(|found| found.room == room).map(|found| &found.presence)
    }
}

/// A row to be written, and by what its presence can be resumed.
pub(super) type Row = (Arc<Presence>, Option<Session>);

/// What is to be done in one room, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Rows to delete.
    pub(super) gone: Vec<PresenceId>,
    /// Rows to mark as held for so long, and as seen just now.
    pub(super) held: Vec<(PresenceId, Duration)>,
    /// Rows to overwrite with another owner: node, channel, user, meta and session; not held any more, and seen just now.
    pub(super) taken: Vec<Row>,
    /// Rows whose meta is to be overwritten, and nothing else.
    pub(super) changed: Vec<Arc<Presence>>,
    /// Rows to insert.
    pub(super) new: Vec<Row>,
    /// What of all this can be told from outside.
    pub(super) delta: Delta,
    /// Who is, or was before, resumed by another socket.
    pub(super) resumed: Vec<Taken>,
    /// Who finds no place.
    pub(super) refused: Vec<PresenceId>,
    /// Whose the presences were before that have another user now.
    pub(super) rebound: HashMap<PresenceId, Option<UserId>>,
}

impl Plan {
    /// Whether the room gets its next version.
    pub(super) fn is_new_version(&self) -> bool {
        !self.delta.is_empty() || self.resumed.iter().any(|taken| taken.moved)
    }

    /// Whose number of presences in the room changes.
    pub(super) fn shifts(&self) -> Shifts {
        Shifts::of(&self.delta, &self.rebound)
    }

    fn join(&mut self, now: Arc<Presence>, session: Option<Session>) {
        self.delta.joined.push(now.clone());
        self.new.push((now, session));
    }

    /// Whether the presence loses its token: it leaves, or is another user's from now on.
    fn ends_token(&self, id: PresenceId) -> bool {
        self.gone.contains(&id) || self.taken.iter().any(|(presence, session)| presence.id == id && session.is_none())
    }
}

/// Plans the writes of one room.
pub(super) fn plan(node: NodeId, room: Epoch, writes: &[Write], found: &Finds) -> Result<Plan, Senseless> {
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
                    plan.gone.push(id);
                    plan.delta.left.push(was.clone());
                }
            }
            Write::Update { channel, user, meta, .. } => {
                let Some(was) = there.filter(|was| was.channel == *channel) else { continue };
                let now = was.changed(user.clone(), meta.clone());
                if user.is_some() {
                    // It loses its token also if it is the same user's after all: it may have been another's in between.
                    let now = Arc::new(Presence { held: false, ..now });
                    if was.user != now.user {
                        plan.rebound.insert(id, was.user.clone());
                    }
                    if !was.looks_like(&now) {
                        plan.delta.updated.push(now.clone());
                    }
                    plan.taken.push((now, None));
                } else if was.meta != now.meta {
                    let now = Arc::new(now);
                    plan.delta.updated.push(now.clone());
                    plan.changed.push(now);
                }
            }
            Write::Hold { channel, grace, .. } => {
                if there.is_some_and(|was| was.channel == *channel) {
                    plan.held.push((id, *grace));
                }
            }
            Write::Restore { .. } | Write::Resume { .. } => {}
        }
    }
    // Who leaves and comes with its token at once is new, and who was lost and comes back is not lost.
    let mut tokens = HashSet::new();
    for write in writes {
        let (Write::Restore { presence, session }
        | Write::Resume { presence, session }
        | Write::JoinWithin { presence, session: Some(session), .. }) = write
        else {
            continue;
        };
        if !tokens.insert(session.hash) {
            return Err(Senseless::SessionTwice(presence.id));
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
                    plan.resumed.push(Taken { asked: presence.id, presence: other.clone(), moved: false });
                }
                // It lost the token, and another has it by now. Its socket is alive all the same.
                (Some(_), there) => plan_join(&mut plan, now, None, there, found)?,
                (None, there) => plan_join(&mut plan, now, Some(*session), there, found)?,
            },
        }
    }
    // Those who leave in this very transaction make room, and ids are in the order in which they were made.
    limited.sort_unstable_by_key(|(presence, ..)| presence.id);
    let before = found.sizes.get(&room).copied().unwrap_or_default();
    for (now, session, limit) in limited {
        if (before + plan.new.len()).saturating_sub(plan.gone.len()) < limit {
            plan_join(&mut plan, now, session, None, found)?;
        } else {
            plan.refused.push(now.id);
        }
    }
    Ok(plan)
}

/// One joins whose id is new, or who is here already.
fn plan_join(
    plan: &mut Plan,
    now: Arc<Presence>,
    session: Option<Session>,
    there: Option<&Arc<Presence>>,
    found: &Finds,
) -> Result<(), Senseless> {
    match there {
        None if found.presences.contains_key(&now.id) => return Err(Senseless::OtherRoom(now.id)),
        None => plan.join(now, session),
        Some(was) if *was == now => {}
        Some(was) if was.channel != now.channel => {
            plan.resumed.push(Taken { asked: now.id, presence: was.clone(), moved: false });
        }
        Some(was) => {
            if was.user != now.user {
                plan.rebound.insert(now.id, was.user.clone());
            }
            if !was.looks_like(&now) {
                plan.delta.updated.push(now.clone());
            }
            plan.taken.push((now, session));
        }
    }
    Ok(())
}

/// A socket takes over the presence that `was`.
fn plan_resume(
    plan: &mut Plan,
    asked: PresenceId,
    was: &Arc<Presence>,
    socket: &Presence,
    session: Session,
) -> Result<(), Senseless> {
    if plan.taken.iter().any(|(presence, _)| presence.id == was.id) {
        return Err(Senseless::SessionTwice(asked));
    }
    let updated = plan.changed.extract_if(.., |presence| presence.id == was.id).next();
    let held = was.held || plan.held.iter().any(|(id, _)| *id == was.id);
    let now = Arc::new(Presence {
        channel: socket.channel.clone(),
        node: socket.node,
        held: false,
        ..Presence::clone(updated.as_ref().unwrap_or(was))
    });
    if held || now != *was {
        plan.taken.push((now.clone(), Some(session)));
    }
    plan.resumed.push(Taken { asked, presence: now, moved: !held && was.node != socket.node });
    Ok(())
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

    fn session(n: u8) -> Session {
        Session { hash: SessionHash::from_bytes([n; 32]), grace: Duration::from_secs(10) }
    }

    /// One is there, who has the token of session 1.
    fn find(room: Epoch, there: &Presence) -> Finds {
        let found = Found { room, presence: Arc::new(there.clone()) };
        Finds {
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
    fn a_join_of_one_who_is_there_alike_is_nothing() {
        let there = presence("a");
        let plan = planned(&there, Write::Join(Arc::new(there.clone())));
        assert!(plan.taken.is_empty() && plan.delta.is_empty());
    }

    #[test]
    fn a_resume_changes_the_row_but_nothing_that_others_can_tell() {
        let held = Presence { held: true, meta: Meta::from_json(r#"{"busy":true}"#).unwrap(), ..presence("a") };
        let socket = Presence { node: held.node, ..presence("b") };
        let resume = Write::Resume { presence: Arc::new(socket.clone()), session: session(1) };
        let plan = planned(&held, resume);
        let back = Arc::new(Presence { channel: ChannelName::new("b").unwrap(), held: false, ..held.clone() });
        assert_eq!(plan.taken, [(back.clone(), Some(session(1)))]);
        assert_eq!(plan.resumed, [Taken { asked: socket.id, presence: back, moved: false }]);
        assert!(!plan.is_new_version());
    }

    #[test]
    fn what_is_taken_from_a_live_socket_of_another_node_takes_a_version() {
        let there = presence("a");
        let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
        let room = Epoch::random();
        let plan = plan(NodeId::random(), room, &[resume], &find(room, &there)).unwrap();
        assert!(plan.is_new_version() && plan.delta.is_empty());
    }

    #[test]
    fn one_who_leaves_and_comes_with_the_token_at_once_is_new() {
        let there = presence("a");
        let socket = Arc::new(presence("b"));
        let resume = Write::Resume { presence: socket.clone(), session: session(1) };
        let leave = Write::Leave { id: there.id, channel: there.channel.clone() };
        let plan = all_planned(&there, &[resume, leave]);
        assert_eq!((plan.gone.as_slice(), plan.new.len(), plan.resumed.len()), ([there.id].as_slice(), 1, 0));
        assert_eq!((plan.delta.left.len(), plan.delta.joined[0].id), (1, socket.id));
    }

    #[test]
    fn one_who_comes_with_the_token_of_a_presence_that_changes_hands_at_once_is_new() {
        let there = presence("a");
        let socket = Arc::new(presence("b"));
        let resume = Write::Resume { presence: socket.clone(), session: session(1) };
        let user = Some(Some(crate::name::UserId::new("eve").unwrap()));
        let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
        let plan = all_planned(&there, &[resume, update]);
        assert_eq!((plan.taken.len(), plan.taken[0].1, plan.new.len(), plan.resumed.len()), (1, None, 1, 0));
        assert_eq!((plan.taken[0].0.id, plan.new[0].1), (there.id, Some(session(1))));
    }

    #[test]
    fn one_who_is_lost_and_comes_back_at_once_is_not_lost_and_keeps_its_last_meta() {
        let there = presence("a");
        let meta = Meta::from_json(r#"{"busy":true}"#).unwrap();
        for first in [
            Write::Hold { id: there.id, channel: there.channel.clone(), grace: Duration::from_secs(1) },
            Write::Update { id: there.id, channel: there.channel.clone(), user: None, meta: Some(meta.clone()) },
        ] {
            let busy = matches!(first, Write::Update { .. });
            let resume = Write::Resume { presence: Arc::new(presence("b")), session: session(1) };
            let plan = all_planned(&there, &[resume, first]);
            assert_eq!(plan.taken.len(), 1);
            assert!(plan.changed.is_empty() && !plan.taken[0].0.held);
            assert_eq!(plan.taken[0].0.meta == meta, busy);
        }
    }

    #[test]
    fn places_go_by_the_order_of_ids_after_all_else() {
        let there = presence("there");
        let limited =
            |presence: &Arc<Presence>, session| Write::JoinWithin { presence: presence.clone(), session, limit: 2 };
        let [plain, first, second, third] = ["a", "b", "c", "d"].map(|channel| Arc::new(presence(channel)));
        let leave = Write::Leave { id: there.id, channel: there.channel.clone() };
        let last = [limited(&third, None), limited(&second, Some(session(2))), limited(&first, None)];
        let plan = all_planned(&there, &[&last[..], &[leave, Write::Join(plain.clone())]].concat());
        let new: Vec<_> = plan.new.iter().map(|(presence, _)| presence.id).collect();
        assert_eq!((new, plan.refused), (vec![plain.id, first.id], vec![second.id, third.id]));
    }

    #[test]
    fn one_who_takes_a_presence_over_needs_no_place() {
        let there = presence("there");
        let (back, guest) = (Arc::new(presence("back")), Arc::new(presence("guest")));
        let back = Write::JoinWithin { presence: back, session: Some(session(1)), limit: 1 };
        let guest = Write::JoinWithin { presence: guest, session: Some(session(2)), limit: 1 };
        let plan = all_planned(&there, &[guest.clone(), back]);
        assert_eq!((plan.taken[0].0.id, plan.new.len(), plan.refused), (there.id, 0, vec![guest.id()]));
    }

    #[test]
    fn one_token_comes_once_in_a_commit() {
        let room = Epoch::random();
        let resume = || Write::Resume { presence: Arc::new(presence("b")), session: session(2) };
        let planned = plan(NodeId::random(), room, &[resume(), resume()], &Finds::default());
        assert!(matches!(planned, Err(Senseless::SessionTwice(_))));
    }

    #[test]
    fn a_live_socket_that_is_restored_takes_nothing_from_who_resumed_its_presence() {
        let there = presence("new");
        let late = Arc::new(Presence { channel: ChannelName::new("old").unwrap(), ..there.clone() });
        for write in [Write::Join(late.clone()), Write::Restore { presence: late, session: session(1) }] {
            let plan = planned(&there, write);
            assert!(plan.taken.is_empty() && plan.new.is_empty() && plan.delta.is_empty());
            let theirs = Taken { asked: there.id, presence: Arc::new(there.clone()), moved: false };
            assert_eq!(plan.resumed, [theirs]);
        }
        let other = Write::Restore { presence: Arc::new(presence("older")), session: session(1) };
        assert_eq!(planned(&there, other).resumed[0].presence.id, there.id, "it was resumed as another presence");
    }

    #[test]
    fn one_who_is_there_stays_without_the_token_that_another_has_by_now() {
        let (room, other, there) = (Epoch::random(), presence("a"), presence("b"));
        let mut found = find(room, &other);
        found.presences.insert(there.id, Found { room, presence: Arc::new(there.clone()) });
        let restore = Write::Restore { presence: Arc::new(there.clone()), session: session(1) };
        let node = NodeId::random();
        let plan = plan(node, room, &[restore], &found).unwrap();
        assert_eq!(plan.taken, [(Arc::new(Presence { node, ..there }), None)]);
        assert!(plan.resumed.is_empty() && plan.new.is_empty() && plan.delta.is_empty());
    }

    #[test]
    fn a_presence_that_changes_hands_loses_its_token() {
        let there = presence("a");
        let user = Some(Some(crate::name::UserId::new("ann").unwrap()));
        let update = Write::Update { id: there.id, channel: there.channel.clone(), user, meta: None };
        assert_eq!(planned(&there, update).taken[0].1, None);
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
        let found = find(Epoch::random(), &there);
        let planned = plan(there.node, Epoch::random(), &[Write::Join(Arc::new(there.clone()))], &found);
        assert!(matches!(planned, Err(Senseless::OtherRoom(id)) if id == there.id));
    }
}
