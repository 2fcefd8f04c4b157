//! About presences that are to be removed, and why.

use sea_orm::{
    ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait,
    prelude::Uuid,
    sea_query::{DeleteStatement, Query},
};

use crate::{
    name::{ChannelName, Epoch, NodeId, PresenceId, UserId},
    store::{
        entity::{node, presence},
        sql::row::PresenceRow,
    },
};

use super::{
    Keys, Rows, at_most, looked_at,
    presence::{COLUMNS, presences},
};

/// Which presences are to be removed.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Doomed<'a> {
    /// Those in a room that no live node answers for.
    OrphansIn {
        room: Epoch,
        now: i64,
    },
    /// Of a user, in a room or in all.
    OrphansOf {
        user: &'a UserId,
        room: Option<Epoch>,
        now: i64,
    },
    /// Of a channel, in a room or in all.
    OrphansOn {
        channel: &'a ChannelName,
        room: Option<Epoch>,
        now: i64,
    },
    /// This one.
    Orphan {
        id: PresenceId,
        room: Epoch,
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
    /// Those of [`Stale`](Self::Stale) that are held.
    StaleHeld {
        cut: i64,
    },
    /// Those of [`Stale`](Self::Stale) that are this dead node's, and not held.
    StaleOf {
        node: NodeId,
        cut: i64,
    },
}

impl Doomed<'_> {
    fn condition(self) -> Condition {
        use presence::Column::{ChannelName, HeldUntil, Id, LastSeen, NodeId, RoomId, UserId};
        let all = Condition::all();
        let in_room = |room: Epoch| RoomId.eq(room.as_uuid());
        match self {
            Self::OrphansIn { room, now } => all.add(in_room(room)).add(nobodys(now)),
            Self::OrphansOf { user, room, now } => {
                all.add_option(room.map(in_room)).add(UserId.eq(user.as_str())).add(nobodys(now))
            }
            Self::OrphansOn { channel, room, now } => {
                all.add_option(room.map(in_room)).add(ChannelName.eq(channel.as_str())).add(nobodys(now))
            }
            Self::Orphan { id, room, now } => all.add(in_room(room)).add(Id.eq(id.as_uuid())).add(nobodys(now)),
            Self::UnheldOf(node) => all.add(NodeId.eq(node.as_uuid())).add(HeldUntil.is_null()),
            Self::PastGrace { now } => all.add(HeldUntil.lt(now)),
            Self::Stale { asks, now, cut } => all.add(LastSeen.lt(cut)).add(nobodys_but_for(Some(asks), now)),
            Self::StaleHeld { cut } => all.add(HeldUntil.gte(0)).add(LastSeen.lt(cut)),
            Self::StaleOf { node, cut } => {
                all.add(NodeId.eq(node.as_uuid())).add(HeldUntil.is_null()).add(LastSeen.lt(cut))
            }
        }
    }
}

pub(in super::super) fn doomed(doomed: Doomed<'_>, limit: u64) -> Rows<PresenceRow> {
    presences().filter(doomed.condition()).limit(at_most(limit)).into_tuple()
}

/// Ids and rooms alone.
pub(in super::super) fn doomed_ids(doomed: Doomed<'_>, limit: u64) -> Rows<(Uuid, Uuid)> {
    presence::Entity::find()
        .select_only()
        .columns([presence::Column::Id, presence::Column::RoomId])
        .filter(doomed.condition())
        .limit(at_most(limit))
        .into_tuple()
}

/// Locks those of the presences that are to be removed still.
pub(in super::super) fn lock_doomed(ids: impl Into<Keys<Uuid>>, doomed: Doomed<'_>) -> Rows<PresenceRow> {
    presences()
        .filter(ids.into().hold(presence::Column::Id))
        .filter(looked_at(doomed.condition()))
        .order_by_asc(presence::Column::Id)
        .lock_exclusive()
        .into_tuple()
}

/// Deletes those of the presences that are to be removed still, and tells all of each.
pub(in super::super) fn delete_doomed(ids: impl Into<Keys<Uuid>>, doomed: Doomed<'_>) -> DeleteStatement {
    Query::delete()
        .from_table(presence::Entity)
        .and_where(ids.into().hold(presence::Column::Id))
        .and_where(looked_at(doomed.condition()))
        .returning(Query::returning().columns(COLUMNS))
        .take()
}

/// Presences that are held, or whose node is fenced or has no lease.
fn nobodys(now: i64) -> Condition {
    nobodys_but_for(None, now)
}

fn nobodys_but_for(asks: Option<NodeId>, now: i64) -> Condition {
    let dead = dead_nodes(asks, now).into_query();
    // Held is what has any time at all here; `IS NOT NULL` would say so, but SQLite looks that up in no index.
    Condition::any().add(presence::Column::HeldUntil.gte(0)).add(presence::Column::NodeId.in_subquery(dead))
}

/// Nodes that nobody need believe, save the one who asks.
pub(in super::super) fn dead(asks: NodeId, now: i64) -> Rows<Uuid> {
    dead_nodes(Some(asks), now).into_tuple()
}

fn dead_nodes(asks: Option<NodeId>, now: i64) -> sea_orm::Select<node::Entity> {
    let over = Condition::any().add(node::Column::FencedAt.is_not_null()).add(node::Column::LeaseUntil.lt(now));
    let over = Condition::all().add(over).add_option(asks.map(|asks| node::Column::Id.ne(asks.as_uuid())));
    node::Entity::find().select_only().column(node::Column::Id).filter(over)
}
