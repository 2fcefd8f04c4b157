//! What a commit reads before it decides, and what it writes afterwards.
//!
//! A server takes its row locks step by step, a statement for each step. SQLite has one lock, which the transaction has already. There
//! each message to the database costs more than the statement in it, since it wakes two threads: so all is read by one message, and
//! nearly all is written by another.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sea_orm::{ConnectionTrait, QueryResult, Statement, TryGetableMany, prelude::Uuid};

use crate::{
    model::Presence,
    name::{Epoch, NodeId, PresenceId, RoomName},
    session::SessionHash,
    store::{
        Attempt, RoomWrites, StoreError, Write,
        plan::{Existing, NewRow},
    },
};

use super::{
    super::{
        commit::{CommitKeys, CommitWrite},
        database::Database,
        error::store_error,
        row::{self, RoomPosition},
        statement::In,
    },
    Lock, Transaction,
};

/// How many rows of a kind are written at once with others. Each number is another text, and the texts of many rows would be too many to
/// stay prepared.
const AT_ONCE: usize = 16;

/// What a commit knows before it decides.
pub(in super::super) struct CommitReading {
    /// The position of each room, in the order of the writes.
    pub(in super::super) positions: Vec<RoomPosition>,
    pub(in super::super) existing: Existing,
    /// The presences that leave are deleted already.
    pub(in super::super) is_deleted: bool,
}

/// What a commit changes, in all of its rooms.
#[derive(Default)]
pub(in super::super) struct CommitChanges {
    pub(in super::super) gone: Vec<PresenceId>,
    pub(in super::super) held: Vec<(PresenceId, Duration)>,
    pub(in super::super) taken: Vec<In<NewRow>>,
    pub(in super::super) new: Vec<In<NewRow>>,
    pub(in super::super) metas: Vec<In<Arc<Presence>>>,
    /// The rooms that get a new version.
    pub(in super::super) changed: Vec<Epoch>,
}

/// The rows of [`Dialect::read_commit`](super::super::dialect::Dialect::read_commit).
type NodeRow = (i64, Option<i64>, Option<String>);
type RoomRow = (i64, Uuid, String, i64);
type PresenceRow = (i64, Uuid, Uuid, String, Option<String>, String, Uuid, Option<i64>, Option<Vec<u8>>);

impl Transaction {
    /// Begins the transaction of a commit by a node that may write, and reads what these writes are about. Rooms that do not exist are
    /// created.
    pub(in super::super) async fn begin_commit(
        database: &Database,
        node: NodeId,
        rooms: &[RoomWrites],
    ) -> Result<(Self, CommitReading), StoreError> {
        let writes = || rooms.iter().flat_map(|room| &room.writes);
        let names: Vec<&RoomName> = rooms.iter().map(|room| &room.room).collect();
        let ids: Vec<PresenceId> = writes().map(Write::id).collect();
        let sessions: Vec<SessionHash> = writes().filter_map(Write::session).map(|session| session.hash).collect();
        let keys = CommitKeys { node, rooms: &names, presences: &ids, sessions: &sessions };
        let (transaction, positions, existing) = match database.dialect().read_commit(&keys) {
            Some(reading) => {
                let (transaction, known, existing) = Self::begin_by(database, node, reading).await?;
                let positions = transaction.create_missing(&names, known).await?;
                (transaction, positions, Some(existing))
            }
            None => {
                let transaction = Self::begin_as(database, node, Lock::Shared).await?;
                match transaction.rooms(&names).await {
                    Ok(positions) => (transaction, positions, None),
                    Err(error) => {
                        // A transaction that is dropped keeps its locks for a moment, in which the rooms would be found locked by others.
                        transaction.roll_back().await;
                        return Err(error);
                    }
                }
            }
        };
        // Counted before the first presence is deleted.
        let limited = rooms.iter().zip(&positions).filter(|(room, _)| room.writes.iter().any(Write::is_limited));
        let sizes = transaction.sizes(&limited.map(|(_, position)| position.epoch).collect::<Vec<_>>()).await?;
        let (mut existing, is_deleted) = match existing {
            Some(existing) => (existing, false),
            None => transaction.find_or_delete(rooms, &positions, &sessions).await?,
        };
        existing.sizes = sizes;
        Ok((transaction, CommitReading { positions, existing, is_deleted }))
    }

    /// Begins a transaction by the statement of [`Dialect::read_commit`](super::super::dialect::Dialect::read_commit).
    async fn begin_by(
        database: &Database,
        node: NodeId,
        reading: Statement,
    ) -> Result<(Self, HashMap<RoomName, RoomPosition>, Existing), StoreError> {
        let inner = database.write().await?;
        let now = database.time(&inner).await?;
        let tracks_online = database.tracks_online.load(Ordering::Acquire);
        let (dialect, patience) = (database.dialect().clone(), database.patience());
        let change_log = database.change_log();
        let transaction = Self { inner, dialect, node, tracks_online, change_log, patience, now };
        let rows = transaction.inner.query_all_raw(reading).await.map_err(store_error)?;
        let (mut status, mut positions, mut existing) = (None, HashMap::new(), Existing::default());
        for row in &rows {
            match row.try_get_by_index::<i64>(0).map_err(store_error)? {
                0 => status = Some(tuple::<NodeRow>(row)?),
                1 => {
                    let (_, id, name, version) = tuple::<RoomRow>(row)?;
                    let position = row::position((id, name, version))?;
                    positions.insert(position.room.clone(), position);
                }
                _ => {
                    let (_, id, room, channel, user, meta, node, held_until, session) = tuple::<PresenceRow>(row)?;
                    let row = (id, room, channel, user, meta, node, held_until, session);
                    existing.add(row::presence_with_session(row)?);
                }
            }
        }
        let Some((_, fenced_at, lost_name)) = status else {
            return Err(StoreError::Fenced { node, superseded: false });
        };
        transaction.status(node, fenced_at, lost_name).await??;
        Ok((transaction, positions, existing))
    }

    /// What exists of the presences and tokens, and whether those that leave are deleted already: if the database can do both in one
    /// statement.
    async fn find_or_delete(
        &self,
        rooms: &[RoomWrites],
        positions: &[RoomPosition],
        sessions: &[SessionHash],
    ) -> Result<(Existing, bool), StoreError> {
        let leaves = rooms.iter().zip(positions).flat_map(|(room, position)| {
            room.writes.iter().filter_map(|write| match write {
                Write::Leave { id, channel } => Some((*id, position.epoch, channel)),
                _ => None,
            })
        });
        let deleted = self.delete_returning(&leaves.collect::<Vec<_>>()).await?;
        let is_wanted = |write: &&Write| deleted.is_none() || !matches!(write, Write::Leave { .. });
        let wanted = rooms.iter().flat_map(|room| room.writes.iter().filter(is_wanted));
        let ids: Vec<PresenceId> = wanted.map(Write::id).collect();
        let mut found = self.find(&ids, sessions).await?;
        let is_deleted = deleted.is_some();
        let deleted = deleted.into_iter().flatten();
        found.presences.extend(deleted.map(|found| (found.presence.id, found)));
        Ok((found, is_deleted))
    }

    /// Writes what a commit changes. A presence is deleted before its channel is given to another one.
    pub(in super::super) async fn write(
        &self,
        node: NodeId,
        attempt: Attempt,
        changes: CommitChanges,
    ) -> Result<(), StoreError> {
        let CommitChanges { mut gone, held, taken, mut new, metas, mut changed } = changes;
        let write = |gone: &[_], new: &[_], changed: &[_]| {
            self.dialect.write_commit(&CommitWrite { node, attempt, now: self.now, gone, new, changed })
        };
        if write(&[], &[], &[]).is_some() {
            if !taken.is_empty() || gone.len().max(new.len()) > AT_ONCE {
                self.delete(&std::mem::take(&mut gone)).await?;
            }
            self.hold(held).await?;
            self.take_over(&taken).await?;
            self.update_metas(&metas).await?;
            if new.len() > AT_ONCE {
                self.insert(&std::mem::take(&mut new)).await?;
            }
            if changed.len() > AT_ONCE {
                self.increment_versions(&std::mem::take(&mut changed)).await?;
            }
            if let Some(write) = write(&gone, &new, &changed) {
                self.inner.execute_raw(write).await.map_err(store_error)?;
            }
            return Ok(());
        }
        self.delete(&gone).await?;
        self.hold(held).await?;
        self.take_over(&taken).await?;
        self.insert(&new).await?;
        self.update_metas(&metas).await?;
        self.increment_versions(&changed).await?;
        self.set_last_commit(node, attempt).await
    }
}

fn tuple<T: TryGetableMany>(row: &QueryResult) -> Result<T, StoreError> {
    T::try_get_many_by_index(row).map_err(|error| store_error(error.into()))
}
