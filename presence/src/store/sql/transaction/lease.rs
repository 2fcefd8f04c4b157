//! The renewal of leases, and the fencing of nodes whose lease has expired.

use std::{collections::HashSet, time::Duration};

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr,
    prelude::Uuid,
    sea_query::{ExprTrait, Func},
};

use crate::{
    name::NodeId,
    store::{ClearMode, LEAVE_TO_CLEANER_FOR, StoreError, entity::lease, millis},
};

use super::{
    super::{database::Database, error::store_error, statement},
    Lock, Transaction, chunk,
};

impl Transaction {
    /// Renews the lease of a node until `lease` from now, and returns the time of the database. This waits for nothing but a transaction
    /// that fences the node, because no other locks the row of a lease.
    pub(in super::super) async fn renew(database: &Database, node: NodeId, lease: Duration) -> Result<i64, StoreError> {
        database.dialect().check_in_place()?;
        // Each node does this every few seconds. A transaction is five messages, and is for the case that there is something to report.
        if let Ok(Some(now)) = renew_at_once(database, node, lease).await {
            return Ok(now);
        }
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

/// Renews the lease of a node by one statement, which is a transaction of its own, and returns the time of the database. `None` if the node
/// has no lease or is fenced.
async fn renew_at_once(database: &Database, node: NodeId, lease: Duration) -> Result<Option<i64>, DbErr> {
    let (writer, length) = (&database.writer, millis(lease));
    let lease_until = database.now().add(length);
    let lease_until = if database.dialect().backend() == DbBackend::MySql {
        // There an UPDATE returns no column. But the server reports a value that went through this function, together with the number of rows.
        let renew = statement::renew_unless_fenced(node, Func::cust("LAST_INSERT_ID").arg(lease_until));
        let renewed = writer.execute(&renew).await?;
        (renewed.rows_affected() > 0).then(|| i64::try_from(renewed.last_insert_id()).ok()).flatten()
    } else {
        let renew = statement::renew_unless_fenced(node, lease_until).returning_col(lease::Column::LeaseUntil).take();
        // Not the first row alone: it arrives before the statement is committed, so a failure of the commit would not be seen.
        let rows = writer.query_all(&renew).await?;
        rows.first().map(|row| row.try_get_by_index::<i64>(0)).transpose()?
    };
    Ok(lease_until.map(|until| until.saturating_sub(length)))
}
