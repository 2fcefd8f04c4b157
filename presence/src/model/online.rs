//! The users who go online and offline in a room.

use std::collections::BTreeMap;

use crate::name::{PresenceId, UserId};

/// The users who went online and offline in a room with one transaction. A held presence counts, so neither a hold nor a resume
/// makes a user go online or offline.
///
/// The key is the presence that made the difference: the one that is announced first of those that came, or last of those that
/// left. A commit is announced in this order: presences that left, changed, joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct OnlineChanges {
    /// Users who had no presence in the room before, and have one now.
    pub online: BTreeMap<PresenceId, UserId>,
    /// Users who had a presence in the room before, and have none now.
    pub offline: BTreeMap<PresenceId, UserId>,
}
