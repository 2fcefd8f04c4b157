//! The steps of a transaction.

mod commit;
mod lease;
mod online;
mod removal;
mod rooms;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbErr, QueryResult, Statement, TryGetableMany,
    prelude::{Expr, Uuid},
    sea_query::LockType,
};

use crate::{
    model::Presence,
    name::{ChannelName, Epoch, NodeId, PresenceId},
    session::SessionHash,
};

pub(super) use self::commit::{CommitChanges, CommitReading};

use super::{
    super::{
        Attempt, RoomCommit, StoreError, millis,
        plan::{Existing, NewRow, StoredPresence},
    },
    change_log::{self, ChangeLog},
    chunk,
    database::Database,
    dialect::Dialect,
    error::store_error,
    row::{self, PresenceRow},
    statement::{self, In},
};

/// How the row of a node is locked, which says whether the node may write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lock {
    /// No other transaction changes the row until this one ends.
    Shared,
    /// This transaction changes the row.
    Exclusive,
}

impl From<Lock> for LockType {
    fn from(lock: Lock) -> Self {
        match lock {
            Lock::Shared => Self::Share,
            Lock::Exclusive => Self::Update,
        }
    }
}

/// Whether an incarnation may write. `None` if it is not in the database.
pub(super) type NodeStatus = Option<Result<(), StoreError>>;

/// A transaction that writes, and its time.
pub(super) struct Transaction {
    inner: DatabaseTransaction,
    dialect: Arc<dyn Dialect>,
    /// The node that makes it.
    node: NodeId,
    tracks_online: bool,
    /// Where it keeps what it changes, if it does.
    change_log: Option<Arc<ChangeLog>>,
    /// How long it waits for the locks of rooms, if the database limits single statements.
    patience: Option<Duration>,
    pub(super) now: i64,
}

impl Transaction {
    /// Begins a transaction for `node`, and checks whether the node may write.
    pub(super) async fn begin(database: &Database, node: NodeId, lock: Lock) -> Result<(Self, NodeStatus), StoreError> {
        Self::within(database, database.write().await?, node, Some(lock)).await
    }

    /// As [`begin`](Self::begin), within a transaction that has begun. Without a lock the node may be fenced meanwhile.
    async fn within(
        database: &Database,
        inner: DatabaseTransaction,
        node: NodeId,
        lock: Option<Lock>,
    ) -> Result<(Self, NodeStatus), StoreError> {
        let dialect = database.dialect().clone();
        let (tracks_online, patience) = (database.tracks_online.load(Ordering::Acquire), database.patience());
        let change_log = database.change_log();
        // The limits come first, so that they hold while the transaction waits for its turn.
        let turn = lock.and_then(|lock| dialect.queue_for_node(node, matches!(lock, Lock::Exclusive)));
        let also = database.transaction_limits().into_iter().chain(turn);
        let status = statement::node_status(node, lock.map(Lock::into), database.now(), also);
        let Some((fenced_at, lost_name, now)) = status.one(&inner).await.map_err(store_error)? else {
            // Without a row, the query has evaluated nothing.
            database.limit(&inner).await?;
            let now = database.time(&inner).await?;
            return Ok((Self { inner, dialect, node, tracks_online, change_log, patience, now }, None));
        };
        let transaction = Self { inner, dialect, node, tracks_online, change_log, patience, now };
        let alive = transaction.status(node, fenced_at, lost_name).await?;
        Ok((transaction, Some(alive)))
    }

    /// Begins a transaction of a node that may write. The node cannot be fenced before it ends.
    pub(super) async fn begin_as(database: &Database, node: NodeId, lock: Lock) -> Result<Self, StoreError> {
        let (transaction, status) = Self::begin(database, node, lock).await?;
        transaction.if_it_may_write(node, status)
    }

    fn if_it_may_write(self, node: NodeId, status: NodeStatus) -> Result<Self, StoreError> {
        match status {
            Some(status) => status.map(|()| self),
            None => Err(StoreError::Fenced { node, superseded: false }),
        }
    }

    pub(super) fn connection(&self) -> &DatabaseTransaction {
        &self.inner
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        // The commit may have been done, whatever the error is.
        self.inner.commit().await.map_err(|error| StoreError::Unavailable(Arc::new(error)))
    }

    /// Ends the transaction without an effect. If the database does not answer, it does so later.
    async fn roll_back(self) {
        let _ = self.inner.rollback().await;
    }

    /// Whether another node may write.
    pub(super) async fn status_of(&self, node: NodeId, lock: Lock) -> Result<NodeStatus, StoreError> {
        let now = Expr::val(self.now);
        match statement::node_status(node, Some(lock.into()), now, None).one(&self.inner).await.map_err(store_error)? {
            Some((fenced_at, lost_name, _)) => self.status(node, fenced_at, lost_name).await.map(Some),
            None => Ok(None),
        }
    }

    async fn status(
        &self,
        node: NodeId,
        fenced_at: Option<i64>,
        lost_name: Option<String>,
    ) -> Result<Result<(), StoreError>, StoreError> {
        if fenced_at.is_none() {
            return Ok(Ok(()));
        }
        let superseded = match lost_name {
            Some(name) => statement::live_under(&name).one(&self.inner).await.map_err(store_error)?.is_some(),
            None => false,
        };
        Ok(Err(StoreError::Fenced { node, superseded }))
    }

    /// The number of presences of these rooms, which are locked. Empty rooms are left out.
    pub(super) async fn sizes(&self, rooms: &[Epoch]) -> Result<HashMap<Epoch, usize>, StoreError> {
        let ids: Vec<Uuid> = rooms.iter().map(Epoch::as_uuid).collect();
        let mut sizes = HashMap::with_capacity(rooms.len());
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            for (room, size) in statement::sizes(ids).all(&self.inner).await.map_err(store_error)? {
                sizes.insert(Epoch::from_uuid(room), usize::try_from(size).unwrap_or_default());
            }
        }
        Ok(sizes)
    }

    /// Those of the presences that exist, and the owners of the resume tokens. All are locked.
    pub(super) async fn find(&self, ids: &[PresenceId], sessions: &[SessionHash]) -> Result<Existing, StoreError> {
        let mut ids = uuids(ids);
        for hashes in chunk::lists(sessions) {
            ids.extend(statement::ids_by_session(hashes).all(&self.inner).await.map_err(store_error)?);
        }
        let mut existing = Existing::default();
        for ids in chunk::keys(self.dialect.backend(), &distinct(ids)) {
            for row in statement::lock_presences(ids).all(&self.inner).await.map_err(store_error)? {
                existing.add(row::presence_with_session(row)?);
            }
        }
        Ok(existing)
    }

    /// Deletes the presences that leave and returns their rows, if the database can do that in one statement. Otherwise the
    /// caller reads and locks the rows first, like all others.
    pub(super) async fn delete_returning(
        &self,
        leaves: &[(PresenceId, Epoch, &ChannelName)],
    ) -> Result<Option<Vec<StoredPresence>>, StoreError> {
        // Whether the database can does not depend on the presences.
        if self.dialect.delete_returning(&[]).is_none() {
            return Ok(None);
        }
        let deletes = leaves.chunks(chunk::KEYS).filter_map(|leaves| self.dialect.delete_returning(leaves));
        self.found_by(Box::new(deletes)).await.map(Some)
    }

    /// The presences that statements return, which are executed one after the other. While the database executes one, the rows
    /// of the one before it are read, and the next one is built.
    async fn found_by(
        &self,
        mut statements: Box<dyn Iterator<Item = Statement> + Send + '_>,
    ) -> Result<Vec<StoredPresence>, StoreError> {
        let (mut found, mut rows) = (Vec::new(), Vec::new());
        let mut next = statements.next();
        while let Some(statement) = next {
            let meanwhile = async { (presences_in(&rows), statements.next()) };
            // In this order, so that the statement is sent before the other work begins.
            let (returned, (before, then)) = join(self.inner.query_all_raw(statement), meanwhile).await;
            found.extend(before?);
            (rows, next) = (returned.map_err(store_error)?, then);
        }
        found.extend(presences_in(&rows)?);
        Ok(found)
    }

    pub(super) async fn delete(&self, ids: &[PresenceId]) -> Result<(), StoreError> {
        for ids in chunk::keys(self.dialect.backend(), &uuids(ids)) {
            statement::delete_presences(ids).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn insert(&self, rows: &[In<NewRow>]) -> Result<(), StoreError> {
        for rows in chunk::rows_of(rows, |(_, (presence, _))| bytes(presence)) {
            self.inner.execute(&statement::insert_presences(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn take_over(&self, rows: &[In<NewRow>]) -> Result<(), StoreError> {
        for rows in chunk::rows_of(rows, |(_, (presence, _))| bytes(presence)) {
            self.inner.execute(&statement::take_over(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn update_metas(&self, rows: &[In<Arc<Presence>>]) -> Result<(), StoreError> {
        for rows in chunk::rows_of(rows, |(_, presence)| bytes(presence)) {
            self.inner.execute(&statement::update_metas(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Holds presences whose sockets have just been lost, each for its grace.
    pub(super) async fn hold(&self, held: Vec<(PresenceId, Duration)>) -> Result<(), StoreError> {
        // Most rooms have one grace for all presences.
        let mut graces: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
        for (id, grace) in held {
            graces.entry(millis(grace)).or_default().push(id.as_uuid());
        }
        for (grace, ids) in graces {
            for ids in chunk::keys(self.dialect.backend(), &ids) {
                statement::hold(ids, self.now, grace).exec(&self.inner).await.map_err(store_error)?;
            }
        }
        Ok(())
    }

    /// Holds presences of a fenced incarnation that were not resumed meanwhile, each for its own grace or for `default_grace`.
    pub(super) async fn hold_presences_of(
        &self,
        of: NodeId,
        ids: &[PresenceId],
        default_grace: Duration,
    ) -> Result<(), StoreError> {
        for ids in chunk::keys(self.dialect.backend(), &sorted(ids)) {
            let hold = statement::hold_presences_of(of, ids, self.now, millis(default_grace));
            hold.exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Extends the graces of these incarnations that had not expired at `since` by the time since then.
    pub(super) async fn extend_graces(&self, of: &[Uuid], since: i64) -> Result<(), StoreError> {
        if since >= self.now {
            return Ok(());
        }
        for of in chunk::keys(self.dialect.backend(), of) {
            let extend = statement::extend_graces(of, since, self.now.saturating_sub(since));
            extend.exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Gives rooms a new version.
    pub(super) async fn increment_versions(&self, rooms: &[Epoch]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = rooms.iter().map(Epoch::as_uuid).collect();
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            statement::increment_versions(ids, self.now).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Keeps what the transaction changed in these rooms, if that is to be kept.
    pub(super) async fn keep_changes(&self, commits: &[RoomCommit]) -> Result<(), StoreError> {
        let Some(log) = &self.change_log else { return Ok(()) };
        let rows: Vec<_> = commits.iter().filter_map(change_log::encoded).collect();
        for rows in chunk::rows_of(&rows, |(_, (_, delta))| delta.len()) {
            let insert = statement::insert_changes(rows, self.node, self.now);
            self.inner.execute(&insert).await.map_err(store_error)?;
        }
        if !rows.is_empty() {
            log.kept();
        }
        Ok(())
    }

    /// Records the last commit of the node. An incarnation without a row for it has to begin anew.
    pub(super) async fn set_last_commit(&self, node: NodeId, attempt: Attempt) -> Result<(), StoreError> {
        let noted = statement::set_last_commit(node, attempt).exec(&self.inner).await.map_err(store_error)?;
        if noted.rows_affected == 0 {
            return Err(StoreError::Fenced { node, superseded: false });
        }
        Ok(())
    }

    /// Forgets fenced incarnations that have no presences.
    pub(super) async fn forget_incarnations(&self) -> Result<(), StoreError> {
        let over = statement::forgettable(self.now).all(&self.inner).await.map_err(store_error)?;
        for ids in chunk::keys(self.dialect.backend(), &over) {
            statement::forget_incarnations(ids, self.now).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }
}

/// The variable part of the bytes that a presence adds to a statement.
fn bytes(presence: &Presence) -> usize {
    let user = presence.user.as_ref().map_or(0, |user| user.as_str().len());
    presence.channel.as_str().len() + user + presence.meta.as_str().len()
}

fn uuids(ids: &[PresenceId]) -> Vec<Uuid> {
    ids.iter().map(PresenceId::as_uuid).collect()
}

fn sorted(ids: &[PresenceId]) -> Vec<Uuid> {
    let mut ids = uuids(ids);
    ids.sort_unstable();
    ids
}

fn distinct(mut rooms: Vec<Uuid>) -> Vec<Uuid> {
    rooms.sort_unstable();
    rooms.dedup();
    rooms
}

/// The presences in untyped rows.
pub(super) fn presences_in(rows: &[QueryResult]) -> Result<Vec<StoredPresence>, StoreError> {
    let presence =
        |row| row::presence(PresenceRow::try_get_many_by_index(row).map_err(|error| store_error(error.into()))?);
    rows.iter().map(presence).collect()
}

/// Converts the rows of a query.
pub(super) async fn read<R, T>(
    rows: impl Future<Output = Result<Vec<R>, DbErr>>,
    read: impl Fn(R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.await.map_err(store_error)?.into_iter().map(read).collect()
}
