//! About presences.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, Condition, DbBackend, DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
    prelude::{Expr, Uuid},
    sea_query::{ExprTrait, InsertStatement, OnConflict, Query, SimpleExpr},
};

use crate::{
    model::Presence,
    name::{Epoch, NodeId},
    session::{Session, SessionHash},
    store::{
        entity::{presence, room},
        millis,
        plan::Row,
        sql::row::{LastSeenRow, PresenceRow, SessionRow},
    },
};

use super::{In, Keys, Rows, at_most, looked_at};

/// The columns of a [`PresenceRow`].
pub(super) const COLUMNS: [presence::Column; 7] = {
    use presence::Column::{ChannelName, HeldUntil, Id, Meta, NodeId, RoomId, UserId};
    [Id, RoomId, ChannelName, UserId, Meta, NodeId, HeldUntil]
};

pub(super) fn presences() -> sea_orm::Select<presence::Entity> {
    presence::Entity::find().select_only().columns(COLUMNS)
}

pub(in super::super) fn lock_presences(ids: impl Into<Keys<Uuid>>) -> Rows<SessionRow> {
    presences()
        .column(presence::Column::SessionHash)
        .filter(ids.into().hold(presence::Column::Id))
        .order_by_asc(presence::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// One page of who is in a room, after a channel name, in the order of an index.
pub(in super::super) fn page(room: Uuid, after: &str, limit: u64) -> Rows<PresenceRow> {
    presences()
        .filter(presence::Column::RoomId.eq(room))
        .filter(presence::Column::ChannelName.gt(after))
        .order_by_asc(presence::Column::ChannelName)
        .limit(at_most(limit))
        .into_tuple()
}

/// When the presences of a room were last seen, and the time now.
pub(in super::super) fn last_seen(room: &str, now: SimpleExpr) -> Rows<LastSeenRow> {
    presence::Entity::find()
        .inner_join(room::Entity)
        .select_only()
        .columns([presence::Column::Id, presence::Column::LastSeen])
        .expr(now)
        .filter(room::Column::ChannelName.eq(room))
        .into_tuple()
}

/// How many presences each of these rooms has; one that nobody is in is left out.
pub(in super::super) fn sizes(rooms: impl Into<Keys<Uuid>>) -> Rows<(Uuid, i64)> {
    presence::Entity::find()
        .select_only()
        .column(presence::Column::RoomId)
        .expr(presence::Column::RoomId.count())
        .filter(rooms.into().hold(presence::Column::RoomId))
        .group_by(presence::Column::RoomId)
        .into_tuple()
}

/// Those that have these resume tokens.
pub(in super::super) fn ids_by_session(hashes: Vec<SessionHash>) -> Rows<Uuid> {
    let hashes = hashes.iter().map(|hash| hash.as_bytes().to_vec());
    presence::Entity::find()
        .select_only()
        .column(presence::Column::Id)
        .filter(presence::Column::SessionHash.is_in(hashes))
        .into_tuple()
}

/// Of one node, those that are not held, room by room, and with each the hash of its resume token.
pub(in super::super) fn unheld(backend: DbBackend, node: NodeId, limit: u64) -> Rows<SessionRow> {
    unheld_of(presences().column(presence::Column::SessionHash), backend, node, limit).into_tuple()
}

/// As [`unheld`], but ids, rooms and hashes alone.
pub(in super::super) fn unheld_ids(
    backend: DbBackend,
    node: NodeId,
    limit: u64,
) -> Rows<(Uuid, Uuid, Option<Vec<u8>>)> {
    use presence::Column::{Id, RoomId, SessionHash};
    let ids = presence::Entity::find().select_only().columns([Id, RoomId, SessionHash]);
    unheld_of(ids, backend, node, limit).into_tuple()
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

pub(in super::super) fn delete_presences(ids: impl Into<Keys<Uuid>>) -> DeleteMany<presence::Entity> {
    presence::Entity::delete_many().filter(ids.into().hold(presence::Column::Id))
}

/// Holds presences of a life that is over, each for its own grace or else for `otherwise`. One that was resumed meanwhile is
/// another node's, and not held.
pub(in super::super) fn hold_remains(
    of: NodeId,
    ids: impl Into<Keys<Uuid>>,
    now: i64,
    otherwise: i64,
) -> UpdateMany<presence::Entity> {
    let until = Expr::col(presence::Column::Grace).if_null(otherwise).add(now);
    let unheld_of =
        Condition::all().add(presence::Column::NodeId.eq(of.as_uuid())).add(presence::Column::HeldUntil.is_null());
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, until)
        .filter(ids.into().hold(presence::Column::Id))
        .filter(looked_at(unheld_of))
}

/// Extends those graces of these lives that were running at `since`.
pub(in super::super) fn extend_graces(of: impl Into<Keys<Uuid>>, since: i64, by: i64) -> UpdateMany<presence::Entity> {
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, Expr::col(presence::Column::HeldUntil).add(by))
        .filter(of.into().hold(presence::Column::NodeId))
        .filter(presence::Column::HeldUntil.gte(since))
}

/// Holds presences whose sockets were lost just now.
pub(in super::super) fn hold(ids: impl Into<Keys<Uuid>>, now: i64, grace: i64) -> UpdateMany<presence::Entity> {
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, Expr::value(now.saturating_add(grace)))
        .col_expr(presence::Column::LastSeen, Expr::value(now))
        .filter(ids.into().hold(presence::Column::Id))
}

/// Inserts presences.
pub(in super::super) fn put(rows: &[In<Row>], now: i64) -> InsertStatement {
    insert(rows.iter().map(|(room, (presence, session))| (room, presence, session.as_ref())), now)
}

/// Makes rows that are there the node's own: not held any more, and seen just now. It is spelt as an insert since no other
/// statement takes many rows with a value each on every database; the conflict always occurs, since the rows are locked.
pub(in super::super) fn take_over(rows: &[In<Row>], now: i64) -> InsertStatement {
    use presence::Column::{ChannelName, Grace, HeldUntil, Id, LastSeen, Meta, NodeId, SessionHash, UserId};
    let columns = [ChannelName, UserId, Meta, NodeId, SessionHash, Grace, HeldUntil, LastSeen];
    let taken = OnConflict::column(Id).update_columns(columns).to_owned();
    put(rows, now).on_conflict(taken).take()
}

/// Replaces the metas of rows that are there; an insert for the same reason.
pub(in super::super) fn put_metas(rows: &[In<Arc<Presence>>], now: i64) -> InsertStatement {
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
