//! A room without its actor, and presences without sockets, to measure what each of them costs.

use std::sync::Arc;

use crate::{
    Result, Rooms,
    clock::Tick,
    config::{Config, Notify},
    delivery::{
        Touch,
        wire::{Pages, View},
    },
    model::{
        Delta, Presence,
        notice::{NoticeContent, Notices},
        replica::{Applied, Replica},
    },
    name::{ChannelName, Epoch, NodeId, PresenceId, RoomName, UserId, Version},
    room::Entrant,
};

/// The members of a room, and the notices that they would receive.
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

    /// Applies the changes of a transaction, as the room's actor does. Returns how many presences changed.
    pub fn apply(&mut self, delta: Delta) -> usize {
        self.version = self.version.next();
        let Applied::Changed(changes) = self.replica.apply(Tick(0), self.epoch, self.version, delta) else { return 0 };
        let changed = changes.len();
        self.notices.changed(Tick(0), changes);
        changed
    }

    /// The encoded notice that members would receive for the changes since the last call. `None` if there are none.
    pub fn notice(&mut self) -> Option<bytes::Bytes> {
        let flush = self.notices.flush(Tick(0), self.replica.position()?, 0, 0);
        let NoticeContent::Delta(delta) = flush.content else { return None };
        self.view()?.notice(flush.from, &delta).map(|frames| frames.bytes)
    }

    /// Encodes the first frame of a socket that joins now. Returns its size in bytes, without the id of the joining presence.
    #[must_use]
    pub fn first_frame(&self) -> Option<usize> {
        let mut pages = Pages::default();
        let _first = self.view()?.first(None, &mut pages)?;
        Some(pages.size())
    }

    fn view(&self) -> Option<View<'_>> {
        let position = self.replica.position()?;
        let max_frame = Config::default().max_frame_sent();
        Some(View { notify: Notify::Diff, max_frame, room: &self.name, position, roster: self.replica.roster() })
    }
}

/// Joins a room as a socket does, but without a socket. It becomes stale, because nothing touches it.
///
/// # Errors
/// As [`Socket::join`](crate::Socket::join).
pub async fn join_without_socket(rooms: &Rooms, room: &RoomName, user: Option<UserId>) -> Result<PresenceId> {
    let hub = rooms.hubs().here().hub;
    let channel: ChannelName = rooms.hubs().new_channel(&hub);
    let node = rooms.node().unwrap_or_else(NodeId::random);
    let presence = Arc::new(Presence::new(PresenceId::random(), channel, user, node));
    let id = presence.id;
    let entrant =
        Entrant { presence, session: None, limit: None, hub: Some(hub), touch: Touch::new(rooms.this_node().now()) };
    rooms.join(room, entrant, None).await?;
    Ok(id)
}
