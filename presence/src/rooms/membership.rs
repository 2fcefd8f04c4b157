//! What sockets ask of rooms. What a room that failed has lost is asked again.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::{
    Error, Result,
    delivery::message::Reply,
    model::{Close, Meta},
    name::{ChannelName, PresenceId, RoomName},
    node::threads::within,
    room::{
        leaving::Farewell,
        message::{Entrant, ToRoom, Which},
    },
};

use super::{ATTEMPTS, Rooms, channel::Channel};

impl Rooms {
    /// Whether sockets may come in.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.0.supervisor.get().is_none() {
            self.0.no_supervisor.call_once(|| {
                warn!(
                    "`PruningSupervisor::spawn` was not called: unless another node does it, the presences that nodes that died left and empty rooms are not removed"
                );
            });
        }
        self.0.node.check_name()?;
        if self.is_shutting_down() {
            return Err(Error::ShuttingDown);
        }
        Ok(())
    }

    /// Joins; whatever ends this but success, the presence leaves again. What it resumed is held again. The room is asked at
    /// once, not when this is awaited. `pending` is the channel that counts itself in the room until then.
    pub(crate) fn join<'a>(
        &'a self,
        room: &'a RoomName,
        entrant: Entrant,
        pending: Option<Pending<'a>>,
    ) -> impl Future<Output = Result<()>> + 'a {
        let (id, channel) = (entrant.presence.id, entrant.presence.channel.clone());
        let mut guard = JoinGuard { rooms: self, room, id, channel, pending, outcome: Outcome::NotIn };
        let asked = self.check_open().map(|()| {
            guard.outcome = Outcome::Unknown;
            self.send_join(room, entrant, false)
        });
        async move {
            // The whole of it, and not a copy of the field.
            let guard = &mut guard;
            let answer = asked?.await;
            guard.outcome = match &answer {
                Some(Ok(())) => Outcome::Joined,
                None | Some(Err(Error::RoomFailed { .. })) => Outcome::Unknown,
                Some(Err(_)) => Outcome::NotIn,
            };
            answer.unwrap_or(Err(Error::StoreUnavailable(None)))
        }
    }

    /// Joins as one who is in the room already: that it stays so does not hang on this call. The room is asked at once, not
    /// when this is awaited.
    pub(crate) fn join_again<'a>(
        &'a self,
        room: &'a RoomName,
        entrant: Entrant,
    ) -> impl Future<Output = Result<()>> + 'a {
        let answer = self.send_join(room, entrant, true);
        async move { answer.await.unwrap_or(Err(Error::StoreUnavailable(None))) }
    }

    /// What the room answers; `None` if it does not in time.
    fn send_join<'a>(
        &'a self,
        room: &'a RoomName,
        entrant: Entrant,
        again: bool,
    ) -> impl Future<Output = Option<Result<()>>> + 'a {
        let limit = self.0.node.config.store_timeout() + self.0.node.config.notify_interval();
        self.repeat(room, limit, move |reply| ToRoom::Join { entrant: entrant.clone(), again, reply })
    }

    /// Leaves. It happens even if this returns an error, or is not awaited to its end.
    /// The room is asked at once, not when this is awaited.
    #[cfg(test)]
    pub(crate) fn leave<'a>(
        &'a self,
        room: &'a RoomName,
        id: PresenceId,
        channel: &'a ChannelName,
    ) -> impl Future<Output = Result<()>> + 'a {
        self.leave_with(room, id, channel, None)
    }

    /// Leaves, and has the socket learn of it that did not ask for it, if there is a farewell. It happens even if this returns an error,
    /// or is not awaited to its end. The room is asked at once, not when this is awaited.
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

    /// Leaves, without waiting for it.
    pub(crate) fn leave_at_once(&self, room: &RoomName, id: PresenceId, channel: &ChannelName) {
        self.send_to_room(room, ToRoom::Leave { id, channel: channel.clone(), farewell: None, reply: None });
    }

    /// Has a room remove one presence of this node, and count it if it is there. Resolves when it is gone for good.
    pub(crate) async fn remove_one(
        &self,
        room: &RoomName,
        which: &Which,
        close: Option<&Close>,
        count: &Arc<AtomicUsize>,
    ) -> Result<()> {
        if !self.0.table.is_running(room) {
            // A room that does not run has no presence of this node.
            return Ok(());
        }
        let answer = self.repeat(room, self.0.node.config.store_timeout(), |reply| ToRoom::RemoveOne {
            which: which.clone(),
            close: close.cloned(),
            count: count.clone(),
            reply,
        });
        answer.await.unwrap_or(Err(Error::StoreUnavailable(None)))
    }

    /// The socket is lost: the presence is held if it can be resumed, and leaves if not.
    pub(crate) fn lose(&self, room: &RoomName, id: PresenceId, channel: &ChannelName) {
        self.send_to_room(room, ToRoom::Lose { id, channel: channel.clone() });
    }

    /// As [`update_presence`](Self::update_presence), without waiting for it.
    pub(crate) fn update_at_once(&self, room: &RoomName, id: PresenceId, channel: &ChannelName, meta: Meta) {
        self.send_to_room(room, ToRoom::Update { id, channel: channel.clone(), meta, reply: None });
    }

    pub(crate) async fn update_presence(
        &self,
        room: &RoomName,
        id: PresenceId,
        channel: &ChannelName,
        meta: Meta,
    ) -> Result<()> {
        self.repeat(room, self.0.node.config.store_timeout(), |reply| ToRoom::Update {
            id,
            channel: channel.clone(),
            meta: meta.clone(),
            reply: Some(reply),
        })
        .await
        .unwrap_or(Err(Error::StoreUnavailable(None)))
    }

    /// Asks, and asks again if the room failed before it answered. All that is asked so may be repeated.
    /// `None` if there is no answer in time.
    fn repeat<'a>(
        &'a self,
        room: &'a RoomName,
        limit: std::time::Duration,
        message: impl Fn(Reply<()>) -> ToRoom + 'a,
    ) -> impl Future<Output = Option<Result<()>>> + 'a {
        // The first message is on its way before anything is awaited.
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

    /// Why a room did not answer.
    pub(super) fn no_answer_error(&self, room: &RoomName) -> Error {
        if self.0.table.has_ended() { Error::ShuttingDown } else { Error::RoomFailed { room: room.clone() } }
    }
}

/// A channel that counts itself in a room while its join is under way.
pub(crate) struct Pending<'a> {
    pub(crate) channel: &'a Channel,
    /// Notified when the join is over.
    pub(crate) over: Arc<Notify>,
}

/// What is known of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The room was asked, and has not answered: the presence may be in it.
    Unknown,
    Joined,
    /// The room was not asked, or has refused: there is nothing to take back.
    NotIn,
}

/// A join under way. Unless it succeeds, it is taken back when this is dropped: it failed, took too long, or its caller does not wait
/// for it any more.
struct JoinGuard<'a> {
    rooms: &'a Rooms,
    room: &'a RoomName,
    id: PresenceId,
    channel: ChannelName,
    pending: Option<Pending<'a>>,
    outcome: Outcome,
}

impl Drop for JoinGuard<'_> {
    fn drop(&mut self) {
        if self.outcome == Outcome::Unknown {
            self.rooms.lose(self.room, self.id, &self.channel);
        }
        if let Some(Pending { channel, over }) = &self.pending {
            channel.join_ended(self.room, self.id, self.outcome == Outcome::Joined);
            over.notify_waiters();
        }
    }
}
