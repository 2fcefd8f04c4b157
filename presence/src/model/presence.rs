//! A presence and a member.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::name::{ChannelName, NodeId, PresenceId, UserId};

use super::Meta;

/// One socket in one room.
///
/// ```
/// # use presence::Presence;
/// fn describe(presence: &Presence) -> String {
///     let user = presence.user.as_ref().map_or("a visitor", |user| user.as_str());
///     let held = if presence.held { ", whose connection is lost" } else { "" };
///     format!("{user}{held}, since {:?}, with {}", presence.joined_at(), presence.meta.as_str())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// The id. It is public: clients see it.
    pub id: PresenceId,
    /// The channel of its socket.
    pub channel: ChannelName,
    /// The user. `None` for an anonymous socket.
    pub user: Option<UserId>,
    /// The meta that its client has set, a JSON object.
    pub meta: Meta,
    /// The node of its socket.
    pub node: NodeId,
    /// Whether it is held: its socket was lost, and its client may still return.
    pub held: bool,
}

impl Presence {
    /// A presence of a live socket, with an empty meta.
    #[must_use]
    pub fn new(id: PresenceId, channel: ChannelName, user: Option<UserId>, node: NodeId) -> Self {
        Self { id, channel, user, meta: Meta::default(), node, held: false }
    }

    /// When the presence joined, by the clock of its node, in milliseconds. It stays the same when the presence is held and resumed.
    /// `None` if this crate did not make its id. [`Rooms::last_seen`](crate::Rooms::last_seen) returns when it was last seen.
    #[must_use]
    pub fn joined_at(&self) -> Option<SystemTime> {
        let (secs, nanos) = self.id.as_uuid().get_timestamp()?.to_unix();
        UNIX_EPOCH.checked_add(Duration::new(secs, nanos))
    }

    /// This presence with another user or meta, if they are given.
    pub(crate) fn changed(&self, user: Option<Option<UserId>>, meta: Option<Meta>) -> Self {
        let now = self.clone();
        Self { user: user.unwrap_or(now.user), meta: meta.unwrap_or(now.meta), ..now }
    }

    /// This presence with the channel, node and hold of `other`, which is the same presence.
    pub(crate) fn with_owner_of(&self, other: &Self) -> Arc<Self> {
        Arc::new(Self { channel: other.channel.clone(), node: other.node, held: other.held, ..self.clone() })
    }

    /// This presence while it is held.
    pub(crate) fn as_held(&self) -> Arc<Self> {
        Arc::new(Self { held: true, ..self.clone() })
    }

    /// Whether clients see the same as in `other`, which is the same presence at another time.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        self.user == other.user && self.meta == other.meta
    }
}

/// A member of a room: a user with all its presences, or one anonymous socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    user: Option<UserId>,
    presences: Vec<Arc<Presence>>,
}

impl Member {
    pub(crate) const fn of_user(user: UserId, presences: Vec<Arc<Presence>>) -> Self {
        Self { user: Some(user), presences }
    }

    pub(crate) fn anonymous(presence: Arc<Presence>) -> Self {
        Self { user: None, presences: vec![presence] }
    }

    /// The user. `None` for an anonymous socket.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// All presences of the user in this room, or the one of the anonymous socket. They are sorted by their ids, which is the order of
    /// their joins as far as the clocks of their nodes agree.
    #[must_use]
    pub fn presences(&self) -> &[Arc<Presence>] {
        &self.presences
    }
}
