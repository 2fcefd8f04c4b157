//! `presence_changed`: what an application hears of every change of every room.
//!
//! It is fired on the node that made the change, after the commit, at most once; it is missing if the node dies in between, or
//! the answer to the commit is lost. Events about one presence come in order, those of one room in the order of its versions,
//! save that a [`Bulk`](PresenceChange::Bulk) of presences that no live node answers for may overtake others.
//!
//! Every subscriber has a queue of its own of [`QUEUE`] events; one that is too slow loses the oldest of its own events, and
//! the next one it gets says how many. Nobody else is delayed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix::{Message, Recipient};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{
    model::{Delta, Presence},
    name::RoomName,
};

/// How many events wait for one subscriber before it loses the oldest.
pub const QUEUE: usize = 1024;
/// How often it is looked whether an actor that hears nothing is still there.
const LOOK: Duration = Duration::from_secs(10);

/// A room changed: what a subscriber gets, by [`Rooms::subscribe`](crate::Rooms::subscribe) or
/// [`Rooms::changes`](crate::Rooms::changes). See the [module](self) for when.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
#[non_exhaustive]
pub struct PresenceChanged {
    /// Where.
    pub room: RoomName,
    /// What happened.
    pub change: PresenceChange,
    /// How many events this subscriber lost just before this one, because it was too slow.
    pub missed: u64,
}

/// What happened in a room. As the signal `presence_changed` of django-channels-presence, but a bulk change says who left,
/// and a changed meta or user is an event of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceChange {
    /// A presence joined.
    Added(Arc<Presence>),
    /// A presence left by itself.
    Removed(Arc<Presence>),
    /// A presence has another user or meta now; here as it is now.
    Updated(Arc<Presence>),
    /// These presences were removed together: they were stale, their grace was over, their node was gone, or their user or
    /// room was removed. One event for all that one transaction removed from the room.
    Bulk(Vec<Arc<Presence>>),
}

impl PresenceChanged {
    /// The presence that joined, if this is about one.
    #[must_use]
    pub const fn added(&self) -> Option<&Arc<Presence>> {
        if let PresenceChange::Added(presence) = &self.change { Some(presence) } else { None }
    }

    /// The presence that left by itself, if this is about one.
    #[must_use]
    pub const fn removed(&self) -> Option<&Arc<Presence>> {
        if let PresenceChange::Removed(presence) = &self.change { Some(presence) } else { None }
    }

    /// Whether presences were removed together.
    #[must_use]
    pub const fn bulk_change(&self) -> bool {
        matches!(self.change, PresenceChange::Bulk(_))
    }
}

/// Those who want to know of changes.
#[derive(Debug)]
pub(crate) struct Signals {
    all: broadcast::Sender<PresenceChanged>,
    rooms: ByRoom,
}

/// Those who want to know of one room, as long as there are any.
type ByRoom = Arc<Mutex<HashMap<RoomName, broadcast::Sender<PresenceChanged>>>>;

fn lock(rooms: &ByRoom) -> MutexGuard<'_, HashMap<RoomName, broadcast::Sender<PresenceChanged>>> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Signals {
    fn default() -> Self {
        Self { all: broadcast::Sender::new(QUEUE), rooms: ByRoom::default() }
    }
}

impl Signals {
    pub(crate) fn subscribe(&self, room: Option<RoomName>) -> Subscription {
        let Some(room) = room else { return Subscription { events: self.all.subscribe(), missed: 0, of: None } };
        let mut rooms = lock(&self.rooms);
        let events = rooms.entry(room.clone()).or_insert_with(|| broadcast::Sender::new(QUEUE)).subscribe();
        Subscription { events, missed: 0, of: Some((self.rooms.clone(), room)) }
    }

    /// How many rooms somebody wants to know of.
    #[cfg(test)]
    pub(crate) fn rooms_heard(&self) -> usize {
        lock(&self.rooms).len()
    }

    /// Tells what a commit changed. Those for whom `pruned` holds left together; each other change is an event of its own.
    pub(crate) fn announce(&self, room: &RoomName, delta: &Delta, pruned: impl Fn(&Presence) -> bool) {
        let rooms = lock(&self.rooms);
        let here = rooms.get(room);
        if here.is_none() && self.all.receiver_count() == 0 {
            return;
        }
        let tell = |change| {
            let event = PresenceChanged { room: room.clone(), change, missed: 0 };
            // An error only says that nobody listens just now.
            let _ = here.map(|here| here.send(event.clone()));
            let _ = self.all.send(event);
        };
        let (bulk, left): (Vec<_>, Vec<_>) = delta.left.iter().cloned().partition(|presence| pruned(presence));
        delta.joined.iter().cloned().map(PresenceChange::Added).for_each(tell);
        delta.updated.iter().cloned().map(PresenceChange::Updated).for_each(tell);
        left.into_iter().map(PresenceChange::Removed).for_each(tell);
        if !bulk.is_empty() {
            tell(PresenceChange::Bulk(bulk));
        }
    }
}

/// The changes of all rooms, or of one, from the moment of subscribing.
#[derive(Debug)]
pub struct Subscription {
    events: broadcast::Receiver<PresenceChanged>,
    missed: u64,
    /// Where it is kept, if it is of one room only.
    of: Option<(ByRoom, RoomName)>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some((rooms, room)) = &self.of {
            let mut rooms = lock(rooms);
            // This one still counts.
            if rooms.get(room).is_some_and(|here| here.receiver_count() <= 1) {
                rooms.remove(room);
            }
        }
    }
}

impl Subscription {
    /// The next change, which says in `missed` how many were lost before it. `None` once the rooms are gone.
    pub async fn next(&mut self) -> Option<PresenceChanged> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(PresenceChanged { missed: std::mem::take(&mut self.missed), ..event }),
                Err(RecvError::Lagged(missed)) => self.missed += missed,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Gives each event to an actor, one after the other: the next one when it is done with the one before.
    pub(crate) async fn forward(mut self, recipient: Recipient<PresenceChanged>) {
        // A handler that panicked has closed its mailbox: that ends its subscription, and only that.
        while recipient.connected() {
            match tokio::time::timeout(LOOK, self.next()).await {
                Ok(None) => return,
                Ok(Some(event)) => drop(recipient.send(event).await),
                // Nothing happens, so nobody would notice that the actor has stopped.
                Err(_) => {}
            }
        }
    }
}
