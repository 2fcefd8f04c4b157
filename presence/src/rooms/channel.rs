//! One channel: which rooms it is in, and how it joins and leaves them.
//!
//! Calls of its consumer and calls from outside both go through this file, so that both see the same memberships.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    Error, Result, ResumeToken, Rooms,
    delivery::{HubRef, Touch},
    model::{Close, Meta, Presence},
    name::{ChannelName, NodeId, PresenceId, RoomName, UserId},
    room::{Entrant, Farewell},
    session::Session,
    telemetry::report,
};

use super::{
    membership::Pending,
    updates::{Next, Offered, Updates},
};

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    name: ChannelName,
    touch: Touch,
    /// `None` if no socket of this process belongs to it.
    hub: Option<HubRef>,
    joined: Mutex<HashMap<RoomName, Membership>>,
    /// Lock order: `joined` may be locked while this is locked, but not the other way around.
    updates: Mutex<Updates>,
    closed: AtomicBool,
    /// The token with which its client can resume the presences that join from now on.
    resume: Mutex<Option<ResumeToken>>,
    end: OnceLock<End>,
}

/// What the end of a socket means for its presences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The presences leave.
    Left,
    /// The presences that can be resumed are held, and the others leave.
    Lost,
}

#[derive(Debug, Clone)]
struct Membership {
    id: PresenceId,
    /// For how long the presence is held if its socket is lost; `None` if it cannot be resumed.
    grace: Option<Duration>,
    /// Notified when the join is over; `None` if it is over already.
    joining: Option<Arc<Notify>>,
    /// Whether the presence was resumed with the token.
    is_resumed: bool,
}

/// The options of a join. Each option is for this join only.
///
/// ```
/// use std::time::Duration;
/// use presence::{JoinOptions, Meta, RoomName, Socket};
/// use serde_json::json;
///
/// async fn sit_down(socket: &Socket, table: &RoomName) -> presence::Result<()> {
///     let status = Meta::new(&json!({ "status": "free" }))?;
///     let options = JoinOptions::new().meta(status).grace(Duration::from_secs(30)).limit(4);
///     socket.join_with(table, options).await
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct JoinOptions {
    meta: Meta,
    grace: Option<Duration>,
    limit: Option<usize>,
}

impl JoinOptions {
    /// An empty meta, the setting `grace`, and no limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first meta: the other members see it with the join. A presence that is resumed, or is in the room already, keeps the meta that
    /// it has.
    pub fn meta(mut self, meta: Meta) -> Self {
        self.meta = meta;
        self
    }

    /// For how long the presence is held if it has a [resume token](crate::Socket::set_resume_token) and its socket is lost, instead of the
    /// setting `grace`. With zero it leaves at once. It may be at most `max_age`. A presence that is in the room already keeps the grace
    /// that it has.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Joins only if the room then has at most this number of presences. Each socket counts, so a user with two tabs counts twice. A held
    /// presence counts until its grace is over. A socket that returns with the resume token always succeeds, and so does one that is in
    /// the room already.
    ///
    /// The database decides, so the limit is exact for all nodes together, also if many sockets join at once. It limits this call only: a
    /// join without a limit does not check the number, but is counted. The join resolves when the presence is durable, also with
    /// [`Durability::Relaxed`](crate::Durability::Relaxed).
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// The three ways in which a join begins.
enum Begun<F, G> {
    Joining(PresenceId, F),
    /// The channel is in the room already, as this presence. It is touched, and its user is set.
    AlreadyIn(PresenceId, G),
    /// Another join of the channel to the room is under way. This is notified when that join is over.
    UnderWay(Arc<Notify>),
}

impl Channel {
    pub(super) fn new(name: ChannelName, touch: Touch, hub: Option<HubRef>) -> Self {
        Self {
            name,
            touch,
            hub,
            joined: Mutex::default(),
            updates: Mutex::default(),
            closed: AtomicBool::new(false),
            resume: Mutex::default(),
            end: OnceLock::new(),
        }
    }

    pub(crate) const fn name(&self) -> &ChannelName {
        &self.name
    }

    pub(crate) const fn touch(&self) -> &Touch {
        &self.touch
    }

    fn joined(&self) -> MutexGuard<'_, HashMap<RoomName, Membership>> {
        self.joined.lock()
    }

    fn updates(&self) -> MutexGuard<'_, Updates> {
        self.updates.lock()
    }

    pub(crate) fn is_in(&self, room: &RoomName) -> bool {
        self.joined().contains_key(room)
    }

    /// The rooms that the channel is in or is joining.
    pub(crate) fn rooms(&self) -> Vec<RoomName> {
        self.joined().keys().cloned().collect()
    }

    /// Whether the channel is in the room as a presence that was resumed with the token.
    pub(crate) fn has_resumed(&self, room: &RoomName) -> bool {
        self.joined().get(room).is_some_and(|now| now.is_resumed)
    }

    /// Records that the join with this presence id resumed a presence.
    pub(super) fn note_resumed(&self, room: &RoomName, id: PresenceId) {
        if let Some(now) = self.joined().get_mut(room).filter(|now| now.id == id) {
            now.is_resumed = true;
        }
    }

    /// Whether the channel is in the room, or is joining it, as this presence.
    pub(super) fn has(&self, room: &RoomName, id: PresenceId) -> bool {
        self.joined().get(room).is_some_and(|now| now.id == id)
    }

    /// Whether the channel is in no room and has no socket.
    pub(super) fn is_unused(&self) -> bool {
        self.hub.is_none() && self.joined().is_empty()
    }

    /// Records a membership without a join, so that a test can make the channel and the room disagree.
    #[cfg(test)]
    pub(super) fn considers_itself_in(&self, room: &RoomName, id: PresenceId) {
        self.joined().insert(room.clone(), Membership { id, grace: None, joining: None, is_resumed: false });
    }

    /// Removes the membership of this presence, and returns whether there was one.
    pub(super) fn forget(&self, room: &RoomName, id: PresenceId) -> bool {
        let was_in = match self.joined().entry(room.clone()) {
            Entry::Occupied(membership) if membership.get().id == id => {
                membership.remove();
                true
            }
            _ => false,
        };
        self.take_update(room, id);
        was_in
    }

    /// Takes the update of this presence that is pending or is being written.
    pub(super) fn take_update(&self, room: &RoomName, id: PresenceId) -> Option<Meta> {
        self.updates().take(room, id)
    }

    /// Joins the room as `user`. If the channel is in the room already, it is touched and its user is set.
    pub(crate) async fn join(
        &self,
        rooms: &Rooms,
        room: &RoomName,
        user: Option<&UserId>,
        options: JoinOptions,
    ) -> Result<()> {
        let max_age = rooms.config().max_age();
        if let Some(grace) = options.grace.filter(|grace| *grace > max_age) {
            return Err(Error::GraceTooLong { grace, max_age });
        }
        // Two joins of one room at a time become one join: the second waits until the first is over, and then looks again.
        let (id, answer) = loop {
            match self.begin_join(rooms, room, user, &options)? {
                Begun::Joining(id, answer) => break (id, answer),
                Begun::AlreadyIn(id, answer) => {
                    match answer.await {
                        // The presence was removed while its user was being set.
                        Err(Error::NotInRoom { room }) => return Err(Error::LeftWhileJoining { room }),
                        answer => answer?,
                    }
                    return self.check_stayed(rooms, room, id);
                }
                Begun::UnderWay(over) => {
                    let notified = over.notified();
                    tokio::pin!(notified);
                    notified.as_mut().enable();
                    // Only this join counts: a join that began after it has a `Notify` of its own.
                    let this = |now: &Membership| now.joining.as_ref().is_some_and(|now| Arc::ptr_eq(now, &over));
                    let under_way = self.joined().get(room).is_some_and(this);
                    if under_way {
                        notified.await;
                    }
                }
            }
        };
        answer.await.inspect_err(|error| self.warn_if_strange(room, error))?;
        self.check_stayed(rooms, room, id)
    }

    /// Records that a join is over. It changes nothing if the channel has left meanwhile, also if it is joining again.
    pub(super) fn join_ended(&self, room: &RoomName, id: PresenceId, is_in: bool) {
        if let Entry::Occupied(mut membership) = self.joined().entry(room.clone())
            && membership.get().id == id
        {
            if is_in {
                membership.get_mut().joining = None;
            } else {
                membership.remove();
            }
        }
    }

    /// Logs a warning if the database already has the name of a socket in the room: each socket has a new name, so that should not happen.
    fn warn_if_strange(&self, room: &RoomName, error: &Error) {
        if let Error::StoreRefused(error) = error
            && self.hub.is_some()
            && error.is_channel_taken()
        {
            warn!(%room, channel = %self.name, "a socket is in the store already, as another presence");
        }
    }

    /// Sets the user of the presences of this channel, in every room that it is in. It does not join again a room that it leaves meanwhile.
    pub(crate) async fn set_user(&self, rooms: &Rooms, user: Option<&UserId>) -> Result<()> {
        let memberships: Vec<_>;
        let answers: Vec<_> = {
            let joined = self.joined();
            // A join that is under way keeps the user with which it was requested.
            let there = joined.iter().filter(|(_, one)| one.joining.is_none());
            memberships = there.map(|(room, one)| (room.clone(), one.id)).collect();
            // The messages are sent under the lock, so that a room receives them before a later leave.
            let asked = memberships.iter().map(|(room, id)| rooms.join_again(room, self.entrant(rooms, *id, user)));
            asked.collect()
        };
        let was_removed = |error: &Error| matches!(error, Error::NotInRoom { .. } | Error::LeftWhileJoining { .. });
        join_all(answers).await.into_iter().filter(|answer| !answer.as_ref().is_err_and(was_removed)).collect()
    }

    /// The join request of this channel with this presence id, without a resume token and without a limit.
    fn entrant(&self, rooms: &Rooms, id: PresenceId, user: Option<&UserId>) -> Entrant {
        // This is a placeholder: the writer sets the incarnation of the node that is current when the join is written.
        let node = rooms.node().unwrap_or(NodeId::from_uuid(Uuid::nil()));
        let presence = Arc::new(Presence::new(id, self.name.clone(), user.cloned(), node));
        Entrant { presence, session: None, limit: None, hub: self.hub.clone(), touch: self.touch.clone() }
    }

    /// Fails if the channel was removed from the room while it joined, and makes the presence leave: the removal counts as the later one.
    fn check_stayed(&self, rooms: &Rooms, room: &RoomName, id: PresenceId) -> Result<()> {
        if self.joined().get(room).is_none_or(|now| now.id != id) {
            rooms.leave_at_once(room, id, &self.name);
            return Err(Error::LeftWhileJoining { room: room.clone() });
        }
        Ok(())
    }

    /// Begins a join if the channel is not in the room. The check and the message to the room happen under one lock, so that two callers
    /// cannot both begin a join, and the room receives joins and leaves in the order in which the channel made them.
    fn begin_join<'a>(
        &'a self,
        rooms: &'a Rooms,
        room: &'a RoomName,
        user: Option<&UserId>,
        options: &JoinOptions,
    ) -> Result<Begun<impl Future<Output = Result<()>> + 'a, impl Future<Output = Result<()>> + 'a>> {
        let max_rooms = rooms.0.node.config.max_rooms_per_socket();
        let mut joined = self.joined();
        match joined.get(room) {
            Some(Membership { joining: Some(over), .. }) => return Ok(Begun::UnderWay(over.clone())),
            Some(Membership { id, joining: None, .. }) => {
                self.touch.mark(rooms.0.node.now());
                return Ok(Begun::AlreadyIn(*id, rooms.join_again(room, self.entrant(rooms, *id, user))));
            }
            None => {}
        }
        if self.closed.load(Ordering::Acquire) || self.end.get().is_some() {
            return Err(Error::SocketClosed);
        }
        if joined.len() >= max_rooms {
            debug!(%room, channel = %self.name, limit = max_rooms, "a join is refused: the socket is in too many rooms");
            return Err(Error::TooManyRooms { limit: max_rooms });
        }
        let (id, over) = (PresenceId::random(), Arc::new(Notify::new()));
        let grace = options.grace.unwrap_or(rooms.0.node.config.grace());
        let token = self.resume.lock().clone();
        let session = token.map(|token| Session { hash: token.hash(room, user), grace });
        let grace = session.map(|session| session.grace);
        joined.insert(room.clone(), Membership { id, grace, joining: Some(over.clone()), is_resumed: false });
        self.touch.mark(rooms.0.node.now());
        let entrant = self.entrant(rooms, id, user);
        let presence = Arc::new(entrant.presence.changed(None, Some(options.meta.clone())));
        let entrant = Entrant { presence, session, limit: options.limit, ..entrant };
        let answer = rooms.join(room, entrant, Some(Pending { channel: self, over }));
        drop(joined);
        Ok(Begun::Joining(id, answer))
    }

    /// Leaves the room at the request of its own consumer. If it is not in the room, nothing happens.
    pub(crate) async fn leave(&self, rooms: &Rooms, room: &RoomName) -> Result<()> {
        self.leave_with(rooms, room, || None).await.map(drop)
    }

    /// Leaves every room at the request of its own consumer.
    pub(crate) async fn leave_all(&self, rooms: &Rooms) -> Result<()> {
        self.leave_all_with(rooms, || None).await.map(drop)
    }

    /// Removes the channel from the room, or from all rooms, at the request of another part of the application. Its socket is notified, or
    /// closed if there is a `close`. Returns the number of rooms that it was in.
    pub(super) async fn remove(&self, rooms: &Rooms, room: Option<&RoomName>, close: Option<&Close>) -> Result<usize> {
        let farewell = || self.hub.as_ref().map(|hub| Farewell::new(hub.clone(), close.cloned()));
        match room {
            Some(room) => self.leave_with(rooms, room, farewell).await.map(usize::from),
            None => self.leave_all_with(rooms, farewell).await,
        }
    }

    /// Returns whether it was in the room.
    async fn leave_with(
        &self,
        rooms: &Rooms,
        room: &RoomName,
        farewell: impl Fn() -> Option<Farewell>,
    ) -> Result<bool> {
        let left = {
            let mut joined = self.joined();
            joined.remove(room).map(|one| (one.id, rooms.leave_with(room, one.id, &self.name, farewell())))
        };
        let Some((id, left)) = left else { return Ok(false) };
        self.take_update(room, id);
        left.await.map(|()| true)
    }

    /// Returns the number of rooms that it was in.
    async fn leave_all_with(&self, rooms: &Rooms, farewell: impl Fn() -> Option<Farewell>) -> Result<usize> {
        let memberships: HashMap<_, _>;
        let left: Vec<_> = {
            let mut joined = self.joined();
            memberships = std::mem::take(&mut *joined);
            memberships.iter().map(|(room, one)| rooms.leave_with(room, one.id, &self.name, farewell())).collect()
        };
        memberships.iter().for_each(|(room, one)| drop(self.take_update(room, one.id)));
        join_all(left).await.into_iter().collect::<Result<()>>()?;
        Ok(memberships.len())
    }

    /// Sets the token with which presences that join from now on can be resumed.
    pub(crate) fn set_resume_token(&self, token: Option<ResumeToken>) {
        *self.resume.lock() = token;
    }

    /// The shortest time for which a presence of this channel is held; `None` if none can be resumed.
    pub(crate) fn shortest_grace(&self) -> Option<Duration> {
        self.joined().values().filter_map(|membership| membership.grace).min()
    }

    /// Records how the socket ends. Only the first call counts. After it, every join of the channel fails.
    pub(crate) fn ends(&self, end: End) {
        let _ = self.end.set(end);
    }

    fn is_lost(&self) -> bool {
        self.end.get() == Some(&End::Lost)
    }

    /// Makes the presences of a socket that has ended leave, or lose their socket so that they are held.
    pub(crate) async fn depart(&self, rooms: &Rooms) -> Result<()> {
        self.write_last(rooms);
        if !self.is_lost() {
            return self.leave_all(rooms).await;
        }
        self.joined().drain().for_each(|(room, one)| rooms.lose(&room, one.id, &self.name));
        Ok(())
    }

    /// Writes the pending updates of presences that are about to be held. The updates of presences that leave are dropped.
    fn write_last(&self, rooms: &Rooms) {
        let last = self.updates().take_all();
        for (room, id, meta) in last.into_iter().filter(|_| self.is_lost()) {
            if self.has(&room, id) {
                rooms.update_at_once(&room, id, &self.name, meta);
            }
        }
    }

    /// As [`depart`](Self::depart), without waiting for it.
    pub(crate) fn depart_at_once(&self, rooms: &Rooms) {
        self.write_last(rooms);
        let mut joined = self.joined();
        // Another part of the program may still have this channel. From here on its joins fail.
        self.closed.store(true, Ordering::Release);
        for (room, membership) in joined.drain() {
            if self.is_lost() {
                rooms.lose(&room, membership.id, &self.name);
            } else {
                rooms.leave_at_once(&room, membership.id, &self.name);
            }
        }
    }

    /// Updates the presence in the room: at once, or later if the socket has used up its rate of updates.
    pub(crate) async fn update(self: &Arc<Self>, rooms: &Rooms, room: &RoomName, meta: Meta) -> Result<()> {
        let id = self.joined().get(room).map(|membership| membership.id);
        let Some(id) = id else { return Err(Error::NotInRoom { room: room.clone() }) };
        let (rate, now) = (rooms.0.node.config.update_rate(), rooms.0.node.now());
        let answer = {
            let mut updates = self.updates();
            match updates.offer((room.clone(), id, meta), rate, now) {
                Offered::Now(meta) => Some(rooms.update_presence(room, id, &self.name, meta, None)),
                Offered::Waits => None,
                Offered::WaitsAlone => {
                    debug!(%room, channel = %self.name, "updates come faster than they may be written; the last one waits");
                    actix::spawn(Arc::clone(self).write_updates(rooms.clone()));
                    None
                }
            }
        };
        match answer {
            Some(answer) => answer.await,
            None => Ok(()),
        }
    }

    /// Updates the presence in the room at once, at the request of another part of the application. A pending update of the socket itself
    /// is older: it is written only if this one is refused.
    pub(super) async fn update_for_another(&self, rooms: &Rooms, room: &RoomName, meta: Meta) -> Result<()> {
        let id = self.joined().get(room).map(|membership| membership.id);
        let Some(id) = id else { return Err(Error::NotInRoom { room: room.clone() }) };
        let answer = {
            // The room is asked within the lock, so that it receives updates in the order in which they were made.
            let mut updates = self.updates();
            let own = updates.take(room, id);
            rooms.update_presence(room, id, &self.name, meta, own)
        };
        answer.await
    }

    /// Writes the pending updates, as fast as the rate allows, until there are none.
    pub(super) async fn write_updates(self: Arc<Self>, rooms: Rooms) {
        let rate = rooms.0.node.config.update_rate();
        loop {
            let asked: RoomName;
            let next = {
                let mut updates = self.updates();
                match updates.next(rate, rooms.0.node.now(), |room, id| self.has(room, id)) {
                    Next::Nothing => return,
                    Next::In(wait) => Err(wait),
                    Next::Write((room, id, meta)) => {
                        asked = room.clone();
                        // Within the lock: otherwise it could follow a later one of somebody else, and overwrite it.
                        Ok((room, rooms.update_presence(&asked, id, &self.name, meta, None)))
                    }
                }
            };
            match next {
                Err(wait) => tokio::time::sleep(wait).await,
                Ok((room, answer)) => {
                    let result = answer.await;
                    let mut updates = self.updates();
                    if let Err(Error::Overloaded { .. }) = result {
                        // Nothing was written, and no other task would try this update again.
                        updates.put_back();
                    } else if updates.done()
                        && let Err(error) = result
                    {
                        debug!(%room, channel = %self.name, error = %report(&error), "an update that waited failed");
                    }
                }
            }
        }
    }

    /// An update of the presence in this room is pending.
    #[cfg(test)]
    pub(super) fn put_update(&self, room: &RoomName, meta: Meta) {
        let id = self.joined()[room].id;
        self.updates().put((room.clone(), id, meta));
    }

    /// Whether the updates are locked.
    #[cfg(test)]
    pub(super) fn is_updating(&self) -> bool {
        self.updates.try_lock().is_none()
    }
}
