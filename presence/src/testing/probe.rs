//! Collects the changes of rooms for a test.

use std::sync::Arc;

use futures_util::FutureExt;

use crate::{PresenceChange, PresenceChanged, Rooms, model::Presence, name::RoomName, signal::Subscription};

use super::PATIENCE;

/// Collects every `presence_changed` from when it is created. A test receives them one after the other, or checks that there is none.
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
    /// A change that arrived while none was expected.
    kept: Option<PresenceChanged>,
}

impl Probe {
    /// Collects the changes of all rooms.
    #[must_use]
    pub fn new(rooms: &Rooms) -> Self {
        Self { changes: rooms.changes(), kept: None }
    }

    /// Collects the changes of one room.
    #[must_use]
    pub fn of(rooms: &Rooms, room: &RoomName) -> Self {
        Self { changes: rooms.changes_of(room), kept: None }
    }

    /// The next change that arrives within [`PATIENCE`].
    ///
    /// # Panics
    /// If none arrives.
    pub async fn next(&mut self) -> PresenceChanged {
        let next = async {
            match self.kept.take() {
                Some(kept) => kept,
                None => self.changes.next().await.expect("the rooms exist as long as the test"),
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("a change in time")
    }

    /// The next change, if it has arrived already.
    pub fn try_next(&mut self) -> Option<PresenceChanged> {
        self.kept.take().or_else(|| self.changes.next().now_or_never().flatten())
    }

    /// The presence of the next change, which is a join.
    ///
    /// # Panics
    /// If another change arrives, or none.
    pub async fn added(&mut self) -> Arc<Presence> {
        match self.next().await.change {
            PresenceChange::Added(presence) => presence,
            other => panic!("a join was expected, but the change is {other:?}"),
        }
    }

    /// The presence of the next change, which is a leave of one presence.
    ///
    /// # Panics
    /// If another change arrives, or none.
    pub async fn removed(&mut self) -> Arc<Presence> {
        match self.next().await.change {
            PresenceChange::Removed(presence) => presence,
            other => panic!("a leave was expected, but the change is {other:?}"),
        }
    }

    /// The presence of the next change, which is an update of its user or meta.
    ///
    /// # Panics
    /// If another change arrives, or none.
    pub async fn updated(&mut self) -> Arc<Presence> {
        match self.next().await.change {
            PresenceChange::Updated(presence) => presence,
            other => panic!("an update was expected, but the change is {other:?}"),
        }
    }

    /// The presences of the next change, which is a removal of several at once.
    ///
    /// # Panics
    /// If another change arrives, or none.
    pub async fn bulk(&mut self) -> Vec<Arc<Presence>> {
        match self.next().await.change {
            PresenceChange::Bulk(presences) => presences,
            other => panic!("a bulk was expected, but the change is {other:?}"),
        }
    }

    /// Whether no change arrives within [`PATIENCE`]. A change that arrives is kept for the next call.
    pub async fn nothing(&mut self) -> bool {
        if self.kept.is_none() {
            self.kept = tokio::time::timeout(PATIENCE, self.changes.next()).await.ok().flatten();
        }
        self.kept.is_none()
    }
}
