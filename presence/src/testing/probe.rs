//! Hears of changes on behalf of a test.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::{PresenceChange, PresenceChanged, Rooms, model::Presence, name::RoomName, signal::Subscription};

use super::PATIENCE;

/// Collects every `presence_changed` from its making on, so that a test can ask for one after the other, or for none.
///
/// ```
/// # use presence::{
/// #     ChannelName, Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms, testing::Probe,
/// # };
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rooms = Rooms::start(Config::builder().room_threads(0).build()?, MemoryStore::default(), NodeName::new("test")?);
/// # PruningSupervisor::spawn(&rooms);
/// # rooms.ready().await;
/// let mut changes = Probe::new(&rooms);
/// let (lobby, job) = (RoomName::new("lobby")?, ChannelName::new("job")?);
/// rooms.add(&lobby, &job, None).await?;
/// assert_eq!(changes.added().await.channel, job);
/// assert!(changes.nothing().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Probe {
    changes: Subscription,
    /// What came while nothing was expected.
    kept: Option<PresenceChanged>,
}

impl Probe {
    /// Hears of all rooms.
    #[must_use]
    pub fn new(rooms: &Rooms) -> Self {
        Self { changes: rooms.changes(), kept: None }
    }

    /// Hears of one room.
    #[must_use]
    pub fn of(rooms: &Rooms, room: &RoomName) -> Self {
        Self { changes: rooms.changes_of(room), kept: None }
    }

    /// What changed next, within [`PATIENCE`].
    ///
    /// # Panics
    /// If nothing does.
    pub async fn next(&mut self) -> PresenceChanged {
        let next = async {
            match self.kept.take() {
                Some(kept) => kept,
                None => self.changes.next().await.expect("the rooms live as long as the test"),
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a change in time")
    }

    /// What changed and was told already.
    pub fn try_next(&mut self) -> Option<PresenceChanged> {
        self.kept.take().or_else(|| self.changes.next().now_or_never().flatten())
    }

    /// The presence that joined next.
    ///
    /// # Panics
    /// If something else changes next, or nothing.
    pub async fn added(&mut self) -> Arc<Presence> {
        match self.next().await.change {
            PresenceChange::Added(presence) => presence,
            other => panic!("somebody should have joined, and this came: {other:?}"),
        }
    }

    /// The presence that left by itself next.
    ///
    /// # Panics
    /// If something else changes next, or nothing.
    pub async fn removed(&mut self) -> Arc<Presence> {
        match self.next().await.change {
            PresenceChange::Removed(presence) => presence,
            other => panic!("somebody should have left, and this came: {other:?}"),
        }
    }

    /// The presence that has another user or meta next, as it is now.
    ///
    /// # Panics
    /// If something else changes next, or nothing.
    pub async fn updated(&mut self) -> Arc<Presence> {
        match self.next().await.change {
            PresenceChange::Updated(presence) => presence,
            other => panic!("a presence should have changed, and this came: {other:?}"),
        }
    }

    /// The presences that were removed together next.
    ///
    /// # Panics
    /// If something else changes next, or nothing.
    pub async fn bulk(&mut self) -> Vec<Arc<Presence>> {
        match self.next().await.change {
            PresenceChange::Bulk(presences) => presences,
            other => panic!("presences should have been removed together, and this came: {other:?}"),
        }
    }

    /// Whether nothing changes within [`PATIENCE`]. What does is kept for the next call.
    pub async fn nothing(&mut self) -> bool {
        if self.kept.is_none() {
            self.kept = tokio::time::timeout(PATIENCE, self.changes.next()).await.ok().flatten();
        }
        self.kept.is_none()
    }
}
