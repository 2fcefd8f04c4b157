//! Faults on purpose: what a bug in this crate would do, to see that it stays where it happened.

use crate::{
    Rooms,
    delivery::message::ToHub,
    name::{PresenceId, RoomName},
    room::message::ToRoom,
};

/// Makes the actor of a room panic, once it has dealt with what it was told before.
pub fn panic_room(rooms: &Rooms, room: &RoomName) {
    rooms.table().send_running(room, ToRoom::Panic);
}

/// Makes the actor that looks after a presence panic.
pub fn panic_presence(rooms: &Rooms, room: &RoomName, presence: PresenceId) {
    rooms.table().send_running(room, ToRoom::PanicChild(presence));
}

/// Makes the hub of every worker thread panic, once it has dealt with what it was told before.
pub fn panic_hubs(rooms: &Rooms) {
    for hub in rooms.hubs().all() {
        hub.addr.do_send(ToHub::Panic);
    }
}
