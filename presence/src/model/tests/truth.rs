//! One room with its complete history, written as simply as possible. The tests compare the model with it.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use uuid::Uuid;

use crate::name::{ChannelName, Epoch, NodeId, PresenceId, UserId, Version};

use crate::model::{Delta, Meta, Presence, Snapshot};

/// What a client sees of a presence.
pub(crate) type Visible = (Option<UserId>, Meta);

/// What a client sees of a room.
pub(crate) type AllVisible = BTreeMap<PresenceId, Visible>;

pub(crate) fn id(n: u8) -> PresenceId {
    PresenceId::from_uuid(Uuid::from_u128(n.into()))
}

pub(crate) fn epoch(n: u8) -> Epoch {
    Epoch::from_uuid(Uuid::from_u128(n.into()))
}

pub(crate) fn user(n: u8) -> UserId {
    UserId::new(format!("u{n}")).unwrap()
}

pub(crate) fn channel(n: u8) -> ChannelName {
    ChannelName::new(format!("c{n}")).unwrap()
}

pub(crate) fn meta(n: u8) -> Meta {
    if n == 0 { Meta::default() } else { Meta::from_json(&format!(r#"{{"n":{n}}}"#)).unwrap() }
}

/// Presence `n` of user `n` on channel `n`, with an empty meta.
pub(crate) fn presence(n: u8) -> Arc<Presence> {
    Arc::new(Presence::new(id(n), channel(n), Some(user(n)), node()))
}

pub(crate) fn with_meta(presence: &Presence, n: u8) -> Arc<Presence> {
    Arc::new(Presence { meta: meta(n), ..presence.clone() })
}

fn node() -> NodeId {
    NodeId::from_uuid(Uuid::nil())
}

pub(crate) fn visible(presence: &Presence) -> Visible {
    (presence.user.clone(), presence.meta.clone())
}

pub(crate) fn all_visible<'a>(presences: impl IntoIterator<Item = &'a Arc<Presence>>) -> AllVisible {
    presences.into_iter().map(|presence| (presence.id, visible(presence))).collect()
}

/// The change of one presence in a transaction.
#[derive(Debug, Clone)]
pub(crate) enum TestWrite {
    /// A presence with the same channel leaves. An existing presence with the same id is replaced.
    Join {
        who: u8,
        user: Option<u8>,
        channel: u8,
        meta: u8,
    },
    Update {
        who: u8,
        meta: u8,
    },
    Leave {
        who: u8,
    },
}

/// Few ids and channels, so that writes collide.
pub(crate) fn write() -> impl Strategy<Value = TestWrite> {
    let join = (0..6u8, prop::option::of(0..3u8), 0..6u8, 0..2u8);
    prop_oneof![
        4 => join.prop_map(|(who, user, channel, meta)| TestWrite::Join { who, user, channel, meta }),
        2 => (0..6u8, 0..3u8).prop_map(|(who, meta)| TestWrite::Update { who, meta }),
        3 => (0..6u8).prop_map(|who| TestWrite::Leave { who }),
    ]
}

pub(crate) fn writes() -> impl Strategy<Value = Vec<TestWrite>> {
    prop::collection::vec(write(), 1..4)
}

/// The result of a transaction.
#[derive(Debug, Clone)]
pub(crate) struct TestCommit {
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    pub(crate) delta: Delta,
}

/// The room at one moment. Moments are in the order of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moment {
    pub(crate) position: Option<(Epoch, Version)>,
    pub(crate) presences: BTreeMap<PresenceId, Arc<Presence>>,
}

/// The room with its history.
#[derive(Debug)]
pub(crate) struct Truth {
    epochs: u8,
    /// Never empty: at first the room does not exist.
    pub(crate) moments: Vec<Moment>,
    pub(crate) commits: Vec<TestCommit>,
}

impl Truth {
    pub(crate) fn new() -> Self {
        Self { epochs: 0, moments: vec![Moment::default()], commits: Vec::new() }
    }

    pub(crate) fn now(&self) -> &Moment {
        self.moments.last().unwrap()
    }

    /// The index of the moment with this position.
    pub(crate) fn moment_of(&self, position: (Epoch, Version)) -> usize {
        self.moments.iter().position(|moment| moment.position == Some(position)).expect("a position that never was")
    }

    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let Moment { position, presences } = self.now();
        let (epoch, version) = (*position)?;
        // In no particular order, so not sorted by id.
        Some(Snapshot { epoch, version, presences: presences.values().rev().cloned().collect() })
    }

    pub(crate) fn commit(&mut self, writes: &[TestWrite]) -> Option<TestCommit> {
        let Moment { position, presences: before } = self.now().clone();
        let mut after = before.clone();
        for write in writes {
            match *write {
                TestWrite::Join { who, user: owner, channel: at, meta: status } => {
                    after.retain(|_, other| other.channel != channel(at));
                    let mut presence = Presence::new(id(who), channel(at), owner.map(user), node());
                    presence.meta = meta(status);
                    after.insert(presence.id, Arc::new(presence));
                }
                TestWrite::Update { who, meta: status } => {
                    if let Some(presence) = after.get_mut(&id(who)) {
                        *presence = with_meta(presence, status);
                    }
                }
                TestWrite::Leave { who } => {
                    after.remove(&id(who));
                }
            }
        }
        let mut delta = Delta::default();
        for (id, now) in &after {
            match before.get(id) {
                None => delta.joined.push(now.clone()),
                Some(was) if was != now => delta.updated.push(now.clone()),
                Some(_) => {}
            }
        }
        delta.left = before.iter().filter(|(id, _)| !after.contains_key(id)).map(|(_, was)| was.clone()).collect();
        if delta.is_empty() {
            return None;
        }
        let (epoch, version) = position.unwrap_or_else(|| {
            self.epochs += 1;
            (epoch(self.epochs), Version(0))
        });
        let commit = TestCommit { epoch, version: version.next(), delta };
        self.moments.push(Moment { position: Some((epoch, commit.version)), presences: after });
        self.commits.push(commit.clone());
        Some(commit)
    }

    /// Deletes the room, with all presences.
    pub(crate) fn end(&mut self) {
        if self.now().position.is_some() {
            self.moments.push(Moment::default());
        }
    }
}
