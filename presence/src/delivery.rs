//! The way of frames from a room to the clients of its members: hubs, outboxes, and the encoding. Nothing here depends on `room`.

pub(crate) mod event;
pub(crate) mod hub;
pub(crate) mod hubs;
pub(crate) mod inquiry;
pub(crate) mod message;
pub(crate) mod outbox;
pub(crate) mod touch;
pub(crate) mod wire;
