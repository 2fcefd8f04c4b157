//! The change log in a database: which process keeps changes in it, and their text.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sea_orm::prelude::Uuid;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Delta, Presence},
    name::{Epoch, NodeId, Version},
    store::{
        RoomChange, RoomCommit, millis,
        room_change::{MAX_CHANGE_BYTES, MAX_MISSING, without_gaps},
    },
};

use super::{
    row::{self, ChangeRow, KeptChange},
    statement::In,
};

/// What this process keeps in the change log.
#[derive(Debug)]
pub(super) struct ChangeLog {
    /// Whether transactions keep what they change.
    pub(super) is_on: AtomicBool,
    /// When a transaction last kept something, in milliseconds since 1970 by the clock of this machine. 0 if nothing is left to forget.
    last: AtomicI64,
}

impl Default for ChangeLog {
    fn default() -> Self {
        // Processes that have ended may have left something.
        Self { is_on: AtomicBool::new(true), last: AtomicI64::new(1) }
    }
}

impl ChangeLog {
    /// There may be something to forget.
    pub(super) fn kept(&self) {
        self.last.store(now(), Ordering::Relaxed);
    }

    /// Whether there may be something to forget. If all of it is older than `age`, nothing is left afterwards.
    pub(super) fn forgets(&self, age: Duration) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        if last.saturating_add(millis(age)) < now() {
            // Unless something was kept meanwhile.
            let _ = self.last.compare_exchange(last, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        last != 0
    }
}

fn now() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// A presence as it is kept: id, channel, user, meta and node.
type EncodedPresence<S> = (Uuid, S, Option<S>, S, Uuid);

/// A delta as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodedDelta<S> {
    joined: Vec<EncodedPresence<S>>,
    left: Vec<EncodedPresence<S>>,
    updated: Vec<EncodedPresence<S>>,
    moved: Vec<EncodedPresence<S>>,
}

/// How a commit is kept. `None` if it gave no version, or changed too much.
pub(super) fn encoded(commit: &RoomCommit) -> Option<In<KeptChange>> {
    if !commit.is_new_version() {
        return None;
    }
    let Delta { joined, left, updated, moved } = &commit.delta;
    let bytes = |one: &Arc<Presence>| one.channel.as_str().len() + one.meta.as_str().len();
    if [joined, left, updated, moved].into_iter().flatten().map(bytes).sum::<usize>() > MAX_CHANGE_BYTES {
        return None;
    }
    let delta =
        EncodedDelta { joined: encode(joined), left: encode(left), updated: encode(updated), moved: encode(moved) };
    let text = serde_json::to_vec(&delta).ok().filter(|text| text.len() <= MAX_CHANGE_BYTES)?;
    Some((commit.epoch, (i64::try_from(commit.version.0).ok()?, text)))
}

fn encode(presences: &[Arc<Presence>]) -> Vec<EncodedPresence<&str>> {
    fn encode(one: &Arc<Presence>) -> EncodedPresence<&str> {
        let user = one.user.as_ref().map(|user| user.as_str());
        (one.id.as_uuid(), one.channel.as_str(), user, one.meta.as_str(), one.node.as_uuid())
    }
    presences.iter().map(encode).collect()
}

/// The changes in these rows after `version`, if none is missing. What cannot be read is missing: a later version of this crate may have
/// written it.
pub(super) fn decoded(room: Epoch, version: Version, rows: Vec<ChangeRow>) -> Option<Vec<RoomChange>> {
    let current = Version(u64::try_from(rows.first()?.0).ok()?);
    if current < version || current.0 - version.0 > MAX_MISSING {
        return None;
    }
    let rows = rows.into_iter().filter_map(|(_, version, node, delta)| Some((version?, node?, delta?)));
    let decode = |(version, node, delta): (i64, Uuid, Vec<u8>)| {
        let version = Version(u64::try_from(version).ok()?);
        Some(RoomChange { version, by: NodeId::from_uuid(node), delta: decode_delta(room, &delta)? })
    };
    without_gaps(version, current, rows.map(decode).collect::<Option<_>>()?)
}

fn decode_delta(room: Epoch, text: &[u8]) -> Option<Delta> {
    let EncodedDelta { joined, left, updated, moved } = serde_json::from_slice::<EncodedDelta<String>>(text).ok()?;
    let decode = |presences: Vec<EncodedPresence<String>>| {
        let presence = |(id, channel, user, meta, node)| {
            row::presence((id, room.as_uuid(), channel, user, meta, node, None)).ok().map(|found| found.presence)
        };
        presences.into_iter().map(presence).collect::<Option<Vec<_>>>()
    };
    Some(Delta { joined: decode(joined)?, left: decode(left)?, updated: decode(updated)?, moved: decode(moved)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Meta,
        name::{ChannelName, PresenceId, RoomName, UserId},
    };

    fn presence(user: Option<&str>, meta: &str) -> Arc<Presence> {
        let channel = ChannelName::new("a \"channel\"").unwrap();
        let user = user.map(|user| UserId::new(user).unwrap());
        let one = Presence::new(PresenceId::random(), channel, user, NodeId::random());
        Arc::new(Presence { meta: Meta::from_json(meta).unwrap(), ..one })
    }

    fn commit(version: u64, delta: Delta) -> RoomCommit {
        RoomCommit::new(RoomName::new("lobby").unwrap(), Epoch::random(), Version(version), delta)
    }

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let delta = Delta {
            joined: vec![presence(Some("ann"), r#"{"a":[1.50,"\u00e9"]}"#), presence(None, "{}")],
            left: vec![presence(Some("bob"), "{}")],
            updated: vec![presence(None, r#"{"b":2}"#)],
            moved: vec![presence(Some("cy"), "{}")],
        };
        let commit = commit(7, delta.clone());
        let (room, (version, text)) = encoded(&commit).expect("it is small");
        assert_eq!(room, commit.epoch);
        let by = NodeId::random();
        let rows = vec![(7, Some(version), Some(by.as_uuid()), Some(text))];
        assert_eq!(decoded(room, Version(6), rows), Some(vec![RoomChange { version: Version(7), by, delta }]));
    }

    #[test]
    fn a_change_that_is_too_large_is_not_kept() {
        let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(3000));
        let joined = |count| Delta { joined: (0..count).map(|_| presence(None, &meta)).collect(), ..Delta::default() };
        assert!(encoded(&commit(1, joined(80))).is_some());
        assert!(encoded(&commit(1, joined(90))).is_none());
    }

    #[test]
    fn changes_with_a_gap_or_an_unknown_text_are_not_all() {
        let (by, epoch) = (NodeId::random().as_uuid(), Epoch::random());
        let text = |delta: Delta| encoded(&commit(1, delta)).expect("it is small").1.1;
        let joined = text(Delta { joined: vec![presence(None, "{}")], ..Delta::default() });
        let row = |version| (4, Some(version), Some(by), Some(joined.clone()));
        let count = |rows| decoded(epoch, Version(2), rows).map(|changes| changes.len());
        assert_eq!(count(vec![row(3), row(4)]), Some(2));
        assert_eq!(count(vec![row(4)]), None, "3 is missing");
        assert_eq!(count(vec![row(3)]), None, "4 is missing");
        assert_eq!(count(vec![(4, None, None, None)]), None, "there are none");
        assert_eq!(count(vec![(2, None, None, None)]), Some(0), "nothing is missing");
        assert_eq!(count(vec![(1, None, None, None)]), None, "the room is not that far");
        assert_eq!(count(vec![]), None, "there is no such room");
        let of_later_version = br#"{"joined":[],"left":[],"updated":[],"moved":[],"banned":[]}"#.to_vec();
        assert_eq!(count(vec![row(3), (4, Some(4), Some(by), Some(of_later_version))]), None);
    }
}
