//! The steps that transactions are made of.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, prelude::Uuid};

use crate::{
    model::{Delta, Presence},
    name::{Epoch, NodeId, NodeName, PresenceId, RoomName},
    session::SessionHash,
};

use super::{
    super::{
        Batch, RoomCommit, StoreError, millis,
        plan::{Finds, Found, Row},
    },
    chunk,
    error::store_error,
    row::{self, Place},
    statement::{self, In},
};

/// A transaction that writes, and the moment at which it does.
pub(super) struct Transaction {
    inner: DatabaseTransaction,
    pub(super) now: i64,
}

impl Transaction {
    pub(super) fn new(inner: DatabaseTransaction, now: i64) -> Self {
        Self { inner, now }
    }

    pub(super) fn connection(&self) -> &DatabaseTransaction {
        &self.inner
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.map_err(store_error)
    }

    /// Makes sure that `node` may write, and that nobody fences it before this transaction is over.
    pub(super) async fn check(&self, node: NodeId) -> Result<(), StoreError> {
        match self.life(node).await? {
            Some(Ok(())) => Ok(()),
            Some(Err(fenced)) => Err(fenced),
            None => Err(StoreError::Fenced { node, superseded: false }),
        }
    }

    /// Whether `node` may write; `None` if it is not known.
    pub(super) async fn life(&self, node: NodeId) -> Result<Option<Result<(), StoreError>>, StoreError> {
        let Some((fenced_at, lost_name)) = statement::life(node).one(&self.inner).await.map_err(store_error)? else {
            return Ok(None);
        };
        if fenced_at.is_none() {
            return Ok(Some(Ok(())));
        }
        let superseded = match lost_name {
            Some(name) => statement::live_under(&name).one(&self.inner).await.map_err(store_error)?.is_some(),
            None => false,
        };
        Ok(Some(Err(StoreError::Fenced { node, superseded })))
    }

    pub(super) async fn begin_life(&self, node: NodeId, name: &NodeName, lease_until: i64) -> Result<(), StoreError> {
        let insert = statement::begin_life(node, name, self.now, lease_until);
        self.inner.execute(&insert).await.map(drop).map_err(store_error)
    }

    /// Locks rooms, making those that are not there, and tells where each stands.
    pub(super) async fn rooms(&self, names: &[&RoomName]) -> Result<Vec<Place>, StoreError> {
        let mut places = HashMap::with_capacity(names.len());
        let texts: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        self.lock_rooms(&texts, &mut places).await?;
        let missing: Vec<&str> = texts.into_iter().filter(|name| !places.contains_key(*name)).collect();
        for chunk in chunk::rows(&missing) {
            self.inner.execute(&statement::make_rooms(chunk, self.now)).await.map_err(store_error)?;
        }
        self.lock_rooms(&missing, &mut places).await?;
        let place = |name: &&RoomName| places.remove(*name).ok_or_else(|| vanished((*name).clone()));
        names.iter().map(place).collect()
    }

    async fn lock_rooms(&self, names: &[&str], places: &mut HashMap<RoomName, Place>) -> Result<(), StoreError> {
        for names in chunk::keys(names) {
            for row in statement::lock_rooms_by_name(names).all(&self.inner).await.map_err(store_error)? {
                let place = row::place(row)?;
                places.insert(place.room.clone(), place);
            }
        }
        Ok(())
    }

    /// Those of the presences that are there, and those that have one of the resume tokens.
    pub(super) async fn find(&self, ids: &[PresenceId], sessions: &[SessionHash]) -> Result<Finds, StoreError> {
        let mut finds = Finds::default();
        for ids in chunk::keys(&uuids(ids)) {
            for row in statement::presences_by_id(ids).all(&self.inner).await.map_err(store_error)? {
                let found = row::found(row)?;
                finds.presences.insert(found.presence.id, found);
            }
        }
        for hashes in chunk::keys(sessions) {
            for row in statement::presences_by_session(hashes).all(&self.inner).await.map_err(store_error)? {
                let (found, session) = row::found_with_session(row)?;
                finds.sessions.extend(session.map(|session| (session, found.presence.id)));
                finds.presences.insert(found.presence.id, found);
            }
        }
        Ok(finds)
    }

    pub(super) async fn delete(&self, ids: &[PresenceId]) -> Result<(), StoreError> {
        for ids in chunk::keys(&uuids(ids)) {
            statement::delete_presences(ids).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn put(&self, rows: &[In<Row>]) -> Result<(), StoreError> {
        for rows in chunk::rows(rows) {
            self.inner.execute(&statement::put(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn put_metas(&self, rows: &[In<Arc<Presence>>]) -> Result<(), StoreError> {
        for rows in chunk::rows(rows) {
            self.inner.execute(&statement::put_metas(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Holds presences whose sockets were lost just now, each for its grace.
    pub(super) async fn hold(&self, held: Vec<(PresenceId, Duration)>) -> Result<(), StoreError> {
        // Nearly always one.
        let mut graces: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
        for (id, grace) in held {
            graces.entry(millis(grace)).or_default().push(id.as_uuid());
        }
        for (grace, ids) in graces {
            for ids in chunk::keys(&ids) {
                statement::hold(ids, self.now, grace).exec(&self.inner).await.map_err(store_error)?;
            }
        }
        Ok(())
    }

    /// Holds what a life that is over left, each for its own grace, or for `otherwise`.
    pub(super) async fn hold_remains(
        &self,
        of: NodeId,
        ids: &[PresenceId],
        otherwise: Duration,
    ) -> Result<(), StoreError> {
        for ids in chunk::keys(&uuids(ids)) {
            let hold = statement::hold_remains(of, ids, self.now, millis(otherwise));
            hold.exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Gives rooms their next version.
    pub(super) async fn bump(&self, rooms: &[Epoch]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = rooms.iter().map(Epoch::as_uuid).collect();
        for ids in chunk::keys(&ids) {
            statement::bump(ids).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Removes presences, with one version for each room. One that was resumed, held or changed since it was read, by a
    /// transaction that was under way then, is passed over.
    pub(super) async fn remove(&self, doomed: Vec<Found>) -> Result<Batch, StoreError> {
        let handled = doomed.len() as u64;
        let mut epochs: Vec<Epoch> = doomed.iter().map(|found| found.room).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let mut places = Vec::with_capacity(epochs.len());
        for ids in chunk::keys(&epochs.iter().map(Epoch::as_uuid).collect::<Vec<_>>()) {
            for row in statement::lock_rooms(ids).all(&self.inner).await.map_err(store_error)? {
                places.push(row::place(row)?);
            }
        }
        let mut ids: Vec<PresenceId> = doomed.iter().map(|found| found.presence.id).collect();
        // From here on nobody changes these rooms. In SQLite nobody did since this transaction began.
        let now = match self.inner.get_database_backend() {
            DbBackend::Sqlite => None,
            _ => Some(self.find(&ids, &[]).await?.presences),
        };
        let mut left: HashMap<Epoch, Vec<Arc<Presence>>> = HashMap::new();
        for Found { room, presence } in doomed {
            let same = |now: &HashMap<PresenceId, Found>| {
                now.get(&presence.id).is_some_and(|found| found.presence == presence)
            };
            if now.as_ref().is_none_or(same) {
                left.entry(room).or_default().push(presence);
            }
        }
        ids.clear();
        let mut bumped = Vec::with_capacity(left.len());
        let mut commits = Vec::with_capacity(left.len());
        for Place { room, epoch, version } in places {
            let Some(left) = left.remove(&epoch) else { continue };
            ids.extend(left.iter().map(|presence| presence.id));
            bumped.push(epoch);
            let delta = Delta { left, ..Delta::default() };
            commits.push(RoomCommit::new(room, epoch, version.next(), delta));
        }
        self.delete(&ids).await?;
        self.bump(&bumped).await?;
        Ok(Batch { commits, handled })
    }

    /// Forgets fenced lives that have nothing left.
    pub(super) async fn forget_lives(&self) -> Result<(), StoreError> {
        statement::forget_lives(self.now).exec(&self.inner).await.map(drop).map_err(store_error)
    }
}

/// Somebody else made a room and removed it again between two statements of ours.
#[derive(Debug, thiserror::Error)]
#[error("room `{0}` was removed while it was being changed")]
struct Vanished(RoomName);

fn vanished(room: RoomName) -> StoreError {
    StoreError::Unavailable(Arc::new(Vanished(room)))
}

fn uuids(ids: &[PresenceId]) -> Vec<Uuid> {
    ids.iter().map(PresenceId::as_uuid).collect()
}

/// Runs a query for rows, and reads each of them.
pub(super) async fn read<R, T>(
    rows: impl Future<Output = Result<Vec<R>, DbErr>>,
    read: impl Fn(R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.await.map_err(store_error)?.into_iter().map(read).collect()
}
