//! The statement by which a node asks what has changed.

use sea_orm::{
    ColumnTrait, DbBackend, EntityTrait, QueryFilter, QuerySelect, QueryTrait, UpdateMany,
    prelude::{Expr, Uuid},
    sea_query::{Alias, ExprTrait, Func, JoinType, Query, SelectStatement, SimpleExpr},
};

use crate::{
    name::NodeId,
    store::{
        entity::{last_commit, lease, presence, room, shared_counts},
        recent::whole_seconds,
    },
};

use super::{Rows, at_most};

/// One row for each of up to `limit` rooms that have changed since the time `since`, or one without a room if there are none. The columns
/// are those of a `RecentRow`. All that is not about rooms is the same in each row.
pub(in super::super) fn recent_changes(
    backend: DbBackend,
    asking: NodeId,
    now: SimpleExpr,
    since: i64,
    limit: u64,
) -> SelectStatement {
    use shared_counts::Column::{Prunes, SetBacks};
    let recent = Alias::new("recent");
    let changed = room::Entity::find()
        .select_only()
        .columns([room::Column::Id, room::Column::ChannelName, room::Column::Version, room::Column::ChangedAt])
        .filter(room::Column::ChangedAt.gte(whole_seconds(since)))
        .limit(at_most(limit))
        .into_query();
    Query::select()
        .expr(now.clone())
        .expr(scalar(renewals_of(asking)))
        .expr(scalar(commits_of(backend, asking)))
        .expr(scalar(leases_of_earlier_versions(now.clone())))
        .expr(scalar(leases_of_others(asking, now)))
        .columns([(shared_counts::Entity, Prunes), (shared_counts::Entity, SetBacks)])
        .columns([
            (recent.clone(), room::Column::Id),
            (recent.clone(), room::Column::ChannelName),
            (recent.clone(), room::Column::Version),
            (recent.clone(), room::Column::ChangedAt),
        ])
        .from(shared_counts::Entity)
        .join_subquery(JoinType::LeftJoin, changed, recent, Expr::val(1).eq(1))
        .take()
}

fn scalar(select: SelectStatement) -> SimpleExpr {
    SimpleExpr::SubQuery(None, Box::new(select.into()))
}

fn renewals_of(asking: NodeId) -> SelectStatement {
    lease::Entity::find_by_id(asking.as_uuid()).select_only().column(lease::Column::Renewals).into_query()
}

/// The number of commits in all lanes of the node. On servers the sum of integers has a type of its own.
fn commits_of(backend: DbBackend, asking: NodeId) -> SelectStatement {
    let integer = if backend == DbBackend::MySql { "signed" } else { "bigint" };
    let sum = Func::coalesce([Func::sum(Expr::col(last_commit::Column::Commits)).into(), Expr::val(0)]);
    Query::select()
        .expr(SimpleExpr::from(sum).cast_as(integer))
        .from(last_commit::Entity)
        .and_where(last_commit::Column::NodeId.eq(asking.as_uuid()))
        .take()
}

/// How many nodes of earlier versions have a lease. They do not count renewals.
fn leases_of_earlier_versions(now: SimpleExpr) -> SelectStatement {
    Query::select()
        .expr(Func::count(Expr::col(lease::Column::NodeId)))
        .from(lease::Entity)
        .and_where(lease::Column::Renewals.is_null())
        .and_where(Expr::col(lease::Column::LeaseUntil).gte(now))
        .take()
}

/// How many other nodes have a lease.
fn leases_of_others(asking: NodeId, now: SimpleExpr) -> SelectStatement {
    Query::select()
        .expr(Func::count(Expr::col(lease::Column::NodeId)))
        .from(lease::Entity)
        .and_where(lease::Column::NodeId.ne(asking.as_uuid()))
        .and_where(Expr::col(lease::Column::LeaseUntil).gte(now))
        .take()
}

/// The id of the only row of the shared counts. A server with safe updates refuses to change rows that are not named by a key.
const SHARED_COUNTS: i32 = 1;

/// Counts a removal of empty rooms.
pub(in super::super) fn count_prune() -> UpdateMany<shared_counts::Entity> {
    use shared_counts::Column::{Id, Prunes};
    shared_counts::Entity::update_many().col_expr(Prunes, Expr::col(Prunes).add(1)).filter(Id.eq(SHARED_COUNTS))
}

/// Reports that the database has lost changes, unless the count of these reports is not the one that was seen.
pub(in super::super) fn report_set_back(seen: i64, count: i64) -> UpdateMany<shared_counts::Entity> {
    use shared_counts::Column::{Id, SetBacks};
    shared_counts::Entity::update_many()
        .col_expr(SetBacks, Expr::val(count))
        .filter(Id.eq(SHARED_COUNTS))
        .filter(SetBacks.eq(seen))
}

/// The rooms in which a node has presences that are not held.
pub(in super::super) fn rooms_with_presences_of(node: NodeId) -> Rows<(Uuid, String)> {
    let ids = presence::Entity::find()
        .select_only()
        .column(presence::Column::RoomId)
        .filter(presence::Column::NodeId.eq(node.as_uuid()))
        .filter(presence::Column::HeldUntil.is_null())
        .into_query();
    room::Entity::find()
        .select_only()
        .columns([room::Column::Id, room::Column::ChannelName])
        .filter(room::Column::Id.in_subquery(ids))
        .into_tuple()
}
