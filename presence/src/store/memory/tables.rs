//! The tables of a store in memory, and the steps that its calls are made of.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use crate::{
    model::Presence,
    name::{ChannelName, Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
    session::{Session, SessionHash},
};

use super::super::{
    Attempt, Batch, Order, REMEMBERED, RoomCommit, RoomWrites, StoreError, Write, millis,
    pace::MAX_ROOMS_PER_REMOVAL,
    plan::{self, Finds, Found, Plan, Senseless},
};

#[derive(Clone, Default)]
pub(super) struct Tables {
    pub(super) nodes: HashMap<NodeId, Node>,
    pub(super) rooms: HashMap<RoomName, Room>,
    /// Sorted, so that batches are the same in every run.
    pub(super) presences: BTreeMap<PresenceId, Row>,
    /// Who can be resumed by what.
    sessions: HashMap<SessionHash, PresenceId>,
    /// What each node's last commit did, in case that the answer is lost.
    pub(super) commits: HashMap<NodeId, (Attempt, Vec<RoomCommit>)>,
    /// What each node is asked, and answered.
    pub(super) requests: BTreeMap<(RequestId, NodeId), Asked>,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: NodeName,
    pub(super) process: &'static str,
    pub(super) started_at: i64,
    /// Whether a later life has the name now.
    pub(super) superseded: bool,
    pub(super) lease_until: i64,
    pub(super) fenced_at: Option<i64>,
}

#[derive(Clone)]
pub(super) struct Room {
    pub(super) epoch: Epoch,
    pub(super) version: Version,
    pub(super) channels: HashMap<ChannelName, PresenceId>,
    /// How many presences each user has.
    users: HashMap<UserId, i64>,
}

impl Room {
    fn new() -> Self {
        Self { epoch: Epoch::random(), version: Version::default(), channels: HashMap::new(), users: HashMap::new() }
    }

    fn enters(&mut self, presence: &Presence) {
        self.channels.insert(presence.channel.clone(), presence.id);
        if let Some(user) = &presence.user {
            *self.users.entry(user.clone()).or_default() += 1;
        }
    }

    fn goes(&mut self, presence: &Presence) {
        self.channels.remove(&presence.channel);
        if let Some(Entry::Occupied(mut count)) = presence.user.clone().map(|user| self.users.entry(user)) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) room: RoomName,
    /// Marked as held exactly if `held_until` is something.
    pub(super) presence: Arc<Presence>,
    pub(super) held_until: Option<i64>,
    pub(super) session: Option<Session>,
    pub(super) last_seen: i64,
}

impl Row {
    fn found(&self, rooms: &HashMap<RoomName, Room>) -> Found {
        Found { room: rooms[&self.room].epoch, presence: self.presence.clone() }
    }

    pub(super) fn hold(&mut self, until: i64) {
        self.held_until = Some(until);
        self.presence = Arc::new(Presence { held: true, ..Presence::clone(&self.presence) });
    }
}

/// What one node is asked, and its answer.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) name: NodeName,
    pub(super) asked_by: NodeId,
    pub(super) order: Order,
    pub(super) removed: Option<u64>,
}

impl Tables {
    pub(super) fn check(&self, node: NodeId) -> Result<(), StoreError> {
        match self.nodes.get(&node) {
            Some(row) if row.fenced_at.is_none() => Ok(()),
            row => {
                let superseded = row.is_some_and(|row| self.is_succeeded(row));
                Err(StoreError::Fenced { node, superseded })
            }
        }
    }

    /// Whether a later life that is not over has this one's name.
    pub(super) fn is_succeeded(&self, node: &Node) -> bool {
        node.superseded
            && self
                .nodes
                .values()
                .any(|other| other.name == node.name && !other.superseded && other.fenced_at.is_none())
    }

    /// Extends the graces of these lives that were running at `since` by the time from then until now.
    pub(super) fn extend_graces(&mut self, of: &HashSet<NodeId>, since: i64, now: i64) {
        let by = now.saturating_sub(since).max(0);
        for row in self.presences.values_mut().filter(|row| of.contains(&row.presence.node)) {
            row.held_until = row.held_until.map(|until| if until >= since { until.saturating_add(by) } else { until });
        }
    }

    /// Whether a node has a presence that is not held.
    pub(super) fn is_uncleared(&self, node: NodeId) -> bool {
        self.presences.values().any(|row| row.presence.node == node && !row.presence.held)
    }

    /// Forgets fenced lives without presences. One that lost its name is remembered for longer, since it may yet wake.
    pub(super) fn forget(&mut self, now: i64) {
        let busy: HashSet<NodeId> = self.presences.values().map(|row| row.presence.node).collect();
        self.nodes.retain(|id, node| match node.fenced_at {
            Some(at) => busy.contains(id) || (node.superseded && at >= now.saturating_sub(millis(REMEMBERED))),
            None => true,
        });
        self.commits.retain(|node, _| self.nodes.contains_key(node));
        self.requests.retain(|_, asked| self.nodes.contains_key(&asked.asked_by));
    }

    pub(super) fn plan(&self, node: NodeId, RoomWrites { room, writes }: &RoomWrites) -> Result<Plan, Senseless> {
        let mut found = Finds::default();
        let named = writes.iter().map(Write::id);
        for session in writes.iter().filter_map(Write::session) {
            found.sessions.extend(self.sessions.get(&session.hash).map(|id| (session.hash, *id)));
        }
        for id in named.chain(found.sessions.values().copied()) {
            found.presences.extend(self.presences.get(&id).map(|row| (id, row.found(&self.rooms))));
        }
        // A room that is not there yet has nobody, so any epoch does.
        let epoch = self.rooms.get(room).map_or_else(Epoch::random, |room| room.epoch);
        found.sizes.extend(self.rooms.get(room).map(|room| (room.epoch, room.channels.len())));
        let plan = plan::plan(node, epoch, writes, &found)?;
        self.check_channels(room, &plan)?;
        Ok(plan)
    }

    /// What a database's unique index on room and channel checks, row by row.
    fn check_channels(&self, room: &RoomName, plan: &Plan) -> Result<(), Senseless> {
        let Some(room) = self.rooms.get(room) else { return distinct(&plan.new) };
        let mut freed: HashSet<&ChannelName> =
            plan.gone.iter().map(|id| &self.presences[id].presence.channel).collect();
        let mut claimed = HashSet::new();
        for (presence, _) in plan.taken.iter().chain(&plan.new) {
            let was = self.presences.get(&presence.id).map(|row| &row.presence.channel);
            if was == Some(&presence.channel) {
                continue;
            }
            let theirs = room.channels.contains_key(&presence.channel) && !freed.contains(&presence.channel);
            if theirs || !claimed.insert(&presence.channel) {
                return Err(Senseless::OtherPresence(presence.channel.clone()));
            }
            freed.extend(was);
        }
        Ok(())
    }

    /// Carries out a plan and gives the room its next version.
    pub(super) fn carry_out(&mut self, now: i64, name: &RoomName, plan: Plan) -> RoomCommit {
        let is_new_version = plan.is_new_version();
        let shifts = plan.shifts();
        let Plan { gone, held, taken, changed, new, delta, resumed, refused, .. } = plan;
        let room = self.rooms.entry(name.clone()).or_insert_with(Room::new);
        for id in gone {
            if let Some(row) = self.presences.remove(&id) {
                room.goes(&row.presence);
                row.session.map(|session| self.sessions.remove(&session.hash));
            }
        }
        for (id, grace) in held {
            if let Some(row) = self.presences.get_mut(&id) {
                row.hold(now.saturating_add(millis(grace)));
                row.last_seen = now;
            }
        }
        for (presence, _) in &taken {
            if let Some(row) = self.presences.get(&presence.id) {
                room.goes(&row.presence);
                row.session.map(|session| self.sessions.remove(&session.hash));
            }
        }
        for (presence, session) in taken.into_iter().chain(new) {
            room.enters(&presence);
            session.map(|session| self.sessions.insert(session.hash, presence.id));
            let row = Row { room: name.clone(), presence, held_until: None, session, last_seen: now };
            self.presences.insert(row.presence.id, row);
        }
        for presence in changed {
            if let Some(row) = self.presences.get_mut(&presence.id) {
                row.presence = presence;
            }
        }
        if is_new_version {
            room.version = room.version.next();
        }
        let turns = shifts.turns(|user, at_least| room.users.get(user).is_some_and(|count| *count > at_least));
        let (epoch, version) = (room.epoch, room.version);
        RoomCommit { room: name.clone(), epoch, version, delta, taken: resumed, refused, turns }
    }

    /// Removes these presences, one version for each room, the rooms sorted by id.
    pub(super) fn remove(&mut self, now: i64, ids: &[PresenceId]) -> Vec<RoomCommit> {
        let mut plans: HashMap<RoomName, Plan> = HashMap::new();
        for id in ids {
            let Row { room, presence, .. } = &self.presences[id];
            let plan = plans.entry(room.clone()).or_default();
            plan.gone.push(*id);
            plan.delta.left.push(presence.clone());
        }
        let mut commits: Vec<_> = plans.into_iter().map(|(room, plan)| self.carry_out(now, &room, plan)).collect();
        commits.sort_unstable_by_key(|commit| commit.epoch);
        commits
    }

    /// Whether a node has a lease and nobody fenced it.
    pub(super) fn is_live(&self, node: NodeId, now: i64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.fenced_at.is_none() && node.lease_until >= now)
    }

    /// The nodes that answer for their presences.
    pub(super) fn alive(&self, now: i64) -> HashSet<NodeId> {
        self.nodes.keys().copied().filter(|node| self.is_live(*node, now)).collect()
    }

    /// Up to `limit` that are wanted, in as many rooms as one transaction changes, and whether there may be more. Without a limit
    /// all of them.
    pub(super) fn ids(&self, limit: u64, wanted: impl Fn(&Row) -> bool) -> (Vec<PresenceId>, bool) {
        let (most, mut rooms) = (usize::try_from(limit).unwrap_or(usize::MAX), HashSet::new());
        let mut ids = Vec::new();
        for (id, row) in self.presences.iter().filter(|(_, row)| wanted(row)) {
            rooms.insert(&row.room);
            if limit != u64::MAX && (ids.len() == most || rooms.len() > MAX_ROOMS_PER_REMOVAL) {
                return (ids, true);
            }
            ids.push(*id);
        }
        let is_full = ids.len() == most;
        (ids, is_full)
    }

    pub(super) fn batch(&mut self, now: i64, (ids, more): &(Vec<PresenceId>, bool)) -> Batch {
        Batch { commits: self.remove(now, ids), handled: ids.len() as u64, more: *more }
    }
}

fn distinct(joined: &[plan::Row]) -> Result<(), Senseless> {
    let mut channels = HashSet::new();
    match joined.iter().find(|(presence, _)| !channels.insert(&presence.channel)) {
        Some((twice, _)) => Err(Senseless::OtherPresence(twice.channel.clone())),
        None => Ok(()),
    }
}
