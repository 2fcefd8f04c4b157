//! What a room has to know about the channels of its node.

use crate::{
    delivery::Touch,
    model::{Close, Meta},
    name::{ChannelName, PresenceId, RoomName},
};

/// The channels of this node, each with the rooms that it considers itself to be in.
pub(crate) trait LocalChannels: Send + Sync {
    /// When a channel was last seen; `None` if this node does not have it.
    fn touch_of(&self, channel: &ChannelName) -> Option<Touch>;

    /// Whether the channel is in the room, or joining it, as any presence.
    fn is_in(&self, name: &ChannelName, room: &RoomName) -> bool;

    /// Whether the channel is in the room, or joining it, as this presence.
    fn has(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool;

    /// The join of the channel as this presence has resumed another presence.
    fn note_resumed(&self, name: &ChannelName, room: &RoomName, id: PresenceId);

    /// Removes the update that waits in the channel for this presence, and returns it.
    fn take_update(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> Option<Meta>;

    /// This presence of the channel was removed from the room: it was pruned, or removed with its user or room. Returns `false` if the
    /// channel had left by itself before, or has joined again as another presence.
    fn forget(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool;

    /// The socket of the channel is about to be closed so, because its presence was removed from a room.
    fn note_close(&self, name: &ChannelName, close: &Close);
}
