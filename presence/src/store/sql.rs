//! A store in a database, by sea-orm.
//!
//! Each call is one transaction, of the steps in `transaction`, with the statements in `statement`; what differs between
//! databases is in the file of each. Here a call is tried once, and in `patient` again while other transactions undo it; a
//! database that is away is for who waits for the answer to deal with. A future that is dropped leaves nothing behind: its
//! transaction is rolled back, or was committed already.

mod attempts;
mod chunk;
mod database;
mod dialect;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod doubt;
mod error;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod many;
#[cfg(feature = "mysql")]
mod mysql;
mod patient;
#[cfg(feature = "postgres")]
mod postgres;
mod row;
#[cfg(test)]
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod servers;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;
mod transaction;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) mod trial;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, TryGetableMany};

use crate::{
    model::Snapshot,
    name::{Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
    session::SessionHash,
};

use super::{
    Answer, Attempt, Batch, Changes, NodeStore, NodeSummary, Remains, Request, RequestStore, RoomCommit, RoomStore,
    RoomSummary, RoomWrites, Store, StoreError, Whom, Write, migration, millis, plan, time,
};

use self::{
    attempts::{Attempts, State, StillUnderWay},
    database::Database,
    error::store_error,
    row::Place,
    statement::{Doomed, Rows},
    transaction::{Lock, Transaction, found_in},
};

pub use self::{
    database::Synchronous,
    patient::{MissingFeature, SeveralHosts, SqlStore},
};

#[cfg(feature = "cli")]
pub(crate) use self::error::{is_turned_away, said_by_database};

/// How many presences of a room are read at a time.
const PAGE: u64 = 10_000;

/// How many touches one statement takes.
const TOUCHES: usize = 10_000;

/// A store that tries each call once.
#[derive(Debug, Clone)]
pub struct Once {
    database: Database,
    attempts: Attempts,
    /// Differs from that of other databases of this process.
    identity: u64,
}

impl Once {
    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.database.prepare().await?;
        self.database.examine().await?;
        let dialect = self.database.dialect();
        let transaction = dialect.begin_migration(&self.database.writer).await.map_err(store_error)?;
        let applied = migration::run(&transaction, store_error).await?;
        dialect.end_migration(transaction).await.map_err(store_error)?;
        Ok(applied)
    }

    async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        migration::pending(self.database.readers(), store_error).await
    }

    /// A transaction of a node that may write.
    async fn write_as(&self, node: NodeId) -> Result<Transaction, StoreError> {
        Transaction::begin_as(&self.database, node, Lock::Shared).await
    }

    /// Forgets what lives did last that are forgotten, by whomever. Former ones of this process are the only others that it has
    /// any of, and most often there are none.
    async fn forget_commits(&self, node: NodeId) {
        let commits = self.attempts.of_others(node);
        if commits.is_empty() {
            return;
        }
        let nodes: Vec<_> = commits.iter().map(|(_, node)| node.as_uuid()).collect();
        // If it is not known, it will be asked again.
        let Ok(remembered) = self.look(|| statement::remembered(nodes.clone()), Ok).await else { return };
        let over = commits.into_iter().filter(|(_, node)| !remembered.contains(&node.as_uuid()));
        self.attempts.forget(over.map(|(attempt, _)| attempt));
    }

    /// Asks what stands alone.
    async fn look<R, T>(
        &self,
        query: impl Fn() -> Rows<R>,
        read: impl Fn(R) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError>
    where
        R: TryGetableMany,
    {
        let rows = self.database.surely(|| query().all(self.database.readers())).await?;
        rows.into_iter().map(read).collect()
    }
}

#[async_trait]
impl Store for Once {
    fn database(&self) -> Option<u64> {
        Some(self.identity)
    }

    fn count_turns(&self) {
        self.database.tells_turns.store(true, Ordering::Release);
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.migrate().await.map(drop)
    }

    async fn reach(&self) -> Result<(), StoreError> {
        self.database.reach().await
    }
}

#[async_trait]
impl RoomStore for Once {
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: Changes) -> Result<Vec<RoomCommit>, StoreError> {
        plan::check(&rooms)?;
        let transaction = self.write_as(node).await?;
        let names: Vec<&RoomName> = rooms.iter().map(|room| &room.room).collect();
        let places = transaction.rooms(&names).await?;
        // Before the first of them is deleted.
        let limited = rooms.iter().zip(&places).filter(|(room, _)| room.writes.iter().any(Write::is_limited));
        let sizes = transaction.sizes(&limited.map(|(_, place)| place.epoch).collect::<Vec<_>>()).await?;
        let leaves = rooms.iter().zip(&places).flat_map(|(room, place)| {
            room.writes.iter().filter_map(|write| match write {
                Write::Leave { id, channel } => Some((*id, place.epoch, channel)),
                _ => None,
            })
        });
        let taken_out = transaction.take_out(&leaves.collect::<Vec<_>>()).await?;
        let is_wanted = |write: &&Write| taken_out.is_none() || !matches!(write, Write::Leave { .. });
        let wanted = rooms.iter().flat_map(|room| room.writes.iter().filter(is_wanted));
        let ids: Vec<PresenceId> = wanted.map(Write::id).collect();
        let sessions = rooms.iter().flat_map(|room| room.writes.iter().filter_map(Write::session));
        let sessions: Vec<SessionHash> = sessions.map(|session| session.hash).collect();
        let mut found = transaction.find(&ids, &sessions).await?;
        found.sizes = sizes;
        let is_taken_out = taken_out.is_some();
        found.presences.extend(taken_out.into_iter().flatten().map(|found| (found.presence.id, found)));

        let (mut gone, mut held, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        let (mut new, mut metas, mut bump) = (Vec::new(), Vec::new(), Vec::new());
        let (mut commits, mut shifts) = (Vec::with_capacity(rooms.len()), Vec::with_capacity(rooms.len()));
        for (RoomWrites { room, writes }, Place { epoch, version, .. }) in rooms.iter().zip(places) {
            let plan = plan::plan(node, epoch, writes, &found)?;
            shifts.push((epoch, plan.shifts()));
            let version = if plan.is_new_version() {
                bump.push(epoch);
                version.next()
            } else {
                version
            };
            gone.extend(plan.gone);
            held.extend(plan.held);
            taken.extend(plan.taken.into_iter().map(|row| (epoch, row)));
            new.extend(plan.new.into_iter().map(|row| (epoch, row)));
            metas.extend(plan.changed.into_iter().map(|presence| (epoch, presence)));
            commits.push(RoomCommit {
                taken: plan.resumed,
                refused: plan.refused,
                ..RoomCommit::new(room.clone(), epoch, version, plan.delta)
            });
        }
        if !is_taken_out {
            transaction.delete(&gone).await?;
        }
        transaction.hold(held).await?;
        transaction.take_over(&taken).await?;
        transaction.put(&new).await?;
        transaction.put_metas(&metas).await?;
        transaction.bump(&bump).await?;
        for (commit, turns) in commits.iter_mut().zip(transaction.turns(shifts).await?) {
            commit.turns = turns;
        }
        transaction.note_commit(node, attempt).await?;
        let unavailable = |given_up| StoreError::Unavailable(Arc::new(given_up));
        self.attempts.send(attempt, &commits).map_err(unavailable)?;
        transaction.commit().await?;
        self.attempts.done(attempt);
        Ok(commits)
    }

    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError> {
        match self.attempts.state(node, attempt) {
            None => Ok(None),
            Some(State::Begun) => Err(StoreError::Unavailable(Arc::new(StillUnderWay))),
            Some(State::Done(commits)) => Ok(Some(commits)),
            Some(State::Sent(commits)) => {
                // Waits for it, if it is still under way.
                let transaction = self.database.write().await?;
                let last = statement::last_commit(node).one(&transaction).await.map_err(store_error)?;
                Ok((last == Some(attempt.0)).then_some(commits))
            }
        }
    }

    async fn touch(&self, node: NodeId, seen: Arc<[(PresenceId, Duration)]>) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        // In one order, as whoever removes presences locks them.
        let mut seen = seen.to_vec();
        seen.sort_unstable_by_key(|(id, _)| *id);
        for seen in seen.chunks(TOUCHES) {
            let touch = self.database.dialect().touch(node, transaction.now, seen);
            transaction.connection().execute_raw(touch).await.map_err(store_error)?;
        }
        transaction.commit().await
    }

    async fn load(&self, room: RoomName) -> Result<Option<Snapshot>, StoreError> {
        let transaction = self.database.read().await?;
        let Some(row) = statement::room(room.as_str()).one(&transaction).await.map_err(store_error)? else {
            return Ok(None);
        };
        let Place { epoch, version, .. } = row::place(row)?;
        let mut presences = Vec::new();
        let mut last = String::new();
        loop {
            let page = self.database.dialect().page(epoch, &last, PAGE);
            let rows = transaction.query_all_raw(page).await.map_err(store_error)?;
            let complete = (rows.len() as u64) < PAGE;
            presences.extend(found_in(&rows)?.into_iter().map(|found| found.presence));
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

    async fn positions(&self, rooms: Arc<[RoomName]>) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
        let mut places = Vec::with_capacity(rooms.len());
        for names in chunk::keys(self.database.dialect().backend(), &names) {
            places.extend(self.look(|| statement::rooms_by_name(names.clone()), row::place).await?);
        }
        Ok(places.into_iter().map(|Place { room, epoch, version }| (room, epoch, version)).collect())
    }

    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError> {
        let places = self.look(statement::all_rooms, row::place).await?;
        Ok(places.into_iter().map(|Place { room, epoch, version }| (room, epoch, version)).collect())
    }

    async fn rooms(&self, after: Option<RoomName>, limit: u64) -> Result<Vec<RoomSummary>, StoreError> {
        let after = after.as_ref().map_or("", RoomName::as_str);
        self.look(|| statement::room_summaries(after, limit), row::room_summary).await
    }

    async fn last_seen(&self, room: RoomName) -> Result<Vec<(PresenceId, Duration)>, StoreError> {
        self.look(|| statement::last_seen(room.as_str(), self.database.now()), row::last_seen).await
    }

    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomName>, StoreError> {
        let mut rooms = self.look(|| statement::rooms_of(&user), row::room_name).await?;
        rooms.sort_unstable();
        Ok(rooms)
    }

    async fn sweep(&self, node: NodeId, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let batch = transaction.remove_all(Doomed::PastGrace { now: transaction.now }, limit).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn prune(&self, node: NodeId, max_age: Duration, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let now = transaction.now;
        let stale = Doomed::Stale { asks: node, now, cut: now.saturating_sub(millis(max_age)) };
        let batch = transaction.remove_all(stale, limit).await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError> {
        let transaction = self.write_as(node).await?;
        let deleted = transaction.delete_empty_rooms().await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn remove(&self, node: NodeId, whom: Whom, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        let now = transaction.now;
        let orphans = match &whom {
            Whom::Room(room) => transaction.epoch_of(room).await?.map(|room| Doomed::OrphansIn { room, now }),
            Whom::User(user) => Some(Doomed::OrphansOf { user, room: None, now }),
            Whom::UserIn { user, room } => {
                let room = transaction.epoch_of(room).await?;
                room.map(|room| Doomed::OrphansOf { user, room: Some(room), now })
            }
            Whom::Channel { channel, room: None } => Some(Doomed::OrphansOn { channel, room: None, now }),
            Whom::Channel { channel, room: Some(room) } => {
                let room = transaction.epoch_of(room).await?;
                room.map(|room| Doomed::OrphansOn { channel, room: Some(room), now })
            }
            Whom::Presence { room, id } => {
                transaction.epoch_of(room).await?.map(|room| Doomed::Orphan { id: *id, room, now })
            }
        };
        let Some(orphans) = orphans else { return Ok(Batch::default()) };
        let batch = transaction.remove_all(orphans, limit).await?;
        transaction.commit().await?;
        Ok(batch)
    }
}

#[async_trait]
impl NodeStore for Once {
    async fn register(&self, node: NodeId, name: NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError> {
        let (transaction, life) = Transaction::begin(&self.database, node, Lock::Exclusive).await?;
        let (connection, now) = (transaction.connection(), transaction.now);
        let lease_until = now.saturating_add(millis(lease));
        let end = statement::end_of_former(node, &name).one(connection).await.map_err(store_error)?;
        statement::take_name(node, &name, now).exec(connection).await.map_err(store_error)?;
        if let Some((fenced_at, lease_until)) = end {
            let end = fenced_at.unwrap_or_else(|| lease_until.saturating_sub(millis(lease)));
            let former = statement::former_with_held(&name).all(connection).await.map_err(store_error)?;
            transaction.extend_graces(&former, end).await?;
        }
        match life {
            Some(life) => {
                life?;
                statement::rename(node, &name, lease_until).exec(connection).await.map_err(store_error)?;
            }
            None => {
                let insert = statement::begin_life(node, &name, now, lease_until);
                connection.execute(&insert).await.map_err(store_error)?;
                connection.execute(&statement::begin_commits(node)).await.map_err(store_error)?;
            }
        }
        let former = statement::uncleared_under(&name).all(connection).await.map_err(store_error)?;
        transaction.commit().await?;
        Ok(former.into_iter().map(NodeId::from_uuid).collect())
    }

    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError> {
        // Who would lock it for sharing first, and then to change it, would wait for others who do the same.
        let transaction = Transaction::begin_as(&self.database, node, Lock::Exclusive).await?;
        let now = transaction.now;
        let lease_until = now.saturating_add(millis(lease));
        statement::renew(node, lease_until).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await?;
        Ok(time(now))
    }

    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError> {
        let mut nodes = self.look(|| statement::nodes(self.database.now()), row::node_summary).await?;
        nodes.sort_unstable_by(NodeSummary::in_order);
        Ok(nodes)
    }

    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError> {
        let transaction = self.write_as(node).await?;
        let connection = transaction.connection();
        transaction.fence_expired(node).await?;
        transaction.forget_lives().await?;
        let fenced = statement::uncleared_orphans().all(connection).await.map_err(store_error)?;
        transaction.commit().await?;
        self.forget_commits(node).await;
        Ok(fenced.into_iter().map(NodeId::from_uuid).collect())
    }

    async fn clear(&self, node: NodeId, dead: NodeId, remains: Remains, limit: u64) -> Result<Batch, StoreError> {
        let transaction = self.write_as(node).await?;
        // One at a time clears a node: two would wait for each other when they forget it.
        if !matches!(transaction.life(dead, Lock::Exclusive).await?, Some(Err(_))) {
            return Ok(Batch::default());
        }
        let (connection, backend) = (transaction.connection(), self.database.dialect().backend());
        let batch = match remains {
            Remains::HoldAll(grace) => {
                let ids = statement::unheld_ids(backend, dead, limit).all(connection).await.map_err(store_error)?;
                let ids: Vec<_> = ids.into_iter().map(|(id, ..)| PresenceId::from_uuid(id)).collect();
                transaction.hold_remains(dead, &ids, grace).await?;
                let handled = ids.len() as u64;
                Batch { commits: Vec::new(), handled, more: handled == limit }
            }
            Remains::HoldResumable(grace) => transaction.clear(dead, limit, grace).await?,
        };
        transaction.forget_lives().await?;
        transaction.commit().await?;
        Ok(batch)
    }

    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError> {
        let (transaction, life) = Transaction::begin(&self.database, node, Lock::Exclusive).await?;
        match life {
            None => return Ok(Vec::new()),
            Some(life) => life?,
        }
        let batch = transaction.remove_all(Doomed::UnheldOf(node), u64::MAX).await?;
        let since = transaction.now.saturating_sub(millis(closed));
        transaction.extend_graces(&[node.as_uuid()], since).await?;
        statement::end_life(node, transaction.now).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.forget_lives().await?;
        transaction.commit().await?;
        Ok(batch.commits)
    }
}

#[async_trait]
impl RequestStore for Once {
    async fn ask(&self, node: NodeId, request: Request) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        let connection = transaction.connection();
        let others = statement::live_with_presences(node, transaction.now);
        let others = transaction::read(others.all(connection), row::node_name).await?;
        for others in chunk::rows(&others) {
            let insert = statement::ask(node, &request, others)?;
            connection.execute(&insert).await.map_err(store_error)?;
        }
        transaction.commit().await
    }

    async fn asked(&self, node: NodeId) -> Result<Vec<Request>, StoreError> {
        let asked = self.look(|| statement::asked(node, self.database.now()), |row| Ok(row::request(row))).await?;
        Ok(asked.into_iter().flatten().collect())
    }

    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        let answer = statement::answer(node, request, i64::try_from(removed).unwrap_or(i64::MAX));
        answer.exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }

    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError> {
        let mut answers = self.look(|| statement::answers(request), row::answer).await?;
        answers.sort_unstable_by(Answer::in_order);
        Ok(answers)
    }

    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError> {
        let transaction = self.write_as(node).await?;
        statement::withdraw(node, request).exec(transaction.connection()).await.map_err(store_error)?;
        transaction.commit().await
    }
}
