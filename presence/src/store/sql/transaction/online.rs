//! How a transaction finds the users who go online and offline.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, prelude::Uuid};

use crate::{
    model::OnlineChanges,
    name::Epoch,
    store::{StoreError, count_changes::CountChanges},
};

use super::{
    super::{
        chunk,
        error::store_error,
        statement::{self, In},
    },
    Transaction,
};

/// How many users one statement counts.
const USERS_PER_STATEMENT: usize = 10_000;
/// If at least this many users leave a room in one transaction, it first checks whether the room is empty.
const MIN_LEAVERS_FOR_EMPTY_CHECK: usize = 16;

impl Transaction {
    /// The users who go online and offline in each of these rooms by these changes. Empty unless it is tracked.
    pub(in super::super) async fn online_changes(
        &self,
        rooms: Vec<In<CountChanges>>,
    ) -> Result<Vec<OnlineChanges>, StoreError> {
        if !self.tracks_online {
            return Ok(Vec::new());
        }
        let emptied = self.emptied(&rooms).await?;
        let (mut users, mut positions, mut count) = (Vec::new(), Vec::new(), 0);
        for (room, count_changes) in &rooms {
            for (user, at_least) in count_changes.at_least() {
                if !emptied.contains(room) {
                    users.push((*room, user, at_least));
                    positions.push(count);
                }
                count += 1;
            }
        }
        let mut more = vec![false; count];
        for (users, positions) in users.chunks(USERS_PER_STATEMENT).zip(positions.chunks(USERS_PER_STATEMENT)) {
            for row in self.inner.query_all_raw(self.dialect.have_more(users)).await.map_err(store_error)? {
                let position: i64 = row.try_get_by_index(0).map_err(store_error)?;
                if let Some(position) = usize::try_from(position).ok().and_then(|position| positions.get(position)) {
                    more[*position] = true;
                }
            }
        }
        let mut more = more.into_iter();
        Ok(rooms
            .into_iter()
            .map(|(_, count_changes)| count_changes.online_changes(|_, _| more.next().unwrap_or_default()))
            .collect())
    }

    /// The empty rooms among those that many users leave. One query for such a room saves one for each of its users.
    async fn emptied(&self, rooms: &[In<CountChanges>]) -> Result<HashSet<Epoch>, StoreError> {
        let left = rooms
            .iter()
            .filter(|(_, count_changes)| count_changes.users_if_all_decreased() >= MIN_LEAVERS_FOR_EMPTY_CHECK)
            .map(|(room, _)| *room);
        let left: Vec<Epoch> = left.collect();
        let ids: Vec<Uuid> = left.iter().map(Epoch::as_uuid).collect();
        let mut emptied: HashSet<Epoch> = left.into_iter().collect();
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            for room in statement::occupied(ids).all(&self.inner).await.map_err(store_error)? {
                emptied.remove(&Epoch::from_uuid(room));
            }
        }
        Ok(emptied)
    }
}
