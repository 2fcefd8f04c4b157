//! A store in a database, with sea-orm.
//!
//! Each call is one transaction, made of the steps in `transaction` and the statements in `statement`. What differs between
//! databases is in one file for each. This file tries each call once. `retrying` repeats calls that other transactions undo. A
//! database that is away is left to the caller. A future that is dropped rolls its transaction back, unless it was committed
//! already.

mod attempts;
mod busy;
mod change_log;
mod chunk;
mod commit;
mod database;
mod dialect;
mod error;
#[cfg(feature = "mysql")]
mod mysql;
mod nodes;
#[cfg(feature = "postgres")]
mod postgres;
mod retrying;
mod row;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod tests;
mod transaction;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, TryGetableMany};

use crate::{
    model::Snapshot,
    name::{Epoch, NodeId, PresenceId, RoomName, UserId, Version},
};

use super::{
    Attempt, Batch, Changes, RecentChanges, RemovalTarget, RoomChange, RoomCommit, RoomStore, RoomSummary, RoomWrites,
    Store, StoreError, SweepShare, migration, millis, plan, room_change::MAX_MISSING,
};

use self::{
    attempts::{Attempts, CommitProgress, StillInProgress},
    database::Database,
    error::store_error,
    row::{RecentRow, RoomPosition},
    statement::{RemovalFilter, Rows},
    transaction::{CommitChanges, CommitReading, Lock, Transaction, presences_in},
};

pub use self::{
    retrying::{MissingFeature, SeveralHosts, SqlStore},
    settings::Synchronous,
};

#[cfg(feature = "cli")]
pub(crate) use self::error::{database_message, is_access_denied};

/// How many presences of a room one query loads.
const PRESENCES_PER_PAGE: u64 = 10_000;

/// How many touches one statement writes.
const TOUCHES_PER_STATEMENT: usize = 10_000;

/// A store that tries each call once.
#[derive(Debug, Clone)]
pub struct SingleTryStore {
    database: Database,
    attempts: Attempts,
    /// Identifies the database within this process.
    identity: u64,
    /// How many times as long as its attempt says a commit waits for locks, because it was undone before.
    patience_factor: u32,
}

impl SingleTryStore {
    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.database.prepare().await?;
        self.database.examine().await?;
        let dialect = self.database.dialect();
        let transaction = dialect.begin_migration(&self.database.writer).await.map_err(store_error)?;
        let applied = migration::run(&transaction, store_error).await?;
        dialect.end_migration(transaction).await.map_err(store_error)?;
        Ok(applied)
    }

    async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        migration::pending(self.database.readers(), store_error).await
    }

    /// Begins a transaction of a node that may write.
    async fn write_as(&self, node: NodeId) -> Result<Transaction, StoreError> {
        Transaction::begin_as(&self.database, node, Lock::Shared).await
    }

    /// As [`write_as`](Self::write_as), to clean up after other nodes: it waits less long for locks.
    async fn clean_up_as(&self, node: NodeId) -> Result<Transaction, StoreError> {
        Transaction::begin_as(&self.database.for_cleaning(), node, Lock::Shared).await
    }

    /// Forgets the last commits of incarnations that the database has forgotten. They can only be former incarnations of this
    /// process, and there are rarely any.
    async fn forget_commits(&self, node: NodeId) {
        let commits = self.attempts.of_others(node);
        if commits.is_empty() {
            return;
        }
        let nodes: Vec<_> = commits.iter().map(|(_, node)| node.as_uuid()).collect();
        // If this fails, the next fence tries it again.
        let Ok(remembered) = self.query(|| statement::existing(nodes.clone()), Ok).await else { return };
        let over = commits.into_iter().filter(|(_, node)| !remembered.contains(&node.as_uuid()));
        self.attempts.forget(over.map(|(attempt, _)| attempt));
    }

    /// Runs a query without a transaction.
    async fn query<R, T>(
        &self,
        query: impl Fn() -> Rows<R>,
        read: impl Fn(R) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError>
    where
        R: TryGetableMany,
    {
        let rows = self.database.on_live_connection(|| query().all(self.database.readers())).await?;
        rows.into_iter().map(read).collect()
    }
}

#[async_trait]
impl Store for SingleTryStore {
    fn database_id(&self) -> Option<u64> {
        Some(self.identity)
    }

    fn limit_waits(&self, lease: Duration, store_timeout: Duration) {
        self.database.limits().set(lease, store_timeout);
    }

    fn allow_lanes(&self, lanes: u16) -> u16 {
        let lanes = lanes.clamp(1, self.database.dialect().max_lanes());
        self.database.limits().set_lanes(lanes);
        lanes
    }

    fn keep_changes(&self, keep: bool) {
        let log = &self.database.change_log;
        if log.is_on.swap(keep, Ordering::AcqRel) && !keep {
            // Another node may have ended without forgetting what it kept.
            log.kept();
        }
    }

    fn track_online(&self) {
        self.database.tracks_online.store(true, Ordering::Release);
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.migrate().await.map(drop)
    }

    async fn check_connection(&self) -> Result<(), StoreError> {
        self.database.check_connection().await
    }
}

#[async_trait]
impl RoomStore for SingleTryStore {
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: Changes) -> Result<Vec<RoomCommit>, StoreError> {
        plan::check(&rooms)?;
        let patience = attempt.patience().map(|patience| patience.saturating_mul(self.patience_factor));
        let database = self.database.for_lane(patience);
        let (transaction, CommitReading { positions, existing, is_deleted }) =
            Transaction::begin_commit(&database, node, &rooms).await?;
        let mut changes = CommitChanges::default();
        let mut commits = Vec::with_capacity(rooms.len());
        let mut count_changes = Vec::with_capacity(rooms.len());
        for (RoomWrites { room, writes }, RoomPosition { epoch, version, .. }) in rooms.iter().zip(positions) {
            let plan = plan::plan(node, epoch, writes, &existing)?;
            count_changes.push((epoch, plan.count_changes()));
            let version = if plan.is_new_version() {
                changes.changed.push(epoch);
                version.next()
            } else {
                version
            };
            if !is_deleted {
                changes.gone.extend(plan.delete);
            }
            changes.held.extend(plan.hold);
            changes.taken.extend(plan.take_over.into_iter().map(|row| (epoch, row)));
            changes.new.extend(plan.insert.into_iter().map(|row| (epoch, row)));
            changes.metas.extend(plan.set_meta.into_iter().map(|presence| (epoch, presence)));
            commits.push(RoomCommit {
                resumed: plan.resumed,
                refused: plan.refused,
                ..RoomCommit::new(room.clone(), epoch, version, plan.delta)
            });
        }
        transaction.write(node, attempt, changes).await?;
        for (commit, online_changes) in commits.iter_mut().zip(transaction.online_changes(count_changes).await?) {
            commit.online_changes = online_changes;
        }
        transaction.keep_changes(&commits).await?;
        let unavailable = |given_up| StoreError::Unavailable(Arc::new(given_up));
        self.attempts.send(attempt, &commits).map_err(unavailable)?;
        transaction.commit().await?;
        self.attempts.done(attempt);
        Ok(commits)
    }

    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError> {
        match self.attempts.progress(node, attempt) {
            None => Ok(None),
            Some(CommitProgress::Begun) => Err(StoreError::Unavailable(Arc::new(StillInProgress))),
            Some(CommitProgress::Done(commits)) => Ok(Some(commits)),
            Some(CommitProgress::Sent(commits)) => {
                // Waits if the commit is still in progress.
                let lane = self.database.for_lane(None);
                let transaction = lane.write().await?;
                lane.limit(&transaction).await?;
                let last = statement::last_commit(node, attempt.lane()).one(&transaction).await.map_err(store_error)?;
                Ok((last == Some(attempt.number())).then_some(commits))
            }
        }
    }

    async fn touch(&self, node: NodeId, seen: Arc<[(PresenceId, Duration)]>) -> Result<(), StoreError> {
        let transaction = Transaction::begin_as(&self.database.for_lane(None), node, Lock::Shared).await?;
        // In one order, in which removals lock presences, too.
        let mut seen = seen.to_vec();
        seen.sort_unstable_by_key(|(id, _)| *id);
        for seen in seen.chunks(TOUCHES_PER_STATEMENT) {
            let touch = self.database.dialect().touch(node, transaction.now, seen);
            transaction.connection().execute_raw(touch).await.map_err(store_error)?;
        }
        transaction.commit().await
    }

    async fn load(&self, room: RoomName) -> Result<Option<Snapshot>, StoreError> {
        let transaction = self.database.read().await?;
        let Some(row) = statement::room(room.as_str()).one(&transaction).await.map_err(store_error)? else {
            return Ok(None);
        };
        let RoomPosition { epoch, version, .. } = row::position(row)?;
        let mut presences = Vec::new();
        let mut last = String::new();
        loop {
            let page = self.database.dialect().page(epoch, &last, PRESENCES_PER_PAGE);
            let rows = transaction.query_all_raw(page).await.map_err(store_error)?;
            let complete = (rows.len() as u64) < PRESENCES_PER_PAGE;
            presences.extend(presences_in(&rows)?.into_iter().map(|found| found.presence));
            match presences.last() {
                Some(presence) if !complete => last = presence.channel.to_string(),
                _ => break,
            }
            // Decoding names and metas takes time. This lets other tasks of the thread run.
            tokio::task::yield_now().await;
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(Some(Snapshot { epoch, version, presences }))
    }

    async fn changes_after(&self, room: Epoch, version: Version) -> Result<Option<Vec<RoomChange>>, StoreError> {
        let rows = self.query(|| statement::changes_after(room, version, MAX_MISSING + 1), Ok).await?;
        Ok(change_log::decoded(room, version, rows))
    }

    async fn forget_changes(&self, age: Duration) -> Result<(), StoreError> {
        if !self.database.change_log.forgets(age) {
            return Ok(());
        }
        let forget = || statement::forget_changes(self.database.now(), age);
        self.database.on_live_connection(|| forget().exec(&self.database.writer)).await.map(drop)
    }

    async fn positions(&self, rooms: Arc<[RoomName]>) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
        let mut positions = Vec::with_capacity(rooms.len());
        for names in chunk::keys(self.database.dialect().backend(), &names) {
            positions.extend(self.query(|| statement::rooms_by_name(names.clone()), row::position).await?);
        }
        Ok(positions.into_iter().map(|RoomPosition { room, epoch, version }| (room, epoch, version)).collect())
    }

    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let positions = self.query(statement::all_rooms, row::position).await?;
        Ok(positions.into_iter().map(|RoomPosition { room, epoch, version }| (room, epoch, version)).collect())
    }

    async fn recent_changes(&self, node: NodeId, since: Duration, limit: u64) -> Result<RecentChanges, StoreError> {
        let backend = self.database.dialect().backend();
        // One more shows that there are more.
        let beyond = limit.saturating_add(1);
        let query = || statement::recent_changes(backend, node, self.database.now(), millis(since), beyond);
        let rows = self
            .database
            .on_live_connection(|| {
                let query = query();
                async move { self.database.readers().query_all(&query).await }
            })
            .await?;
        let read = |row| RecentRow::try_get_many_by_index(row).map_err(|error| store_error(error.into()));
        let rows = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        row::recent_changes(rows, limit, self.database.limits().longest_transaction())
    }

    async fn rooms(&self, after: Option<RoomName>, limit: u64) -> Result<Vec<RoomSummary>, StoreError> {
        let after = after.as_ref().map_or("", RoomName::as_str);
        self.query(|| statement::room_summaries(after, limit), row::room_summary).await
    }

    async fn last_seen(&self, room: RoomName) -> Result<Vec<(PresenceId, Duration)>, StoreError> {
        self.query(|| statement::last_seen(room.as_str(), self.database.now()), row::last_seen).await
    }

    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomName>, StoreError> {
        let mut rooms = self.query(|| statement::rooms_of(&user), row::room_name).await?;
        rooms.sort_unstable();
        Ok(rooms)
    }

    async fn sweep(&self, node: NodeId, share: SweepShare, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.clean_up_as(node).await?;
        let batch = transaction.sweep(node, &share, limit).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn prune(
        &self,
        node: NodeId,
        max_age: Duration,
        unwritten: Duration,
        limit: u64,
    ) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let now = transaction.now;
        let cut = now.saturating_sub(millis(max_age));
        let stale = RemovalFilter::Stale { caller: node, now, cut, unheld_cut: cut.saturating_sub(millis(unwritten)) };
        let batch = transaction.remove_all(stale, limit).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        let transaction = self.write_as(node).await?;
        let deleted = transaction.delete_empty_rooms().await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn remove(&self, node: NodeId, target: RemovalTarget, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let now = transaction.now;
        let orphans = match &target {
            RemovalTarget::Room(room) => {
                transaction.epoch_of(room).await?.map(|room| RemovalFilter::OrphansIn { room, now })
            }
            RemovalTarget::User(user) => Some(RemovalFilter::OrphansOf { user, room: None, now }),
            RemovalTarget::UserIn { user, room } => {
                let room = transaction.epoch_of(room).await?;
                room.map(|room| RemovalFilter::OrphansOf { user, room: Some(room), now })
            }
            RemovalTarget::Channel { channel, room: None } => {
                Some(RemovalFilter::OrphansOn { channel, room: None, now })
            }
            RemovalTarget::Channel { channel, room: Some(room) } => {
                let room = transaction.epoch_of(room).await?;
                room.map(|room| RemovalFilter::OrphansOn { channel, room: Some(room), now })
            }
            RemovalTarget::Presence { room, id } => {
                transaction.epoch_of(room).await?.map(|room| RemovalFilter::Orphan { id: *id, room, now })
            }
        };
        let Some(orphans) = orphans else { return Ok(Batch::default()) };
        let batch = transaction.remove_all(orphans, limit).await?;
        transaction.commit().await?;
        Ok(batch)
    }
}
