//! How a transaction removes presences, in as many rooms as it may change, and empty rooms.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use sea_orm::{DbBackend, prelude::Uuid};

use crate::{
    model::{Delta, Presence},
    name::{Epoch, NodeId, PresenceId, RoomName},
    store::{
        Batch, RoomCommit, StoreError, SweepShare, count_changes::CountChanges, millis, pace::MAX_ROOMS_PER_REMOVAL,
        plan::StoredPresence,
    },
};

use super::{
    super::{
        chunk,
        error::store_error,
        row::{self, RoomPosition},
        statement::{self, RemovalFilter},
    },
    Transaction, distinct, read,
};

/// Among how many presences whose grace has expired one batch of a sweep looks for those in the share of its node. If more are in the shares
/// of other nodes, which are about to remove them, the next sweep finds the rest.
const READ_FOR_SHARE: u64 = 16_384;

impl Transaction {
    /// The epoch of the room with this name, if it exists.
    pub(in super::super) async fn epoch_of(&self, room: &RoomName) -> Result<Option<Epoch>, StoreError> {
        let row = statement::room(room.as_str()).one(&self.inner).await.map_err(store_error)?;
        row.map(|row| row::position(row).map(|position| position.epoch)).transpose()
    }

    /// Removes up to `limit` presences that match.
    pub(in super::super) async fn remove_all(
        &self,
        filter: RemovalFilter<'_>,
        limit: u64,
    ) -> Result<Batch, StoreError> {
        if self.dialect.backend() == DbBackend::Sqlite {
            // No other transaction writes, so the rows need not be read again.
            let mut found = read(statement::removable(filter, limit).all(&self.inner), row::presence).await?;
            let more = truncate_to_max_rooms(limit, &mut found, |found| found.room.as_uuid());
            return Ok(Batch { more, ..self.remove_found(found).await? });
        }
        let mut ids = self.removable_ids(filter, limit).await?;
        // Counted before the removal, because another transaction may remove some of them meanwhile.
        let more = truncate_to_max_rooms(limit, &mut ids, |(_, room)| *room);
        Ok(Batch { more, ..self.remove(ids, filter).await? })
    }

    /// Removes up to `limit` presences whose grace has expired, in the share of the node or after the delay for others.
    pub(in super::super) async fn sweep(
        &self,
        node: NodeId,
        share: &SweepShare,
        limit: u64,
    ) -> Result<Batch, StoreError> {
        let filter = RemovalFilter::PastGrace { now: self.now };
        if share.is_whole() {
            return self.remove_all(filter, limit).await;
        }
        let late = RemovalFilter::PastGrace { now: self.now.saturating_sub(millis(share.delay())) };
        let mut ids = self.removable_ids(late, limit).await?;
        let mut is_full = ids.len() as u64 == limit;
        if !is_full {
            // Most of what is found may be for the others.
            let found = self.removable_ids(filter, READ_FOR_SHARE).await?;
            let was_full = found.len() as u64 == READ_FOR_SHARE;
            let late: HashSet<Uuid> = ids.iter().map(|(id, _)| *id).collect();
            let is_mine = |(id, room): &(Uuid, Uuid)| !late.contains(id) && share.has(node, Epoch::from_uuid(*room));
            ids.extend(found.into_iter().filter(is_mine));
            is_full = ids.len() as u64 >= limit || (was_full && !ids.is_empty());
            ids.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        let more = truncate_to_max_rooms(limit, &mut ids, |(_, room)| *room) || is_full;
        Ok(Batch { more, ..self.remove(ids, filter).await? })
    }

    /// Ids and rooms of the presences that match.
    async fn removable_ids(&self, filter: RemovalFilter<'_>, limit: u64) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
        let RemovalFilter::Stale { caller, now, cut, unheld_cut } = filter else {
            return statement::removable_ids(filter, limit).all(&self.inner).await.map_err(store_error);
        };
        // Held presences and presences of a node have different indexes. A query for both read every row.
        let held = statement::removable_ids(RemovalFilter::StaleHeld { cut }, limit);
        let mut ids = held.all(&self.inner).await.map_err(store_error)?;
        for node in statement::dead(caller, now).all(&self.inner).await.map_err(store_error)? {
            let rest = limit.saturating_sub(ids.len() as u64);
            if rest == 0 {
                break;
            }
            let of_node = RemovalFilter::StaleOf { node: NodeId::from_uuid(node), cut: unheld_cut };
            let of = statement::removable_ids(of_node, rest);
            ids.extend(of.all(&self.inner).await.map_err(store_error)?);
        }
        Ok(ids)
    }

    /// Handles up to `limit` presences of a fenced incarnation that are not held: removes those without a resume token, and holds
    /// the others, each for its own grace or for `default_grace`.
    pub(in super::super) async fn clear(
        &self,
        dead: NodeId,
        limit: u64,
        default_grace: Duration,
    ) -> Result<Batch, StoreError> {
        let (backend, filter) = (self.dialect.backend(), RemovalFilter::UnheldOf(dead));
        // Rooms are locked before presences.
        let (more, held, mut batch) = if backend == DbBackend::Sqlite {
            let mut rows =
                read(statement::unheld(backend, dead, limit).all(&self.inner), row::presence_with_session).await?;
            let more = truncate_to_max_rooms(limit, &mut rows, |(found, _)| found.room.as_uuid());
            let (resumable, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, session)| session.is_some());
            let held: Vec<_> = resumable.into_iter().map(|(found, _)| found.presence.id).collect();
            (more, held, self.remove_found(others.into_iter().map(|(found, _)| found).collect()).await?)
        } else {
            let mut rows = statement::unheld_ids(backend, dead, limit).all(&self.inner).await.map_err(store_error)?;
            let more = truncate_to_max_rooms(limit, &mut rows, |(_, room, _)| *room);
            let (resumable, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(.., session)| session.is_some());
            let held: Vec<_> = resumable.into_iter().map(|(id, ..)| PresenceId::from_uuid(id)).collect();
            (more, held, self.remove(others.into_iter().map(|(id, room, _)| (id, room)).collect(), filter).await?)
        };
        self.hold_presences_of(dead, &held, default_grace).await?;
        batch.handled += held.len() as u64;
        Ok(Batch { more, ..batch })
    }

    /// Locks the rooms, and removes those of the presences that still match. Each id comes with its room.
    pub(in super::super) async fn remove(
        &self,
        ids: Vec<(Uuid, Uuid)>,
        filter: RemovalFilter<'_>,
    ) -> Result<Batch, StoreError> {
        let (mut ids, rooms): (Vec<Uuid>, Vec<Uuid>) = ids.into_iter().unzip();
        let positions = self.lock_rooms(distinct(rooms)).await?;
        ids.sort_unstable();
        let backend = self.dialect.backend();
        let keys = chunk::keys(backend, &ids);
        if backend == DbBackend::Postgres {
            // On PostgreSQL, locking a row is a write as large as its deletion.
            let deletes = keys.into_iter().map(|keys| backend.build(&statement::delete_removable(keys, filter)));
            let mut found = self.found_by(Box::new(deletes)).await?;
            found.sort_unstable_by_key(|found| found.presence.id);
            return self.removed_from(positions, found).await;
        }
        let mut found = Vec::with_capacity(ids.len());
        for keys in keys {
            found.extend(read(statement::lock_removable(keys, filter).all(&self.inner), row::presence).await?);
        }
        self.delete(&found.iter().map(|found| found.presence.id).collect::<Vec<_>>()).await?;
        self.removed_from(positions, found).await
    }

    /// Removes presences that no other transaction can change meanwhile.
    async fn remove_found(&self, found: Vec<StoredPresence>) -> Result<Batch, StoreError> {
        let positions = self.lock_rooms(distinct(found.iter().map(|found| found.room.as_uuid()).collect())).await?;
        self.delete(&found.iter().map(|found| found.presence.id).collect::<Vec<_>>()).await?;
        self.removed_from(positions, found).await
    }

    /// Gives each of the locked rooms from which presences were removed one version.
    async fn removed_from(
        &self,
        positions: Vec<RoomPosition>,
        removed: Vec<StoredPresence>,
    ) -> Result<Batch, StoreError> {
        let handled = removed.len() as u64;
        let mut left: HashMap<Epoch, Vec<Arc<Presence>>> = HashMap::new();
        for StoredPresence { room, presence } in removed {
            left.entry(room).or_default().push(presence);
        }
        let mut commits = Vec::with_capacity(left.len());
        let mut count_changes = Vec::with_capacity(left.len());
        for RoomPosition { room, epoch, version } in positions {
            if let Some(left) = left.remove(&epoch) {
                let delta = Delta { left, ..Delta::default() };
                count_changes.push((epoch, CountChanges::of(&delta, &HashMap::new())));
                commits.push(RoomCommit::new(room, epoch, version.next(), delta));
            }
        }
        let epochs: Vec<Epoch> = commits.iter().map(|commit| commit.epoch).collect();
        for (commit, online_changes) in commits.iter_mut().zip(self.online_changes(count_changes).await?) {
            commit.online_changes = online_changes;
        }
        self.increment_versions(&epochs).await?;
        self.keep_changes(&commits).await?;
        Ok(Batch { commits, handled, more: false })
    }

    /// Removes empty rooms, and returns their number.
    pub(in super::super) async fn delete_empty_rooms(&self) -> Result<u64, StoreError> {
        let (mut after, mut deleted) = (Uuid::nil(), 0);
        loop {
            let empty = statement::lock_empty_rooms(after, chunk::KEYS as u64).all(&self.inner);
            let empty = empty.await.map_err(store_error)?;
            let Some(last) = empty.last() else { break };
            after = *last;
            for ids in chunk::keys(self.dialect.backend(), &empty) {
                let gone = statement::delete_empty_rooms(ids).exec(&self.inner).await.map_err(store_error)?;
                deleted += gone.rows_affected;
            }
        }
        if deleted > 0 {
            // At the end, since all nodes share this row.
            statement::count_prune().exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(deleted)
    }
}

/// Truncates presences to as many rooms as one transaction may change. Returns whether there may be more to remove. With
/// `u64::MAX` as the limit, all are kept.
fn truncate_to_max_rooms<T>(limit: u64, presences: &mut Vec<T>, room: impl Fn(&T) -> Uuid) -> bool {
    if limit == u64::MAX {
        return false;
    }
    let is_full = presences.len() as u64 == limit;
    let mut rooms = HashSet::new();
    let is_beyond = |one: &T| {
        rooms.insert(room(one));
        rooms.len() > MAX_ROOMS_PER_REMOVAL
    };
    let Some(end) = presences.iter().position(is_beyond) else { return is_full };
    presences.truncate(end);
    true
}
