//! Converts rows to values.
//!
//! A row that this crate cannot have written is an error. Its meaning is not guessed.

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
    Answer, ChangedRoom, KEEP_SUPERSEDED_FOR, LiveNode, NodeState, NodeSummary, Order, RecentChanges, Remaining,
    Request, RoomSummary, StoreError, Survey, WriteCounts, listing::between, millis, plan::StoredPresence, time,
};

/// When the incarnation was fenced, the name that a later one took from it, and the time now.
pub(super) type NodeStatusRow = (Option<i64>, Option<String>, i64);

/// Id, name and version.
pub(super) type RoomRow = (Uuid, String, i64);

/// Id, room, channel, user, meta, node, and the time until which it is held.
pub(super) type PresenceRow = (Uuid, Uuid, String, Option<String>, String, Uuid, Option<i64>);

/// A [`PresenceRow`], and the hash of the resume token.
pub(super) type SessionRow = (Uuid, Uuid, String, Option<String>, String, Uuid, Option<i64>, Option<Vec<u8>>);

/// A presence, when it was last seen, and the time now.
pub(super) type LastSeenRow = (Uuid, i64, i64);

/// A [`RoomRow`], and the numbers of presences, of presences with a user, of distinct users and of held presences.
pub(super) type RoomSummaryRow = (Uuid, String, i64, i64, i64, i64, i64);

/// Id, name, process, start, end of the lease, and the time now.
pub(super) type LiveNodeRow = (Uuid, String, Option<String>, i64, i64, i64);

/// Id, name, lost name, process, start, time of the fencing, end of the lease, the time of the fencing if it has presences left to clear, the
/// same if it has no presences, the end of the first grace of all presences, the number of unanswered requests to the asking node, and the
/// time now.
pub(super) type SurveyRow = (
    Uuid,
    Option<String>,
    Option<String>,
    Option<String>,
    i64,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    i64,
    i64,
);

/// Id, name, lost name, process, start, end of the lease, time of the fencing, numbers of presences and of held presences, and
/// the time now.
pub(super) type NodeSummaryRow =
    (Uuid, Option<String>, Option<String>, Option<String>, i64, i64, Option<i64>, i64, i64, i64);

/// What is the same for all rooms that have changed: the time now, the renewals and the commits of the asking node, the leases of nodes of
/// earlier versions and of all others, and the shared counts of prunes and of set-backs. Then a [`RoomRow`] and the time at which it changed, if there is one.
pub(super) type RecentRow =
    (i64, Option<i64>, i64, i64, i64, i64, i64, Option<Uuid>, Option<String>, Option<i64>, Option<i64>);

/// The version and the encoded delta of a change that is kept.
pub(super) type KeptChange = (i64, Vec<u8>);

/// The present version of a room, and a change: its version, its node and its delta.
pub(super) type ChangeRow = (i64, Option<i64>, Option<Uuid>, Option<Vec<u8>>);

/// The id and the name of a room, a presence in it, and its node.
pub(super) type RemainingRow = (Uuid, String, Uuid, Uuid);

/// Request, age, and what to remove unless it is a request to prune.
pub(super) type RequestRow = (Uuid, i64, Option<String>);

/// Node, its name, and its answer.
pub(super) type AnswerRow = (Uuid, String, Option<i64>);

/// A room and its position.
#[derive(Debug, Clone)]
pub(super) struct RoomPosition {
    pub(super) room: RoomName,
    pub(super) epoch: Epoch,
    pub(super) version: Version,
}

#[derive(Debug, thiserror::Error)]
#[error("the row `{id}` of table `{table}` is not one that this crate wrote")]
struct UnreadableRow {
    table: &'static str,
    id: Uuid,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn unreadable<E>(table: &'static str, id: Uuid) -> impl FnOnce(E) -> StoreError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |source| StoreError::Refused(Arc::new(UnreadableRow { table, id, source: source.into() }))
}

pub(super) fn room_name((id, name): (Uuid, String)) -> Result<RoomName, StoreError> {
    RoomName::stored(name).map_err(unreadable("rooms", id))
}

pub(super) fn position((id, name, version): RoomRow) -> Result<RoomPosition, StoreError> {
    let room = RoomName::stored(name).map_err(unreadable("rooms", id))?;
    let version = u64::try_from(version).map_err(unreadable("rooms", id))?;
    Ok(RoomPosition { room, epoch: Epoch::from_uuid(id), version: Version(version) })
}

/// The answer in these rows. `longest_transaction` is how long after its time a transaction may become visible.
pub(super) fn recent_changes(
    rows: Vec<RecentRow>,
    limit: u64,
    longest_transaction: Duration,
) -> Result<RecentChanges, StoreError> {
    let Some((now, renewals, commits, of_earlier_versions, others, prunes, set_backs, ..)) = rows.first().cloned()
    else {
        // Somebody has deleted the row of the counts.
        return Err(unreadable("shared_counts", Uuid::nil())("it is gone"));
    };
    let number = |number| count("shared_counts", Uuid::nil())(number);
    let own_writes = match renewals {
        Some(renewals) => Some(WriteCounts { renewals: number(renewals)?, commits: number(commits)? }),
        None => None,
    };
    let is_complete = rows.len() as u64 <= limit && of_earlier_versions == 0;
    let changed = rows.into_iter().filter_map(|(.., id, name, version, changed_at)| {
        let position = position((id?, name?, version?));
        let changed_at = time(changed_at?.saturating_mul(1000));
        Some(position.map(|RoomPosition { room, epoch, version }| ChangedRoom { room, epoch, version, changed_at }))
    });
    let rooms = changed.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect::<Result<_, _>>()?;
    let time = time(now);
    Ok(RecentChanges {
        time,
        next: time.saturating_sub(longest_transaction),
        rooms,
        is_complete,
        own_writes,
        others: number(others)?,
        prunes: number(prunes)?,
        set_backs: number(set_backs)?,
    })
}

/// The meta of a row. An earlier version of this crate accepted metas that are nested deeper than
/// [`MAX_META_DEPTH`](crate::model::meta::MAX_META_DEPTH). Their presences are in the room, so the rows are read. But clients whose parsers
/// refuse such a meta could not join, so it is read as `{}`. The row keeps it until it is next written.
fn stored_meta(id: Uuid, json: &str) -> Result<Meta, StoreError> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if json == "{}" {
        return Ok(Meta::default());
    }
    match Meta::from_json(json) {
        Ok(meta) => Ok(meta),
        Err(MetaError::TooDeep { depth }) => {
            // Logged once, because a room may be read every few seconds.
            if !WARNED.swap(true, Ordering::Relaxed) {
                warn!(presence = %id, depth, "a meta in the database is nested too deep; such metas are read as `{{}}`");
            }
            Ok(Meta::default())
        }
        Err(error) => Err(unreadable("presences", id)(error)),
    }
}

pub(super) fn presence(
    (id, room, channel, user, meta, node, held_until): PresenceRow,
) -> Result<StoredPresence, StoreError> {
    let channel = ChannelName::stored(channel).map_err(unreadable("presences", id))?;
    let user = user.map(UserId::stored).transpose().map_err(unreadable("presences", id))?;
    let meta = stored_meta(id, &meta)?;
    let held = held_until.is_some();
    let presence =
        Presence { meta, held, ..Presence::new(PresenceId::from_uuid(id), channel, user, NodeId::from_uuid(node)) };
    Ok(StoredPresence { room: Epoch::from_uuid(room), presence: Arc::new(presence) })
}

/// As [`presence`], with the hash of the resume token.
pub(super) fn presence_with_session(row: SessionRow) -> Result<(StoredPresence, Option<SessionHash>), StoreError> {
    let (id, room, channel, user, meta, node, held_until, session) = row;
    let session = session.map(|hash| <[u8; 32]>::try_from(&*hash)).transpose().map_err(unreadable("presences", id))?;
    let found = presence((id, room, channel, user, meta, node, held_until))?;
    Ok((found, session.map(SessionHash::from_bytes)))
}

fn count(table: &'static str, id: Uuid) -> impl Fn(i64) -> Result<u64, StoreError> {
    move |count| u64::try_from(count).map_err(unreadable(table, id))
}

pub(super) fn room_summary(row: RoomSummaryRow) -> Result<RoomSummary, StoreError> {
    let (id, name, version, presences, of_users, users, held) = row;
    let RoomPosition { room, epoch, version } = position((id, name, version))?;
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
        name: NodeName::stored(name).map_err(unreadable("nodes", id))?,
        process,
        age: between(started_at, now),
        state: NodeState::at(now, lease_until, fenced_at, superseded),
        presences: count(presences)?,
        held: count(held)?,
    })
}

pub(super) fn live_node(row: LiveNodeRow) -> Result<LiveNode, StoreError> {
    let (id, name, process, started_at, lease_until, now) = row;
    let (node, name) = node_name((id, name))?;
    let (age, state) = (between(started_at, now), NodeState::at(now, lease_until, None, false));
    Ok(LiveNode { node, name, process, age, state })
}

pub(super) fn survey(caller: NodeId, rows: Vec<SurveyRow>) -> Result<Survey, StoreError> {
    let mut survey = Survey { live: Vec::new(), has_dead: false, has_expired_graces: false, has_requests: false };
    for row in rows {
        let (.., uncleared, empty, first_grace, requests, now) = row;
        let (id, name, lost_name, process, started_at, fenced_at, lease_until, ..) = row;
        survey.has_expired_graces |= first_grace.is_some_and(|until| until < now);
        survey.has_requests |= requests > 0;
        let is_forgettable = empty.is_some_and(|fenced_at| {
            lost_name.is_none() || fenced_at < now.saturating_sub(millis(KEEP_SUPERSEDED_FOR))
        });
        survey.has_dead |= uncleared.is_some() || is_forgettable;
        if fenced_at.is_some() {
            continue;
        }
        let is_expired = lease_until.is_none_or(|until| until < now);
        survey.has_dead |= is_expired && id != caller.as_uuid();
        if let (Some(name), Some(lease_until)) = (name, lease_until) {
            survey.live.push(live_node((id, name, process, started_at, lease_until, now))?);
        }
    }
    survey.live.sort_unstable_by(LiveNode::in_order);
    Ok(survey)
}

pub(super) fn node_name((id, name): (Uuid, String)) -> Result<(NodeId, NodeName), StoreError> {
    Ok((NodeId::from_uuid(id), NodeName::stored(name).map_err(unreadable("nodes", id))?))
}

pub(super) fn remaining((room, name, id, node): RemainingRow) -> Result<Remaining, StoreError> {
    let room = room_name((room, name))?;
    Ok(Remaining { room, id: PresenceId::from_uuid(id), node: NodeId::from_uuid(node) })
}

/// `None` if only a later version of this crate knows this kind of request. The other requests are still answered.
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
