//! Messages with which any actor of the application changes rooms. Each is a call of [`Rooms`](crate::Rooms), with the same result and
//! the same errors.
//!
//! They are sent to [`Rooms::addr`](crate::Rooms::addr). Messages of two actors are carried out concurrently, as two calls are.

use actix::{Handler, Message, ResponseFuture};

use crate::{
    Close, JoinOptions, Meta, Result,
    name::{ChannelName, PresenceId, RoomName, UserId},
};

use super::{
    Room, RoomsActor,
    query::carried_out,
    upkeep::{PrunePresences, PruneRooms},
};

/// Adds a channel to a room, as [`Rooms::add_with`](crate::Rooms::add_with).
///
/// ```
/// # use presence::{ChannelName, JoinOptions, RoomName, Rooms, UserId, actor::Add};
/// async fn add_bot(rooms: &Rooms, room: RoomName) -> Result<(), Box<dyn std::error::Error>> {
///     let (channel, user) = (ChannelName::new("bot")?, Some(UserId::new("weather")?));
///     let room = rooms.addr().send(Add { room, channel, user, options: JoinOptions::new() }).await??;
///     println!("the bot is in {}", room.name());
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Room>")]
pub struct Add {
    /// The room.
    pub room: RoomName,
    /// The channel.
    pub channel: ChannelName,
    /// The user of its presence; `None` for an anonymous presence.
    pub user: Option<UserId>,
    /// The first meta, a limit of places, or a grace; `JoinOptions::new()` for a plain join.
    pub options: JoinOptions,
}

/// Replaces the meta of a channel's presence in a room, as [`Rooms::update`](crate::Rooms::update).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<()>")]
pub struct Update {
    /// The room.
    pub room: RoomName,
    /// The channel.
    pub channel: ChannelName,
    /// The new meta.
    pub meta: Meta,
}

/// Replaces the meta of all presences of a user in a room, as [`Rooms::update_user`](crate::Rooms::update_user).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<usize>")]
pub struct UpdateUser {
    /// The room.
    pub room: RoomName,
    /// The user.
    pub user: UserId,
    /// The new meta.
    pub meta: Meta,
}

/// Removes a channel from a room, on whichever node it is, as [`Rooms::remove`](crate::Rooms::remove).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<()>")]
pub struct Remove {
    /// The room.
    pub room: RoomName,
    /// The channel.
    pub channel: ChannelName,
}

/// Records that a channel was seen now, as [`Rooms::touch`](crate::Rooms::touch).
///
/// ```
/// # use presence::{ChannelName, Rooms, actor::Touch};
/// fn bot_is_alive(rooms: &Rooms, bot: &ChannelName) {
///     rooms.addr().do_send(Touch { channel: bot.clone() });
/// }
/// ```
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Touch {
    /// The channel.
    pub channel: ChannelName,
}

/// Removes a channel from every room, on whichever node it is, as [`Rooms::leave_all`](crate::Rooms::leave_all).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<()>")]
pub struct LeaveAll {
    /// The channel.
    pub channel: ChannelName,
}

/// Removes a user from every room, on every node, as [`Rooms::remove_user`](crate::Rooms::remove_user).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<usize>")]
pub struct RemoveUser {
    /// The user.
    pub user: UserId,
    /// The code and reason with which its sockets are closed; with `None` they stay open.
    pub close: Option<Close>,
}

/// Removes a user from one room, on every node, as [`Rooms::remove_user_from`](crate::Rooms::remove_user_from).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<usize>")]
pub struct RemoveUserFrom {
    /// The room.
    pub room: RoomName,
    /// The user.
    pub user: UserId,
    /// The code and reason with which its sockets are closed; with `None` they stay open.
    pub close: Option<Close>,
}

/// Removes all presences of a room, on every node, as [`Rooms::remove_room`](crate::Rooms::remove_room).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<usize>")]
pub struct RemoveRoom {
    /// The room.
    pub room: RoomName,
    /// The code and reason with which the sockets of the room are closed; with `None` they stay open.
    pub close: Option<Close>,
}

/// Removes one presence, on whichever node it is, as [`Rooms::remove_presence`](crate::Rooms::remove_presence).
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<bool>")]
pub struct RemovePresence {
    /// The room.
    pub room: RoomName,
    /// The presence.
    pub id: PresenceId,
    /// The code and reason with which its socket is closed; with `None` it stays open.
    pub close: Option<Close>,
}

carried_out! {
    Add { room, channel, user, options } -> Room: |rooms| rooms.add_with(&room, &channel, user.as_ref(), options);
    Update { room, channel, meta } -> (): |rooms| rooms.update(&room, &channel, meta);
    UpdateUser { room, user, meta } -> usize: |rooms| rooms.update_user(&room, &user, meta);
    Remove { room, channel } -> (): |rooms| rooms.remove(&room, &channel);
    LeaveAll { channel } -> (): |rooms| rooms.leave_all(&channel);
    RemoveUser { user, close } -> usize: |rooms| rooms.remove_user(&user, close);
    RemoveUserFrom { room, user, close } -> usize: |rooms| rooms.remove_user_from(&room, &user, close);
    RemoveRoom { room, close } -> usize: |rooms| rooms.remove_room(&room, close);
    RemovePresence { room, id, close } -> bool: |rooms| rooms.remove_presence(&room, id, close);
    PrunePresences (max_age) -> usize: |rooms| rooms.prune_presences(max_age);
    PruneRooms -> usize: |rooms| rooms.prune_rooms();
}

impl Handler<Touch> for RoomsActor {
    type Result = ();

    fn handle(&mut self, Touch { channel }: Touch, _: &mut Self::Context) {
        if let Ok(rooms) = self.rooms() {
            rooms.touch(&channel);
        }
    }
}
