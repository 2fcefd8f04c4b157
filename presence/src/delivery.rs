//! The way from a room to the clients of its members: hubs, outboxes, and the frames in them. It knows no room.

pub(crate) mod event;
pub(crate) mod hub;
pub(crate) mod hubs;
pub(crate) mod inquiry;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod touch;
pub(crate) mod wire;
