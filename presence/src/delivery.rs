//! The way of frames from a room to the clients of its members: hubs, outboxes, and the encoding. Nothing here depends on `room`.

mod event;
mod hub;
mod hubs;
mod inquiry;
mod message;
mod outbox;
mod touch;
pub(crate) mod wire;

pub use event::Event;
pub(crate) use hub::{HubSocket, Sockets};
pub(crate) use hubs::{Hubs, LocalHub, SocketName};
pub(crate) use inquiry::{ANSWER_TIME, Inquiry, SilenceQuestion, SilenceResult, UNANSWERED};
pub(crate) use message::{
    Broadcast, Claim, Decision, HubMembers, HubRef, Joiner, Pressure, Reply, RoomFlush, ToConnection, ToHub,
};
#[cfg(test)]
pub(crate) use outbox::PIECE;
pub(crate) use outbox::{Bounds, Filling, KernelSocket, Outbound, Outbox, Owner, ServerTrust, TakeOver, Writing};
pub(crate) use touch::Touch;
