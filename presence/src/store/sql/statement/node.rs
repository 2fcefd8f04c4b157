//! Statements about nodes. Each incarnation is a row.

use sea_orm::{
    ColumnTrait, Condition, DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, UpdateMany,
    prelude::{Expr, Uuid},
    sea_query::{
        Alias, CaseStatement, ExprTrait, InsertStatement, LockBehavior, LockType, Query, SelectStatement, SimpleExpr,
        UpdateStatement,
    },
};

use crate::{
    name::{NodeId, NodeName},
    store::{
        Attempt, KEEP_SUPERSEDED_FOR, RemovalTarget,
        entity::{last_commit, lease, node, presence, prune_request},
        listing::this_process,
        millis,
        sql::row::{LiveNodeRow, NodeStatusRow, NodeSummaryRow, SurveyRow},
    },
};

use super::{Keys, Rows, request::is_target};

/// Whether a node may write. The expressions in `also` are evaluated, too, and their values are not used.
pub(in super::super) fn node_status(
    node: NodeId,
    lock: Option<LockType>,
    now: SimpleExpr,
    also: impl IntoIterator<Item = SimpleExpr>,
) -> Rows<NodeStatusRow> {
    let mut status = node::Entity::find_by_id(node.as_uuid())
        .select_only()
        .columns([node::Column::FencedAt, node::Column::LostName])
        .expr(now);
    for expression in also {
        status = status.expr(expression);
    }
    match lock {
        Some(lock) => status.lock(lock),
        None => status,
    }
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

pub(in super::super) fn begin_incarnation(node: NodeId, name: &NodeName, now: i64) -> InsertStatement {
    use node::Column::{Id, Name, Process, StartedAt};
    Query::insert()
        .into_table(node::Entity)
        .columns([Id, Name, Process, StartedAt])
        .values_panic([node.as_uuid().into(), name.as_str().into(), this_process().into(), now.into()])
        .take()
}

/// Sets the name of an existing incarnation.
pub(in super::super) fn rename(node: NodeId, name: &NodeName) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::Name, Expr::value(name.as_str()))
        .filter(node::Column::Id.eq(node.as_uuid()))
}

/// Gives a new incarnation its lease.
pub(in super::super) fn insert_lease(node: NodeId, lease_until: i64) -> InsertStatement {
    use lease::Column::{LeaseUntil, NodeId, Renewals};
    Query::insert()
        .into_table(lease::Entity)
        .columns([NodeId, LeaseUntil, Renewals])
        .values_panic([node.as_uuid().into(), lease_until.into(), 0_i64.into()])
        .take()
}

/// When the incarnation with this name was fenced, and when its lease ended.
pub(in super::super) fn end_of_former(all_but: NodeId, name: &NodeName) -> Rows<(Option<i64>, i64)> {
    node::Entity::find()
        .inner_join(lease::Entity)
        .select_only()
        .column(node::Column::FencedAt)
        .column(lease::Column::LeaseUntil)
        .filter(node::Column::Name.eq(name.as_str()))
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .into_tuple()
}

/// Incarnations that lost this name and have held presences.
pub(in super::super) fn former_with_held(name: &NodeName) -> Rows<Uuid> {
    // Every time is at least 0: see `is_orphaned_for`.
    let held = presences_of_node().and_where(presence::Column::HeldUntil.gte(0)).take();
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::LostName.eq(name.as_str()))
        .filter(Expr::exists(held))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

/// Incarnations that lost this name and have presences that are not held.
pub(in super::super) fn uncleared_under(name: &NodeName) -> Rows<Uuid> {
    uncleared().filter(node::Column::LostName.eq(name.as_str())).into_tuple()
}

/// Fenced incarnations with presences that are not held, unless a later incarnation has their name and is not fenced.
pub(in super::super) fn uncleared_orphans(caller: NodeId, now: i64) -> Rows<Uuid> {
    uncleared().filter(has_successor().not()).filter(is_left_to_another(caller, now).not()).into_tuple()
}

/// Whether a later incarnation has the name of the node in the outer query, and is not fenced.
fn has_successor() -> SimpleExpr {
    let later = Alias::new("later");
    let successor = Query::select()
        .expr(Expr::val(1))
        .from_as(node::Entity, later.clone())
        .and_where(Expr::col((later.clone(), node::Column::Name)).equals((node::Entity, node::Column::LostName)))
        .and_where(Expr::col((later, node::Column::FencedAt)).is_null())
        .take();
    Expr::exists(successor)
}

/// Whether a node other than the caller clears this one.
fn is_left_to_another(caller: NodeId, now: impl Into<SimpleExpr>) -> Condition {
    // Neither comparison may be `NULL`, since the condition is negated.
    Condition::all()
        .add(node::Column::Cleaner.is_not_null())
        .add(node::Column::Cleaner.ne(caller.as_uuid()))
        .add(node::Column::CleanerUntil.is_not_null())
        .add(Expr::col((node::Entity, node::Column::CleanerUntil)).gte(now.into()))
}

/// Locks a fenced incarnation that the caller may clear. No row if a transaction has locked it.
pub(in super::super) fn lock_to_clear(caller: NodeId, dead: NodeId, now: i64) -> Rows<Uuid> {
    node::Entity::find_by_id(dead.as_uuid())
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::FencedAt.is_not_null())
        .filter(is_left_to_another(caller, now).not())
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
}

/// Leaves a fenced incarnation to this one until then.
pub(in super::super) fn set_cleaner(cleaner: NodeId, dead: NodeId, until: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::Cleaner, Expr::value(cleaner.as_uuid()))
        .col_expr(node::Column::CleanerUntil, Expr::value(until))
        .filter(node::Column::Id.eq(dead.as_uuid()))
}

/// All incarnations that are not forgotten, and for each what a sweep by the caller would find.
pub(in super::super) fn survey(caller: NodeId, now: SimpleExpr) -> Rows<SurveyRow> {
    use node::Column::{FencedAt, Id, LostName, Name, Process, StartedAt};
    let unheld = presences_of_node().and_where(presence::Column::HeldUntil.is_null()).take();
    let is_uncleared = Condition::all()
        .add(FencedAt.is_not_null())
        .add(has_successor().not())
        .add(is_left_to_another(caller, now.clone()).not())
        .add(Expr::exists(unheld));
    let is_empty = Condition::all().add(FencedAt.is_not_null()).add(Expr::not_exists(presences_of_node()));
    // Every database has the type of this column, while their types of truth values differ.
    let fenced_if = |condition: Condition| {
        CaseStatement::new().case(condition, Expr::col((node::Entity, FencedAt))).finally(Expr::value(None::<i64>))
    };
    // Every time is at least 0: see `is_orphaned_for`.
    let first_grace = Query::select()
        .expr(Expr::col(presence::Column::HeldUntil).min())
        .from(presence::Entity)
        .and_where(presence::Column::HeldUntil.gte(0))
        .take();
    node::Entity::find()
        .left_join(lease::Entity)
        .select_only()
        .columns([Id, Name, LostName, Process, StartedAt, FencedAt])
        .column(lease::Column::LeaseUntil)
        .expr(fenced_if(is_uncleared))
        .expr(fenced_if(is_empty))
        .expr(SimpleExpr::SubQuery(None, Box::new(first_grace.into())))
        .expr(SimpleExpr::SubQuery(None, Box::new(unanswered_by(caller).into())))
        .expr(now)
        .into_tuple()
}

/// How many requests to a node it has not answered.
fn unanswered_by(node: NodeId) -> SelectStatement {
    Query::select()
        .expr(Expr::col(prune_request::Column::RequestId).count())
        .from(prune_request::Entity)
        .and_where(prune_request::Column::NodeId.eq(node.as_uuid()))
        .and_where(prune_request::Column::Pruned.is_null())
        .take()
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

/// All other incarnations with a lease and presences of this target. Without one, or if no index leads to it, all with presences.
pub(in super::super) fn receivers(all_but: NodeId, target: Option<&RemovalTarget>, now: i64) -> Rows<(Uuid, String)> {
    let has_presences = match target {
        None | Some(RemovalTarget::Channel { room: None, .. }) => Expr::exists(presences_of_node()),
        Some(target) => {
            let owners = presence::Entity::find().select_only().column(presence::Column::NodeId);
            node::Column::Id.in_subquery(owners.filter(is_target(target)).into_query())
        }
    };
    node::Entity::find()
        .filter(has_presences)
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .select_only()
        .columns([node::Column::Id, node::Column::Name])
        .filter(node::Column::FencedAt.is_null())
        .filter(has_lease(now))
        .into_tuple()
}

pub(in super::super) fn nodes(now: SimpleExpr) -> Rows<NodeSummaryRow> {
    use node::Column::{FencedAt, Id, LostName, Name, Process, StartedAt};
    node::Entity::find()
        .inner_join(lease::Entity)
        .left_join(presence::Entity)
        .select_only()
        .columns([Id, Name, LostName, Process, StartedAt])
        .column(lease::Column::LeaseUntil)
        .column(FencedAt)
        .expr(presence::Column::NodeId.count())
        .expr(presence::Column::HeldUntil.count())
        .expr(now)
        .group_by(Id)
        .group_by(lease::Column::LeaseUntil)
        .into_tuple()
}

/// All incarnations that are not fenced.
pub(in super::super) fn live_nodes(now: SimpleExpr) -> Rows<LiveNodeRow> {
    use node::Column::{FencedAt, Id, Name, Process, StartedAt};
    node::Entity::find()
        .inner_join(lease::Entity)
        .select_only()
        .columns([Id, Name, Process, StartedAt])
        .column(lease::Column::LeaseUntil)
        .expr(now)
        .filter(FencedAt.is_null())
        .into_tuple()
}

/// A subquery for the presences of the node in the outer query.
fn presences_of_node() -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from(presence::Entity)
        .and_where(Expr::col((presence::Entity, presence::Column::NodeId)).equals((node::Entity, node::Column::Id)))
        .take()
}

pub(in super::super) fn renew(node: NodeId, lease_until: impl Into<SimpleExpr>) -> UpdateMany<lease::Entity> {
    lease::Entity::update_many()
        .col_expr(lease::Column::LeaseUntil, lease_until.into())
        .col_expr(lease::Column::Renewals, Expr::col(lease::Column::Renewals).if_null(0).add(1))
        .filter(lease::Column::NodeId.eq(node.as_uuid()))
}

/// As [`renew`], unless the node is fenced. Its row is locked within the statement, as by every transaction of the node, so that nobody fences
/// it in between.
pub(in super::super) fn renew_unless_fenced(node: NodeId, lease_until: impl Into<SimpleExpr>) -> UpdateStatement {
    let unfenced = node::Entity::find_by_id(node.as_uuid())
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::FencedAt.is_null())
        .lock(LockType::Share)
        .into_query();
    renew(node, lease_until).filter(Expr::exists(unfenced)).into_query()
}

/// Whether the node of the outer query has a lease.
pub(in super::super) fn has_lease(now: impl Into<SimpleExpr>) -> SimpleExpr {
    let lease = Query::select()
        .expr(Expr::val(1))
        .from(lease::Entity)
        .and_where(Expr::col((lease::Entity, lease::Column::NodeId)).equals((node::Entity, node::Column::Id)))
        .and_where(Expr::col((lease::Entity, lease::Column::LeaseUntil)).gte(now.into()))
        .take();
    Expr::exists(lease)
}

/// Incarnations whose lease has expired and that are not fenced. The rows are not locked, because all nodes that write lock theirs.
pub(in super::super) fn expired(all_but: NodeId, now: i64) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(node::Column::FencedAt.is_null())
        .filter(has_lease(now).not())
        .filter(node::Column::Id.ne(all_but.as_uuid()))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

/// Locks the leases of these incarnations, which they cannot renew until the transaction ends, except for those that a transaction has locked.
pub(in super::super) fn lock_leases(ids: impl Into<Keys<Uuid>>) -> Rows<(Uuid, i64)> {
    lease::Entity::find()
        .filter(ids.into().contain(lease::Column::NodeId))
        .order_by_asc(lease::Column::NodeId)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
}

/// Those of these incarnations that have a lease, expired or not.
pub(in super::super) fn leases(ids: impl Into<Keys<Uuid>>) -> Rows<Uuid> {
    lease::Entity::find()
        .select_only()
        .column(lease::Column::NodeId)
        .filter(ids.into().contain(lease::Column::NodeId))
        .into_tuple()
}

/// Locks those of these incarnations that are not fenced, except for those that a transaction has locked: it may be writing in their name.
pub(in super::super) fn lock_idle(ids: impl Into<Keys<Uuid>>) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(ids.into().contain(node::Column::Id))
        .filter(node::Column::FencedAt.is_null())
        .order_by_asc(node::Column::Id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_tuple()
}

pub(in super::super) fn fence(ids: impl Into<Keys<Uuid>>, now: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::FencedAt, Expr::value(now))
        .filter(ids.into().contain(node::Column::Id))
}

pub(in super::super) fn end_incarnation(node: NodeId, now: i64) -> UpdateMany<node::Entity> {
    node::Entity::update_many()
        .col_expr(node::Column::FencedAt, Expr::value(now))
        .filter(node::Column::Id.eq(node.as_uuid()))
}

/// Fenced incarnations without presences. Those that lost their name are kept longer. Not locked, for the reason at [`expired`].
pub(in super::super) fn forgettable(now: i64) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(is_forgettable(now))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

fn is_forgettable(now: i64) -> Condition {
    let old = node::Column::FencedAt.lt(now.saturating_sub(millis(KEEP_SUPERSEDED_FOR)));
    Condition::all()
        .add(node::Column::FencedAt.is_not_null())
        .add(Condition::any().add(node::Column::LostName.is_null()).add(old))
        .add(Expr::not_exists(presences_of_node()))
}

pub(in super::super) fn forget_incarnations(ids: impl Into<Keys<Uuid>>, now: i64) -> DeleteMany<node::Entity> {
    node::Entity::delete_many().filter(ids.into().contain(node::Column::Id)).filter(is_forgettable(now))
}

/// Those of these incarnations that are not forgotten.
pub(in super::super) fn existing(ids: impl Into<Keys<Uuid>>) -> Rows<Uuid> {
    node::Entity::find()
        .select_only()
        .column(node::Column::Id)
        .filter(ids.into().contain(node::Column::Id))
        .order_by_asc(node::Column::Id)
        .into_tuple()
}

/// Inserts the rows for the last commits of an incarnation, one for each lane. They exist from the beginning, so that they can be locked.
pub(in super::super) fn insert_last_commits(node: NodeId, lanes: u16) -> InsertStatement {
    use last_commit::Column::{Attempt, Lane, NodeId};
    let mut insert = Query::insert().into_table(last_commit::Entity).columns([NodeId, Lane, Attempt]).take();
    for lane in 0..lanes {
        insert.values_panic([node.as_uuid().into(), i32::from(lane).into(), 0_i64.into()]);
    }
    insert
}

/// Records the last commit of a node in its lane.
pub(in super::super) fn set_last_commit(node: NodeId, attempt: Attempt) -> UpdateMany<last_commit::Entity> {
    last_commit::Entity::update_many()
        .col_expr(last_commit::Column::Attempt, Expr::value(attempt.number()))
        .col_expr(last_commit::Column::Commits, Expr::col(last_commit::Column::Commits).add(1))
        .filter(last_commit::Column::NodeId.eq(node.as_uuid()))
        .filter(last_commit::Column::Lane.eq(i32::from(attempt.lane())))
}

/// The last commit of a node in a lane. Waits for a commit in progress.
pub(in super::super) fn last_commit(node: NodeId, lane: u16) -> Rows<i64> {
    last_commit::Entity::find_by_id((node.as_uuid(), i32::from(lane)))
        .select_only()
        .column(last_commit::Column::Attempt)
        .lock(LockType::Update)
        .into_tuple()
}
