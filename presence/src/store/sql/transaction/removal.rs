//! How a transaction removes: presences by what dooms them, in as many rooms as one may change, and rooms that nobody is in.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use sea_orm::{DbBackend, prelude::Uuid};

use crate::{
    model::{Delta, Presence},
    name::{Epoch, NodeId, PresenceId, RoomName},
    store::{Batch, RoomCommit, StoreError, pace::MAX_ROOMS_PER_REMOVAL, plan::Found, shifts::Shifts},
};

use super::{
    super::{
        chunk,
        error::store_error,
        row::{self, Place},
        statement::{self, Doomed},
    },
    Transaction, distinct, read,
};

impl Transaction {
    /// The room of this name, if there is one.
    pub(in super::super) async fn epoch_of(&self, room: &RoomName) -> Result<Option<Epoch>, StoreError> {
        let row = statement::room(room.as_str()).one(&self.inner).await.map_err(store_error)?;
        row.map(|row| row::place(row).map(|place| place.epoch)).transpose()
    }

    /// Removes up to `limit` presences.
    pub(in super::super) async fn remove_all(&self, doomed: Doomed<'_>, limit: u64) -> Result<Batch, StoreError> {
        if self.dialect.backend() == DbBackend::Sqlite {
            // Nobody else writes: they need not be read again.
            let mut found = read(statement::doomed(doomed, limit).all(&self.inner), row::found).await?;
            let more = keep(limit, &mut found, |found| found.room.as_uuid());
            return Ok(Batch { more, ..self.remove_found(found).await? });
        }
        let mut ids = self.doomed_ids(doomed, limit).await?;
        // Those that another transaction takes meanwhile are no reason to believe that there are no more.
        let more = keep(limit, &mut ids, |(_, room)| *room);
        Ok(Batch { more, ..self.remove(ids, doomed).await? })
    }

    /// Ids and rooms of those to be removed.
    async fn doomed_ids(&self, doomed: Doomed<'_>, limit: u64) -> Result<Vec<(Uuid, Uuid)>, StoreError> {
        let Doomed::Stale { asks, now, cut } = doomed else {
            return statement::doomed_ids(doomed, limit).all(&self.inner).await.map_err(store_error);
        };
        // One index leads to those that are held, and another to a node's. Of a query for both a server looked at every row.
        let held = statement::doomed_ids(Doomed::StaleHeld { cut }, limit);
        let mut ids = held.all(&self.inner).await.map_err(store_error)?;
        for node in statement::dead(asks, now).all(&self.inner).await.map_err(store_error)? {
            let rest = limit.saturating_sub(ids.len() as u64);
            if rest == 0 {
                break;
            }
            let of = statement::doomed_ids(Doomed::StaleOf { node: NodeId::from_uuid(node), cut }, rest);
            ids.extend(of.all(&self.inner).await.map_err(store_error)?);
        }
        Ok(ids)
    }

    /// Up to `limit` of those that a life that is over left and that are not held: removes whom nobody can resume, and holds
    /// the others, each for its own grace or for `otherwise`.
    pub(in super::super) async fn clear(
        &self,
        dead: NodeId,
        limit: u64,
        otherwise: Duration,
    ) -> Result<Batch, StoreError> {
        let (backend, doomed) = (self.dialect.backend(), Doomed::UnheldOf(dead));
        // Rooms are locked before presences.
        let (more, held, mut batch) = if backend == DbBackend::Sqlite {
            let mut rows =
                read(statement::unheld(backend, dead, limit).all(&self.inner), row::found_with_session).await?;
            let more = keep(limit, &mut rows, |(found, _)| found.room.as_uuid());
            let (resumable, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, session)| session.is_some());
            let held: Vec<_> = resumable.into_iter().map(|(found, _)| found.presence.id).collect();
            (more, held, self.remove_found(others.into_iter().map(|(found, _)| found).collect()).await?)
        } else {
            let mut rows = statement::unheld_ids(backend, dead, limit).all(&self.inner).await.map_err(store_error)?;
            let more = keep(limit, &mut rows, |(_, room, _)| *room);
            let (resumable, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(.., session)| session.is_some());
            let held: Vec<_> = resumable.into_iter().map(|(id, ..)| PresenceId::from_uuid(id)).collect();
            (more, held, self.remove(others.into_iter().map(|(id, room, _)| (id, room)).collect(), doomed).await?)
        };
        self.hold_remains(dead, &held, otherwise).await?;
        batch.handled += held.len() as u64;
        Ok(Batch { more, ..batch })
    }

    /// Removes those of the presences that are to be removed still, once their rooms are locked. Each comes with its room.
    pub(in super::super) async fn remove(
        &self,
        ids: Vec<(Uuid, Uuid)>,
        doomed: Doomed<'_>,
    ) -> Result<Batch, StoreError> {
        let (mut ids, rooms): (Vec<Uuid>, Vec<Uuid>) = ids.into_iter().unzip();
        let places = self.lock_rooms(distinct(rooms)).await?;
        ids.sort_unstable();
        let backend = self.dialect.backend();
        let keys = chunk::keys(backend, &ids);
        if backend == DbBackend::Postgres {
            // A lock on a row there is a write as large as its deletion.
            let deletes = keys.into_iter().map(|keys| backend.build(&statement::delete_doomed(keys, doomed)));
            let mut found = self.found_by(Box::new(deletes)).await?;
            found.sort_unstable_by_key(|found| found.presence.id);
            return self.removed_from(places, found).await;
        }
        let mut found = Vec::with_capacity(ids.len());
        for keys in keys {
            found.extend(read(statement::lock_doomed(keys, doomed).all(&self.inner), row::found).await?);
        }
        self.delete(&found.iter().map(|found| found.presence.id).collect::<Vec<_>>()).await?;
        self.removed_from(places, found).await
    }

    /// Removes presences that nobody else can change meanwhile.
    async fn remove_found(&self, found: Vec<Found>) -> Result<Batch, StoreError> {
        let places = self.lock_rooms(distinct(found.iter().map(|found| found.room.as_uuid()).collect())).await?;
        self.delete(&found.iter().map(|found| found.presence.id).collect::<Vec<_>>()).await?;
        self.removed_from(places, found).await
    }

    /// Presences were removed from rooms, which are locked: gives each room one version.
    async fn removed_from(&self, places: Vec<Place>, doomed: Vec<Found>) -> Result<Batch, StoreError> {
        let handled = doomed.len() as u64;
        let mut left: HashMap<Epoch, Vec<Arc<Presence>>> = HashMap::new();
        for Found { room, presence } in doomed {
            left.entry(room).or_default().push(presence);
        }
        let mut commits = Vec::with_capacity(left.len());
        let mut shifts = Vec::with_capacity(left.len());
        for Place { room, epoch, version } in places {
            if let Some(left) = left.remove(&epoch) {
                let delta = Delta { left, ..Delta::default() };
                shifts.push((epoch, Shifts::of(&delta, &HashMap::new())));
                commits.push(RoomCommit::new(room, epoch, version.next(), delta));
            }
        }
        let epochs: Vec<Epoch> = commits.iter().map(|commit| commit.epoch).collect();
        for (commit, turns) in commits.iter_mut().zip(self.turns(shifts).await?) {
            commit.turns = turns;
        }
        self.bump(&epochs).await?;
        Ok(Batch { commits, handled, more: false })
    }

    /// Removes rooms that nobody is in, and says how many.
    pub(in super::super) async fn delete_empty_rooms(&self) -> Result<u64, StoreError> {
        let (mut after, mut deleted) = (Uuid::nil(), 0);
        loop {
            let empty = statement::lock_empty_rooms(after, chunk::KEYS as u64).all(&self.inner);
            let empty = empty.await.map_err(store_error)?;
            let Some(last) = empty.last() else { return Ok(deleted) };
            after = *last;
            for ids in chunk::keys(self.dialect.backend(), &empty) {
                let gone = statement::delete_empty_rooms(ids).exec(&self.inner).await.map_err(store_error)?;
                deleted += gone.rows_affected;
            }
        }
    }
}

/// Of up to `limit` that are to be removed, keeps the first, in as many rooms as one transaction changes, and says whether there
/// may be more. Without a limit all are kept.
fn keep<T>(limit: u64, doomed: &mut Vec<T>, room: impl Fn(&T) -> Uuid) -> bool {
    if limit == u64::MAX {
        return false;
    }
    let is_full = doomed.len() as u64 == limit;
    let mut rooms = HashSet::new();
    let is_beyond = |one: &T| {
        rooms.insert(room(one));
        rooms.len() > MAX_ROOMS_PER_REMOVAL
    };
    let Some(end) = doomed.iter().position(is_beyond) else { return is_full };
    doomed.truncate(end);
    true
}
