//! What the two messages of a commit are about, for databases that read and write nearly all of it at once.

use crate::{
    name::{Epoch, NodeId, PresenceId, RoomName},
    session::SessionHash,
    store::{Attempt, plan::NewRow},
};

use super::statement::In;

/// What a commit is about.
#[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only SQLite commits by two messages"))]
pub(super) struct CommitKeys<'a> {
    pub(super) node: NodeId,
    pub(super) rooms: &'a [&'a RoomName],
    pub(super) presences: &'a [PresenceId],
    pub(super) sessions: &'a [SessionHash],
}

/// The changes that nearly every commit makes.
#[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only SQLite commits by two messages"))]
pub(super) struct CommitWrite<'a> {
    pub(super) node: NodeId,
    pub(super) attempt: Attempt,
    pub(super) now: i64,
    pub(super) gone: &'a [PresenceId],
    pub(super) new: &'a [In<NewRow>],
    pub(super) changed: &'a [Epoch],
}
