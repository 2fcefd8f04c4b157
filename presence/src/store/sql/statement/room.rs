//! Statements about rooms.

use sea_orm::{
    ColumnTrait, DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, UpdateMany,
    prelude::{Expr, Uuid},
    sea_query::{ExprTrait, Func, InsertStatement, LockBehavior, LockType, OnConflict, Query, SelectStatement},
};

use crate::{
    name::{Epoch, UserId},
    store::{
        entity::{presence, room},
        recent::whole_seconds,
        sql::row::{RoomRow, RoomSummaryRow},
    },
};

use super::{Keys, Rows, at_most};

/// Rooms after this name with their numbers, in the order of an index.
pub(in super::super) fn room_summaries(after: &str, limit: u64) -> Rows<RoomSummaryRow> {
    let users = Func::count_distinct(Expr::col((presence::Entity, presence::Column::UserId)));
    room::Entity::find()
        .left_join(presence::Entity)
        .select_only()
        .columns([room::Column::Id, room::Column::ChannelName, room::Column::Version])
        .expr(presence::Column::RoomId.count())
        .expr(presence::Column::UserId.count())
        .expr(users)
        .expr(presence::Column::HeldUntil.count())
        .filter(room::Column::ChannelName.gt(after))
        .group_by(room::Column::Id)
        .order_by_asc(room::Column::ChannelName)
        .limit(at_most(limit))
        .into_tuple()
}

pub(in super::super) fn all_rooms() -> Rows<RoomRow> {
    rooms().into_tuple()
}

fn rooms() -> sea_orm::Select<room::Entity> {
    room::Entity::find().select_only().columns([room::Column::Id, room::Column::ChannelName, room::Column::Version])
}

pub(in super::super) fn room(name: &str) -> Rows<RoomRow> {
    rooms().filter(room::Column::ChannelName.eq(name)).into_tuple()
}

pub(in super::super) fn rooms_by_name<'a>(names: impl Into<Keys<&'a str>>) -> Rows<RoomRow> {
    rooms().filter(names.into().contain(room::Column::ChannelName)).into_tuple()
}

pub(in super::super) fn lock_rooms_by_name<'a>(names: impl Into<Keys<&'a str>>) -> Rows<RoomRow> {
    rooms()
        .filter(names.into().contain(room::Column::ChannelName))
        .order_by_asc(room::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// The rooms are not locked: with the index on the names, MySQL would lock them in the order of their names.
pub(in super::super) fn room_ids<'a>(names: impl Into<Keys<&'a str>>) -> Rows<Uuid> {
    room::Entity::find()
        .select_only()
        .column(room::Column::Id)
        .filter(names.into().contain(room::Column::ChannelName))
        .into_tuple()
}

pub(in super::super) fn lock_rooms(ids: impl Into<Keys<Uuid>>) -> Rows<RoomRow> {
    rooms().filter(ids.into().contain(room::Column::Id)).order_by_asc(room::Column::Id).lock_exclusive().into_tuple()
}

/// Locks those of the rooms that no other transaction has locked.
pub(in super::super) fn lock_free_rooms(ids: impl Into<Keys<Uuid>>) -> Rows<RoomRow> {
    rooms()
        .filter(ids.into().contain(room::Column::Id))
        .order_by_asc(room::Column::Id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
}

pub(in super::super) fn insert_rooms(names: &[&str], now: i64) -> InsertStatement {
    use room::Column::{ChangedAt, ChannelName, CreatedAt, Id, Version};
    let columns = [Id, ChannelName, Version, CreatedAt, ChangedAt];
    let mut insert = Query::insert().into_table(room::Entity).columns(columns).take();
    for name in names {
        let (id, changed_at) = (Epoch::random().as_uuid(), whole_seconds(now));
        insert.values_panic([id.into(), (*name).into(), 0_i64.into(), now.into(), changed_at.into()]);
    }
    // Another node may have just created one of them.
    insert.on_conflict(OnConflict::column(ChannelName).do_nothing_on([Id]).to_owned());
    insert
}

pub(in super::super) fn increment_versions(ids: impl Into<Keys<Uuid>>, now: i64) -> UpdateMany<room::Entity> {
    room::Entity::update_many()
        .col_expr(room::Column::Version, Expr::col(room::Column::Version).add(1))
        .col_expr(room::Column::ChangedAt, Expr::value(whole_seconds(now)))
        .filter(ids.into().contain(room::Column::Id))
}

fn anybody() -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from(presence::Entity)
        .and_where(Expr::col((presence::Entity, presence::Column::RoomId)).equals((room::Entity, room::Column::Id)))
        .take()
}

/// Those of the rooms that are not empty.
pub(in super::super) fn occupied(ids: impl Into<Keys<Uuid>>) -> Rows<Uuid> {
    room::Entity::find()
        .select_only()
        .column(room::Column::Id)
        .filter(ids.into().contain(room::Column::Id))
        .filter(Expr::exists(anybody()))
        .into_tuple()
}

/// Locks empty rooms after this one in the order of their ids, except for those that another transaction has locked.
pub(in super::super) fn lock_empty_rooms(after: Uuid, limit: u64) -> Rows<Uuid> {
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

/// Deletes those of the rooms that are empty now. The statement that locked them may have missed a presence that joined before
/// it had the lock.
pub(in super::super) fn delete_empty_rooms(ids: impl Into<Keys<Uuid>>) -> DeleteMany<room::Entity> {
    room::Entity::delete_many().filter(ids.into().contain(room::Column::Id)).filter(Expr::not_exists(anybody()))
}

pub(in super::super) fn rooms_of(user: &UserId) -> Rows<(Uuid, String)> {
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
