//! The nodes in a database, and the requests that they send to one another.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, sea_query::Query};

use crate::{
    name::{NodeId, NodeName, PresenceId, RequestId, RoomName},
    store::{
        Answer, Batch, ClearMode, LiveNode, NodeStore, NodeSummary, Remaining, RemovalTarget, Request, RequestStore,
        RoomCommit, StoreError, Survey, millis, time,
    },
};

use super::{
    SingleTryStore, chunk,
    error::store_error,
    row,
    statement::{self, RemovalFilter},
    transaction::{self, Lock, Transaction},
};

#[async_trait]
impl NodeStore for SingleTryStore {
    async fn register(&self, node: NodeId, name: NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        let (transaction, status) = Transaction::begin(&self.database, node, Lock::Exclusive).await?;
        let (connection, now) = (transaction.connection(), transaction.now);
        let lease_until = now.saturating_add(millis(lease));
        // The former incarnation may still be writing, in several lanes.
        for former in statement::live_under(name.as_str()).all(connection).await.map_err(store_error)? {
            let turn = self.database.dialect().queue_for_node(NodeId::from_uuid(former), true);
            if let Some(turn) = turn.filter(|_| former != node.as_uuid()) {
                connection.query_one(Query::select().expr(turn)).await.map_err(store_error)?;
            }
        }
        let end = statement::end_of_former(node, &name).one(connection).await.map_err(store_error)?;
        statement::take_name(node, &name, now).exec(connection).await.map_err(store_error)?;
        if let Some((fenced_at, lease_until)) = end {
            let end = fenced_at.unwrap_or_else(|| lease_until.saturating_sub(millis(lease)));
            let former = statement::former_with_held(&name).all(connection).await.map_err(store_error)?;
            transaction.extend_graces(&former, end).await?;
        }
        match status {
            Some(status) => {
                status?;
                statement::rename(node, &name).exec(connection).await.map_err(store_error)?;
                statement::renew(node, lease_until).exec(connection).await.map_err(store_error)?;
            }
            None => {
                connection.execute(&statement::begin_incarnation(node, &name, now)).await.map_err(store_error)?;
                connection.execute(&statement::insert_lease(node, lease_until)).await.map_err(store_error)?;
                let lanes = self.database.limits().lanes();
                connection.execute(&statement::insert_last_commits(node, lanes)).await.map_err(store_error)?;
            }
        }
        let former = statement::uncleared_under(&name).all(connection).await.map_err(store_error)?;
        transaction.commit().await?;
        Ok(former.into_iter().map(NodeId::from_uuid).collect())
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError> {
        Transaction::renew(&self.database, node, lease).await.map(time)
    }

    async fn report_set_back(&self, seen: u64, count: u64) -> Result<(), StoreError> {
        let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let transaction = self.database.write().await?;
        self.database.limit(&transaction).await?;
        statement::report_set_back(number(seen), number(count)).exec(&transaction).await.map_err(store_error)?;
        transaction.commit().await.map_err(|error| StoreError::Unavailable(Arc::new(error)))
    }

    async fn rooms_with_presences_of(&self, node: NodeId) -> Result<Vec<RoomName>, StoreError> {
        self.query(|| statement::rooms_with_presences_of(node), row::room_name).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        let mut nodes = self.query(|| statement::nodes(self.database.now()), row::node_summary).await?;
        nodes.sort_unstable_by(NodeSummary::in_order);
        Ok(nodes)
    }

    async fn live_nodes(&self) -> Result<Vec<LiveNode>, StoreError> {
        let mut nodes = self.query(|| statement::live_nodes(self.database.now()), row::live_node).await?;
        nodes.sort_unstable_by(LiveNode::in_order);
        Ok(nodes)
    }

    async fn survey(&self, node: NodeId) -> Result<Survey, StoreError> {
        let rows = self.query(|| statement::survey(node, self.database.now()), Ok).await?;
        row::survey(node, rows)
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        let transaction = self.clean_up_as(node).await?;
        let connection = transaction.connection();
        transaction.fence_expired(node).await?;
        transaction.forget_incarnations().await?;
        let fenced = statement::uncleared_orphans(node, transaction.now).all(connection).await.map_err(store_error)?;
        transaction.commit().await?;
        self.forget_commits(node).await;
        Ok(fenced.into_iter().map(NodeId::from_uuid).collect())
    }

    async fn clear(&self, node: NodeId, dead: NodeId, mode: ClearMode, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.clean_up_as(node).await?;
        // Only one transaction clears a node at a time. Two would wait for each other when they forget it.
        if !transaction.begin_clearing(node, dead, mode).await? {
            return Ok(Batch::default());
        }
        let (connection, backend) = (transaction.connection(), self.database.dialect().backend());
        let batch = match mode {
            ClearMode::HoldAll(grace) => {
                let ids = statement::unheld_ids(backend, dead, limit).all(connection).await.map_err(store_error)?;
                let ids: Vec<_> = ids.into_iter().map(|(id, ..)| PresenceId::from_uuid(id)).collect();
                transaction.hold_presences_of(dead, &ids, grace).await?;
                let handled = ids.len() as u64;
                Batch { commits: Vec::new(), handled, more: handled == limit }
            }
            ClearMode::HoldResumable(grace) => transaction.clear(dead, limit, grace).await?,
        };
        transaction.forget_incarnations().await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError> {
        let (transaction, status) = Transaction::begin(&self.database, node, Lock::Exclusive).await?;
        match status {
            None => return Ok(Vec::new()),
            Some(status) => status?,
        }
        let batch = transaction.remove_all(RemovalFilter::UnheldOf(node), u64::MAX).await?;
        let since = transaction.now.saturating_sub(millis(closed));
        transaction.extend_graces(&[node.as_uuid()], since).await?;
        statement::end_incarnation(node, transaction.now).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.forget_incarnations().await?;
        transaction.commit().await?;
        Ok(batch.commits)
    }
}

#[async_trait]
impl RequestStore for SingleTryStore {
    async fn send_request(&self, node: NodeId, request: Request) -> Result<Duration, StoreError> {
        let transaction = self.write_as(node).await?;
        let (connection, now) = (transaction.connection(), transaction.now);
        let others = statement::receivers(node, request.order.target(), now);
        let others = transaction::read(others.all(connection), row::node_name).await?;
        for others in chunk::rows(&others) {
            let insert = statement::insert_requests(node, &request, others)?;
            connection.execute(&insert).await.map_err(store_error)?;
        }
        transaction.commit().await?;
        Ok(time(now))
    }

    async fn remaining(
        &self,
        target: RemovalTarget,
        joined_before: Duration,
        limit: u64,
    ) -> Result<Vec<Remaining>, StoreError> {
        self.query(|| statement::remaining(&target, millis(joined_before), limit), row::remaining).await
    }

    async fn open_requests(&self, node: NodeId) -> Result<Vec<Request>, StoreError> {
        let requests =
            self.query(|| statement::open_requests(node, self.database.now()), |row| Ok(row::request(row))).await?;
        Ok(requests.into_iter().flatten().collect())
    }

    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        let answer = statement::answer(node, request, i64::try_from(removed).unwrap_or(i64::MAX));
        answer.exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }

    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError> {
        let mut answers = self.query(|| statement::answers(request), row::answer).await?;
        answers.sort_unstable_by(Answer::in_order);
        Ok(answers)
    }

    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        statement::withdraw(node, request).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }
}
