//! What a room has to know of the channels of its node.

use crate::{
    delivery::touch::Touch,
    model::Meta,
    name::{ChannelName, PresenceId, RoomName},
};

/// The channels of this node, each with the rooms that it considers itself to be in.
pub(crate) trait LocalChannels: Send + Sync {
    /// When a channel was last seen; `None` if this node does not have it.
    fn touch_of(&self, channel: &ChannelName) -> Option<Touch>;

    /// Whether the channel is in the room, or joining it, as this presence.
    fn has(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool;

    /// The join by which the channel came into the room as this presence took over another.
    fn note_resumed(&self, name: &ChannelName, room: &RoomName, id: PresenceId);

    /// Takes the update that the channel has waiting for this presence of it.
    fn take_update(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> Option<Meta>;

    /// The channel is not in the room any more as this presence, without having left it: it was pruned, or removed with its
    /// user or room. Returns `false` if the channel had left by itself, or joined anew as another presence.
    fn forget(&self, name: &ChannelName, room: &RoomName, id: PresenceId) -> bool;
}
