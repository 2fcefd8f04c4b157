//! The text of every statement.
//!
//! They are built, not spelt, so that one text serves each database; what a database has of its own is in its file, behind
//! [`Dialect`](super::dialect::Dialect). Locks on rows are asked for in the order node, rooms by id, presences by id. SQLite
//! knows none: it has one lock for everything, taken when the transaction begins.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, Condition, DbBackend, DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    SelectGetableTuple, Selector, UpdateMany,
    prelude::{Expr, Uuid},
    sea_query::{
        Alias, ExprTrait, Func, InsertStatement, LockBehavior, LockType, OnConflict, Query, SelectStatement, SimpleExpr,
    },
};

use crate::{
    model::Presence,
    name::{Epoch, NodeId, NodeName, RequestId, UserId},
    session::{Session, SessionHash},
};

use super::{
    super::{
        Order, REMEMBERED, Request, StoreError,
        entity::{node, presence, prune_request, room},
        millis,
        plan::Row,
    },
    row::{AnswerRow, Life, NodeSummaryRow, PresenceRow, RequestRow, RoomRow, RoomSummaryRow, SessionRow},
};

/// A query whose rows come as tuples: several times faster than as models.
pub(super) type Rows<T> = Selector<SelectGetableTuple<T>>;

/// Something of a room.
pub(super) type In<T> = (Epoch, T);

pub(super) fn life(node: NodeId, lock: LockType, now: SimpleExpr) -> Rows<Life> {
    node::Entity::find_by_id(node.as_uuid())
        .select_only()
        .columns([node::Column::FencedAt, node::Column::LostName])
        .expr(now)
        .lock(lock)
        .into_tuple()
}

pub(super) fn live_under(name: &str) -> Rows<Uuid> {
    let live = node::Entity::find().filter(node::Column::Name.eq(name)).filter(node::Column::FencedAt.is_null());
    live.select_only().column(node::Column::Id).into_tuple()
}

pub(super) fn take_name(from_all_but: NodeId, name: &NodeName, now: i64) -> UpdateMany<node::Entity> {
    let fenced_at = Expr::col(node::Column::FencedAt).if_null(now);
    node::Entity::update_many()
        .col_expr(node::Column::LostName, Expr::col(node::Column::Name))
        .col_expr(node::Column::Name, Expr::value(None::<String>))
        .col_expr(node::Column::FencedAt, fenced_at)
        .filter(node::Column::Name.eq(name.as_str()))
        .filter(node::Column::Id.ne(from_all_but.as_uuid()))
}

pub(super) fn begin_life(node: NodeId, name: &NodeName, now: i64, lease_until: i64) -> InsertStatement {
    use node::Column::{Id, LeaseUntil, Name, StartedAt};
    Query::insert()
        .into_table(node::Entity)
        .columns([Id, Name, StartedAt, LeaseUntil])
        .values_panic([node.as_uuid().into(), name.as_str().into(), now.into(), lease_until.into()])
        .take()
}

/// Names a life that is there, and renews it.
pub(super) fn rename(node: NodeId, name: &NodeName, lease_until: i64) -> UpdateMany<node::Entity> {
    renew(node, lease_until).col_expr(node::Column::Name, Expr::value(name.as_str()))
}

/// Lives that lost this name and have presences that are not held.
pub(super) fn uncleared_under(name: &NodeName) -> Rows<Uuid> {
    uncleared().filter(node::Column::LostName.eq(name.as_str())).into_tuple()
}

/// Fenced lives that have presences that are not held, and no later life that has their name and is not over.
pub(super) fn uncleared_orphans() -> Rows<Uuid> {
    let later = Alias::new("later");
    let successor = Query::select()
        .expr(Expr::val(1))
        .from_as(node::Entity, later.clone())
        .and_where(Expr::col((later.clone(), node::Column::Name)).equals((node::Entity, node::Column::LostName)))
        .and_where(Expr::col((later, node::Column::FencedAt)).is_null())
        .take();
    uncleared().filter(Expr::not_exists(successor)).into_tuple()
}

fn uncleared() -> sea_orm::Select<node::Entity> {
    answering()
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::FencedAt.is_not_null())
        .order_by_asc(node::Column::Id)
}

/// Lives that have presences that are not held.
fn answering() -> sea_orm::Select<node::Entity> {
    let unheld = presences_of_node().and_where(presence::Column::HeldUntil.is_null()).take();
    node::Entity::find().filter(Expr::exists(unheld))
}

/// Those of [`answering`] that have a lease, save the one who asks.
pub(super) fn live_and_answering(all_but: NodeId, now: i64) -> Rows<(Uuid, String)> {
    answering()
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .select_only()
        .columns([node::Column::Id, node::Column::Name])
        .filter(node::Column::FencedAt.is_null())
        .filter(node::Column::LeaseUntil.gte(now))
        .into_tuple()
}

pub(super) fn nodes(now: SimpleExpr) -> Rows<NodeSummaryRow> {
    use node::Column::{FencedAt, Id, LeaseUntil, LostName, Name, StartedAt};
    node::Entity::find()
        .left_join(presence::Entity)
        .select_only()
        .columns([Id, Name, LostName, StartedAt, LeaseUntil, FencedAt])
        .expr(presence::Column::NodeId.count())
        .expr(presence::Column::HeldUntil.count())
        .expr(now)
        .group_by(Id)
        .into_tuple()
}

/// For a node at hand in the query around it.
fn presences_of_node() -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from(presence::Entity)
        .and_where(Expr::col((presence::Entity, presence::Column::NodeId)).equals((node::Entity, node::Column::Id)))
        .take()
}

pub(super) fn renew(node: NodeId, lease_until: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::LeaseUntil, Expr::value(lease_until))
        .filter(node::Column::Id.eq(node.as_uuid()))
        .filter(node::Column::FencedAt.is_null())
}

/// Lives whose lease ran out, and that nobody fenced. Not locked: it looks at those of all nodes, who are writing.
pub(super) fn expired(all_but: NodeId, now: i64) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(is_expired(now))
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

fn is_expired(now: i64) -> Condition {
    Condition::all().add(node::Column::FencedAt.is_null()).add(node::Column::LeaseUntil.lt(now))
}

/// Fences those of these lives that did not renew their leases meanwhile.
pub(super) fn fence_expired(ids: Vec<Uuid>, now: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::FencedAt, Expr::value(now))
        .filter(node::Column::Id.is_in(ids))
        .filter(is_expired(now))
}

pub(super) fn end_life(node: NodeId, now: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::FencedAt, Expr::value(now))
        .filter(node::Column::Id.eq(node.as_uuid()))
}

/// Fenced lives that have no presences; those that lost their name only after a while. Not locked: see [`expired`].
pub(super) fn forgettable(now: i64) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(is_forgettable(now))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

fn is_forgettable(now: i64) -> Condition {
    let old = node::Column::FencedAt.lt(now.saturating_sub(millis(REMEMBERED)));
    Condition::all()
        .add(node::Column::FencedAt.is_not_null())
        .add(Condition::any().add(node::Column::LostName.is_null()).add(old))
        .add(Expr::not_exists(presences_of_node()))
}

pub(super) fn forget_lives(ids: Vec<Uuid>, now: i64) -> DeleteMany<node::Entity> {
    node::Entity::delete_many().filter(node::Column::Id.is_in(ids)).filter(is_forgettable(now))
}

/// Asks nodes, save those that this request has asked already.
pub(super) fn ask(
    asker: NodeId,
    Request { id, order }: &Request,
    nodes: &[(NodeId, NodeName)],
) -> Result<InsertStatement, StoreError> {
    use prune_request::Column::{AskedBy, MaxAge, NodeId, NodeName, Removal, RequestId};
    let (max_age, removal) = match order {
        Order::Prune { max_age } => (millis(*max_age), None),
        // A version that does not know of removals takes it for a request to prune, which must then be of nothing.
        Order::Remove(removal) => {
            let removal = serde_json::to_string(removal).map_err(|error| StoreError::Refused(Arc::new(error)))?;
            (i64::MAX, Some(removal))
        }
    };
    let columns = [RequestId, NodeId, NodeName, AskedBy, MaxAge, Removal];
    let mut insert = Query::insert().into_table(prune_request::Entity).columns(columns).take();
    for (node, name) in nodes {
        insert.values_panic([
            id.as_uuid().into(),
            node.as_uuid().into(),
            name.as_str().into(),
            asker.as_uuid().into(),
            max_age.into(),
            removal.clone().into(),
        ]);
    }
    let asked = OnConflict::columns([RequestId, NodeId]).do_nothing_on([RequestId, NodeId]).to_owned();
    Ok(insert.on_conflict(asked).take())
}

/// What a node has not answered, of those who have a lease.
pub(super) fn asked(node: NodeId, now: SimpleExpr) -> Rows<RequestRow> {
    prune_request::Entity::find()
        .inner_join(node::Entity)
        .select_only()
        .columns([prune_request::Column::RequestId, prune_request::Column::MaxAge, prune_request::Column::Removal])
        .filter(prune_request::Column::NodeId.eq(node.as_uuid()))
        .filter(prune_request::Column::Pruned.is_null())
        .filter(node::Column::FencedAt.is_null())
        .filter(Expr::col((node::Entity, node::Column::LeaseUntil)).gte(now))
        .order_by_asc(prune_request::Column::RequestId)
        .into_tuple()
}

pub(super) fn answer(node: NodeId, request: RequestId, removed: i64) -> UpdateMany<prune_request::Entity> {
    prune_request::Entity::update_many()
        .col_expr(prune_request::Column::Pruned, Expr::value(removed))
        .filter(prune_request::Column::RequestId.eq(request.as_uuid()))
        .filter(prune_request::Column::NodeId.eq(node.as_uuid()))
        .filter(prune_request::Column::Pruned.is_null())
}

pub(super) fn withdraw(asker: NodeId, request: RequestId) -> DeleteMany<prune_request::Entity> {
    prune_request::Entity::delete_many()
        .filter(prune_request::Column::RequestId.eq(request.as_uuid()))
        .filter(prune_request::Column::AskedBy.eq(asker.as_uuid()))
}

pub(super) fn answers(request: RequestId) -> Rows<AnswerRow> {
    use prune_request::Column::{NodeId, NodeName, Pruned, RequestId};
    prune_request::Entity::find()
        .select_only()
        .columns([NodeId, NodeName, Pruned])
        .filter(RequestId.eq(request.as_uuid()))
        .into_tuple()
}

pub(super) fn room_summaries() -> Rows<RoomSummaryRow> {
    let users = Func::count_distinct(Expr::col((presence::Entity, presence::Column::UserId)));
    room::Entity::find()
        .left_join(presence::Entity)
        .select_only()
        .columns([room::Column::Id, room::Column::ChannelName, room::Column::Version])
        .expr(presence::Column::RoomId.count())
        .expr(presence::Column::UserId.count())
        .expr(users)
        .expr(presence::Column::HeldUntil.count())
        .group_by(room::Column::Id)
        .into_tuple()
}

pub(super) fn all_rooms() -> Rows<RoomRow> {
    rooms().into_tuple()
}

fn rooms() -> sea_orm::Select<room::Entity> {
    room::Entity::find().select_only().columns([room::Column::Id, room::Column::ChannelName, room::Column::Version])
}

pub(super) fn room(name: &str) -> Rows<RoomRow> {
    rooms().filter(room::Column::ChannelName.eq(name)).into_tuple()
}

pub(super) fn rooms_by_name(names: Vec<&str>) -> Rows<RoomRow> {
    rooms().filter(room::Column::ChannelName.is_in(names)).into_tuple()
}

pub(super) fn lock_rooms_by_name(names: Vec<&str>) -> Rows<RoomRow> {
    rooms().filter(room::Column::ChannelName.is_in(names)).order_by_asc(room::Column::Id).lock_exclusive().into_tuple()
}

/// Not locked: an index that is looked up by name would lock rooms in the order of their names on MySQL.
pub(super) fn room_ids(names: Vec<&str>) -> Rows<Uuid> {
    room::Entity::find()
        .select_only()
        .column(room::Column::Id)
        .filter(room::Column::ChannelName.is_in(names))
        .into_tuple()
}

pub(super) fn lock_rooms(ids: Vec<Uuid>) -> Rows<RoomRow> {
    rooms().filter(room::Column::Id.is_in(ids)).order_by_asc(room::Column::Id).lock_exclusive().into_tuple()
}

pub(super) fn make_rooms(names: &[&str], now: i64) -> InsertStatement {
    use room::Column::{ChannelName, CreatedAt, Id, Version};
    let mut insert = Query::insert().into_table(room::Entity).columns([Id, ChannelName, Version, CreatedAt]).take();
    for name in names {
        insert.values_panic([Epoch::random().as_uuid().into(), (*name).into(), 0_i64.into(), now.into()]);
    }
    // Somebody else may have made one of them just now.
    insert.on_conflict(OnConflict::column(ChannelName).do_nothing_on([Id]).to_owned());
    insert
}

pub(super) fn bump(ids: Vec<Uuid>) -> UpdateMany<room::Entity> {
    room::Entity::update_many()
        .col_expr(room::Column::Version, Expr::col(room::Column::Version).add(1))
        .filter(room::Column::Id.is_in(ids))
}

fn anybody() -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from(presence::Entity)
        .and_where(Expr::col((presence::Entity, presence::Column::RoomId)).equals((room::Entity, room::Column::Id)))
        .take()
}

/// Locks rooms that nobody is in, after this one in the order of their ids, save those that somebody is changing.
pub(super) fn lock_empty_rooms(after: Uuid, limit: u64) -> Rows<Uuid> {
    room::Entity::find()
        .select_only()
        .column(room::Column::Id)
        .filter(room::Column::Id.gt(after))
        .filter(Expr::not_exists(anybody()))
        .order_by_asc(room::Column::Id)
        .limit(at_most(limit))
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
}

/// Deletes those of the rooms that nobody is in, as this statement sees it: one that looked before it had the lock may have
/// missed who came meanwhile.
pub(super) fn delete_empty_rooms(ids: Vec<Uuid>) -> DeleteMany<room::Entity> {
    room::Entity::delete_many().filter(room::Column::Id.is_in(ids)).filter(Expr::not_exists(anybody()))
}

pub(super) fn rooms_of(user: &UserId) -> Rows<(Uuid, String)> {
    let ids = presence::Entity::find()
        .select_only()
        .column(presence::Column::RoomId)
        .filter(presence::Column::UserId.eq(user.as_str()))
        .into_query();
    room::Entity::find()
        .select_only()
        .columns([room::Column::Id, room::Column::ChannelName])
        .filter(room::Column::Id.in_subquery(ids))
        .into_tuple()
}

/// A limit that fits a database's largest number.
fn at_most(limit: u64) -> u64 {
    Ord::min(limit, i64::MAX.unsigned_abs())
}

fn presences() -> sea_orm::Select<presence::Entity> {
    use presence::Column::{ChannelName, HeldUntil, Id, Meta, NodeId, RoomId, UserId};
    presence::Entity::find().select_only().columns([Id, RoomId, ChannelName, UserId, Meta, NodeId, HeldUntil])
}

pub(super) fn lock_presences(ids: Vec<Uuid>) -> Rows<SessionRow> {
    presences()
        .column(presence::Column::SessionHash)
        .filter(presence::Column::Id.is_in(ids))
        .order_by_asc(presence::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// One page of who is in a room, after a channel name, in the order of an index.
pub(super) fn page(room: Uuid, after: &str, limit: u64) -> Rows<PresenceRow> {
    presences()
        .filter(presence::Column::RoomId.eq(room))
        .filter(presence::Column::ChannelName.gt(after))
        .order_by_asc(presence::Column::ChannelName)
        .limit(at_most(limit))
        .into_tuple()
}

/// Those that have these resume tokens.
pub(super) fn ids_by_session(hashes: Vec<SessionHash>) -> Rows<Uuid> {
    let hashes = hashes.iter().map(|hash| hash.as_bytes().to_vec());
    presence::Entity::find()
        .select_only()
        .column(presence::Column::Id)
        .filter(presence::Column::SessionHash.is_in(hashes))
        .into_tuple()
}

/// Of one node, those that are not held, room by room, and with each the hash of its resume token.
pub(super) fn unheld(backend: DbBackend, node: NodeId, limit: u64) -> Rows<SessionRow> {
    unheld_of(presences().column(presence::Column::SessionHash), backend, node, limit).into_tuple()
}

pub(super) fn unheld_ids(backend: DbBackend, node: NodeId, limit: u64) -> Rows<Uuid> {
    unheld_of(presence::Entity::find().select_only().column(presence::Column::Id), backend, node, limit).into_tuple()
}

/// In the order of an index, so that nothing has to be sorted. That `held_until` is none in all of them MariaDB knows;
/// PostgreSQL does not, and must be asked for the index's order by its name.
fn unheld_of(
    presences: sea_orm::Select<presence::Entity>,
    backend: DbBackend,
    node: NodeId,
    limit: u64,
) -> sea_orm::Select<presence::Entity> {
    let unheld = presences
        .filter(presence::Column::NodeId.eq(node.as_uuid()))
        .filter(presence::Column::HeldUntil.is_null())
        .limit(at_most(limit));
    let unheld = match backend {
        DbBackend::Postgres => unheld.order_by_asc(presence::Column::HeldUntil),
        _ => unheld,
    };
    unheld.order_by_asc(presence::Column::RoomId)
}

/// Which presences are to be removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doomed<'a> {
    /// Those in a room that no live node answers for.
    OrphansIn {
        room: Epoch,
        now: i64,
    },
    OrphansOf {
        user: &'a UserId,
        now: i64,
    },
    /// Of a node, those that are not held.
    UnheldOf(NodeId),
    PastGrace {
        now: i64,
    },
    /// Those last seen before `cut` that no live node answers for. The node that asks lives, whatever the clock of the database
    /// says.
    Stale {
        asks: NodeId,
        now: i64,
        cut: i64,
    },
}

impl Doomed<'_> {
    fn condition(self) -> Condition {
        use presence::Column::{HeldUntil, LastSeen, NodeId, RoomId, UserId};
        let all = Condition::all();
        match self {
            Self::OrphansIn { room, now } => all.add(RoomId.eq(room.as_uuid())).add(nobodys(now)),
            Self::OrphansOf { user, now } => all.add(UserId.eq(user.as_str())).add(nobodys(now)),
            Self::UnheldOf(node) => all.add(NodeId.eq(node.as_uuid())).add(HeldUntil.is_null()),
            Self::PastGrace { now } => all.add(HeldUntil.lt(now)),
            Self::Stale { asks, now, cut } => all.add(LastSeen.lt(cut)).add(nobodys_but_for(Some(asks), now)),
        }
    }
}

pub(super) fn doomed(doomed: Doomed<'_>, limit: u64) -> Rows<PresenceRow> {
    presences().filter(doomed.condition()).limit(at_most(limit)).into_tuple()
}

/// Ids and rooms alone.
pub(super) fn doomed_ids(doomed: Doomed<'_>, limit: u64) -> Rows<(Uuid, Uuid)> {
    presence::Entity::find()
        .select_only()
        .columns([presence::Column::Id, presence::Column::RoomId])
        .filter(doomed.condition())
        .limit(at_most(limit))
        .into_tuple()
}

/// Locks those of the presences that are to be removed still.
pub(super) fn lock_doomed(ids: Vec<Uuid>, doomed: Doomed<'_>) -> Rows<PresenceRow> {
    presences()
        .filter(presence::Column::Id.is_in(ids))
        .filter(doomed.condition())
        .order_by_asc(presence::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// Presences that are held, or whose node is fenced or has no lease.
fn nobodys(now: i64) -> Condition {
    nobodys_but_for(None, now)
}

fn nobodys_but_for(asks: Option<NodeId>, now: i64) -> Condition {
    let over = Condition::any().add(node::Column::FencedAt.is_not_null()).add(node::Column::LeaseUntil.lt(now));
    let over = Condition::all().add(over).add_option(asks.map(|asks| node::Column::Id.ne(asks.as_uuid())));
    let dead = node::Entity::find().select_only().column(node::Column::Id).filter(over).into_query();
    // Held is what has any time at all here; `IS NOT NULL` would say so, but SQLite looks that up in no index.
    Condition::any().add(presence::Column::HeldUntil.gte(0)).add(presence::Column::NodeId.in_subquery(dead))
}

pub(super) fn delete_presences(ids: Vec<Uuid>) -> DeleteMany<presence::Entity> {
    presence::Entity::delete_many().filter(presence::Column::Id.is_in(ids))
}

/// Holds presences of a life that is over, each for its own grace or else for `otherwise`. One that was resumed meanwhile is
/// another node's, and not held.
pub(super) fn hold_remains(of: NodeId, ids: Vec<Uuid>, now: i64, otherwise: i64) -> UpdateMany<presence::Entity> {
    let until = Expr::col(presence::Column::Grace).if_null(otherwise).add(now);
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, until)
        .filter(presence::Column::Id.is_in(ids))
        .filter(presence::Column::NodeId.eq(of.as_uuid()))
        .filter(presence::Column::HeldUntil.is_null())
}

/// Holds presences whose sockets were lost just now.
pub(super) fn hold(ids: Vec<Uuid>, now: i64, grace: i64) -> UpdateMany<presence::Entity> {
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, Expr::value(now.saturating_add(grace)))
        .col_expr(presence::Column::LastSeen, Expr::value(now))
        .filter(presence::Column::Id.is_in(ids))
}

/// Inserts presences.
pub(super) fn put(rows: &[In<Row>], now: i64) -> InsertStatement {
    insert(rows.iter().map(|(room, (presence, session))| (room, presence, session.as_ref())), now)
}

/// Makes rows that are there the node's own: not held any more, and seen just now. It is spelt as an insert since no other
/// statement takes many rows with a value each on every database; the conflict always occurs, since the rows are locked.
pub(super) fn take_over(rows: &[In<Row>], now: i64) -> InsertStatement {
    use presence::Column::{ChannelName, Grace, HeldUntil, Id, LastSeen, Meta, NodeId, SessionHash, UserId};
    let columns = [ChannelName, UserId, Meta, NodeId, SessionHash, Grace, HeldUntil, LastSeen];
    let taken = OnConflict::column(Id).update_columns(columns).to_owned();
    put(rows, now).on_conflict(taken).take()
}

/// Replaces the metas of rows that are there; an insert for the same reason.
pub(super) fn put_metas(rows: &[In<Arc<Presence>>], now: i64) -> InsertStatement {
    let changed = OnConflict::column(presence::Column::Id).update_column(presence::Column::Meta).to_owned();
    insert(rows.iter().map(|(room, presence)| (room, presence, None)), now).on_conflict(changed).take()
}

fn insert<'a>(
    rows: impl Iterator<Item = (&'a Epoch, &'a Arc<Presence>, Option<&'a Session>)>,
    now: i64,
) -> InsertStatement {
    use presence::Column::{
        ChannelName, Grace, HeldUntil, Id, JoinedAt, LastSeen, Meta, NodeId, RoomId, SessionHash, UserId,
    };
    let mut insert = Query::insert()
        .into_table(presence::Entity)
        .columns([Id, RoomId, ChannelName, UserId, Meta, NodeId, SessionHash, Grace, HeldUntil, JoinedAt, LastSeen])
        .take();
    for (room, presence, session) in rows {
        insert.values_panic([
            presence.id.as_uuid().into(),
            room.as_uuid().into(),
            presence.channel.as_str().into(),
            presence.user.as_ref().map(|user| user.as_str()).into(),
            presence.meta.as_str().into(),
            presence.node.as_uuid().into(),
            session.map(|session| session.hash.as_bytes().to_vec()).into(),
            session.map(|session| millis(session.grace)).into(),
            None::<i64>.into(),
            now.into(),
            now.into(),
        ]);
    }
    insert
}
