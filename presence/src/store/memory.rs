//! A store that forgets everything with the process: for tests, and for a single node that need not remember.
//!
//! It keeps every promise of [`Store`], by the very suite that the databases run. What a call must find it finds by
//! looking at everything, so keep it to some ten thousand presences.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    clock::Clock,
    model::{Presence, Snapshot},
    name::{ChannelName, Epoch, NodeId, NodeName, PresenceId, RoomName, UserId, Version},
};

use super::{
    Batch, REMEMBERED, Remains, RoomCommit, RoomWrites, Store, StoreError, millis,
    plan::{self, Found, Plan, Senseless},
};

/// A [`Store`] in this process's memory. Clones are one store.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Clock,
    tables: Arc<Mutex<Tables>>,
}

#[derive(Default)]
struct Tables {
    nodes: HashMap<NodeId, Node>,
    rooms: HashMap<RoomName, Room>,
    /// Sorted, so that batches are the same in every run.
    presences: BTreeMap<PresenceId, Row>,
}

struct Node {
    name: NodeName,
    /// Whether a later life has the name now.
    superseded: bool,
    lease_until: i64,
    fenced_at: Option<i64>,
}

struct Room {
    epoch: Epoch,
    version: Version,
    channels: HashMap<ChannelName, PresenceId>,
}

struct Row {
    room: RoomName,
    /// Marked as held exactly if `held_until` is something.
    presence: Arc<Presence>,
    held_until: Option<i64>,
    last_seen: i64,
}

impl MemoryStore {
    /// An empty store whose time is `clock`'s.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, tables: Arc::default() }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().0).unwrap_or(i64::MAX)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tables, for a node that may write.
    fn tables_of(&self, node: NodeId) -> Result<MutexGuard<'_, Tables>, StoreError> {
        let tables = self.tables();
        tables.check(node)?;
        Ok(tables)
    }
}

impl Default for MemoryStore {
    /// An empty store on the system's clock.
    fn default() -> Self {
        Self::new(Clock::system())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tables { nodes, rooms, presences } = &*self.tables();
        f.debug_struct("MemoryStore")
            .field("nodes", &nodes.len())
            .field("rooms", &rooms.len())
            .field("presences", &presences.len())
            .finish_non_exhaustive()
    }
}

impl Tables {
    fn check(&self, node: NodeId) -> Result<(), StoreError> {
        match self.nodes.get(&node) {
            Some(row) if row.fenced_at.is_none() => Ok(()),
            row => {
                let superseded = row.is_some_and(|row| self.is_succeeded(row));
                Err(StoreError::Fenced { node, superseded })
            }
        }
    }

    /// Whether a later life that is not over has this one's name.
    fn is_succeeded(&self, node: &Node) -> bool {
        node.superseded
            && self
                .nodes
                .values()
                .any(|other| other.name == node.name && !other.superseded && other.fenced_at.is_none())
    }

    /// Whether a node has a presence that is not held.
    fn is_uncleared(&self, node: NodeId) -> bool {
        self.presences.values().any(|row| row.presence.node == node && !row.presence.held)
    }

    /// Forgets fenced lives without presences. One that lost its name is remembered for longer, since it may yet wake.
    fn forget(&mut self, now: i64) {
        let busy: HashSet<NodeId> = self.presences.values().map(|row| row.presence.node).collect();
        self.nodes.retain(|id, node| match node.fenced_at {
            Some(at) => busy.contains(id) || (node.superseded && at >= now.saturating_sub(millis(REMEMBERED))),
            None => true,
        });
    }

    fn plan(&self, node: NodeId, RoomWrites { room, writes }: &RoomWrites) -> Result<Plan, Senseless> {
        let found = writes.iter().filter_map(|write| {
            let row = self.presences.get(&write.id())?;
            Some((write.id(), Found { room: self.rooms[&row.room].epoch, presence: row.presence.clone() }))
        });
        // A room that is not there yet has nobody, so any epoch does.
        let epoch = self.rooms.get(room).map_or_else(Epoch::random, |room| room.epoch);
        let plan = plan::plan(node, epoch, writes, &found.collect())?;
        self.check_channels(room, &plan)?;
        Ok(plan)
    }

    /// What a database's unique index on room and channel checks, row by row.
    fn check_channels(&self, room: &RoomName, plan: &Plan) -> Result<(), Senseless> {
        let Some(room) = self.rooms.get(room) else { return distinct(&plan.new) };
        let mut freed: HashSet<&ChannelName> =
            plan.gone.iter().map(|id| &self.presences[id].presence.channel).collect();
        let mut claimed = HashSet::new();
        for presence in plan.taken.iter().chain(&plan.new) {
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
    fn carry_out(&mut self, now: i64, name: &RoomName, plan: Plan) -> RoomCommit {
        let Plan { gone, taken, changed, new, delta } = plan;
        let room = self.rooms.entry(name.clone()).or_insert_with(|| Room {
            epoch: Epoch::random(),
            version: Version::default(),
            channels: HashMap::new(),
        });
        for id in gone {
            if let Some(row) = self.presences.remove(&id) {
                room.channels.remove(&row.presence.channel);
            }
        }
        for presence in &taken {
            if let Some(row) = self.presences.get(&presence.id) {
                room.channels.remove(&row.presence.channel);
            }
        }
        for presence in taken.into_iter().chain(new) {
            room.channels.insert(presence.channel.clone(), presence.id);
            let row = Row { room: name.clone(), presence, held_until: None, last_seen: now };
            self.presences.insert(row.presence.id, row);
        }
        for presence in changed {
            if let Some(row) = self.presences.get_mut(&presence.id) {
                row.presence = presence;
            }
        }
        if !delta.is_empty() {
            room.version = room.version.next();
        }
        RoomCommit { room: name.clone(), epoch: room.epoch, version: room.version, delta }
    }

    /// Removes these presences, one version for each room, the rooms sorted by id.
    fn remove(&mut self, now: i64, ids: &[PresenceId]) -> Vec<RoomCommit> {
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

    fn ids(&self, limit: u64, wanted: impl Fn(&Row) -> bool) -> Vec<PresenceId> {
        let ids = self.presences.iter().filter(|(_, row)| wanted(row)).map(|(id, _)| *id);
        ids.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect()
    }

    fn batch(&mut self, now: i64, ids: &[PresenceId]) -> Batch {
        Batch { commits: self.remove(now, ids), handled: ids.len() as u64 }
    }
}

fn distinct(joined: &[Arc<Presence>]) -> Result<(), Senseless> {
    let mut channels = HashSet::new();
    match joined.iter().find(|presence| !channels.insert(&presence.channel)) {
        Some(twice) => Err(Senseless::OtherPresence(twice.channel.clone())),
        None => Ok(()),
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn register(&self, node: NodeId, name: &NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        let now = self.now();
        let mut tables = self.tables();
        if tables.nodes.contains_key(&node) {
            tables.check(node)?;
        }
        for (_, other) in tables.nodes.iter_mut().filter(|(id, other)| **id != node && other.name == *name) {
            other.superseded = true;
            other.fenced_at.get_or_insert(now);
        }
        let lease_until = now.saturating_add(millis(lease));
        tables.nodes.insert(node, Node { name: name.clone(), superseded: false, lease_until, fenced_at: None });
        let former = tables.nodes.iter().filter(|(_, other)| other.superseded && other.name == *name);
        let mut former: Vec<_> = former.map(|(id, _)| *id).filter(|id| tables.is_uncleared(*id)).collect();
        former.sort_unstable();
        Ok(former)
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<(), StoreError> {
        let lease_until = self.now().saturating_add(millis(lease));
        let mut tables = self.tables_of(node)?;
        if let Some(row) = tables.nodes.get_mut(&node) {
            row.lease_until = lease_until;
        }
        Ok(())
    }

    async fn commit(&self, node: NodeId, rooms: &[RoomWrites]) -> Result<Vec<RoomCommit>, StoreError> {
        plan::check(rooms)?;
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        // All plans come before the first change: a commit is all or nothing.
        let plans = rooms.iter().map(|room| tables.plan(node, room)).collect::<Result<Vec<_>, _>>()?;
        Ok(rooms.iter().zip(plans).map(|(room, plan)| tables.carry_out(now, &room.room, plan)).collect())
    }

    async fn touch(&self, node: NodeId, seen: &[(PresenceId, Duration)]) -> Result<(), StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        for (id, ago) in seen {
            if let Some(row) = tables.presences.get_mut(id).filter(|row| row.presence.node == node) {
                row.last_seen = row.last_seen.max(now.saturating_sub(millis(*ago)));
            }
        }
        Ok(())
    }

    async fn load(&self, room: &RoomName) -> Result<Option<Snapshot>, StoreError> {
        let tables = self.tables();
        Ok(tables.rooms.get(room).map(|Room { epoch, version, channels }| Snapshot {
            epoch: *epoch,
            version: *version,
            presences: channels.values().map(|id| tables.presences[id].presence.clone()).collect(),
        }))
    }

    async fn positions(&self, rooms: &[RoomName]) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let tables = self.tables();
        let found = rooms.iter().filter_map(|name| Some((name, tables.rooms.get(name)?)));
        Ok(found.map(|(name, room)| (name.clone(), room.epoch, room.version)).collect())
    }

    async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>, StoreError> {
        let tables = self.tables();
        let rows = tables.presences.values().filter(|row| row.presence.user.as_ref() == Some(user));
        let mut rooms: Vec<_> = rows.map(|row| row.room.clone()).collect();
        rooms.sort_unstable();
        rooms.dedup();
        Ok(rooms)
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        for (_, other) in tables.nodes.iter_mut().filter(|(id, other)| **id != node && other.lease_until < now) {
            other.fenced_at.get_or_insert(now);
        }
        tables.forget(now);
        let fenced = tables.nodes.iter().filter(|(id, other)| {
            other.fenced_at.is_some() && !tables.is_succeeded(other) && tables.is_uncleared(**id)
        });
        let mut fenced: Vec<_> = fenced.map(|(id, _)| *id).collect();
        fenced.sort_unstable();
        Ok(fenced)
    }

    async fn clear(&self, node: NodeId, dead: NodeId, remains: Remains, limit: u64) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        if tables.nodes.get(&dead).is_none_or(|dead| dead.fenced_at.is_none()) {
            return Ok(Batch::default());
        }
        let ids = tables.ids(limit, |row| row.presence.node == dead && !row.presence.held);
        let batch = match remains {
            Remains::HoldAll(grace) => {
                for id in &ids {
                    if let Some(row) = tables.presences.get_mut(id) {
                        row.held_until = Some(now.saturating_add(millis(grace)));
                        row.presence = Arc::new(Presence { held: true, ..Presence::clone(&row.presence) });
                    }
                }
                Batch { commits: Vec::new(), handled: ids.len() as u64 }
            }
            // No presence has a resume token here.
            Remains::HoldResumable(_) => tables.batch(now, &ids),
        };
        tables.forget(now);
        Ok(batch)
    }

    async fn sweep(&self, node: NodeId, limit: u64) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let over = tables.ids(limit, |row| row.held_until.is_some_and(|until| until < now));
        Ok(tables.batch(now, &over))
    }

    async fn prune(&self, node: NodeId, max_age: Duration, limit: u64) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let cut = now.saturating_sub(millis(max_age));
        let alive = tables.nodes.iter().filter(|(_, node)| node.fenced_at.is_none() && node.lease_until >= now);
        let alive: HashSet<NodeId> = alive.map(|(id, _)| *id).collect();
        let stale =
            tables.ids(limit, |row| row.last_seen < cut && (row.presence.held || !alive.contains(&row.presence.node)));
        Ok(tables.batch(now, &stale))
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        let mut tables = self.tables_of(node)?;
        let before = tables.rooms.len();
        tables.rooms.retain(|_, room| !room.channels.is_empty());
        Ok((before - tables.rooms.len()) as u64)
    }

    async fn retire(&self, node: NodeId) -> Result<Vec<RoomCommit>, StoreError> {
        let now = self.now();
        let mut tables = self.tables();
        if !tables.nodes.contains_key(&node) {
            return Ok(Vec::new());
        }
        tables.check(node)?;
        let ids = tables.ids(u64::MAX, |row| row.presence.node == node && !row.presence.held);
        let commits = tables.remove(now, &ids);
        if let Some(row) = tables.nodes.get_mut(&node) {
            row.fenced_at = Some(now);
        }
        tables.forget(now);
        Ok(commits)
    }
}
