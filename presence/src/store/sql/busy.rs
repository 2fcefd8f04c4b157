//! Finds the rooms for which a commit waited too long.
//!
//! The error of a database does not say which of many rows is locked. So the rooms are asked for once more, without waiting: those that no
//! other transaction has locked are returned at once.

use std::collections::HashSet;

use sea_orm::prelude::Uuid;

use crate::{
    name::RoomName,
    store::{Attempt, RoomWrites, StoreError},
};

use super::{
    SingleTryStore, chunk,
    error::{freed, is_lock_timeout, store_error},
    row, statement,
    transaction::read,
};

impl SingleTryStore {
    /// The error of a commit: [`StoreError::Busy`] if it waited for locks for as long as its attempt may, and rooms are still locked.
    pub(super) async fn explain(&self, attempt: Attempt, rooms: &[RoomWrites], error: StoreError) -> StoreError {
        if attempt.patience().is_none() || !is_lock_timeout(&error) {
            return error;
        }
        match self.locked_by_others(rooms).await {
            Ok(rooms) if rooms.is_empty() => freed(error),
            Ok(rooms) => StoreError::Busy { rooms },
            Err(error) => error,
        }
    }

    /// The rooms that other transactions have locked. If there are none, those that do not exist: another transaction may be creating them.
    async fn locked_by_others(&self, rooms: &[RoomWrites]) -> Result<Vec<RoomName>, StoreError> {
        let database = self.database.for_lane(None);
        let backend = database.dialect().backend();
        let transaction = database.write().await?;
        database.limit(&transaction).await?;
        let names: Vec<&str> = rooms.iter().map(|room| room.room.as_str()).collect();
        let mut existing = Vec::with_capacity(names.len());
        for names in chunk::keys(backend, &names) {
            existing.extend(read(statement::rooms_by_name(names).all(&transaction), row::position).await?);
        }
        let mut ids: Vec<Uuid> = existing.iter().map(|position| position.epoch.as_uuid()).collect();
        ids.sort_unstable();
        let mut free = HashSet::with_capacity(ids.len());
        for ids in chunk::keys(backend, &ids) {
            let rows = read(statement::lock_free_rooms(ids).all(&transaction), row::position).await?;
            free.extend(rows.into_iter().map(|position| position.room));
        }
        transaction.rollback().await.map_err(store_error)?;
        let existing: Vec<RoomName> = existing.into_iter().map(|position| position.room).collect();
        let locked: Vec<RoomName> = existing.iter().filter(|room| !free.contains(*room)).cloned().collect();
        if !locked.is_empty() {
            return Ok(locked);
        }
        let existing: HashSet<RoomName> = existing.into_iter().collect();
        Ok(rooms.iter().map(|room| room.room.clone()).filter(|room| !existing.contains(room)).collect())
    }
}
