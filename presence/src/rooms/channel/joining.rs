//! How a channel joins a room, and how the user of its presences is set.

use std::{
    collections::hash_map::Entry,
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::join_all;
use tokio::sync::Notify;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    Error, JoinOptions, Result,
    model::Presence,
    name::{NodeId, PresenceId, RoomName, UserId},
    room::Entrant,
    rooms::{Rooms, membership::JoinInProgress},
    session::Session,
};

use super::{Channel, Membership};

/// How a join begins.
enum BegunJoin<F, G> {
    /// A request with this presence id was sent to the room.
    Requested(PresenceId, F),
    /// The channel is in the room already, as this presence. It is touched, and its user is set.
    AlreadyIn(PresenceId, G),
    /// Another join of the channel to the room is in progress. This is notified when that join ends.
    InProgress(Arc<Notify>),
}

impl Channel {
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
        // Two joins of one room at a time become one join: the second waits until the first has ended, and then checks again.
        let (id, answer) = loop {
            match self.begin_join(rooms, room, user, &options)? {
                BegunJoin::Requested(id, answer) => break (id, answer),
                BegunJoin::AlreadyIn(id, answer) => {
                    match answer.await {
                        // The presence was removed while its user was being set.
                        Err(Error::NotInRoom { room }) => return Err(Error::LeftWhileJoining { room }),
                        answer => answer?,
                    }
                    return self.check_stayed(rooms, room, id);
                }
                BegunJoin::InProgress(ended) => {
                    let notified = ended.notified();
                    tokio::pin!(notified);
                    notified.as_mut().enable();
                    // Only this join counts: a join that began after it has a `Notify` of its own.
                    let this = |now: &Membership| now.joining.as_ref().is_some_and(|now| Arc::ptr_eq(now, &ended));
                    let is_in_progress = self.memberships().get(room).is_some_and(this);
                    if is_in_progress {
                        notified.await;
                    }
                }
            }
        };
        answer.await.inspect_err(|error| self.warn_if_channel_taken(room, error))?;
        self.check_stayed(rooms, room, id)
    }

    /// Records that a join has ended. It changes nothing if the channel has left meanwhile, also if it is joining again.
    pub(in crate::rooms) fn join_ended(&self, room: &RoomName, id: PresenceId, is_in: bool) {
        if let Entry::Occupied(mut membership) = self.memberships().entry(room.clone())
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
    fn warn_if_channel_taken(&self, room: &RoomName, error: &Error) {
        if let Error::StoreRefused(error) = error
            && self.hub.is_some()
            && error.is_channel_taken()
        {
            warn!(%room, channel = %self.name, "a socket is in the store already, as another presence");
        }
    }

    /// Sets the user of the presences of this channel, in every room that it is in. It does not join again a room that it leaves meanwhile.
    pub(crate) async fn set_user(&self, rooms: &Rooms, user: Option<&UserId>) -> Result<()> {
        let joined: Vec<_>;
        let answers: Vec<_> = {
            let memberships = self.memberships();
            // A join that is in progress keeps the user with which it was requested.
            let without_joins = memberships.iter().filter(|(_, membership)| membership.joining.is_none());
            joined = without_joins.map(|(room, membership)| (room.clone(), membership.id)).collect();
            // The messages are sent under the lock, so that a room receives them before a later leave.
            joined.iter().map(|(room, id)| rooms.join_again(room, self.entrant(rooms, *id, user))).collect()
        };
        let was_removed = |error: &Error| matches!(error, Error::NotInRoom { .. } | Error::LeftWhileJoining { .. });
        join_all(answers).await.into_iter().filter(|answer| !answer.as_ref().is_err_and(was_removed)).collect()
    }

    /// The join request of this channel with this presence id, without a resume token and without a limit.
    fn entrant(&self, rooms: &Rooms, id: PresenceId, user: Option<&UserId>) -> Entrant {
        // The writer replaces this by the incarnation that is current when it writes the join. Before the node is registered there is none.
        let node = rooms.node().unwrap_or(NodeId::from_uuid(Uuid::nil()));
        let presence = Arc::new(Presence::new(id, self.name.clone(), user.cloned(), node));
        Entrant { presence, session: None, limit: None, hub: self.hub.clone(), touch: self.touch.clone() }
    }

    /// Fails if the channel was removed from the room while it joined, and makes the presence leave: the removal counts as the later one.
    fn check_stayed(&self, rooms: &Rooms, room: &RoomName, id: PresenceId) -> Result<()> {
        if self.memberships().get(room).is_none_or(|now| now.id != id) {
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
    ) -> Result<BegunJoin<impl Future<Output = Result<()>> + 'a, impl Future<Output = Result<()>> + 'a>> {
        let max_rooms = rooms.0.node.config.max_rooms_per_socket();
        let mut memberships = self.memberships();
        match memberships.get(room) {
            Some(Membership { joining: Some(ended), .. }) => return Ok(BegunJoin::InProgress(ended.clone())),
            Some(Membership { id, joining: None, .. }) => {
                self.touch.mark(rooms.0.node.now());
                return Ok(BegunJoin::AlreadyIn(*id, rooms.join_again(room, self.entrant(rooms, *id, user))));
            }
            None => {}
        }
        if self.closed.load(Ordering::Acquire) || self.end.get().is_some() {
            return Err(Error::SocketClosed);
        }
        if memberships.len() >= max_rooms {
            debug!(%room, channel = %self.name, limit = max_rooms, "a join is refused: the socket is in too many rooms");
            return Err(Error::TooManyRooms { limit: max_rooms });
        }
        let id = PresenceId::random();
        let ended = Arc::new(Notify::new());
        let grace = options.grace.unwrap_or(rooms.0.node.config.grace());
        let token = self.resume.lock().clone();
        let session = token.map(|token| Session { hash: token.hash(room, user), grace });
        let grace = session.map(|session| session.grace);
        memberships.insert(room.clone(), Membership { id, grace, joining: Some(ended.clone()), is_resumed: false });
        self.touch.mark(rooms.0.node.now());
        let entrant = self.entrant(rooms, id, user);
        let presence = Arc::new(entrant.presence.changed(None, Some(options.meta.clone())));
        let entrant = Entrant { presence, session, limit: options.limit, ..entrant };
        let answer = rooms.join(room, entrant, Some(JoinInProgress { channel: self, ended }));
        drop(memberships);
        Ok(BegunJoin::Requested(id, answer))
    }
}
