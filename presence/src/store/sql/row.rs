//! From rows to values.
//!
//! What this crate wrote it can read. Anything else was put there by another hand, and is refused rather than guessed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sea_orm::prelude::Uuid;
use tracing::warn;

use crate::{
    model::{Meta, MetaError, Presence},
    name::{ChannelName, Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
    session::SessionHash,
};

use super::super::{
    Answer, NodeState, NodeSummary, Order, Request, RoomSummary, StoreError, listing::between, plan::Found,
};

/// When it was fenced, the name that a later life took from it, and the time now.
pub(super) type Life = (Option<i64>, Option<String>, i64);

/// Id, name and version.
pub(super) type RoomRow = (Uuid, String, i64);

/// Id, room, channel, user, meta, node, and until when it is held.
pub(super) type PresenceRow = (Uuid, Uuid, String, Option<String>, String, Uuid, Option<i64>);

/// A [`PresenceRow`], and the hash of the resume token.
pub(super) type SessionRow = (Uuid, Uuid, String, Option<String>, String, Uuid, Option<i64>, Option<Vec<u8>>);

/// A presence, when it was last seen, and the time now.
pub(super) type LastSeenRow = (Uuid, i64, i64);

/// A [`RoomRow`], and how many there are: presences, those of users, distinct users, held.
pub(super) type RoomSummaryRow = (Uuid, String, i64, i64, i64, i64, i64);

/// Id, name, lost name, process, start, end of the lease, when it was fenced, how many presences there are and held ones, and
/// the time now.
pub(super) type NodeSummaryRow =
    (Uuid, Option<String>, Option<String>, Option<String>, i64, i64, Option<i64>, i64, i64, i64);

/// Request, age, and whom to remove, if it is not to prune.
pub(super) type RequestRow = (Uuid, i64, Option<String>);

/// Node, its name, and its answer.
pub(super) type AnswerRow = (Uuid, String, Option<i64>);

/// Where a room stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) room: RoomName,
    pub(super) epoch: Epoch,
    pub(super) version: Version,
}

#[derive(Debug, thiserror::Error)]
#[error("the row `{id}` of table `{table}` is not one that this crate wrote")]
struct Foreign {
    table: &'static str,
    id: Uuid,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn foreign<E>(table: &'static str, id: Uuid) -> impl FnOnce(E) -> StoreError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| StoreError::Refused(Arc::new(Foreign { table, id, source: source.into() }))
}

pub(super) fn room_name((id, name): (Uuid, String)) -> Result<RoomName, StoreError> {
    RoomName::stored(name).map_err(foreign("rooms", id))
}

pub(super) fn place((id, name, version): RoomRow) -> Result<Place, StoreError> {
    let room = RoomName::stored(name).map_err(foreign("rooms", id))?;
    let version = u64::try_from(version).map_err(foreign("rooms", id))?;
    Ok(Place { room, epoch: Epoch::from_uuid(id), version: Version(version) })
}

/// A meta as it stands in a row. An earlier version of this crate took metas that are nested deeper than
/// [`MAX_META_DEPTH`](crate::model::meta::MAX_META_DEPTH), and a node that still runs it does so. Their members are in the room, so they
/// are read; but passed on, such a meta would keep out the clients whose parsers refuse it. So it counts as none, and the row keeps it
/// until it is next written.
fn stored_meta(id: Uuid, json: &str) -> Result<Meta, StoreError> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if json == "{}" {
        return Ok(Meta::default());
    }
    match Meta::from_json(json) {
        Ok(meta) => Ok(meta),
        Err(MetaError::TooDeep { depth }) => {
            // Once, since a room is read every few seconds.
            if !WARNED.swap(true, Ordering::Relaxed) {
                warn!(presence = %id, depth, "a meta in the database is nested too deep; such metas are read as `{{}}`");
            }
            Ok(Meta::default())
        }
        Err(error) => Err(foreign("presences", id)(error)),
    }
}

pub(super) fn found((id, room, channel, user, meta, node, held_until): PresenceRow) -> Result<Found, StoreError> {
    let channel = ChannelName::stored(channel).map_err(foreign("presences", id))?;
    let user = user.map(UserId::stored).transpose().map_err(foreign("presences", id))?;
    let meta = stored_meta(id, &meta)?;
    let held = held_until.is_some();
    let presence =
        Presence { meta, held, ..Presence::new(PresenceId::from_uuid(id), channel, user, NodeId::from_uuid(node)) };
    Ok(Found { room: Epoch::from_uuid(room), presence: Arc::new(presence) })
}

/// Also by what it can be resumed.
pub(super) fn found_with_session(row: SessionRow) -> Result<(Found, Option<SessionHash>), StoreError> {
    let (id, room, channel, user, meta, node, held_until, session) = row;
    let session = session.map(|hash| <[u8; 32]>::try_from(&*hash)).transpose().map_err(foreign("presences", id))?;
    let found = found((id, room, channel, user, meta, node, held_until))?;
    Ok((found, session.map(SessionHash::from_bytes)))
}

fn count(table: &'static str, id: Uuid) -> impl Fn(i64) -> Result<u64, StoreError> {
    move |count| u64::try_from(count).map_err(foreign(table, id))
}

pub(super) fn room_summary(row: RoomSummaryRow) -> Result<RoomSummary, StoreError> {
    let (id, name, version, presences, of_users, users, held) = row;
    let Place { room, epoch, version } = place((id, name, version))?;
    let count = count("rooms", id);
    Ok(RoomSummary {
        room,
        epoch,
        version,
        users: count(users)?,
        anonymous: count(presences - of_users)?,
        presences: count(presences)?,
        held: count(held)?,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "as the other rows are read")]
pub(super) fn last_seen((id, last_seen, now): LastSeenRow) -> Result<(PresenceId, Duration), StoreError> {
    Ok((PresenceId::from_uuid(id), between(last_seen, now)))
}

pub(super) fn node_summary(row: NodeSummaryRow) -> Result<NodeSummary, StoreError> {
    let (id, name, lost_name, process, started_at, lease_until, fenced_at, presences, held, now) = row;
    let superseded = lost_name.is_some();
    let name = name.or(lost_name).unwrap_or_default();
    let count = count("nodes", id);
    Ok(NodeSummary {
        node: NodeId::from_uuid(id),
        name: NodeName::stored(name).map_err(foreign("nodes", id))?,
        process,
        age: between(started_at, now),
        state: NodeState::at(now, lease_until, fenced_at, superseded),
        presences: count(presences)?,
        held: count(held)?,
    })
}

pub(super) fn node_name((id, name): (Uuid, String)) -> Result<(NodeId, NodeName), StoreError> {
    Ok((NodeId::from_uuid(id), NodeName::stored(name).map_err(foreign("nodes", id))?))
}

/// `None` if it is of a kind that only a later version of this crate knows: the others must still be carried out.
pub(super) fn request((id, max_age, removal): RequestRow) -> Option<Request> {
    let order = match removal {
        None => Order::Prune { max_age: between(0, max_age) },
        Some(removal) => Order::Remove(serde_json::from_str(&removal).ok()?),
    };
    Some(Request { id: RequestId::from_uuid(id), order })
}

pub(super) fn answer((id, name, removed): AnswerRow) -> Result<Answer, StoreError> {
    let (node, name) = node_name((id, name))?;
    Ok(Answer { node, name, removed: removed.map(count("prune_requests", id)).transpose()? })
}
