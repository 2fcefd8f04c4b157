//! How a room is read from the database.

use std::sync::Arc;

use crate::{
    model::replica::LoadedRoom,
    name::RoomName,
    node::Node,
    store::{RoomStore, StoreError},
};

/// From how many presences on a reading is made ready on a thread of its own. Fewer take some 0.1 ms, which is not worth it.
pub(crate) const LARGE: usize = 1_000;

/// Reads a room, and makes of that what its actor takes in at once.
pub(crate) async fn load(node: &Node, room: &RoomName) -> Result<Option<LoadedRoom>, StoreError> {
    let Some(snapshot) = node.store.load(room.clone()).await? else { return Ok(None) };
    if snapshot.presences.len() < LARGE {
        return Ok(Some(snapshot.into()));
    }
    // In a task of its own: if there is no thread to be had, that panics.
    let made = async move { tokio::task::spawn_blocking(|| snapshot.into()).await };
    let reading = node.threads.runtime().spawn(made).await.flatten();
    reading.map(Some).map_err(|error| StoreError::Unavailable(Arc::new(error)))
}
