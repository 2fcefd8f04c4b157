//! Statements that remove presences.

use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    prelude::Uuid,
    sea_query::{DeleteStatement, ExprTrait, Query, SimpleExpr},
};

use crate::{
    name::{ChannelName, Epoch, NodeId, PresenceId, UserId},
    store::{
        entity::{node, presence},
        sql::row::PresenceRow,
    },
};

use super::{
    Keys, Rows, at_most, has_lease,
    presence::{COLUMNS, presences},
    unindexed,
};

/// Selects the presences to remove. An orphan is a presence that is held, or whose node has no lease.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum RemovalFilter<'a> {
    /// The orphans in a room.
    OrphansIn { room: Epoch, now: i64 },
    /// The orphans of a user, in one room or in all.
    OrphansOf { user: &'a UserId, room: Option<Epoch>, now: i64 },
    /// The orphans of a channel, in one room or in all.
    OrphansOn { channel: &'a ChannelName, room: Option<Epoch>, now: i64 },
    /// This presence, if it is an orphan.
    Orphan { id: PresenceId, room: Epoch, now: i64 },
    /// The presences of a node that are not held.
    UnheldOf(NodeId),
    /// Held presences whose grace has expired.
    PastGrace { now: i64 },
    /// The orphans that were last seen before `cut`, or before `unheld_cut`, which is not later, if they are not held. The caller is alive,
    /// whatever the clock of the database says.
    Stale { caller: NodeId, now: i64, cut: i64, unheld_cut: i64 },
    /// The held presences of [`Stale`](Self::Stale).
    StaleHeld { cut: i64 },
    /// The presences of [`Stale`](Self::Stale) that belong to this dead node and are not held.
    StaleOf { node: NodeId, cut: i64 },
}

impl RemovalFilter<'_> {
    fn condition(self) -> Condition {
        use presence::Column::{ChannelName, HeldUntil, Id, LastSeen, NodeId, RoomId, UserId};
        let all = Condition::all();
        let in_room = |room: Epoch| RoomId.eq(room.as_uuid());
        match self {
            Self::OrphansIn { room, now } => all.add(in_room(room)).add(is_orphaned(now)),
            Self::OrphansOf { user, room, now } => {
                all.add_option(room.map(in_room)).add(UserId.eq(user.as_str())).add(is_orphaned(now))
            }
            Self::OrphansOn { channel, room, now } => {
                all.add_option(room.map(in_room)).add(ChannelName.eq(channel.as_str())).add(is_orphaned(now))
            }
            Self::Orphan { id, room, now } => all.add(in_room(room)).add(Id.eq(id.as_uuid())).add(is_orphaned(now)),
            Self::UnheldOf(node) => all.add(NodeId.eq(node.as_uuid())).add(HeldUntil.is_null()),
            Self::PastGrace { now } => all.add(HeldUntil.lt(now)),
            Self::Stale { caller, now, cut, unheld_cut } => Condition::any()
                .add(Self::StaleHeld { cut }.condition())
                .add(all.add(of_dead_node(Some(caller), now)).add(LastSeen.lt(unheld_cut))),
            Self::StaleHeld { cut } => all.add(is_held()).add(LastSeen.lt(cut)),
            Self::StaleOf { node, cut } => {
                all.add(NodeId.eq(node.as_uuid())).add(HeldUntil.is_null()).add(LastSeen.lt(cut))
            }
        }
    }
}

pub(in super::super) fn removable(filter: RemovalFilter<'_>, limit: u64) -> Rows<PresenceRow> {
    presences().filter(filter.condition()).limit(at_most(limit)).into_tuple()
}

/// As [`removable`], but only ids and rooms.
pub(in super::super) fn removable_ids(filter: RemovalFilter<'_>, limit: u64) -> Rows<(Uuid, Uuid)> {
    presence::Entity::find()
        .select_only()
        .columns([presence::Column::Id, presence::Column::RoomId])
        .filter(filter.condition())
        .limit(at_most(limit))
        .into_tuple()
}

/// Locks those of the presences that still match.
pub(in super::super) fn lock_removable(ids: impl Into<Keys<Uuid>>, filter: RemovalFilter<'_>) -> Rows<PresenceRow> {
    presences()
        .filter(ids.into().contain(presence::Column::Id))
        .filter(unindexed(filter.condition()))
        .order_by_asc(presence::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// Deletes those of the presences that still match, and returns their rows.
pub(in super::super) fn delete_removable(ids: impl Into<Keys<Uuid>>, filter: RemovalFilter<'_>) -> DeleteStatement {
    Query::delete()
        .from_table(presence::Entity)
        .and_where(ids.into().contain(presence::Column::Id))
        .and_where(unindexed(filter.condition()))
        .returning(Query::returning().columns(COLUMNS))
        .take()
}

/// Whether a presence is held, or its node is fenced or has no lease.
fn is_orphaned(now: i64) -> Condition {
    Condition::any().add(is_held()).add(of_dead_node(None, now))
}

fn is_held() -> SimpleExpr {
    // Every time is at least 0. `IS NOT NULL` would say the same, but SQLite uses no index for it.
    presence::Column::HeldUntil.gte(0)
}

fn of_dead_node(caller: Option<NodeId>, now: i64) -> SimpleExpr {
    presence::Column::NodeId.in_subquery(dead_nodes(caller, now).into_query())
}

/// Nodes that are fenced or have no lease, except for the caller.
pub(in super::super) fn dead(caller: NodeId, now: i64) -> Rows<Uuid> {
    dead_nodes(Some(caller), now).into_tuple()
}

fn dead_nodes(caller: Option<NodeId>, now: i64) -> sea_orm::Select<node::Entity> {
    let over = Condition::any().add(node::Column::FencedAt.is_not_null()).add(has_lease(now).not());
    let over = Condition::all().add(over).add_option(caller.map(|caller| node::Column::Id.ne(caller.as_uuid())));
    node::Entity::find().select_only().column(node::Column::Id).filter(over)
}
