//! The requests of channels to rooms: join, leave, update. A request is sent again if the room fails before it answers.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::{
    Error, Result,
    delivery::Reply,
    model::{Close, Meta},
    name::{ChannelName, PresenceId, RoomName},
    node::within,
    room::{Entrant, Farewell, PresenceKey, ToRoom},
};

use super::{ATTEMPTS, Rooms, channel::Channel};

impl Rooms {
    /// Fails if this node accepts no sockets and no joins.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.0.supervisor.get().is_none() {
            self.0.no_supervisor.call_once(|| {
                warn!(
                    "`PruningSupervisor::spawn` was not called: unless another node does it, the presences of dead nodes and empty rooms are not removed"
                );
            });
        }
        self.0.node.check_name()?;
        if self.is_shutting_down() {
            return Err(Error::ShuttingDown);
        }
        Ok(())
    }

    /// Joins a room. The message is sent at once, not when the future is awaited. If the join fails, or the future is dropped, the presence
    /// leaves again, and a presence that it resumed is held again. `in_progress` is the channel that counts itself in the room meanwhile.
    pub(crate) fn join<'a>(
        &'a self,
        room: &'a RoomName,
        entrant: Entrant,
        in_progress: Option<JoinInProgress<'a>>,
    ) -> impl Future<Output = Result<()>> + 'a {
        let (id, channel) = (entrant.presence.id, entrant.presence.channel.clone());
        let mut guard = JoinGuard { rooms: self, room, id, channel, in_progress, outcome: JoinOutcome::NotIn };
        let asked = self.check_open().map(|()| {
            guard.outcome = JoinOutcome::Unknown;
            self.send_join(room, entrant, false)
        });
        async move {
            // A closure captures single fields. This moves the whole guard into the future, so that its `Drop` runs there.
            let guard = &mut guard;
            let answer = asked?.await;
            guard.outcome = match &answer {
                Some(Ok(())) => JoinOutcome::Joined,
                None | Some(Err(Error::RoomFailed { .. })) => JoinOutcome::Unknown,
                Some(Err(_)) => JoinOutcome::NotIn,
            };
            answer.unwrap_or(Err(Error::StoreUnavailable(None)))
        }
    }

    /// Sends the join of a presence that is in the room already: it is touched, and its user is set. The message is sent at once, not when
    /// the future is awaited. Dropping the future does not make the presence leave.
    pub(crate) fn join_again<'a>(
        &'a self,
        room: &'a RoomName,
        entrant: Entrant,
    ) -> impl Future<Output = Result<()>> + 'a {
        let answer = self.send_join(room, entrant, true);
        async move { answer.await.unwrap_or(Err(Error::StoreUnavailable(None))) }
    }

    /// Sends a join at once, and resolves to the answer of the room; `None` if there is none in time.
    fn send_join<'a>(
        &'a self,
        room: &'a RoomName,
        entrant: Entrant,
        was_in_room: bool,
    ) -> impl Future<Output = Option<Result<()>>> + 'a {
        let limit = self.0.node.config.store_timeout() + self.0.node.config.notify_interval();
        self.repeat(room, limit, move |reply| ToRoom::Join { entrant: entrant.clone(), was_in_room, reply })
    }

    /// As [`leave_with`](Self::leave_with), without a farewell.
    #[cfg(test)]
    pub(crate) fn leave<'a>(
        &'a self,
        room: &'a RoomName,
        id: PresenceId,
        channel: &'a ChannelName,
    ) -> impl Future<Output = Result<()>> + 'a {
        self.leave_with(room, id, channel, None)
    }

    /// Leaves a room. The message is sent at once, not when the future is awaited, and the presence leaves even if this fails or the future
    /// is dropped. With a farewell, the socket is notified, since it did not request to leave.
    pub(crate) fn leave_with<'a>(
        &'a self,
        room: &'a RoomName,
        id: PresenceId,
        channel: &'a ChannelName,
        farewell: Option<Farewell>,
    ) -> impl Future<Output = Result<()>> + 'a {
        let answer = self.repeat(room, self.0.node.config.store_timeout(), move |reply| ToRoom::Leave {
            id,
            channel: channel.clone(),
            farewell: farewell.clone(),
            reply: Some(reply),
        });
        async move { answer.await.unwrap_or(Err(Error::StoreUnavailable(None))) }
    }

    /// Leaves a room, without an answer.
    pub(crate) fn leave_at_once(&self, room: &RoomName, id: PresenceId, channel: &ChannelName) {
        self.send_to_room(room, ToRoom::Leave { id, channel: channel.clone(), farewell: None, reply: None });
    }

    /// Removes one presence of this node from a room, and adds 1 to `count` if it was there. Resolves when the removal is written.
    pub(crate) async fn remove_one(
        &self,
        room: &RoomName,
        key: &PresenceKey,
        close: Option<&Close>,
        count: &Arc<AtomicUsize>,
    ) -> Result<()> {
        if !self.0.table.is_running(room) {
            // A room that does not run has no presence of this node.
            return Ok(());
        }
        let answer = self.repeat(room, self.0.node.config.store_timeout(), |reply| ToRoom::RemoveOne {
            key: key.clone(),
            close: close.cloned(),
            count: count.clone(),
            reply,
        });
        answer.await.unwrap_or(Err(Error::StoreUnavailable(None)))
    }

    /// Reports that the socket of a presence is lost. The presence is held if it can be resumed, and leaves if not.
    pub(crate) fn lose(&self, room: &RoomName, id: PresenceId, channel: &ChannelName) {
        self.send_to_room(room, ToRoom::Lose { id, channel: channel.clone() });
    }

    /// As [`update_presence`](Self::update_presence), without an answer.
    pub(crate) fn update_at_once(&self, room: &RoomName, id: PresenceId, channel: &ChannelName, meta: Meta) {
        self.send_to_room(room, ToRoom::Update { id, channel: channel.clone(), meta, fallback: None, reply: None });
    }

    /// Updates a presence. If too many changes wait for the database, it gets the meta `fallback`, if there is one. The message is
    /// sent at once, not when the future is awaited.
    pub(crate) fn update_presence<'a>(
        &'a self,
        room: &'a RoomName,
        id: PresenceId,
        channel: &'a ChannelName,
        meta: Meta,
        fallback: Option<Meta>,
    ) -> impl Future<Output = Result<()>> + 'a {
        let answer = self.repeat(room, self.0.node.config.store_timeout(), move |reply| ToRoom::Update {
            id,
            channel: channel.clone(),
            meta: meta.clone(),
            fallback: fallback.clone(),
            reply: Some(reply),
        });
        async move { answer.await.unwrap_or(Err(Error::StoreUnavailable(None))) }
    }

    /// As [`update_presence`](Self::update_presence), but the message is not sent again: if the room fails, so does the update.
    pub(crate) fn update_presence_once<'a>(
        &'a self,
        room: &'a RoomName,
        id: PresenceId,
        channel: &ChannelName,
        meta: Meta,
    ) -> impl Future<Output = Result<()>> + 'a {
        let (reply, answer) = oneshot::channel();
        let (channel, reply) = (channel.clone(), Some(reply));
        self.send_to_room(room, ToRoom::Update { id, channel, meta, fallback: None, reply });
        async move {
            match within(self.0.node.config.store_timeout(), answer).await {
                Some(answer) => answer.unwrap_or_else(|_| Err(self.no_answer_error(room))),
                None => Err(Error::StoreUnavailable(None)),
            }
        }
    }

    /// Sends a message at once, and again if the room fails before it answers: repeating any of these messages does no harm. Of two updates
    /// whose callers both still wait, either may then be the later one, as of any two calls at the same time. Resolves to `None` if there
    /// is no answer within `limit`.
    fn repeat<'a>(
        &'a self,
        room: &'a RoomName,
        limit: std::time::Duration,
        message: impl Fn(Reply<()>) -> ToRoom + 'a,
    ) -> impl Future<Output = Option<Result<()>>> + 'a {
        // The first message is sent now, before the future is awaited.
        let ask = move || {
            let (reply, answer) = oneshot::channel();
            self.send_to_room(room, message(reply));
            answer
        };
        let mut answer = ask();
        async move {
            let answers = async {
                for _ in 1..ATTEMPTS {
                    match answer.await {
                        Ok(result) => return result,
                        Err(_) => answer = ask(),
                    }
                }
                answer.await.unwrap_or_else(|_| Err(self.no_answer_error(room)))
            };
            within(limit, answers).await
        }
    }

    /// The error for a room that dropped a request without an answer.
    pub(super) fn no_answer_error(&self, room: &RoomName) -> Error {
        if self.0.table.has_ended() { Error::ShuttingDown } else { Error::RoomFailed { room: room.clone() } }
    }
}

/// A channel and its join of a room, which is in progress.
pub(crate) struct JoinInProgress<'a> {
    pub(crate) channel: &'a Channel,
    /// Notified when the join ends.
    pub(crate) ended: Arc<Notify>,
}

/// What the caller of a join knows about it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JoinOutcome {
    /// The message was sent, and there is no answer: the presence may be in the room.
    Unknown,
    Joined,
    /// No message was sent, or the room refused the join: there is nothing to undo.
    NotIn,
}

/// A join in progress. The drop undoes the join unless it succeeded: it failed, took too long, or its caller does not wait any more.
struct JoinGuard<'a> {
    rooms: &'a Rooms,
    room: &'a RoomName,
    id: PresenceId,
    channel: ChannelName,
    in_progress: Option<JoinInProgress<'a>>,
    outcome: JoinOutcome,
}

impl Drop for JoinGuard<'_> {
    fn drop(&mut self) {
        if self.outcome == JoinOutcome::Unknown {
            self.rooms.lose(self.room, self.id, &self.channel);
        }
        if let Some(JoinInProgress { channel, ended }) = &self.in_progress {
            channel.join_ended(self.room, self.id, self.outcome == JoinOutcome::Joined);
            ended.notify_waiters();
        }
    }
}
