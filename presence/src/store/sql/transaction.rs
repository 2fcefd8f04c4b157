//! The steps that transactions are made of.

mod removal;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, TryGetableMany,
    prelude::{Expr, Uuid},
    sea_query::LockType,
};

use crate::{
    model::{Presence, Turns},
    name::{ChannelName, Epoch, NodeId, PresenceId, RoomName},
    session::SessionHash,
};

use super::{
    super::{
        Attempt, StoreError, millis,
        plan::{Finds, Found, Row},
        shifts::Shifts,
    },
    chunk,
    database::Database,
    dialect::Dialect,
    error::store_error,
    row::{self, Place, PresenceRow},
    statement::{self, In},
};

/// How many users one statement counts.
const USERS: usize = 10_000;
/// How many users must leave a room in a transaction for it to ask whether anybody is there at all.
const MANY: usize = 16;

/// How a row is locked that says whether a node may write.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lock {
    /// So that nobody changes it before the transaction is over.
    Shared,
    /// To change it.
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

/// Whether a life may write; `None` if it is not known.
pub(super) type Alive = Option<Result<(), StoreError>>;

/// A transaction that writes, and the moment at which it does.
pub(super) struct Transaction {
    inner: DatabaseTransaction,
    dialect: Arc<dyn Dialect>,
    tells_turns: bool,
    pub(super) now: i64,
}

impl Transaction {
    /// Begins a transaction for `node`, which may or may not be allowed to write.
    pub(super) async fn begin(database: &Database, node: NodeId, lock: Lock) -> Result<(Self, Alive), StoreError> {
        let inner = database.write().await?;
        let dialect = database.dialect().clone();
        let tells_turns = database.tells_turns.load(Ordering::Acquire);
        let life = statement::life(node, lock.into(), database.now()).one(&inner).await.map_err(store_error)?;
        let Some((fenced_at, lost_name, now)) = life else {
            let now = database.time(&inner).await?;
            return Ok((Self { inner, dialect, now, tells_turns }, None));
        };
        let transaction = Self { inner, dialect, now, tells_turns };
        let alive = transaction.judge(node, fenced_at, lost_name).await?;
        Ok((transaction, Some(alive)))
    }

    /// Begins a transaction of a node that may write, which nobody fences before it is over.
    pub(super) async fn begin_as(database: &Database, node: NodeId, lock: Lock) -> Result<Self, StoreError> {
        match Self::begin(database, node, lock).await? {
            (transaction, Some(Ok(()))) => Ok(transaction),
            (_, Some(Err(fenced))) => Err(fenced),
            (_, None) => Err(StoreError::Fenced { node, superseded: false }),
        }
    }

    pub(super) fn connection(&self) -> &DatabaseTransaction {
        &self.inner
    }

    pub(super) async fn commit(self) -> Result<(), StoreError> {
        // Whatever went wrong, it may be done.
        self.inner.commit().await.map_err(|error| StoreError::Unavailable(Arc::new(error)))
    }

    /// Whether another node may write.
    pub(super) async fn life(&self, node: NodeId, lock: Lock) -> Result<Alive, StoreError> {
        let now = Expr::val(self.now);
        match statement::life(node, lock.into(), now).one(&self.inner).await.map_err(store_error)? {
            Some((fenced_at, lost_name, _)) => self.judge(node, fenced_at, lost_name).await.map(Some),
            None => Ok(None),
        }
    }

    async fn judge(
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

    /// Fences lives whose lease ran out.
    pub(super) async fn fence_expired(&self, all_but: NodeId) -> Result<(), StoreError> {
        let expired = statement::expired(all_but, self.now).all(&self.inner).await.map_err(store_error)?;
        for ids in chunk::keys(self.dialect.backend(), &expired) {
            statement::fence_expired(ids, self.now).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Locks rooms, making those that are not there, and tells where each stands.
    pub(super) async fn rooms(&self, names: &[&RoomName]) -> Result<Vec<Place>, StoreError> {
        let mut places = HashMap::with_capacity(names.len());
        let texts: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        self.lock_rooms_by_name(&texts, &mut places).await?;
        let mut missing: Vec<&str> = texts.into_iter().filter(|name| !places.contains_key(*name)).collect();
        // In one order, as locks are taken: two who make the same rooms wait for one another.
        missing.sort_unstable();
        for chunk in chunk::rows(&missing) {
            self.inner.execute(&statement::make_rooms(chunk, self.now)).await.map_err(store_error)?;
        }
        self.lock_rooms_by_name(&missing, &mut places).await?;
        let place = |name: &&RoomName| places.remove(*name).ok_or_else(|| vanished((*name).clone()));
        names.iter().map(place).collect()
    }

    async fn lock_rooms_by_name(
        &self,
        names: &[&str],
        places: &mut HashMap<RoomName, Place>,
    ) -> Result<(), StoreError> {
        let mut locked = Vec::new();
        let in_one_statement = names.len() <= chunk::KEYS && self.dialect.backend() != DbBackend::MySql;
        if in_one_statement || self.dialect.backend() == DbBackend::Sqlite {
            for names in chunk::keys(self.dialect.backend(), names) {
                locked.extend(read(statement::lock_rooms_by_name(names).all(&self.inner), row::place).await?);
            }
        } else {
            let mut ids = Vec::with_capacity(names.len());
            for names in chunk::keys(self.dialect.backend(), names) {
                ids.extend(statement::room_ids(names).all(&self.inner).await.map_err(store_error)?);
            }
            locked = self.lock_rooms(ids).await?;
        }
        places.extend(locked.into_iter().map(|place| (place.room.clone(), place)));
        Ok(())
    }

    /// Locks rooms, and tells where those that are there stand, sorted by id.
    async fn lock_rooms(&self, mut ids: Vec<Uuid>) -> Result<Vec<Place>, StoreError> {
        ids.sort_unstable();
        let mut places = Vec::with_capacity(ids.len());
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            places.extend(read(statement::lock_rooms(ids).all(&self.inner), row::place).await?);
        }
        Ok(places)
    }

    /// How many presences these rooms have, which are locked. Rooms that nobody is in are left out.
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

    /// Those of the presences that are there, and those that have one of the resume tokens, all locked.
    pub(super) async fn find(&self, ids: &[PresenceId], sessions: &[SessionHash]) -> Result<Finds, StoreError> {
        let mut ids = uuids(ids);
        for hashes in chunk::lists(sessions) {
            ids.extend(statement::ids_by_session(hashes).all(&self.inner).await.map_err(store_error)?);
        }
        let mut finds = Finds::default();
        for ids in chunk::keys(self.dialect.backend(), &distinct(ids)) {
            for row in statement::lock_presences(ids).all(&self.inner).await.map_err(store_error)? {
                let (found, session) = row::found_with_session(row)?;
                finds.sessions.extend(session.map(|session| (session, found.presence.id)));
                finds.presences.insert(found.presence.id, found);
            }
        }
        Ok(finds)
    }

    /// Deletes those of the presences that leave and are there, and returns them, where that is one statement. Elsewhere the rows
    /// are found and locked first, as all others.
    pub(super) async fn take_out(
        &self,
        leaves: &[(PresenceId, Epoch, &ChannelName)],
    ) -> Result<Option<Vec<Found>>, StoreError> {
        // Whether a database can does not depend on whom it is about.
        if self.dialect.take_out(&[]).is_none() {
            return Ok(None);
        }
        let deletes = leaves.chunks(chunk::KEYS).filter_map(|leaves| self.dialect.take_out(leaves));
        self.found_by(Box::new(deletes)).await.map(Some)
    }

    /// The presences that statements return, which are carried out one after the other. While the database works on one, what
    /// the one before it returned is read, and the next is written.
    async fn found_by(
        &self,
        mut statements: Box<dyn Iterator<Item = Statement> + Send + '_>,
    ) -> Result<Vec<Found>, StoreError> {
        let (mut found, mut rows) = (Vec::new(), Vec::new());
        let mut next = statements.next();
        while let Some(statement) = next {
            let meanwhile = async { (found_in(&rows), statements.next()) };
            // In this order: the first is sent before the second begins.
            let (returned, (before, then)) = join(self.inner.query_all_raw(statement), meanwhile).await;
            found.extend(before?);
            (rows, next) = (returned.map_err(store_error)?, then);
        }
        found.extend(found_in(&rows)?);
        Ok(found)
    }

    pub(super) async fn delete(&self, ids: &[PresenceId]) -> Result<(), StoreError> {
        for ids in chunk::keys(self.dialect.backend(), &uuids(ids)) {
            statement::delete_presences(ids).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn put(&self, rows: &[In<Row>]) -> Result<(), StoreError> {
        for rows in chunk::rows_of(rows, |(_, (presence, _))| bytes(presence)) {
            self.inner.execute(&statement::put(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn take_over(&self, rows: &[In<Row>]) -> Result<(), StoreError> {
        for rows in chunk::rows_of(rows, |(_, (presence, _))| bytes(presence)) {
            self.inner.execute(&statement::take_over(rows, self.now)).await.map_err(store_error)?;
        }
        Ok(())
    }

    pub(super) async fn put_metas(&self, rows: &[In<Arc<Presence>>]) -> Result<(), StoreError> {
        for rows in chunk::rows_of(rows, |(_, presence)| bytes(presence)) {
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
            for ids in chunk::keys(self.dialect.backend(), &ids) {
                statement::hold(ids, self.now, grace).exec(&self.inner).await.map_err(store_error)?;
            }
        }
        Ok(())
    }

    /// Holds what a life that is over left and nobody took over, each for its own grace, or for `otherwise`.
    pub(super) async fn hold_remains(
        &self,
        of: NodeId,
        ids: &[PresenceId],
        otherwise: Duration,
    ) -> Result<(), StoreError> {
        for ids in chunk::keys(self.dialect.backend(), &sorted(ids)) {
            let hold = statement::hold_remains(of, ids, self.now, millis(otherwise));
            hold.exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Extends the graces of these lives that were running at `since` by the time from then until now.
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

    /// Who came online in each of these rooms and who went offline, if just this changed. Nothing if nobody wants to know.
    pub(super) async fn turns(&self, rooms: Vec<In<Shifts>>) -> Result<Vec<Turns>, StoreError> {
        if !self.tells_turns {
            return Ok(Vec::new());
        }
        let deserted = self.deserted(&rooms).await?;
        let (mut users, mut places, mut count) = (Vec::new(), Vec::new(), 0);
        for (room, shifts) in &rooms {
            for (user, at_least) in shifts.at_least() {
                if !deserted.contains(room) {
                    users.push((*room, user, at_least));
                    places.push(count);
                }
                count += 1;
            }
        }
        let mut more = vec![false; count];
        for (users, places) in users.chunks(USERS).zip(places.chunks(USERS)) {
            for row in self.inner.query_all_raw(self.dialect.have_more(users)).await.map_err(store_error)? {
                let place: i64 = row.try_get_by_index(0).map_err(store_error)?;
                if let Some(place) = usize::try_from(place).ok().and_then(|place| places.get(place)) {
                    more[*place] = true;
                }
            }
        }
        let mut more = more.into_iter();
        Ok(rooms.into_iter().map(|(_, shifts)| shifts.turns(|_, _| more.next().unwrap_or_default())).collect())
    }

    /// Of the rooms that many left, those that nobody is in any more: one look at such a room spares one for each of its users.
    async fn deserted(&self, rooms: &[In<Shifts>]) -> Result<HashSet<Epoch>, StoreError> {
        let left = rooms.iter().filter(|(_, shifts)| shifts.only_went() >= MANY).map(|(room, _)| *room);
        let left: Vec<Epoch> = left.collect();
        let ids: Vec<Uuid> = left.iter().map(Epoch::as_uuid).collect();
        let mut deserted: HashSet<Epoch> = left.into_iter().collect();
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            for room in statement::occupied(ids).all(&self.inner).await.map_err(store_error)? {
                deserted.remove(&Epoch::from_uuid(room));
            }
        }
        Ok(deserted)
    }

    /// Gives rooms their next version.
    pub(super) async fn bump(&self, rooms: &[Epoch]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = rooms.iter().map(Epoch::as_uuid).collect();
        for ids in chunk::keys(self.dialect.backend(), &ids) {
            statement::bump(ids).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }

    /// Notes that this is the last commit of the node. A life without a place for that begins anew.
    pub(super) async fn note_commit(&self, node: NodeId, attempt: Attempt) -> Result<(), StoreError> {
        let noted = statement::note_commit(node, attempt).exec(&self.inner).await.map_err(store_error)?;
        if noted.rows_affected == 0 {
            return Err(StoreError::Fenced { node, superseded: false });
        }
        Ok(())
    }

    /// Forgets fenced lives that have nothing left.
    pub(super) async fn forget_lives(&self) -> Result<(), StoreError> {
        let over = statement::forgettable(self.now).all(&self.inner).await.map_err(store_error)?;
        for ids in chunk::keys(self.dialect.backend(), &over) {
            statement::forget_lives(ids, self.now).exec(&self.inner).await.map_err(store_error)?;
        }
        Ok(())
    }
}

/// Somebody else made a room and removed it again between two statements of ours.
#[derive(Debug, thiserror::Error)]
#[error("room `{0}` was removed while it was being changed")]
pub(super) struct Vanished(RoomName);

fn vanished(room: RoomName) -> StoreError {
    StoreError::Unavailable(Arc::new(Vanished(room)))
}

/// How many bytes a presence adds to a statement, but for what is of one size.
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

/// Reads rows that came without a type.
pub(super) fn found_in(rows: &[QueryResult]) -> Result<Vec<Found>, StoreError> {
    let found = |row| row::found(PresenceRow::try_get_many_by_index(row).map_err(|error| store_error(error.into()))?);
    rows.iter().map(found).collect()
}

/// Runs a query for rows, and reads each of them.
pub(super) async fn read<R, T>(
    rows: impl Future<Output = Result<Vec<R>, DbErr>>,
    read: impl Fn(R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    rows.await.map_err(store_error)?.into_iter().map(read).collect()
}
