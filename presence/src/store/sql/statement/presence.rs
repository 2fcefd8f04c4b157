//! Statements about presences.

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
        plan::NewRow,
        sql::row::{LastSeenRow, PresenceRow, SessionRow},
    },
};

use super::{In, Keys, Rows, at_most, unindexed};

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
        .filter(ids.into().contain(presence::Column::Id))
        .order_by_asc(presence::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// One page of the presences of a room, after a channel name, in the order of an index.
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

/// The number of presences of each of these rooms. Empty rooms are left out.
pub(in super::super) fn sizes(rooms: impl Into<Keys<Uuid>>) -> Rows<(Uuid, i64)> {
    presence::Entity::find()
        .select_only()
        .column(presence::Column::RoomId)
        .expr(presence::Column::RoomId.count())
        .filter(rooms.into().contain(presence::Column::RoomId))
        .group_by(presence::Column::RoomId)
        .into_tuple()
}

/// The presences with these resume tokens.
pub(in super::super) fn ids_by_session(hashes: Vec<SessionHash>) -> Rows<Uuid> {
    let hashes = hashes.iter().map(|hash| hash.as_bytes().to_vec());
    presence::Entity::find()
        .select_only()
        .column(presence::Column::Id)
        .filter(presence::Column::SessionHash.is_in(hashes))
        .into_tuple()
}

/// The presences of a node that are not held, room by room, with the hashes of their resume tokens.
pub(in super::super) fn unheld(backend: DbBackend, node: NodeId, limit: u64) -> Rows<SessionRow> {
    unheld_of(presences().column(presence::Column::SessionHash), backend, node, limit).into_tuple()
}

/// As [`unheld`], but only ids, rooms and hashes.
pub(in super::super) fn unheld_ids(
    backend: DbBackend,
    node: NodeId,
    limit: u64,
) -> Rows<(Uuid, Uuid, Option<Vec<u8>>)> {
    use presence::Column::{Id, RoomId, SessionHash};
    let ids = presence::Entity::find().select_only().columns([Id, RoomId, SessionHash]);
    unheld_of(ids, backend, node, limit).into_tuple()
}

/// In the order of an index, so that nothing is sorted. MariaDB concludes that `held_until` is NULL in all of these rows.
/// PostgreSQL does not, so there the order must name this column, too.
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
    presence::Entity::delete_many().filter(ids.into().contain(presence::Column::Id))
}

/// Holds presences of a fenced incarnation, each for its own grace or for `default_grace`. A presence that was resumed meanwhile
/// belongs to another node, and is not held. They count as seen now, so that they are not pruned before their grace is over.
pub(in super::super) fn hold_presences_of(
    of: NodeId,
    ids: impl Into<Keys<Uuid>>,
    now: i64,
    default_grace: i64,
) -> UpdateMany<presence::Entity> {
    let until = Expr::col(presence::Column::Grace).if_null(default_grace).add(now);
    let unheld_of =
        Condition::all().add(presence::Column::NodeId.eq(of.as_uuid())).add(presence::Column::HeldUntil.is_null());
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, until)
        .col_expr(presence::Column::LastSeen, Expr::value(now))
        .filter(ids.into().contain(presence::Column::Id))
        .filter(unindexed(unheld_of))
}

/// Extends the graces of these incarnations that had not expired at `since`.
pub(in super::super) fn extend_graces(of: impl Into<Keys<Uuid>>, since: i64, by: i64) -> UpdateMany<presence::Entity> {
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, Expr::col(presence::Column::HeldUntil).add(by))
        .filter(of.into().contain(presence::Column::NodeId))
        .filter(presence::Column::HeldUntil.gte(since))
}

/// Holds presences whose sockets have just been lost.
pub(in super::super) fn hold(ids: impl Into<Keys<Uuid>>, now: i64, grace: i64) -> UpdateMany<presence::Entity> {
    presence::Entity::update_many()
        .col_expr(presence::Column::HeldUntil, Expr::value(now.saturating_add(grace)))
        .col_expr(presence::Column::LastSeen, Expr::value(now))
        .filter(ids.into().contain(presence::Column::Id))
}

pub(in super::super) fn insert_presences(rows: &[In<NewRow>], now: i64) -> InsertStatement {
    insert(rows.iter().map(|(room, (presence, session))| (room, presence, session.as_ref())), now)
}

/// Overwrites existing rows for a new owner: not held, and seen now. It is an insert, because no other statement sets different
/// values in many rows on every database. The conflict always occurs, since the rows exist and are locked.
pub(in super::super) fn take_over(rows: &[In<NewRow>], now: i64) -> InsertStatement {
    use presence::Column::{ChannelName, Grace, HeldUntil, Id, LastSeen, Meta, NodeId, SessionHash, UserId};
    let columns = [ChannelName, UserId, Meta, NodeId, SessionHash, Grace, HeldUntil, LastSeen];
    let taken = OnConflict::column(Id).update_columns(columns).to_owned();
    insert_presences(rows, now).on_conflict(taken).take()
}

/// Overwrites the metas of existing rows. It is an insert for the same reason.
pub(in super::super) fn update_metas(rows: &[In<Arc<Presence>>], now: i64) -> InsertStatement {
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
