//! The renewal of leases, and the fencing of nodes whose lease has expired.

use std::{collections::HashSet, time::Duration};

use sea_orm::{prelude::Uuid, sea_query::ExprTrait};

use crate::{
    name::NodeId,
    store::{ClearMode, LEAVE_TO_CLEANER_FOR, StoreError, millis},
};

use super::{
    super::{database::Database, error::store_error, statement},
    Lock, Transaction, chunk,
};

impl Transaction {
    /// Renews the lease of a node until `lease` from now, and returns the time of the database. This waits for nothing but a transaction
    /// that fences the node, because no other locks the row of a lease.
    pub(in super::super) async fn renew(database: &Database, node: NodeId, lease: Duration) -> Result<i64, StoreError> {
        let inner = database.write().await?;
        database.limit(&inner).await?;
        let lease_until = database.now().add(millis(lease));
        // The lease first: after that nobody fences the node before this transaction ends.
        statement::renew(node, lease_until).exec(&inner).await.map_err(store_error)?;
        let (transaction, status) = Self::within(database, inner, node, None).await?;
        let transaction = transaction.if_it_may_write(node, status)?;
        let now = transaction.now;
        transaction.commit().await?;
        Ok(now)
    }

    /// Locks a dead incarnation for [`clear`](crate::store::NodeStore::clear). Returns whether `node` may clear it now: it is fenced, and no
    /// other node clears it.
    pub(in super::super) async fn begin_clearing(
        &self,
        node: NodeId,
        dead: NodeId,
        mode: ClearMode,
    ) -> Result<bool, StoreError> {
        let ClearMode::HoldResumable(_) = mode else {
            return Ok(matches!(self.status_of(dead, Lock::Exclusive).await?, Some(Err(_))));
        };
        let until = self.now.saturating_add(millis(LEAVE_TO_CLEANER_FOR));
        if statement::lock_to_clear(node, dead, self.now).one(&self.inner).await.map_err(store_error)?.is_none() {
            return Ok(false);
        }
        statement::set_cleaner(node, dead, until).exec(&self.inner).await.map_err(store_error)?;
        Ok(true)
    }

    /// Fences incarnations whose lease has expired. One that is within a transaction, or whose lease is being renewed, is left to the next
    /// call: to wait for it would keep the others, and this node, from going on while a node is suspended.
    pub(in super::super) async fn fence_expired(&self, all_but: NodeId) -> Result<(), StoreError> {
        let expired = statement::expired(all_but, self.now).all(&self.inner).await.map_err(store_error)?;
        let backend = self.dialect.backend();
        let mut locked = HashSet::new();
        for ids in chunk::keys(backend, &expired) {
            let leases = statement::lock_leases(ids).all(&self.inner).await.map_err(store_error)?;
            locked.extend(leases.into_iter().filter(|(_, until)| *until < self.now).map(|(id, _)| id));
        }
        let mut with_lease = HashSet::new();
        for ids in chunk::keys(backend, &expired) {
            with_lease.extend(statement::leases(ids).all(&self.inner).await.map_err(store_error)?);
        }
        let expired: Vec<Uuid> =
            expired.into_iter().filter(|id| locked.contains(id) || !with_lease.contains(id)).collect();
        for ids in chunk::keys(backend, &expired) {
            let idle = statement::lock_idle(ids).all(&self.inner).await.map_err(store_error)?;
            for ids in chunk::keys(backend, &idle) {
                statement::fence(ids, self.now).exec(&self.inner).await.map_err(store_error)?;
            }
        }
        Ok(())
    }
}
