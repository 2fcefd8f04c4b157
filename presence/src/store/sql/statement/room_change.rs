//! Statements about the change log.

use std::time::Duration;

use sea_orm::{
    DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    prelude::Expr,
    sea_query::{ExprTrait, InsertStatement, JoinType, Query, SimpleExpr},
};

use crate::{
    name::{Epoch, NodeId, Version},
    store::{
        entity::{room, room_change},
        millis,
        sql::row::{ChangeRow, KeptChange},
    },
};

use super::{In, Rows};

pub(in super::super) fn insert_changes(rows: &[In<KeptChange>], by: NodeId, now: i64) -> InsertStatement {
    use room_change::Column::{Delta, MadeAt, NodeId, RoomId, Version};
    let columns = [RoomId, Version, NodeId, Delta, MadeAt];
    let mut insert = Query::insert().into_table(room_change::Entity).columns(columns).take();
    for (room, (version, delta)) in rows {
        insert.values_panic([
            room.as_uuid().into(),
            (*version).into(),
            by.as_uuid().into(),
            delta.clone().into(),
            now.into(),
        ]);
    }
    insert
}

/// The version of a room, and up to `limit` changes after `version`: a row for each, or one without a change.
pub(in super::super) fn changes_after(room: Epoch, version: Version, limit: u64) -> Rows<ChangeRow> {
    let Version(version) = version;
    let is_later = Expr::col((room_change::Entity, room_change::Column::Version)).gt(version);
    let of_room =
        Expr::col((room_change::Entity, room_change::Column::RoomId)).equals((room::Entity, room::Column::Id));
    let mut rows = room::Entity::find_by_id(room.as_uuid())
        .select_only()
        .column(room::Column::Version)
        .column(room_change::Column::Version)
        .column(room_change::Column::NodeId)
        .column(room_change::Column::Delta)
        .order_by_asc(room_change::Column::Version)
        .limit(limit);
    QueryTrait::query(&mut rows).join(JoinType::LeftJoin, room_change::Entity, of_room.and(is_later));
    rows.into_tuple()
}

pub(in super::super) fn forget_changes(now: SimpleExpr, age: Duration) -> DeleteMany<room_change::Entity> {
    room_change::Entity::delete_many().filter(Expr::col(room_change::Column::MadeAt).lt(now.sub(millis(age))))
}
