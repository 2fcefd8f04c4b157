//! Statements about requests between nodes.

use std::sync::Arc;

use sea_orm::{
    ColumnTrait, Condition, DeleteMany, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, UpdateMany,
    prelude::Expr,
    sea_query::{InsertStatement, OnConflict, Query, SimpleExpr},
};

use crate::{
    name::{NodeId, NodeName, RequestId, RoomName},
    store::{
        Order, RemovalTarget, Request, StoreError,
        entity::{node, presence, prune_request, room},
        millis,
        sql::row::{AnswerRow, RemainingRow, RequestRow},
    },
};

use super::{Rows, at_most, has_lease};

/// Whether a presence is one of these.
pub(super) fn is_target(target: &RemovalTarget) -> Condition {
    use presence::Column::{ChannelName, Id, RoomId, UserId};
    let in_room = |name: &RoomName| {
        let named = room::Entity::find().select_only().column(room::Column::Id);
        RoomId.in_subquery(named.filter(room::Column::ChannelName.eq(name.as_str())).into_query())
    };
    let all = Condition::all();
    match target {
        RemovalTarget::Room(room) => all.add(in_room(room)),
        RemovalTarget::User(user) => all.add(UserId.eq(user.as_str())),
        RemovalTarget::UserIn { user, room } => all.add(UserId.eq(user.as_str())).add(in_room(room)),
        RemovalTarget::Channel { channel, room } => {
            all.add(ChannelName.eq(channel.as_str())).add_option(room.as_ref().map(in_room))
        }
        RemovalTarget::Presence { room, id } => all.add(Id.eq(id.as_uuid())).add(in_room(room)),
    }
}

/// Presences of a target that joined before this time.
pub(in super::super) fn remaining(target: &RemovalTarget, joined_before: i64, limit: u64) -> Rows<RemainingRow> {
    presence::Entity::find()
        .inner_join(room::Entity)
        .select_only()
        .columns([room::Column::Id, room::Column::ChannelName])
        .columns([presence::Column::Id, presence::Column::NodeId])
        .filter(is_target(target))
        .filter(presence::Column::JoinedAt.lt(joined_before))
        .limit(at_most(limit))
        .into_tuple()
}

/// Adds a request for nodes, except for those that have it already.
pub(in super::super) fn insert_requests(
    sender: NodeId,
    Request { id, order }: &Request,
    nodes: &[(NodeId, NodeName)],
) -> Result<InsertStatement, StoreError> {
    use prune_request::Column::{AskedBy, MaxAge, NodeId, NodeName, Removal, RequestId};
    let (max_age, removal) = match order {
        Order::Prune { max_age } => (millis(*max_age), None),
        // A version that does not know removals reads it as a request to prune, which must then match nothing.
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
            sender.as_uuid().into(),
            max_age.into(),
            removal.clone().into(),
        ]);
    }
    let asked = OnConflict::columns([RequestId, NodeId]).do_nothing_on([RequestId, NodeId]).to_owned();
    Ok(insert.on_conflict(asked).take())
}

/// The unanswered requests to a node, of senders with a lease.
pub(in super::super) fn open_requests(node: NodeId, now: SimpleExpr) -> Rows<RequestRow> {
    prune_request::Entity::find()
        .inner_join(node::Entity)
        .select_only()
        .columns([prune_request::Column::RequestId, prune_request::Column::MaxAge, prune_request::Column::Removal])
        .filter(prune_request::Column::NodeId.eq(node.as_uuid()))
        .filter(prune_request::Column::Pruned.is_null())
        .filter(node::Column::FencedAt.is_null())
        .filter(has_lease(now))
        .order_by_asc(prune_request::Column::RequestId)
        .into_tuple()
}

pub(in super::super) fn answer(node: NodeId, request: RequestId, removed: i64) -> UpdateMany<prune_request::Entity> {
    prune_request::Entity::update_many()
        .col_expr(prune_request::Column::Pruned, Expr::value(removed))
        .filter(prune_request::Column::RequestId.eq(request.as_uuid()))
        .filter(prune_request::Column::NodeId.eq(node.as_uuid()))
        .filter(prune_request::Column::Pruned.is_null())
}

pub(in super::super) fn withdraw(sender: NodeId, request: RequestId) -> DeleteMany<prune_request::Entity> {
    prune_request::Entity::delete_many()
        .filter(prune_request::Column::RequestId.eq(request.as_uuid()))
        .filter(prune_request::Column::AskedBy.eq(sender.as_uuid()))
}

pub(in super::super) fn answers(request: RequestId) -> Rows<AnswerRow> {
    use prune_request::Column::{NodeId, NodeName, Pruned, RequestId};
    prune_request::Entity::find()
        .select_only()
        .columns([NodeId, NodeName, Pruned])
        .filter(RequestId.eq(request.as_uuid()))
        .into_tuple()
}
