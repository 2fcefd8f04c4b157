//! `presence_changed`: what an application hears of every change of every room.

mod queue;
mod together;

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    model::{Delta, OnlineChanges, Presence},
    name::{RoomName, UserId},
};

use queue::Queue;
use together::{Gathered, Left};

pub(crate) use together::{Together, Unfinished};

/// How often it is looked whether an actor that hears nothing is still there.
const LOOK: Duration = Duration::from_secs(10);

/// A room changed: what a subscriber gets, by [`Rooms::subscribe`](crate::Rooms::subscribe) or
/// [`Rooms::changes`](crate::Rooms::changes).
///
/// It is fired on the node that made the change, after the commit, at most once; it is missing if the node dies in between or is
/// taken for dead, or the answer is lost to a removal of presences that no live node answers for. Events about one presence, or one channel, come in order, and those of one room in the
/// order of its versions. A [`Bulk`](PresenceChange::Bulk) comes when the last of those who leave together has left, in as many
/// transactions as that takes, so it may come after later changes of others; of presences that no live node answers for it may
/// also overtake others.
///
/// With the events comes which users came online in the room and which went offline. That a user is offline is told with the
/// last event about its presences, and a `Bulk` that holds some of them is told, as far as it has come, before the user comes
/// online again. So whoever keeps a set of the users who are online, event by event, has all whose presences were told; and
/// nobody else, but who leaves and comes in one commit.
///
/// Every subscriber has a queue of its own of [`CAPACITY`](Subscription::CAPACITY) events; one that is too slow loses the oldest of its own events, and
/// the next one it gets says how many. Nobody else is delayed.
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
    /// See [`user_online`](Self::user_online).
    pub(crate) online: Vec<UserId>,
    /// See [`user_offline`](Self::user_offline).
    pub(crate) offline: Vec<UserId>,
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
    /// room was removed. One event for all that one prune, sweep, shutdown or removal takes out of the room; more than one only
    /// if one of them or its user came back meanwhile, if it takes longer than `store_timeout`, or if those that no live node
    /// answers for are in more than 512 rooms.
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

    /// The user whose first presence in the room came with this change, on whichever node the others may be: at most one, by
    /// an `Added` or an `Updated`.
    ///
    /// It is counted in the transaction that made the change, so of tabs that come at once one is the first, whatever their
    /// nodes. One that is held is present: neither a hold nor a resume is a coming or a going. Each is told once, or never: not
    /// if its event is missing, nor if the change was on its way to the database when the very first subscriber of the process
    /// came.
    #[must_use]
    pub fn user_online(&self) -> &[UserId] {
        &self.online
    }

    /// The users whose last presence in the room went with this change: at most one by a `Removed` or an `Updated`, any number
    /// by a `Bulk`. Told like [`user_online`](Self::user_online), with the last event about the user's presences: if some of
    /// them are to be told in a `Bulk`, with that.
    #[must_use]
    pub fn user_offline(&self) -> &[UserId] {
        &self.offline
    }
}

/// Those who want to know of changes.
#[derive(Debug, Default)]
pub(crate) struct Signals(Arc<Mutex<Subscribers>>);

#[derive(Debug, Default)]
struct Subscribers {
    all: Vec<Arc<Queue>>,
    /// Those of one room, as long as there are any.
    rooms: HashMap<RoomName, Vec<Arc<Queue>>>,
    gathered: Gathered,
}

impl Subscribers {
    fn of(&self, room: &RoomName) -> impl Iterator<Item = &Arc<Queue>> {
        self.rooms.get(room).into_iter().flatten().chain(&self.all)
    }

    fn tell(&self, room: &RoomName, change: PresenceChange, online: Vec<UserId>, offline: Vec<UserId>) {
        let event = Arc::new(PresenceChanged { room: room.clone(), change, missed: 0, online, offline });
        self.of(room).for_each(|queue| queue.push(event.clone()));
    }

    /// Tells who left with a group so far.
    fn tell_group(&mut self, room: &RoomName, group: u64) {
        if let Some((left, offline)) = self.gathered.take(room, group) {
            self.tell(room, PresenceChange::Bulk(left), Vec::new(), offline);
        }
    }

    /// Tells a change of one presence.
    fn tell_one(&mut self, room: &RoomName, change: PresenceChange, online: Option<&UserId>, offline: Option<&UserId>) {
        let offline = offline.and_then(|user| self.gathered.offline(room, user));
        self.tell(room, change, online.into_iter().cloned().collect(), offline.into_iter().cloned().collect());
    }
}

impl Signals {
    pub(crate) fn subscribe(&self, room: Option<RoomName>) -> Subscription {
        let queue = Arc::new(Queue::default());
        let mut subscribers = self.0.lock();
        match &room {
            None => subscribers.all.push(queue.clone()),
            Some(room) => subscribers.rooms.entry(room.clone()).or_default().push(queue.clone()),
        }
        Subscription { queue, room, subscribers: self.0.clone() }
    }

    /// How many rooms somebody wants to know of.
    #[cfg(test)]
    pub(crate) fn rooms_heard(&self) -> usize {
        self.0.lock().rooms.len()
    }

    /// Makes those one event who leave this room together, in whichever transactions.
    pub(crate) fn together(&self, room: &RoomName) -> Together {
        Together::new(&self.0, room)
    }

    /// Tells what a commit changed, and who came online or went offline by it. Those for whom there is a `together` are
    /// gathered there; each other change is an event of its own.
    pub(crate) fn announce<'a>(
        &self,
        room: &RoomName,
        delta: &Delta,
        OnlineChanges { online, offline }: &OnlineChanges,
        together: impl Fn(&Presence) -> Option<&'a Together>,
    ) {
        // Under the lock, so that all hear the events of a room in one order.
        let mut subscribers = self.0.lock();
        let somebody_hears = subscribers.of(room).next().is_some();
        let (mut alone, mut gathered) = (Vec::new(), Vec::new());
        for presence in delta.left.iter().filter(|_| somebody_hears) {
            match together(presence) {
                None => alone.push(presence),
                Some(together) => gathered.push((together.number(), presence)),
            }
        }
        subscribers.gathered.add(room, &gathered, offline);
        // A channel may leave and come anew in one commit: who keeps a list by channels must hear that last.
        for presence in alone {
            subscribers.tell_one(room, PresenceChange::Removed(presence.clone()), None, offline.get(&presence.id));
        }
        // Also if nobody hears it: who subscribes later must not be told that those left who are there.
        let back = || delta.updated.iter().chain(&delta.joined);
        let is_back =
            |left: &mut Left| back().any(|one| left.holds(one)) || online.values().any(|user| left.is_of(user));
        for group in subscribers.gathered.groups(room, is_back) {
            subscribers.tell_group(room, group);
        }
        if !somebody_hears {
            return;
        }
        for presence in &delta.updated {
            let (come, gone) = (online.get(&presence.id), offline.get(&presence.id));
            subscribers.tell_one(room, PresenceChange::Updated(presence.clone()), come, gone);
        }
        for presence in &delta.joined {
            subscribers.tell_one(room, PresenceChange::Added(presence.clone()), online.get(&presence.id), None);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Whoever is told something later is told nothing.
        let Subscribers { all, rooms, .. } = std::mem::take(&mut *self.0.lock());
        all.iter().chain(rooms.values().flatten()).for_each(|queue| queue.end());
    }
}

/// The changes of all rooms, or of one, from the moment of subscribing. What waits for it takes memory only while it waits.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    /// `None`: of all.
    room: Option<RoomName>,
    subscribers: Arc<Mutex<Subscribers>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.subscribers.lock();
        let others = |queues: &mut Vec<Arc<Queue>>| queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        let Some(room) = &self.room else { return others(&mut subscribers.all) };
        if let Some(here) = subscribers.rooms.get_mut(room) {
            others(here);
            if here.is_empty() {
                subscribers.rooms.remove(room);
            }
        }
    }
}

impl Subscription {
    /// How many events wait for one subscriber; one that is slower loses the oldest.
    pub const CAPACITY: usize = 1024;

    /// The next change, which says in `missed` how many were lost before it. `None` once the rooms are gone.
    pub async fn next(&mut self) -> Option<PresenceChanged> {
        self.queue.next().await
    }

    /// Gives each event to an actor, one after the other: the next one when it is done with the one before. Once it is the end
    /// of the node, it stops when none waits any more.
    pub(crate) async fn forward(mut self, recipient: Recipient<PresenceChanged>, mut ending: watch::Receiver<bool>) {
        // A handler that panicked has closed its mailbox: that ends its subscription, and only that.
        while recipient.connected() {
            tokio::select! {
                biased;
                event = self.next() => match event {
                    None => return,
                    Some(event) => drop(recipient.send(event).await),
                },
                // Also if the rooms are gone.
                () = async { drop(ending.wait_for(|ending| *ending).await) } => return,
                // Nothing happens, so nobody would notice that the actor has stopped.
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}
