//! Who came online in a room, and who went offline.

use std::collections::BTreeMap;

use crate::name::{PresenceId, UserId};

/// The users whose first presence in a room came with one transaction, and those whose last one went. One who is held is
/// present, so a hold and a resume are neither.
///
/// Each user stands by the presence that made the difference: of those that came, the one that is told first, of those that
/// went, the one that is told last. They are told in the order who left, who changed, who joined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Turns {
    /// Who had no presence in the room before, and has one now.
    pub online: BTreeMap<PresenceId, UserId>,
    /// Who had one, and has none now.
    pub offline: BTreeMap<PresenceId, UserId>,
}
