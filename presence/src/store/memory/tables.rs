//! The tables of a store in memory, and the steps of its calls.

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
    Attempt, Batch, KEEP_SUPERSEDED_FOR, Order, RoomChange, RoomCommit, RoomWrites, StoreError, Write, WriteCounts,
    millis,
    pace::MAX_ROOMS_PER_REMOVAL,
    plan::{self, Existing, InvalidWrites, Plan, StoredPresence},
    recent::whole_seconds,
};

#[derive(Clone, Default)]
pub(super) struct Tables {
    pub(super) nodes: HashMap<NodeId, NodeEntry>,
    pub(super) rooms: HashMap<RoomName, RoomEntry>,
    /// Sorted, so that batches are the same in each run.
    pub(super) presences: BTreeMap<PresenceId, PresenceEntry>,
    /// The owner of each resume token.
    sessions: HashMap<SessionHash, PresenceId>,
    /// Whether no other node reads the changes, so that they are not kept.
    pub(super) is_alone: bool,
    /// Those that are kept, each with its time.
    pub(super) changes: BTreeMap<(Epoch, Version), (i64, RoomChange)>,
    /// The last commit of each node in each lane, in case its answer is lost.
    pub(super) commits: HashMap<(NodeId, u16), (Attempt, Vec<RoomCommit>)>,
    /// How many times empty rooms were removed, and how many times a node reported that changes are lost.
    pub(super) prunes: u64,
    pub(super) set_backs: u64,
    /// The requests to each node, with its answer.
    pub(super) requests: BTreeMap<(RequestId, NodeId), RequestEntry>,
}

#[derive(Clone)]
pub(super) struct NodeEntry {
    pub(super) name: NodeName,
    pub(super) process: &'static str,
    pub(super) started_at: i64,
    /// Whether a later incarnation has the name.
    pub(super) superseded: bool,
    pub(super) lease_until: i64,
    pub(super) fenced_at: Option<i64>,
    /// How many times its lease was renewed, and how many commits it has made.
    pub(super) writes: WriteCounts,
    /// The node that clears this one, and until when it is left to it.
    pub(super) cleaner: Option<(NodeId, i64)>,
}

impl NodeEntry {
    /// Whether a node other than `node` clears this one.
    pub(super) fn is_left_to_another(&self, node: NodeId, now: i64) -> bool {
        self.cleaner.is_some_and(|(cleaner, until)| cleaner != node && until >= now)
    }
}

#[derive(Clone)]
pub(super) struct RoomEntry {
    pub(super) epoch: Epoch,
    pub(super) version: Version,
    /// When it was given its version, in whole seconds.
    pub(super) changed_at: i64,
    pub(super) channels: HashMap<ChannelName, PresenceId>,
    /// The number of presences of each user.
    users: HashMap<UserId, i64>,
}

impl RoomEntry {
    fn new(now: i64) -> Self {
        Self {
            epoch: Epoch::random(),
            version: Version::default(),
            changed_at: whole_seconds(now),
            channels: HashMap::new(),
            users: HashMap::new(),
        }
    }

    fn add(&mut self, presence: &Presence) {
        self.channels.insert(presence.channel.clone(), presence.id);
        if let Some(user) = &presence.user {
            *self.users.entry(user.clone()).or_default() += 1;
        }
    }

    fn remove(&mut self, presence: &Presence) {
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
pub(super) struct PresenceEntry {
    pub(super) room: RoomName,
    /// Marked as held exactly if `held_until` is set.
    pub(super) presence: Arc<Presence>,
    pub(super) held_until: Option<i64>,
    pub(super) session: Option<Session>,
    pub(super) joined_at: i64,
    pub(super) last_seen: i64,
}

impl PresenceEntry {
    fn found(&self, rooms: &HashMap<RoomName, RoomEntry>) -> StoredPresence {
        StoredPresence { room: rooms[&self.room].epoch, presence: self.presence.clone() }
    }

    pub(super) fn hold(&mut self, until: i64) {
        self.held_until = Some(until);
        self.presence = Arc::new(Presence { held: true, ..Presence::clone(&self.presence) });
    }
}

/// A request to one node, and its answer.
#[derive(Clone)]
pub(super) struct RequestEntry {
    pub(super) name: NodeName,
    pub(super) sender: NodeId,
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

    /// Whether a later incarnation that is not fenced has the name of this one.
    pub(super) fn is_succeeded(&self, node: &NodeEntry) -> bool {
        node.superseded
            && self
                .nodes
                .values()
                .any(|other| other.name == node.name && !other.superseded && other.fenced_at.is_none())
    }

    /// Extends the graces of these incarnations that had not expired at `since` by the time since then.
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

    /// The fenced incarnations without presences. One that lost its name is kept longer, since its process may be suspended.
    pub(super) fn forgettable(&self, now: i64) -> HashSet<NodeId> {
        let busy: HashSet<NodeId> = self.presences.values().map(|row| row.presence.node).collect();
        let is_over = |(id, node): &(&NodeId, &NodeEntry)| match node.fenced_at {
            Some(at) => {
                !busy.contains(id) && (!node.superseded || at < now.saturating_sub(millis(KEEP_SUPERSEDED_FOR)))
            }
            None => false,
        };
        self.nodes.iter().filter(is_over).map(|(id, _)| *id).collect()
    }

    /// The fenced incarnations that `node` would clear.
    pub(super) fn uncleared_orphans(&self, node: NodeId, now: i64) -> Vec<NodeId> {
        let fenced = self.nodes.iter().filter(|(id, other)| {
            other.fenced_at.is_some()
                && !self.is_succeeded(other)
                && !other.is_left_to_another(node, now)
                && self.is_uncleared(**id)
        });
        let mut fenced: Vec<_> = fenced.map(|(id, _)| *id).collect();
        fenced.sort_unstable();
        fenced
    }

    /// Forgets the [`forgettable`](Self::forgettable) incarnations.
    pub(super) fn forget(&mut self, now: i64) {
        let over = self.forgettable(now);
        self.nodes.retain(|id, _| !over.contains(id));
        self.commits.retain(|(node, _), _| self.nodes.contains_key(node));
        self.requests.retain(|_, request| self.nodes.contains_key(&request.sender));
    }

    pub(super) fn plan(&self, node: NodeId, RoomWrites { room, writes }: &RoomWrites) -> Result<Plan, InvalidWrites> {
        let mut found = Existing::default();
        let named = writes.iter().map(Write::id);
        for session in writes.iter().filter_map(Write::session) {
            found.sessions.extend(self.sessions.get(&session.hash).map(|id| (session.hash, *id)));
        }
        for id in named.chain(found.sessions.values().copied()) {
            found.presences.extend(self.presences.get(&id).map(|row| (id, row.found(&self.rooms))));
        }
        // A room that does not exist is empty, so any epoch is right.
        let epoch = self.rooms.get(room).map_or_else(Epoch::random, |room| room.epoch);
        found.sizes.extend(self.rooms.get(room).map(|room| (room.epoch, room.channels.len())));
        let plan = plan::plan(node, epoch, writes, &found)?;
        self.check_channels(room, &plan)?;
        Ok(plan)
    }

    /// Checks what the unique index on room and channel checks in a database, row by row.
    fn check_channels(&self, room: &RoomName, plan: &Plan) -> Result<(), InvalidWrites> {
        let Some(room) = self.rooms.get(room) else { return distinct(&plan.insert) };
        let mut freed: HashSet<&ChannelName> =
            plan.delete.iter().map(|id| &self.presences[id].presence.channel).collect();
        let mut claimed = HashSet::new();
        for (presence, _) in plan.take_over.iter().chain(&plan.insert) {
            let was = self.presences.get(&presence.id).map(|row| &row.presence.channel);
            if was == Some(&presence.channel) {
                continue;
            }
            let theirs = room.channels.contains_key(&presence.channel) && !freed.contains(&presence.channel);
            if theirs || !claimed.insert(&presence.channel) {
                return Err(InvalidWrites::OtherPresence(presence.channel.clone()));
            }
            freed.extend(was);
        }
        Ok(())
    }

    /// Carries out a plan, and gives the room a version if it needs one.
    pub(super) fn carry_out(&mut self, now: i64, name: &RoomName, plan: Plan) -> RoomCommit {
        let is_new_version = plan.is_new_version();
        let count_changes = plan.count_changes();
        let Plan { delete, hold, take_over, set_meta, insert, delta, resumed, refused, .. } = plan;
        let room = self.rooms.entry(name.clone()).or_insert_with(|| RoomEntry::new(now));
        for id in delete {
            if let Some(row) = self.presences.remove(&id) {
                room.remove(&row.presence);
                row.session.map(|session| self.sessions.remove(&session.hash));
            }
        }
        for (id, grace) in hold {
            if let Some(row) = self.presences.get_mut(&id) {
                row.hold(now.saturating_add(millis(grace)));
                row.last_seen = now;
            }
        }
        for (presence, _) in &take_over {
            if let Some(row) = self.presences.get(&presence.id) {
                room.remove(&row.presence);
                row.session.map(|session| self.sessions.remove(&session.hash));
            }
        }
        for (presence, session) in take_over.into_iter().chain(insert) {
            room.add(&presence);
            session.map(|session| self.sessions.insert(session.hash, presence.id));
            let joined_at = self.presences.get(&presence.id).map_or(now, |row| row.joined_at);
            let room = name.clone();
            let row = PresenceEntry { room, presence, held_until: None, session, joined_at, last_seen: now };
            self.presences.insert(row.presence.id, row);
        }
        for presence in set_meta {
            if let Some(row) = self.presences.get_mut(&presence.id) {
                row.presence = presence;
            }
        }
        if is_new_version {
            room.version = room.version.next();
            room.changed_at = whole_seconds(now);
        }
        let online_changes =
            count_changes.online_changes(|user, at_least| room.users.get(user).is_some_and(|count| *count > at_least));
        let (epoch, version) = (room.epoch, room.version);
        RoomCommit { room: name.clone(), epoch, version, delta, resumed, refused, online_changes }
    }

    /// Removes these presences. Each room gets one version, in the order of the room ids.
    pub(super) fn remove(&mut self, now: i64, ids: &[PresenceId]) -> Vec<RoomCommit> {
        let mut plans: HashMap<RoomName, Plan> = HashMap::new();
        for id in ids {
            let PresenceEntry { room, presence, .. } = &self.presences[id];
            let plan = plans.entry(room.clone()).or_default();
            plan.delete.push(*id);
            plan.delta.left.push(presence.clone());
        }
        let mut commits: Vec<_> = plans.into_iter().map(|(room, plan)| self.carry_out(now, &room, plan)).collect();
        commits.sort_unstable_by_key(|commit| commit.epoch);
        commits
    }

    /// Whether a node has a lease and is not fenced.
    pub(super) fn is_live(&self, node: NodeId, now: i64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.fenced_at.is_none() && node.lease_until >= now)
    }

    /// All live nodes.
    pub(super) fn alive(&self, now: i64) -> HashSet<NodeId> {
        self.nodes.keys().copied().filter(|node| self.is_live(*node, now)).collect()
    }

    /// Up to `limit` presences that match, in as many rooms as one transaction may change, and whether there may be more. With
    /// `u64::MAX` all of them.
    pub(super) fn ids(&self, limit: u64, matches: impl Fn(&PresenceEntry) -> bool) -> (Vec<PresenceId>, bool) {
        let (most, mut rooms) = (usize::try_from(limit).unwrap_or(usize::MAX), HashSet::new());
        let mut ids = Vec::new();
        for (id, row) in self.presences.iter().filter(|(_, row)| matches(row)) {
            rooms.insert(&row.room);
            if limit != u64::MAX && (ids.len() == most || rooms.len() > MAX_ROOMS_PER_REMOVAL) {
                return (ids, true);
            }
            ids.push(*id);
        }
        let is_full = ids.len() == most;
        (ids, is_full)
    }

    pub(super) fn batch(&mut self, now: i64, by: NodeId, (ids, more): &(Vec<PresenceId>, bool)) -> Batch {
        let commits = self.remove(now, ids);
        self.keep_changes(now, by, &commits);
        Batch { commits, handled: ids.len() as u64, more: *more }
    }

    /// Keeps what a transaction changed, if it is to be kept.
    pub(super) fn keep_changes(&mut self, now: i64, by: NodeId, commits: &[RoomCommit]) {
        if self.is_alone {
            return;
        }
        for RoomCommit { epoch, version, delta, .. } in commits.iter().filter(|one| one.is_new_version()) {
            let change = RoomChange { version: *version, by, delta: delta.clone() };
            self.changes.insert((*epoch, *version), (now, change));
        }
    }
}

fn distinct(joined: &[plan::NewRow]) -> Result<(), InvalidWrites> {
    let mut channels = HashSet::new();
    match joined.iter().find(|(presence, _)| !channels.insert(&presence.channel)) {
        Some((twice, _)) => Err(InvalidWrites::OtherPresence(twice.channel.clone())),
        None => Ok(()),
    }
}
