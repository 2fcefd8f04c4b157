//! About nodes: each of their lives is a row.

use sea_orm::{
    ColumnTrait, Condition, DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
    prelude::{Expr, Uuid},
    sea_query::{Alias, ExprTrait, InsertStatement, LockType, Query, SelectStatement, SimpleExpr},
};

use crate::{
    name::{NodeId, NodeName},
    store::{
        Attempt, REMEMBERED,
        entity::{last_commit, node, presence},
        listing::this_process,
        millis,
        sql::row::{Life, NodeSummaryRow},
    },
};

use super::{Keys, Rows};

pub(in super::super) fn life(node: NodeId, lock: LockType, now: SimpleExpr) -> Rows<Life> {
    node::Entity::find_by_id(node.as_uuid())
        .select_only()
        .columns([node::Column::FencedAt, node::Column::LostName])
        .expr(now)
        .lock(lock)
        .into_tuple()
}

pub(in super::super) fn live_under(name: &str) -> Rows<Uuid> {
    let live = node::Entity::find().filter(node::Column::Name.eq(name)).filter(node::Column::FencedAt.is_null());
    live.select_only().column(node::Column::Id).into_tuple()
}

pub(in super::super) fn take_name(from_all_but: NodeId, name: &NodeName, now: i64) -> UpdateMany<node::Entity> {
    let fenced_at = Expr::col(node::Column::FencedAt).if_null(now);
    node::Entity::update_many()
        .col_expr(node::Column::LostName, Expr::col(node::Column::Name))
        .col_expr(node::Column::Name, Expr::value(None::<String>))
        .col_expr(node::Column::FencedAt, fenced_at)
        .filter(node::Column::Name.eq(name.as_str()))
        .filter(node::Column::Id.ne(from_all_but.as_uuid()))
}

pub(in super::super) fn begin_life(node: NodeId, name: &NodeName, now: i64, lease_until: i64) -> InsertStatement {
    use node::Column::{Id, LeaseUntil, Name, Process, StartedAt};
    Query::insert()
        .into_table(node::Entity)
        .columns([Id, Name, Process, StartedAt, LeaseUntil])
        .values_panic([
            node.as_uuid().into(),
            name.as_str().into(),
            this_process().into(),
            now.into(),
            lease_until.into(),
        ])
        .take()
}

/// Names a life that is there, and renews it.
pub(in super::super) fn rename(node: NodeId, name: &NodeName, lease_until: i64) -> UpdateMany<node::Entity> {
    renew(node, lease_until).col_expr(node::Column::Name, Expr::value(name.as_str()))
}

/// The life that has this name: when it was fenced, and until when it had a lease.
pub(in super::super) fn end_of_former(all_but: NodeId, name: &NodeName) -> Rows<(Option<i64>, i64)> {
    node::Entity::find()
        .select_only()
        .columns([node::Column::FencedAt, node::Column::LeaseUntil])
        .filter(node::Column::Name.eq(name.as_str()))
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .into_tuple()
}

/// Lives that lost this name and have presences that are held.
pub(in super::super) fn former_with_held(name: &NodeName) -> Rows<Uuid> {
    // Any time at all: see `nobodys` of `doomed`.
    let held = presences_of_node().and_where(presence::Column::HeldUntil.gte(0)).take();
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::LostName.eq(name.as_str()))
        .filter(Expr::exists(held))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

/// Lives that lost this name and have presences that are not held.
pub(in super::super) fn uncleared_under(name: &NodeName) -> Rows<Uuid> {
    uncleared().filter(node::Column::LostName.eq(name.as_str())).into_tuple()
}

/// Fenced lives that have presences that are not held, and no later life that has their name and is not over.
pub(in super::super) fn uncleared_orphans() -> Rows<Uuid> {
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
    let unheld = presences_of_node().and_where(presence::Column::HeldUntil.is_null()).take();
    node::Entity::find()
        .filter(Expr::exists(unheld))
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::FencedAt.is_not_null())
        .order_by_asc(node::Column::Id)
}

/// Lives that have a lease and presences, save the one who asks.
pub(in super::super) fn live_with_presences(all_but: NodeId, now: i64) -> Rows<(Uuid, String)> {
    node::Entity::find()
        .filter(Expr::exists(presences_of_node()))
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .select_only()
        .columns([node::Column::Id, node::Column::Name])
        .filter(node::Column::FencedAt.is_null())
        .filter(node::Column::LeaseUntil.gte(now))
        .into_tuple()
}

pub(in super::super) fn nodes(now: SimpleExpr) -> Rows<NodeSummaryRow> {
    use node::Column::{FencedAt, Id, LeaseUntil, LostName, Name, Process, StartedAt};
    node::Entity::find()
        .left_join(presence::Entity)
        .select_only()
        .columns([Id, Name, LostName, Process, StartedAt, LeaseUntil, FencedAt])
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

pub(in super::super) fn renew(node: NodeId, lease_until: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::LeaseUntil, Expr::value(lease_until))
        .filter(node::Column::Id.eq(node.as_uuid()))
        .filter(node::Column::FencedAt.is_null())
}

/// Lives whose lease ran out, and that nobody fenced. Not locked: it looks at those of all nodes, who are writing.
pub(in super::super) fn expired(all_but: NodeId, now: i64) -> Rows<Uuid> {
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
pub(in super::super) fn fence_expired(ids: impl Into<Keys<Uuid>>, now: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::FencedAt, Expr::value(now))
        .filter(ids.into().hold(node::Column::Id))
        .filter(is_expired(now))
}

pub(in super::super) fn end_life(node: NodeId, now: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::FencedAt, Expr::value(now))
        .filter(node::Column::Id.eq(node.as_uuid()))
}

/// Fenced lives that have no presences; those that lost their name only after a while. Not locked: see [`expired`].
pub(in super::super) fn forgettable(now: i64) -> Rows<Uuid> {
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

pub(in super::super) fn forget_lives(ids: impl Into<Keys<Uuid>>, now: i64) -> DeleteMany<node::Entity> {
    node::Entity::delete_many().filter(ids.into().hold(node::Column::Id)).filter(is_forgettable(now))
}

/// Which of these lives are not forgotten.
pub(in super::super) fn remembered(ids: impl Into<Keys<Uuid>>) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(ids.into().hold(node::Column::Id))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

/// Makes a place for a life's last commit. It is there from the beginning, so that it can be locked.
pub(in super::super) fn begin_commits(node: NodeId) -> InsertStatement {
    use last_commit::Column::{Attempt, NodeId};
    Query::insert()
        .into_table(last_commit::Entity)
        .columns([NodeId, Attempt])
        .values_panic([node.as_uuid().into(), 0.into()])
        .take()
}

/// Notes that this is the last commit of a node.
pub(in super::super) fn note_commit(node: NodeId, attempt: Attempt) -> UpdateMany<last_commit::Entity> {
    last_commit::Entity::update_many()
        .col_expr(last_commit::Column::Attempt, Expr::value(attempt.0))
        .filter(last_commit::Column::NodeId.eq(node.as_uuid()))
}

/// The last commit of a node. Waits for one that is under way.
pub(in super::super) fn last_commit(node: NodeId) -> Rows<i64> {
    last_commit::Entity::find_by_id(node.as_uuid())
        .select_only()
        .column(last_commit::Column::Attempt)
        .lock(LockType::Update)
        .into_tuple()
}
