//! How a room is read from the database.

use std::sync::Arc;

use crate::{
    model::replica::LoadedRoom,
    name::{Epoch, RoomName, Version},
    node::Node,
    store::{RoomChange, RoomStore, StoreError},
};

/// From this number of presences on, a reading is prepared on a thread of its own. For fewer that takes about 0.1 ms, which is not
/// worth a thread.
pub(crate) const LARGE: usize = 1_000;

/// What the change log showed of a room: the changes after this version of this epoch.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) from: (Epoch, Version),
    pub(crate) changes: Result<Option<Vec<RoomChange>>, StoreError>,
}

/// Reads a room, and prepares the reading so that the room's actor applies it without delay.
pub(crate) async fn load(node: &Node, room: &RoomName) -> Result<Option<LoadedRoom>, StoreError> {
    let Some(snapshot) = node.store.load(room.clone()).await? else { return Ok(None) };
    if snapshot.presences.len() < LARGE {
        return Ok(Some(snapshot.into()));
    }
    // It runs in a task of its own, because `spawn_blocking` panics if no thread can be started.
    let prepared = async move { tokio::task::spawn_blocking(|| snapshot.into()).await };
    let reading = node.threads.runtime().spawn(prepared).await.flatten();
    reading.map(Some).map_err(|error| StoreError::Unavailable(Arc::new(error)))
}
