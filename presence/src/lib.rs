//! Presence for WebSocket servers with actix-web: which users are in which room now, on one node or many.
//!
//! A [`Consumer`] handles one WebSocket. It joins a room, is [touched](macro@touch_presence) by the frames that it receives, and leaves
//! when the socket closes, is lost or falls silent. All members of the room are notified, and so is every part of the application that
//! subscribes to [`PresenceChanged`].
//!
//! A user is listed once, however many sockets it has. Sockets without a user are counted. The setting [`notify`](config::Notify) selects
//! the notices that members receive.
//!
//! ```no_run
//! use actix_web::{App, HttpResponse, HttpServer, web};
//! use presence::{
//!     Config, Consumer, Frame, HttpServerExt as _, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms, Socket,
//!     Upgrade, touch_presence,
//! };
//!
//! struct Visitor;
//!
//! impl Consumer for Visitor {
//!     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
//!         socket.join(&RoomName::new("lobby")?).await
//!     }
//!
//!     #[touch_presence]
//!     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! async fn ws(upgrade: Upgrade) -> HttpResponse {
//!     let user = None; // anonymous; or the `UserId` from your login
//!     upgrade.user(user).start(Visitor).await
//! }
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::of_host(8080)?);
//!     PruningSupervisor::spawn(&rooms);
//!     let data = web::Data::new(rooms.clone());
//!     HttpServer::new(move || App::new().app_data(data.clone()).route("/ws", web::get().to(ws)))
//!         .with_presence(&rooms)
//!         .bind(("127.0.0.1", 8080))?
//!         .run()
//!         .await?;
//!     Ok(rooms.check_not_superseded()?)
//! }
//! ```
//!
//! # Map
//! - Write a [`Consumer`], which acts through its [`Socket`]. The extractor [`Upgrade`] turns a request into one.
//! - Call [`Rooms`] from anywhere, or send the messages of [`actor`] to its [address](Rooms::addr).
//! - [`PruningSupervisor`] cleans up after crashes. [`HttpServerExt`] prepares the server and shuts it down in order.
//! - [`Config`] has the settings. A [`SqlStore`] keeps rooms and presences in a database, and a [`MemoryStore`] in the memory of the process.
//!   Implement [`store::Store`] for another database.
//!
//! The `docs/` of the repository describe the guarantees, the wire format, the failures and the architecture.
//!
//! # Features
//! - `sqlite` (default), `postgres`, `mysql`: [`SqlStore`] on that database.
//! - `tls`: connections to PostgreSQL and MySQL with TLS.
//! - `cli`: the command-line tool `presence`, and [`cli::run`], which runs it.
//! - `testing`: the module `testing`, with a store that fails on demand, and the suite that every store must pass.

pub mod actor;
#[cfg(all(doctest, feature = "sqlite"))]
mod book;
#[cfg(feature = "cli")]
pub mod cli;
mod client;
mod clock;
mod config;
mod consumer;
mod delivery;
mod descriptors;
mod error;
mod model;
mod name;
mod node;
mod origin;
mod room;
mod rooms;
mod session;
mod signal;
pub mod store;
mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use client::CLIENT_JS;
pub use clock::{Clock, Tick};
pub use config::{Config, ConfigBuilder, ConfigError, Durability, LEAST_FRAME_SENT, Notify, OnStale};
pub use consumer::{
    ANSWERED_HEARTBEAT, Closer, Consumer, Countdown, Frame, HEARTBEAT, Handshake, HttpServerExt, JsonConsumer,
    JsonFrames, Socket, Upgrade, WRITE_BUFFER_BYTES, on_connect,
};
pub use delivery::Event;
pub use descriptors::raise_open_files;
pub use error::{Error, Result};
pub use model::{Close, CloseCode, MAX_META_BYTES, MAX_META_DEPTH, Member, Meta, MetaError, Presence};
pub use name::{
    ChannelName, EventName, GroupName, MAX_NAME_BYTES, NameError, NodeId, NodeName, PresenceId, RoomName, UserId,
};
pub use origin::{Origin, OriginError};
pub use presence_macros::{remove_presence, touch_presence};
pub use rooms::{
    Counts, JoinOptions, MemberChanges, MembersChanged, NotReady, Outgoing, PruningSupervisor, Room, Rooms, StartError,
};
pub use session::{MAX_TOKEN_CHARS, MIN_TOKEN_CHARS, ResumeToken, TokenError};
pub use signal::{PresenceChange, PresenceChanged, Subscription};
pub use store::MemoryStore;
#[cfg(feature = "sql")]
pub use store::SqlStore;

/// Used by the code that the macros generate. It may change at any time.
#[doc(hidden)]
pub mod __private {
    use crate::{Frame, Socket, consumer::heartbeat};

    /// Touches the socket, and answers a heartbeat that wants an answer. Returns whether the frame is a heartbeat, which the consumer does not
    /// receive.
    pub async fn touch_presence(socket: &mut Socket, frame: &Frame, heartbeats: &[&str]) -> bool {
        socket.touch();
        heartbeat::swallows(socket, frame, heartbeats).await
    }

    /// Touches the socket.
    pub fn touch_only(socket: &mut Socket) {
        socket.touch();
    }

    /// Leaves every room. Presences that can be resumed are held if the socket was lost.
    pub async fn remove_presence(socket: &mut Socket) {
        if let Err(error) = socket.depart().await {
            tracing::debug!(%error, "a leave is not durable yet");
        }
    }
}
