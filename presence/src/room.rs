//! One room of a node.

mod actor;
mod following;
mod leaving;
mod loading;
mod local_channels;
mod message;
mod presence;
mod reader;
mod state;
mod table;

pub(crate) use actor::RoomActor;
pub(crate) use following::{Feed, Follower, LastState, Unread};
pub(crate) use leaving::Farewell;
#[cfg(test)]
pub(crate) use loading::LARGE;
pub(crate) use local_channels::LocalChannels;
#[cfg(test)]
pub(crate) use message::FaultPoint;
pub(crate) use message::{Entrant, PresenceKey, ToRoom};
pub(crate) use reader::RosterQuery;
pub(crate) use table::RoomTable;
