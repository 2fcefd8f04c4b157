//! A store in the memory of the process, for tests, and for a single node that may forget everything.
//!
//! It passes the same suite as the databases. Calls search all presences, so it suits up to some ten thousand of them.

mod nodes;
mod tables;

use std::{collections::BTreeSet, fmt, ops::Bound, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};

use crate::{
    clock::Clock,
    model::Snapshot,
    name::{Epoch, NodeId, PresenceId, RoomName, UserId, Version},
};

use super::{
    Attempt, Batch, ChangedRoom, Changes, RecentChanges, RemovalTarget, RoomChange, RoomCommit, RoomStore, RoomSummary,
    Store, StoreError, SweepShare, listing, millis, plan,
    recent::whole_seconds,
    room_change::{MAX_MISSING, without_gaps},
    time,
};

use self::tables::{PresenceEntry, RoomEntry, Tables};

/// By how much the changes that are asked for at two times overlap, as they do in a database, so that tests of nodes are about the same thing.
const OVERLAP: Duration = Duration::from_secs(10);

/// A [`Store`] in the memory of this process. Clones share one store.
#[derive(Clone)]
pub struct MemoryStore {
    clock: Clock,
    tables: Arc<Mutex<Tables>>,
    /// In how many lanes a node may commit. One is enough, since no commit waits for another.
    max_lanes: u16,
}

impl MemoryStore {
    /// An empty store with the time of `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, tables: Arc::default(), max_lanes: 1 }
    }

    /// The same store for nodes that commit in several lanes, as they do in the database of a server.
    #[cfg(test)]
    pub(crate) fn in_lanes(self) -> Self {
        Self { max_lanes: u16::MAX, ..self }
    }

    /// Calling the result brings the store back to what it holds now, as a crash of a database may.
    #[cfg(test)]
    pub(crate) fn crash_to_now(&self) -> impl FnOnce() + use<> {
        let (tables, before) = (self.tables.clone(), self.tables().clone());
        move || *tables.lock() = before
    }

    /// Gives the last change of a room an earlier time, as if its transaction had taken so long.
    #[cfg(test)]
    pub(crate) fn date_back(&self, room: &RoomName, by: Duration) {
        let mut tables = self.tables();
        let room = tables.rooms.get_mut(room).expect("the room exists");
        room.changed_at -= whole_seconds(millis(by));
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().0).unwrap_or(i64::MAX)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock()
    }

    /// The tables, if the node may write.
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
        let Tables { nodes, rooms, presences, .. } = &*self.tables();
        f.debug_struct("MemoryStore")
            .field("nodes", &nodes.len())
            .field("rooms", &rooms.len())
            .field("presences", &presences.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn database_id(&self) -> Option<u64> {
        // The address of the tables is unique as long as a clone exists.
        Some(Arc::as_ptr(&self.tables).addr() as u64)
    }

    fn keep_changes(&self, keep: bool) {
        self.tables().is_alone = !keep;
    }

    fn allow_lanes(&self, lanes: u16) -> u16 {
        lanes.clamp(1, self.max_lanes)
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl RoomStore for MemoryStore {
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: Changes) -> Result<Vec<RoomCommit>, StoreError> {
        plan::check(&rooms)?;
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        // All plans are made before the first change, so that a commit that is refused changes nothing.
        let plans = rooms.iter().map(|room| tables.plan(node, room)).collect::<Result<Vec<_>, _>>()?;
        let commits: Vec<_> =
            rooms.iter().zip(plans).map(|(room, plan)| tables.carry_out(now, &room.room, plan)).collect();
        tables.keep_changes(now, node, &commits);
        tables.commits.insert((node, attempt.lane()), (attempt, commits.clone()));
        if let Some(row) = tables.nodes.get_mut(&node) {
            row.writes.commits += 1;
        }
        Ok(commits)
    }

    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError> {
        let tables = self.tables();
        let last = tables.commits.get(&(node, attempt.lane())).filter(|(last, _)| *last == attempt);
        Ok(last.map(|(_, commits)| commits.clone()))
    }

    async fn touch(&self, node: NodeId, seen: Arc<[(PresenceId, Duration)]>) -> Result<(), StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        for (id, ago) in seen.iter() {
            if let Some(row) = tables.presences.get_mut(id).filter(|row| row.presence.node == node) {
                row.last_seen = row.last_seen.max(now.saturating_sub(millis(*ago)));
            }
        }
        Ok(())
    }

    async fn load(&self, room: RoomName) -> Result<Option<Snapshot>, StoreError> {
        let tables = self.tables();
        Ok(tables.rooms.get(&room).map(|RoomEntry { epoch, version, channels, .. }| Snapshot {
            epoch: *epoch,
            version: *version,
            presences: channels.values().map(|id| tables.presences[id].presence.clone()).collect(),
        }))
    }

    async fn changes_after(&self, room: Epoch, version: Version) -> Result<Option<Vec<RoomChange>>, StoreError> {
        let tables = self.tables();
        let Some(current) = tables.rooms.values().find(|one| one.epoch == room).map(|room| room.version) else {
            return Ok(None);
        };
        if current <= version || current.0 - version.0 > MAX_MISSING {
            return Ok((current == version).then(Vec::new));
        }
        let after = (Bound::Excluded((room, version)), Bound::Included((room, current)));
        let missing = tables.changes.range(after).map(|(_, (_, change))| change.clone()).collect();
        Ok(without_gaps(version, current, missing))
    }

    async fn forget_changes(&self, age: Duration) -> Result<(), StoreError> {
        let before = self.now().saturating_sub(millis(age));
        self.tables().changes.retain(|_, (made_at, _)| *made_at >= before);
        Ok(())
    }

    async fn positions(&self, rooms: Arc<[RoomName]>) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let tables = self.tables();
        let found = rooms.iter().filter_map(|name| Some((name, tables.rooms.get(name)?)));
        Ok(found.map(|(name, room)| (name.clone(), room.epoch, room.version)).collect())
    }

    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let tables = self.tables();
        Ok(tables.rooms.iter().map(|(name, room)| (name.clone(), room.epoch, room.version)).collect())
    }

    async fn recent_changes(&self, node: NodeId, since: Duration, limit: u64) -> Result<RecentChanges, StoreError> {
        let (now, since, tables) = (self.now(), whole_seconds(millis(since)), self.tables());
        let changed = tables.rooms.iter().filter(|(_, room)| room.changed_at >= since);
        let changed = changed.map(|(name, room)| ChangedRoom {
            room: name.clone(),
            epoch: room.epoch,
            version: room.version,
            changed_at: time(room.changed_at.saturating_mul(1000)),
        });
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rooms: Vec<_> = changed.take(limit.saturating_add(1)).collect();
        let is_complete = rooms.len() <= limit;
        rooms.truncate(limit);
        let own_writes = tables.nodes.get(&node).map(|row| row.writes);
        let others = tables.alive(now).iter().filter(|other| **other != node).count() as u64;
        let (prunes, set_backs) = (tables.prunes, tables.set_backs);
        let next = time(now).saturating_sub(OVERLAP);
        Ok(RecentChanges { time: time(now), next, rooms, is_complete, own_writes, others, prunes, set_backs })
    }

    async fn rooms(&self, after: Option<RoomName>, limit: u64) -> Result<Vec<RoomSummary>, StoreError> {
        let tables = self.tables();
        let summary = |(name, RoomEntry { epoch, version, channels, .. }): (&RoomName, &RoomEntry)| {
            let there: Vec<_> = channels.values().map(|id| &*tables.presences[id].presence).collect();
            let users: BTreeSet<_> = there.iter().filter_map(|presence| presence.user.as_ref()).collect();
            RoomSummary {
                room: name.clone(),
                epoch: *epoch,
                version: *version,
                users: users.len() as u64,
                anonymous: there.iter().filter(|presence| presence.user.is_none()).count() as u64,
                presences: there.len() as u64,
                held: there.iter().filter(|presence| presence.held).count() as u64,
            }
        };
        let mut rooms: Vec<_> = tables.rooms.iter().filter(|(name, _)| Some(*name) > after.as_ref()).collect();
        rooms.sort_unstable_by_key(|(name, _)| *name);
        Ok(rooms.into_iter().take(usize::try_from(limit).unwrap_or(usize::MAX)).map(summary).collect())
    }

    async fn last_seen(&self, room: RoomName) -> Result<Vec<(PresenceId, Duration)>, StoreError> {
        let (now, tables) = (self.now(), self.tables());
        let ids = tables.rooms.get(&room).into_iter().flat_map(|room| room.channels.values());
        Ok(ids.map(|id| (*id, listing::between(tables.presences[id].last_seen, now))).collect())
    }

    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomName>, StoreError> {
        let tables = self.tables();
        let rows = tables.presences.values().filter(|row| row.presence.user.as_ref() == Some(&user));
        let mut rooms: Vec<_> = rows.map(|row| row.room.clone()).collect();
        rooms.sort_unstable();
        rooms.dedup();
        Ok(rooms)
    }

    async fn sweep(&self, node: NodeId, share: SweepShare, limit: u64) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let late = now.saturating_sub(millis(share.delay()));
        let has = |row: &PresenceEntry| share.has(node, tables.rooms[&row.room].epoch);
        let is_over = |row: &PresenceEntry, until| until < late || (until < now && has(row));
        let over = tables.ids(limit, |row| row.held_until.is_some_and(|until| is_over(row, until)));
        Ok(tables.batch(now, node, &over))
    }

    async fn prune(
        &self,
        node: NodeId,
        max_age: Duration,
        unwritten: Duration,
        limit: u64,
    ) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let cut = now.saturating_sub(millis(max_age));
        let unheld_cut = cut.saturating_sub(millis(unwritten));
        let mut alive = tables.alive(now);
        // The calling node is alive, whatever the clock of the database says.
        alive.insert(node);
        let stale = tables.ids(limit, |row| {
            let is_orphaned = !alive.contains(&row.presence.node) && row.last_seen < unheld_cut;
            is_orphaned || (row.presence.held && row.last_seen < cut)
        });
        Ok(tables.batch(now, node, &stale))
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        let mut tables = self.tables_of(node)?;
        let before = tables.rooms.len();
        tables.rooms.retain(|_, room| !room.channels.is_empty());
        let removed = before - tables.rooms.len();
        tables.prunes += u64::from(removed > 0);
        Ok(removed as u64)
    }

    async fn remove(&self, node: NodeId, target: RemovalTarget, limit: u64) -> Result<Batch, StoreError> {
        let now = self.now();
        let mut tables = self.tables_of(node)?;
        let alive = tables.alive(now);
        let concerned = |row: &PresenceEntry| target.has(&row.room, &row.presence);
        let there =
            tables.ids(limit, |row| concerned(row) && (row.presence.held || !alive.contains(&row.presence.node)));
        Ok(tables.batch(now, node, &there))
    }
}
