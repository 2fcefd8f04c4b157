//! `presence_changed`: the events that an application receives for each change of each room.

mod leave_group;
mod queue;

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::{Message, Recipient};
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    model::{Delta, OnlineChanges, Presence},
    name::{RoomName, UserId},
};

use leave_group::{GroupMembers, OpenGroups};
use queue::EventQueue;

pub(crate) use leave_group::{LeaveGroup, WeakLeaveGroup};

/// How often a subscription without events checks whether its actor has stopped.
const STOPPED_ACTOR_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// An event: a room changed. Subscribe with [`Rooms::subscribe`](crate::Rooms::subscribe) or
/// [`Rooms::changes`](crate::Rooms::changes).
///
/// It is sent on the node that made the change, after the commit, at most once. It is missing if the node dies before that or is fenced,
/// or if the answer to a removal of orphaned presences is lost. Events about one presence or one channel come in order, and events
/// of one room in the order of its versions. A [`Bulk`](PresenceChange::Bulk) is sent when the last of its presences has left, which may
/// take several transactions. So it may come after later changes of other presences, and one with orphaned presences may also
/// come before earlier changes.
///
/// The events also have the users who went online and offline in the room. A user is reported offline with the last event about the
/// user's presences. If some of them are in a `Bulk` that is not complete, its first part is sent before the user is reported online
/// again. So applying the events in order yields the set of online users, except for a user who leaves and joins in one commit.
///
/// Each subscriber has a queue of [`CAPACITY`](Subscription::CAPACITY) events. A subscriber that is too slow loses its oldest events, and the
/// next event has their number. Other subscribers are not delayed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
#[non_exhaustive]
pub struct PresenceChanged {
    /// The room.
    pub room: RoomName,
    /// What happened.
    pub change: PresenceChange,
    /// How many events before this one the subscriber lost, because it was too slow.
    pub missed: u64,
    /// See [`user_online`](Self::user_online).
    pub(crate) online: Vec<UserId>,
    /// See [`user_offline`](Self::user_offline).
    pub(crate) offline: Vec<UserId>,
}

/// What happened in a room. It follows the signal `presence_changed` of django-channels-presence. But a bulk change lists the
/// presences, and a changed meta or user is an event, too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceChange {
    /// A presence joined.
    Added(Arc<Presence>),
    /// A presence left on its own.
    Removed(Arc<Presence>),
    /// The user or meta of a presence changed. This is the presence after the change.
    Updated(Arc<Presence>),
    /// These presences were removed together: they were stale, their grace had expired, their node was dead, or their user or
    /// room was removed. One prune, sweep, shutdown or removal sends one event for the room. It sends more than one only if one of the
    /// presences or users joins again meanwhile, if it takes longer than `store_timeout`, or if orphaned presences are in more than 512
    /// rooms.
    Bulk(Vec<Arc<Presence>>),
}

impl PresenceChanged {
    /// The presence that joined, if one did.
    #[must_use]
    pub const fn added(&self) -> Option<&Arc<Presence>> {
        if let PresenceChange::Added(presence) = &self.change { Some(presence) } else { None }
    }

    /// The presence that left on its own, if one did.
    #[must_use]
    pub const fn removed(&self) -> Option<&Arc<Presence>> {
        if let PresenceChange::Removed(presence) = &self.change { Some(presence) } else { None }
    }

    /// Whether presences were removed together.
    #[must_use]
    pub const fn bulk_change(&self) -> bool {
        matches!(self.change, PresenceChange::Bulk(_))
    }

    /// The user who went online in the room with this change: whose first presence on all nodes this is. At most one, with an `Added`
    /// or an `Updated`.
    ///
    /// Presences are counted in the transaction of the change, so of several tabs that join at once, exactly one is the first, even on
    /// different nodes. A held presence counts, so a hold and a resume change nothing. Each user is reported once. It is not reported
    /// if the event is missing, or if the change was on its way to the database when the process got its first subscriber.
    #[must_use]
    pub fn user_online(&self) -> &[UserId] {
        &self.online
    }

    /// The users who went offline in the room with this change: at most one with a `Removed` or an `Updated`, and any number with a
    /// `Bulk`. They are reported like [`user_online`](Self::user_online), with the last event about the user's presences. If some of these
    /// are in a `Bulk` that is not complete, the user is reported with the `Bulk`.
    #[must_use]
    pub fn user_offline(&self) -> &[UserId] {
        &self.offline
    }
}

/// Sends the events of a node to its subscribers.
#[derive(Debug, Default)]
pub(crate) struct EventPublisher(Arc<Mutex<Subscribers>>);

#[derive(Debug, Default)]
struct Subscribers {
    all: Vec<Arc<EventQueue>>,
    /// The subscribers of one room. A room without subscribers is removed.
    rooms: HashMap<RoomName, Vec<Arc<EventQueue>>>,
    groups: OpenGroups,
}

impl Subscribers {
    fn of(&self, room: &RoomName) -> impl Iterator<Item = &Arc<EventQueue>> {
        self.rooms.get(room).into_iter().flatten().chain(&self.all)
    }

    fn send(&self, room: &RoomName, change: PresenceChange, online: Vec<UserId>, offline: Vec<UserId>) {
        let event = Arc::new(PresenceChanged { room: room.clone(), change, missed: 0, online, offline });
        self.of(room).for_each(|queue| queue.push(event.clone()));
    }

    /// Sends the presences of a group that have left so far.
    fn send_group(&mut self, room: &RoomName, group: u64) {
        if let Some((left, offline)) = self.groups.take(room, group) {
            self.send(room, PresenceChange::Bulk(left), Vec::new(), offline);
        }
    }

    /// Sends a change of one presence.
    fn send_one(&mut self, room: &RoomName, change: PresenceChange, online: Option<&UserId>, offline: Option<&UserId>) {
        let offline = offline.and_then(|user| self.groups.offline(room, user));
        self.send(room, change, online.into_iter().cloned().collect(), offline.into_iter().cloned().collect());
    }
}

impl EventPublisher {
    pub(crate) fn subscribe(&self, room: Option<RoomName>) -> Subscription {
        let queue = Arc::new(EventQueue::default());
        let mut subscribers = self.0.lock();
        match &room {
            None => subscribers.all.push(queue.clone()),
            Some(room) => subscribers.rooms.entry(room.clone()).or_default().push(queue.clone()),
        }
        Subscription { queue, room, subscribers: self.0.clone() }
    }

    /// How many rooms have subscribers.
    #[cfg(test)]
    pub(crate) fn subscribed_rooms(&self) -> usize {
        self.0.lock().rooms.len()
    }

    /// Begins a group of presences that leave this room together, in one or more transactions. They become one event.
    pub(crate) fn leave_group(&self, room: &RoomName) -> LeaveGroup {
        LeaveGroup::new(&self.0, room)
    }

    /// Sends the changes of a commit, with the users who went online or offline. Presences with a `group` are collected there; each other
    /// change is an event.
    pub(crate) fn announce<'a>(
        &self,
        room: &RoomName,
        delta: &Delta,
        OnlineChanges { online, offline }: &OnlineChanges,
        group: impl Fn(&Presence) -> Option<&'a LeaveGroup>,
    ) {
        // All events are sent under the lock, so that all subscribers receive them in the same order.
        let mut subscribers = self.0.lock();
        let has_subscribers = subscribers.of(room).next().is_some();
        let (mut alone, mut grouped) = (Vec::new(), Vec::new());
        for presence in delta.left.iter().filter(|_| has_subscribers) {
            match group(presence) {
                None => alone.push(presence),
                Some(group) => grouped.push((group.number(), presence)),
            }
        }
        subscribers.groups.add(room, &grouped, offline);
        // A channel may leave and join again in one commit. A subscriber with a list of channels must receive the join last.
        for presence in alone {
            subscribers.send_one(room, PresenceChange::Removed(presence.clone()), None, offline.get(&presence.id));
        }
        // Even without subscribers: a later subscriber must not receive the leave of a presence that has joined again.
        let back = || delta.updated.iter().chain(&delta.joined);
        let is_back = |left: &mut GroupMembers| {
            back().any(|one| left.contains(one)) || online.values().any(|user| left.has_user(user))
        };
        for group in subscribers.groups.matching(room, is_back) {
            subscribers.send_group(room, group);
        }
        if !has_subscribers {
            return;
        }
        for presence in &delta.updated {
            let (comes, goes) = (online.get(&presence.id), offline.get(&presence.id));
            subscribers.send_one(room, PresenceChange::Updated(presence.clone()), comes, goes);
        }
        for presence in &delta.joined {
            subscribers.send_one(room, PresenceChange::Added(presence.clone()), online.get(&presence.id), None);
        }
    }
}

impl Drop for EventPublisher {
    fn drop(&mut self) {
        // Groups that are dropped later must not send anything.
        let Subscribers { all, rooms, .. } = std::mem::take(&mut *self.0.lock());
        all.iter().chain(rooms.values().flatten()).for_each(|queue| queue.end());
    }
}

/// The changes of all rooms, or of one room, since the subscription began. An empty queue takes no memory.
///
/// It is a [`Stream`], too, of the same events.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<EventQueue>,
    /// `None` for all rooms.
    room: Option<RoomName>,
    subscribers: Arc<Mutex<Subscribers>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.subscribers.lock();
        let others = |queues: &mut Vec<Arc<EventQueue>>| queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        let Some(room) = &self.room else { return others(&mut subscribers.all) };
        if let Some(here) = subscribers.rooms.get_mut(room) {
            others(here);
            if here.is_empty() {
                subscribers.rooms.remove(room);
            }
        }
    }
}

impl Stream for Subscription {
    type Item = PresenceChanged;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PresenceChanged>> {
        self.queue.poll_next(cx)
    }
}

impl Subscription {
    /// How many events one subscriber can queue. Then the oldest are lost.
    pub const CAPACITY: usize = 1024;

    /// The next change. Its `missed` is the number of events that were lost before it. `None` when the rooms are dropped.
    pub async fn next(&mut self) -> Option<PresenceChanged> {
        poll_fn(|cx| self.queue.poll_next(cx)).await
    }

    /// Sends each event to an actor, one after the other: the next one when the actor has handled the one before. When the node is
    /// ending, this returns after the last queued event.
    pub(crate) async fn forward(mut self, recipient: Recipient<PresenceChanged>, mut ending: watch::Receiver<bool>) {
        // A handler that panicked has closed its mailbox. That ends only its own subscription.
        while recipient.connected() {
            tokio::select! {
                biased;
                event = self.next() => match event {
                    None => return,
                    Some(event) => drop(recipient.send(event).await),
                },
                // Resolves as well when the rooms are dropped.
                () = async { drop(ending.wait_for(|ending| *ending).await) } => return,
                // Without events, only this notices that the actor has stopped.
                () = tokio::time::sleep(STOPPED_ACTOR_CHECK_INTERVAL) => {}
            }
        }
    }
}
