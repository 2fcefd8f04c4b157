//! How a transaction locks rooms, in the order of their ids.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, DbBackend, Statement, TryGetableMany, prelude::Uuid};

use crate::{name::RoomName, store::StoreError};

use super::{
    super::{
        chunk,
        error::{store_error, vanished},
        row::{self, RoomPosition, RoomRow},
        statement,
    },
    Transaction, read,
};

impl Transaction {
    /// Locks rooms, creating those that do not exist, and returns their positions.
    pub(in super::super) async fn rooms(&self, names: &[&RoomName]) -> Result<Vec<RoomPosition>, StoreError> {
        let mut positions = HashMap::with_capacity(names.len());
        let texts: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        self.lock_rooms_by_name(&texts, &mut positions).await?;
        self.create_missing(names, positions).await
    }

    /// Creates the rooms that are not among these positions, and returns the positions of all.
    pub(super) async fn create_missing(
        &self,
        names: &[&RoomName],
        mut positions: HashMap<RoomName, RoomPosition>,
    ) -> Result<Vec<RoomPosition>, StoreError> {
        let missing = names.iter().filter(|name| !positions.contains_key(**name));
        let mut missing: Vec<&str> = missing.map(|name| name.as_str()).collect();
        // In one order, like locks: transactions that create the same rooms wait for each other.
        missing.sort_unstable();
        for chunk in chunk::rows(&missing) {
            let insert = self.dialect.backend().build(&statement::insert_rooms(chunk, self.now));
            self.inner.execute_raw(self.limit_wait(insert)).await.map_err(store_error)?;
        }
        self.lock_rooms_by_name(&missing, &mut positions).await?;
        let position = |name: &&RoomName| positions.remove(*name).ok_or_else(|| vanished((*name).clone()));
        names.iter().map(position).collect()
    }

    async fn lock_rooms_by_name(
        &self,
        names: &[&str],
        positions: &mut HashMap<RoomName, RoomPosition>,
    ) -> Result<(), StoreError> {
        let mut locked = Vec::new();
        let in_one_statement = names.len() <= chunk::KEYS && self.dialect.backend() != DbBackend::MySql;
        if in_one_statement || self.dialect.backend() == DbBackend::Sqlite {
            for names in chunk::keys(self.dialect.backend(), names) {
                locked.extend(read(statement::lock_rooms_by_name(names).all(&self.inner), row::position).await?);
            }
        } else {
            let mut ids = Vec::with_capacity(names.len());
            for names in chunk::keys(self.dialect.backend(), names) {
                ids.extend(statement::room_ids(names).all(&self.inner).await.map_err(store_error)?);
            }
            locked = self.lock_rooms(ids).await?;
        }
        positions.extend(locked.into_iter().map(|position| (position.room.clone(), position)));
        Ok(())
    }

    /// Locks rooms, and returns the positions of those that exist, sorted by id.
    pub(super) async fn lock_rooms(&self, mut ids: Vec<Uuid>) -> Result<Vec<RoomPosition>, StoreError> {
        ids.sort_unstable();
        let mut positions = Vec::with_capacity(ids.len());
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            let lock = self.limit_wait(statement::lock_rooms(ids).into_statement(self.dialect.backend()));
            let rows = self.inner.query_all_raw(lock).await.map_err(store_error)?;
            for row in rows {
                let row = RoomRow::try_get_many_by_index(&row).map_err(|error| store_error(error.into()))?;
                positions.push(row::position(row)?);
            }
        }
        Ok(positions)
    }

    fn limit_wait(&self, statement: Statement) -> Statement {
        match self.patience {
            Some(patience) => self.dialect.limit_wait(statement, patience),
            None => statement,
        }
    }
}
