//! A room without its actor, and presences without their sockets: for measuring what each of them costs.

use std::sync::Arc;

use crate::{
    Result, Rooms,
    clock::Tick,
    config::Notify,
    model::{
        Delta, Presence,
        notice::{News, Notices},
        replica::{Applied, Replica},
    },
    name::{ChannelName, Epoch, NodeId, PresenceId, RoomName, UserId, Version},
    room::{message::Terms, touch::Touch, wire},
};

/// Who is in a room, and what its members would be told.
#[derive(Debug)]
pub struct BareRoom {
    name: RoomName,
    epoch: Epoch,
    version: Version,
    replica: Replica,
    notices: Notices<PresenceId>,
}

impl BareRoom {
    /// An empty room.
    #[must_use]
    pub fn new(name: RoomName) -> Self {
        let notices = Notices::new(std::time::Duration::ZERO);
        Self { name, epoch: Epoch::random(), version: Version(0), replica: Replica::default(), notices }
    }

    /// Takes in what a transaction changed, as the room's actor does. Returns how many presences changed.
    pub fn apply(&mut self, delta: Delta) -> usize {
        self.version = self.version.next();
        let Applied::Changed(changes) = self.replica.apply(Tick(0), self.epoch, self.version, delta) else { return 0 };
        let changed = changes.len();
        self.notices.changed(Tick(0), changes);
        changed
    }

    /// The frame with which the members that are here already would be told of what changed since this was last called, as
    /// it is on the wire. `None`: nothing to tell.
    pub fn news(&mut self) -> Option<bytes::Bytes> {
        let flush = self.notices.flush(Tick(0), self.replica.position()?);
        let News::Delta(delta) = flush.news else { return None };
        let versions = (flush.from, flush.version);
        let news = wire::news(Notify::Diff, &self.name, flush.epoch, versions, &delta, self.replica.roster());
        news.map(|frames| frames.bytes)
    }

    /// The first frame of one who joins now, as it is on the wire but for the joiner's own id.
    #[must_use]
    pub fn first_frame(&self) -> Option<bytes::Bytes> {
        let first = wire::first(Notify::Diff, &self.name, self.replica.position()?, self.replica.roster(), None);
        first.map(|frame| frame.pieces(PresenceId::random()).0)
    }
}

/// Joins a room as a socket would, but without one: the room's actor and the child that looks after the presence are those
/// of any other. It goes stale, since nobody touches it.
///
/// # Errors
/// As [`Socket::join`](crate::Socket::join).
pub async fn join_without_socket(rooms: &Rooms, room: &RoomName, user: Option<UserId>) -> Result<PresenceId> {
    let hub = rooms.local_hub().hub;
    let channel: ChannelName = rooms.new_channel(&hub);
    let node = rooms.node().unwrap_or_else(NodeId::random);
    let presence = Arc::new(Presence::new(PresenceId::random(), channel, user, node));
    let id = presence.id;
    rooms.join(room, presence, Terms::default(), Some(hub), Touch::new(rooms.now())).await?;
    Ok(id)
}
