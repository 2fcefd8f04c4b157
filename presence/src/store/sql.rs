//! A store in a database, by sea-orm.
//!
//! Each call is one transaction, of the steps in `transaction`, with the statements in `statement`; what differs between
//! databases is in the file of each. Nothing is tried again here: that is for who waits for the answer to decide. A
//! future that is dropped leaves nothing behind: its transaction is rolled back, or was committed already.

mod chunk;
mod error;
mod row;
mod sqlite;
mod statement;
#[cfg(test)]
mod tests;
mod transaction;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use sea_orm::ConnectionTrait;

use crate::{
    model::Snapshot,
    name::{Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
    session::SessionHash,
};

use super::{
    Answer, Batch, NodeSummary, Remains, Request, RoomCommit, RoomSummary, RoomWrites, Store, StoreError, Whom, Write,
    migration, millis,
    plan::{self, Found},
};

use self::{error::store_error, row::Place, sqlite::Sqlite, transaction::Transaction};

pub use self::sqlite::Synchronous;

/// How many presences of a room are read at a time.
const PAGE: u64 = 10_000;

/// A [`Store`] in a database. Clones share its connections.
///
/// ```
/// # async fn run() -> Result<(), presence::store::StoreError> {
/// use presence::store::{SqlStore, Store};
///
/// let store = SqlStore::connect("sqlite://presence.db")?;
/// store.prepare().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SqlStore {
    database: Sqlite,
}

impl SqlStore {
    /// The store in the database at `url`: `sqlite://presence.db` (a path; the file is made if it is missing) or
    /// `sqlite::memory:`.
    ///
    /// This looks at the URL, and whether its folder is there. The database is opened when it is first needed, and again whenever it was lost, so one
    /// that is away makes calls fail while it is away, and no longer.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is not one that this build can use, or names a folder that is not there.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        Ok(Self { database: Sqlite::new(url).map_err(store_error)? })
    }

    /// As [`connect`](Self::connect), but for a database that is there already: a file that is missing, or its folder, is not
    /// made, and every call fails as [`StoreError::Unavailable`] until it is there.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the URL is not one that this build can use.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self { database: Sqlite::existing(url).map_err(store_error)? })
    }

    /// Sets when a commit is safe, for SQLite. To be called before the store is used or cloned.
    #[must_use]
    pub fn with_synchronous(self, synchronous: Synchronous) -> Self {
        Self { database: self.database.with_synchronous(synchronous) }
    }

    /// Sets what tells the time, in milliseconds since 1970, for SQLite, which has no time of its own. By default it is the
    /// system's clock. For tests.
    #[must_use]
    pub fn with_wall_clock(self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { database: self.database.with_wall_clock(Arc::new(now)) }
    }

    /// Brings the schema up to date, as [`prepare`](Store::prepare) does, and names the migrations that this took.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    pub async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.database.prepare().await.map_err(store_error)?;
        let transaction = self.write().await?;
        let applied = migration::run(transaction.connection(), store_error).await?;
        transaction.commit().await?;
        Ok(applied)
    }

    /// Names the migrations that [`migrate`](Self::migrate) would apply: none, if the schema is that of this version. Changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        migration::pending(self.database.readers(), store_error).await
    }

    async fn write(&self) -> Result<Transaction, StoreError> {
        let transaction = self.database.write().await.map_err(store_error)?;
        Ok(Transaction::new(transaction, self.database.now()))
    }

    /// A transaction of a node that may write.
    async fn write_as(&self, node: NodeId) -> Result<Transaction, StoreError> {
        let transaction = self.write().await?;
        transaction.check(node).await?;
        Ok(transaction)
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.migrate().await.map(drop)
    }

    async fn register(&self, node: NodeId, name: &NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        let transaction = self.write().await?;
        let (connection, now) = (transaction.connection(), transaction.now);
        if let Some(life) = transaction.life(node).await? {
            life?;
        }
        statement::take_name(node, name, now).exec(connection).await.map_err(store_error)?;
        transaction.begin_life(node, name, now.saturating_add(millis(lease))).await?;
        let former = statement::uncleared_under(name).all(connection).await.map_err(store_error)?;
        transaction.commit().await?;
        Ok(former.into_iter().map(NodeId::from_uuid).collect())
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        let lease_until = transaction.now.saturating_add(millis(lease));
        statement::renew(node, lease_until).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }

    async fn commit(&self, node: NodeId, rooms: &[RoomWrites]) -> Result<Vec<RoomCommit>, StoreError> {
        plan::check(rooms)?;
        let transaction = self.write_as(node).await?;
        let names: Vec<&RoomName> = rooms.iter().map(|room| &room.room).collect();
        let places = transaction.rooms(&names).await?;
        let ids: Vec<PresenceId> = rooms.iter().flat_map(|room| room.writes.iter().map(Write::id)).collect();
        let sessions = rooms.iter().flat_map(|room| room.writes.iter().filter_map(Write::session));
        let sessions: Vec<SessionHash> = sessions.map(|session| session.hash).collect();
        let found = transaction.find(&ids, &sessions).await?;

        let (mut gone, mut held, mut put) = (Vec::new(), Vec::new(), Vec::new());
        let (mut new, mut metas, mut bump) = (Vec::new(), Vec::new(), Vec::new());
        let mut commits = Vec::with_capacity(rooms.len());
        for (RoomWrites { room, writes }, Place { epoch, version, .. }) in rooms.iter().zip(places) {
            let plan = plan::plan(node, epoch, writes, &found)?;
            let version = if plan.is_new_version() {
                bump.push(epoch);
                version.next()
            } else {
                version
            };
            gone.extend(plan.gone);
            held.extend(plan.held);
            put.extend(plan.taken.into_iter().map(|row| (epoch, row)));
            new.extend(plan.new.into_iter().map(|row| (epoch, row)));
            metas.extend(plan.changed.into_iter().map(|presence| (epoch, presence)));
            commits
                .push(RoomCommit { taken: plan.resumed, ..RoomCommit::new(room.clone(), epoch, version, plan.delta) });
        }
        put.append(&mut new);

        transaction.delete(&gone).await?;
        transaction.hold(held).await?;
        transaction.put(&put).await?;
        transaction.put_metas(&metas).await?;
        transaction.bump(&bump).await?;
        transaction.commit().await?;
        Ok(commits)
    }

    async fn touch(&self, node: NodeId, seen: &[(PresenceId, Duration)]) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        sqlite::touch(transaction.connection(), node, transaction.now, seen).await.map_err(store_error)?;
        transaction.commit().await
    }

    async fn load(&self, room: &RoomName) -> Result<Option<Snapshot>, StoreError> {
        let transaction = self.database.read().await.map_err(store_error)?;
        let Some(row) = statement::room(room.as_str()).one(&transaction).await.map_err(store_error)? else {
            return Ok(None);
        };
        let Place { epoch, version, .. } = row::place(row)?;
        let mut presences = Vec::new();
        let mut last = String::new();
        loop {
            let rows = statement::page(epoch.as_uuid(), &last, PAGE).all(&transaction).await.map_err(store_error)?;
            let complete = (rows.len() as u64) < PAGE;
            for row in rows {
                presences.push(row::found(row)?.presence);
            }
            match presences.last() {
                Some(presence) if !complete => last = presence.channel.to_string(),
                _ => break,
            }
            // Reading names and metas is work; others on this thread have theirs.
            tokio::task::yield_now().await;
        }
        transaction.commit().await.map_err(store_error)?;
        Ok(Some(Snapshot { epoch, version, presences }))
    }

    async fn positions(&self, rooms: &[RoomName]) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
        let mut positions = Vec::with_capacity(rooms.len());
        for names in chunk::keys(&names) {
            for row in statement::rooms_by_name(names).all(self.database.readers()).await.map_err(store_error)? {
                let Place { room, epoch, version } = row::place(row)?;
                positions.push((room, epoch, version));
            }
        }
        Ok(positions)
    }

    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let places = transaction::read(statement::all_rooms().all(self.database.readers()), row::place).await?;
        Ok(places.into_iter().map(|Place { room, epoch, version }| (room, epoch, version)).collect())
    }

    async fn rooms(&self) -> Result<Vec<RoomSummary>, StoreError> {
        let summaries = statement::room_summaries().all(self.database.readers());
        let mut rooms = transaction::read(summaries, row::room_summary).await?;
        rooms.sort_unstable_by(|a, b| a.room.cmp(&b.room));
        Ok(rooms)
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        let now = self.database.now();
        let summaries = statement::nodes().all(self.database.readers());
        let mut nodes = transaction::read(summaries, row::node_summary(now)).await?;
        nodes.sort_unstable_by(NodeSummary::in_order);
        Ok(nodes)
    }

    async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>, StoreError> {
        let mut rooms =
            transaction::read(statement::rooms_of(user).all(self.database.readers()), row::room_name).await?;
        rooms.sort_unstable();
        Ok(rooms)
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        let transaction = self.write_as(node).await?;
        let connection = transaction.connection();
        statement::fence_expired(node, transaction.now).exec(connection).await.map_err(store_error)?;
        transaction.forget_lives().await?;
        let fenced = statement::uncleared_orphans().all(connection).await.map_err(store_error)?;
        transaction.commit().await?;
        Ok(fenced.into_iter().map(NodeId::from_uuid).collect())
    }

    async fn clear(&self, node: NodeId, dead: NodeId, remains: Remains, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        if !matches!(transaction.life(dead).await?, Some(Err(_))) {
            return Ok(Batch::default());
        }
        let connection = transaction.connection();
        let batch = match remains {
            Remains::HoldAll(grace) => {
                let ids = statement::unheld_ids(dead, limit).all(connection).await.map_err(store_error)?;
                let ids: Vec<_> = ids.into_iter().map(PresenceId::from_uuid).collect();
                transaction.hold_remains(dead, &ids, grace).await?;
                Batch { commits: Vec::new(), handled: ids.len() as u64 }
            }
            Remains::HoldResumable(grace) => {
                let rows = transaction::read(statement::unheld(dead, limit).all(connection), row::found_with_session);
                let (resumable, others): (Vec<_>, Vec<_>) =
                    rows.await?.into_iter().partition(|(_, session)| session.is_some());
                let held: Vec<_> = resumable.iter().map(|(found, _)| found.presence.id).collect();
                transaction.hold_remains(dead, &held, grace).await?;
                let mut batch = transaction.remove(others.into_iter().map(|(found, _)| found).collect()).await?;
                batch.handled += held.len() as u64;
                batch
            }
        };
        transaction.forget_lives().await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn sweep(&self, node: NodeId, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let over = statement::past_grace(transaction.now, limit);
        let over = transaction::read(over.all(transaction.connection()), row::found).await?;
        let batch = transaction.remove(over).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn prune(&self, node: NodeId, max_age: Duration, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let now = transaction.now;
        let stale = statement::stale(node, now, now.saturating_sub(millis(max_age)), limit);
        let stale = transaction::read(stale.all(transaction.connection()), row::found).await?;
        let batch = transaction.remove(stale).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        let transaction = self.write_as(node).await?;
        let deleted = statement::delete_empty_rooms().exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await?;
        Ok(deleted.rows_affected)
    }

    async fn remove(&self, node: NodeId, whom: &Whom, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let connection = transaction.connection();
        let orphans = match whom {
            Whom::Room(room) => {
                let Some(row) = statement::room(room.as_str()).one(connection).await.map_err(store_error)? else {
                    return Ok(Batch::default());
                };
                statement::orphans_in(row::place(row)?.epoch.as_uuid(), transaction.now, limit)
            }
            Whom::User(user) => statement::orphans_of(user, transaction.now, limit),
        };
        let orphans = transaction::read(orphans.all(connection), row::found).await?;
        let batch = transaction.remove(orphans).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn ask(&self, node: NodeId, request: &Request) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        let connection = transaction.connection();
        let others = statement::live_and_answering(node, transaction.now);
        let others = transaction::read(others.all(connection), row::node_name).await?;
        for others in chunk::rows(&others) {
            let insert = statement::ask(node, request, others)?;
            connection.execute(&insert).await.map_err(store_error)?;
        }
        transaction.commit().await
    }

    async fn asked(&self, node: NodeId) -> Result<Vec<Request>, StoreError> {
        let asked = statement::asked(node, self.database.now());
        let asked = transaction::read(asked.all(self.database.readers()), |row| Ok(row::request(row))).await?;
        Ok(asked.into_iter().flatten().collect())
    }

    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        let answer = statement::answer(node, request, i64::try_from(removed).unwrap_or(i64::MAX));
        answer.exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }

    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError> {
        let answers = statement::answers(request).all(self.database.readers());
        let mut answers = transaction::read(answers, row::answer).await?;
        answers.sort_unstable_by(Answer::in_order);
        Ok(answers)
    }

    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        statement::withdraw(node, request).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }

    async fn retire(&self, node: NodeId) -> Result<Vec<RoomCommit>, StoreError> {
        let transaction = self.write().await?;
        match transaction.life(node).await? {
            None => return Ok(Vec::new()),
            Some(life) => life?,
        }
        let connection = transaction.connection();
        let rows =
            transaction::read(statement::unheld(node, u64::MAX).all(connection), row::found_with_session).await?;
        let batch = transaction.remove(rows.into_iter().map(|(found, _)| found).collect::<Vec<Found>>()).await?;
        statement::end_life(node, transaction.now).exec(connection).await.map_err(store_error)?;
        transaction.forget_lives().await?;
        transaction.commit().await?;
        Ok(batch.commits)
    }
}
