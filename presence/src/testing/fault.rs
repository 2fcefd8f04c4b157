//! Deliberate faults: they do what a bug in this crate would do, so that tests can check that its effects stay local.

use crate::{
    Rooms,
    delivery::ToHub,
    name::{PresenceId, RoomName},
    room::ToRoom,
};

/// Makes the actor of a room panic, after the messages that it received before.
///
/// ```
/// # use presence::{RoomName, Rooms, testing::fault::panic_room};
/// /// Users stay online although their room fails.
/// async fn survives(rooms: &Rooms, room: &RoomName) -> presence::Result<()> {
///     let before = rooms.users(room).await?;
///     panic_room(rooms, room);
///     assert_eq!(rooms.users(room).await?, before);
///     Ok(())
/// }
/// ```
pub fn panic_room(rooms: &Rooms, room: &RoomName) {
    rooms.table().send_running(room, ToRoom::Panic);
}

/// Makes the task that watches a presence panic.
pub fn panic_presence(rooms: &Rooms, room: &RoomName, presence: PresenceId) {
    rooms.table().send_running(room, ToRoom::PanicChild(presence));
}

/// Makes the hub of every worker thread panic, after the messages that it received before.
pub fn panic_hubs(rooms: &Rooms) {
    for hub in rooms.hubs().all() {
        hub.addr.do_send(ToHub::Panic);
    }
}
