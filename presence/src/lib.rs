//! Who is in which room, right now, on one node or many.
//!
//! A [`Consumer`] speaks for one WebSocket. It joins a room, is touched by every frame it receives, and leaves when it
//! closes or falls silent; everyone in the room hears of it, and every part of the application that subscribed.
//!
//! # Map
//! [`Consumer`] is what you write, [`Upgrade`] turns a request into one, [`Rooms`] is what you ask, [`Config`] what you
//! tune. [`PruningSupervisor`] must run. Implement [`store::Store`] to bring your own database.

#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
pub mod config;
mod consumer;
mod error;
pub mod model;
pub mod name;
mod room;
pub mod signal;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use config::{Config, ConfigError};
pub use consumer::{CloseCode, Consumer, Frame, Socket, Upgrade, on_connect};
pub use error::{Error, Result};
pub use model::{Member, Meta, Presence};
pub use presence_macros::{remove_presence, touch_presence};
pub use room::{
    Counts, Event, Outgoing, PruningSupervisor, Rooms, RoomsActor, close_code,
    pruning::{PrunePresences, PruneRooms, Reconcile, Sweep},
    query::{Count, IsHere, Members, RoomsOf, Subscribe, Users},
};
pub use signal::{PresenceChange, PresenceChanged};

/// The JavaScript client, an ES module to serve from your own host.
pub const CLIENT_JS: &str = include_str!("../client/presence.js");

/// What the macros expand to; no promises.
#[doc(hidden)]
pub mod __private {
    use crate::{Frame, Socket};

    /// Touches; says whether the frame is one of the heartbeats, which are swallowed.
    pub fn touch_presence(socket: &mut Socket, frame: &Frame, heartbeats: &[&str]) -> bool {
        socket.touch();
        matches!(frame, Frame::Text(text) if heartbeats.contains(&&**text))
    }

    /// Touches.
    pub fn touch_only(socket: &mut Socket) {
        socket.touch();
    }

    /// Leaves every room.
    pub async fn remove_presence(socket: &mut Socket) {
        if let Err(error) = socket.leave_all().await {
            tracing::debug!(%error, "a leave waits for the store");
        }
    }
}
