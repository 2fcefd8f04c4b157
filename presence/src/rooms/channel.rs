//! One channel: which rooms it is in, and how it joins and leaves them.
//!
//! What is asked of a channel, by its consumer or from outside, goes through here, so that both see the same.

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
    delivery::{message::HubRef, touch::Touch},
    model::{Close, Meta, Presence},
    name::{ChannelName, NodeId, PresenceId, RoomName, UserId},
    room::{leaving::Farewell, message::Entrant},
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
    /// `joined` may be locked within it, and it never within `joined`.
    updates: Mutex<Updates>,
    closed: AtomicBool,
    /// By what its client can resume its presences.
    resume: Mutex<Option<ResumeToken>>,
    end: OnceLock<End>,
}

/// What the end of a socket means for its presences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// They leave.
    Left,
    /// Those that can be resumed are held.
    Lost,
}

#[derive(Debug, Clone)]
struct Membership {
    id: PresenceId,
    /// How long it is held, if it can be resumed.
    grace: Option<Duration>,
    /// Told when the join is over, if it is still under way.
    joining: Option<Arc<Notify>>,
    /// It was taken over with the resume token.
    is_resumed: bool,
}

/// What a join asks for besides the room and the user. Each option is for this join only.
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

    /// The first meta: the others see it with the join. A presence that is resumed keeps the meta that it has, which is the last one
    /// that its client sent, and so does one that is in the room already.
    pub fn meta(mut self, meta: Meta) -> Self {
        self.meta = meta;
        self
    }

    /// How long the presence is held, if it has a [resume token](crate::Socket::set_resume_token) and its socket is lost, instead of the
    /// setting. With zero it leaves at once. It is at most `max_age`. One that is in the room already keeps the grace that it has.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Joins only if the room then has at most this number of presences. Each socket takes a place, so a user with two tabs has two.
    /// One that is held keeps its place for its grace. A socket that returns with the resume token gets in, however full the room is;
    /// so does one that is in the room already.
    ///
    /// The database decides, so it is exact for all nodes together: if many come at once, as many get in as there are places. It
    /// limits this call only: a plain join does not check for a place, but takes one. The join resolves when the presence is durable,
    /// also with [`Durability::Relaxed`](crate::Durability::Relaxed).
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// How a join begins.
enum Begun<F, G> {
    Joining(PresenceId, F),
    /// It is in already, as this presence, and is touched, and becomes this user's.
    Again(PresenceId, G),
    /// It is joining, and this is told when that is over.
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

    /// The rooms that it is in or joins.
    pub(crate) fn rooms(&self) -> Vec<RoomName> {
        self.joined().keys().cloned().collect()
    }

    /// Whether it is in the room as a presence that it took over with the resume token.
    pub(crate) fn has_resumed(&self, room: &RoomName) -> bool {
        self.joined().get(room).is_some_and(|now| now.is_resumed)
    }

    /// The join that asked as this presence took one over.
    pub(super) fn note_resumed(&self, room: &RoomName, id: PresenceId) {
        if let Some(now) = self.joined().get_mut(room).filter(|now| now.id == id) {
            now.is_resumed = true;
        }
    }

    /// Whether it is in the room, or joining it, as this presence.
    pub(super) fn has(&self, room: &RoomName, id: PresenceId) -> bool {
        self.joined().get(room).is_some_and(|now| now.id == id)
    }

    /// Whether it is in no room, and without a socket.
    pub(super) fn is_unused(&self) -> bool {
        self.hub.is_none() && self.joined().is_empty()
    }

    /// From here on it considers itself in the room as this presence, though it has not asked for that.
    #[cfg(test)]
    pub(super) fn considers_itself_in(&self, room: &RoomName, id: PresenceId) {
        self.joined().insert(room.clone(), Membership { id, grace: None, joining: None, is_resumed: false });
    }

    /// It is not in the room any more as this presence. Returns whether it was.
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

    /// Takes the update of this presence that waits, or is just being written.
    pub(super) fn take_update(&self, room: &RoomName, id: PresenceId) -> Option<Meta> {
        self.updates().take(room, id)
    }

    /// Joins the room as `user`. One that is in already is touched, and becomes `user`'s if it was another's.
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
        // Two joins of one room at a time are one join: the second waits for what becomes of the first.
        let (id, answer) = loop {
            match self.begin_join(rooms, room, user, &options)? {
                Begun::Joining(id, answer) => break (id, answer),
                Begun::Again(id, answer) => {
                    match answer.await {
                        // It was removed while it was to become another user's.
                        Err(Error::NotInRoom { room }) => return Err(Error::LeftWhileJoining { room }),
                        answer => answer?,
                    }
                    return self.check_stayed(rooms, room, id);
                }
                Begun::UnderWay(over) => {
                    let notified = over.notified();
                    tokio::pin!(notified);
                    notified.as_mut().enable();
                    // This one, and not the next that began since: of that, another is told.
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

    /// A join is over that was under way. The channel may have left in the meantime, and be joining anew.
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

    /// A socket's name is its own, so nobody else can have it in the room.
    fn warn_if_strange(&self, room: &RoomName, error: &Error) {
        if let Error::StoreRefused(error) = error
            && self.hub.is_some()
            && error.is_channel_taken()
        {
            warn!(%room, channel = %self.name, "a socket is in the store already, as another presence");
        }
    }

    /// Makes the presences of this channel `user`'s, in every room that it is in. Rooms that it leaves meanwhile stay left.
    pub(crate) async fn set_user(&self, rooms: &Rooms, user: Option<&UserId>) -> Result<()> {
        let memberships: Vec<_>;
        let answers: Vec<_> = {
            let joined = self.joined();
            // A join under way is for the user that it was asked for.
            let there = joined.iter().filter(|(_, one)| one.joining.is_none());
            memberships = there.map(|(room, one)| (room.clone(), one.id)).collect();
            // The rooms are asked within the lock, so that they learn of it before a leave to come.
            let asked = memberships.iter().map(|(room, id)| rooms.join_again(room, self.entrant(rooms, *id, user)));
            asked.collect()
        };
        let was_removed = |error: &Error| matches!(error, Error::NotInRoom { .. } | Error::LeftWhileJoining { .. });
        join_all(answers).await.into_iter().filter(|answer| !answer.as_ref().is_err_and(was_removed)).collect()
    }

    /// This channel, as it enters a room: as this presence, without a token or a limit.
    fn entrant(&self, rooms: &Rooms, id: PresenceId, user: Option<&UserId>) -> Entrant {
        // The writer puts in the life of this node that is current when the join is written.
        let node = rooms.node().unwrap_or(NodeId::from_uuid(Uuid::nil()));
        let presence = Arc::new(Presence::new(id, self.name.clone(), user.cloned(), node));
        Entrant { presence, session: None, limit: None, hub: self.hub.clone(), touch: self.touch.clone() }
    }

    /// It may have been removed just when it joined: then that was the later of the two.
    fn check_stayed(&self, rooms: &Rooms, room: &RoomName, id: PresenceId) -> Result<()> {
        if self.joined().get(room).is_none_or(|now| now.id != id) {
            rooms.leave_at_once(room, id, &self.name);
            return Err(Error::LeftWhileJoining { room: room.clone() });
        }
        Ok(())
    }

    /// Looks whether the channel is in, and makes it join if it is not: at one moment, since others may do the same. The room
    /// is asked within it, too, so that it hears in the order in which the channel came and went.
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
                return Ok(Begun::Again(*id, rooms.join_again(room, self.entrant(rooms, *id, user))));
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

    /// Leaves the room, as it asked itself. Not in it: nothing happens.
    pub(crate) async fn leave(&self, rooms: &Rooms, room: &RoomName) -> Result<()> {
        self.leave_with(rooms, room, || None).await.map(drop)
    }

    /// Leaves every room, as it asked itself.
    pub(crate) async fn leave_all(&self, rooms: &Rooms) -> Result<()> {
        self.leave_all_with(rooms, || None).await.map(drop)
    }

    /// Is removed from the room, or from all, by somebody else: its socket is told, and closed with `close`. Returns from how many.
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

    /// Returns in how many rooms it was.
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

    /// Sets by what presences can be resumed that join from here on.
    pub(crate) fn set_resume_token(&self, token: Option<ResumeToken>) {
        *self.resume.lock() = token;
    }

    /// The shortest time for which a presence of this channel is held; `None` if none can be resumed.
    pub(crate) fn shortest_grace(&self) -> Option<Duration> {
        self.joined().values().filter_map(|membership| membership.grace).min()
    }

    /// Says what the end of the socket means. What was said first holds, and from here on nobody puts it into a room.
    pub(crate) fn ends(&self, end: End) {
        let _ = self.end.set(end);
    }

    fn is_lost(&self) -> bool {
        self.end.get() == Some(&End::Lost)
    }

    /// The socket is over: its presences leave, or are held.
    pub(crate) async fn depart(&self, rooms: &Rooms) -> Result<()> {
        self.write_last(rooms);
        if !self.is_lost() {
            return self.leave_all(rooms).await;
        }
        self.joined().drain().for_each(|(room, one)| rooms.lose(&room, one.id, &self.name));
        Ok(())
    }

    /// Writes the waiting updates of presences that are about to be held. A presence that leaves is announced without them.
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
        // Nobody who holds on to the channel can put it into a room from here on.
        self.closed.store(true, Ordering::Release);
        for (room, membership) in joined.drain() {
            if self.is_lost() {
                rooms.lose(&room, membership.id, &self.name);
            } else {
                rooms.leave_at_once(&room, membership.id, &self.name);
            }
        }
    }

    /// Updates the presence in the room: now, or, if the socket has had as many written as it may, later.
    pub(crate) async fn update(self: &Arc<Self>, rooms: &Rooms, room: &RoomName, meta: Meta) -> Result<()> {
        let id = self.joined().get(room).map(|membership| membership.id);
        let Some(id) = id else { return Err(Error::NotInRoom { room: room.clone() }) };
        let offered =
            self.updates().offer((room.clone(), id, meta), rooms.0.node.config.update_rate(), rooms.0.node.now());
        match offered {
            Offered::Now(meta) => rooms.update_presence(room, id, &self.name, meta).await,
            Offered::Waits => Ok(()),
            Offered::WaitsAlone => {
                debug!(%room, channel = %self.name, "updates come faster than they may be written; the last one waits");
                actix::spawn(Arc::clone(self).write_updates(rooms.clone()));
                Ok(())
            }
        }
    }

    /// Updates the presence in the room now, as somebody else wants it. An update of its own that waits is older, and not written.
    pub(super) async fn update_for_another(&self, rooms: &Rooms, room: &RoomName, meta: Meta) -> Result<()> {
        let id = self.joined().get(room).map(|membership| membership.id);
        let Some(id) = id else { return Err(Error::NotInRoom { room: room.clone() }) };
        self.take_update(room, id);
        rooms.update_presence(room, id, &self.name, meta).await
    }

    /// Writes the updates that wait, as fast as the rate allows, until none waits.
    async fn write_updates(self: Arc<Self>, rooms: Rooms) {
        let rate = rooms.0.node.config.update_rate();
        loop {
            let next = self.updates().next(rate, rooms.0.node.now(), |room, id| self.has(room, id));
            match next {
                Next::Nothing => return,
                Next::In(wait) => tokio::time::sleep(wait).await,
                Next::Write((room, id, meta)) => {
                    let result = rooms.update_presence(&room, id, &self.name, meta).await;
                    let mut updates = self.updates();
                    if let Err(Error::Overloaded { .. }) = result {
                        // Nothing happened, and nobody else would try it again.
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
}
