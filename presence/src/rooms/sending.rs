//! What is sent to the sockets of this node: frames for their clients, events for their consumers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    Error, Event, Frame, Result,
    delivery::{
        message::{Claim, Pressure, ToHub},
        wire::{self, Frames},
    },
    name::{ChannelName, GroupName, RoomName, UserId},
    room::message::ToRoom,
};

use super::Rooms;

/// What is sent to clients: one WebSocket frame, encoded once for all who get it.
#[derive(Debug, Clone)]
pub struct Outgoing(Frames);

impl Outgoing {
    /// A text frame.
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self(wire::text(text.as_ref()))
    }

    /// A binary frame.
    #[must_use]
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self(wire::binary(bytes.as_ref()))
    }

    /// A text frame that holds `value` as JSON.
    ///
    /// # Errors
    /// [`Error::Consumer`](crate::Error::Consumer) if `value` does not serialize.
    pub fn json(value: &impl serde::Serialize) -> Result<Self> {
        Ok(Self::text(serde_json::to_string(value)?))
    }

    /// How large the frame is, in bytes of payload: of [`json`](Self::json), after escaping.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        wire::payload_len(&self.0)
    }

    pub(crate) const fn frames(&self) -> &Frames {
        &self.0
    }
}

impl From<Frame> for Outgoing {
    fn from(frame: Frame) -> Self {
        match frame {
            Frame::Text(text) => Self::text(text),
            Frame::Binary(bytes) => Self::binary(bytes),
        }
    }
}

impl From<Bytes> for Outgoing {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<&str> for Outgoing {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Outgoing {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl Rooms {
    /// Checks that a message is no larger than `max_frame_sent`, which clients with small limits rely on. Sending does not check it,
    /// since an application may know its clients better: call this before a text of one client is passed on to others.
    ///
    /// ```
    /// # async fn said(rooms: &presence::Rooms, room: &presence::RoomName, text: &str) -> presence::Result<()> {
    /// let said = presence::Outgoing::json(&serde_json::json!({ "text": text }))?;
    /// rooms.check_size(&said)?; // JSON makes up to six bytes of one
    /// rooms.send(room, said).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it is larger.
    pub fn check_size(&self, message: &Outgoing) -> Result<()> {
        let (bytes, limit) = (message.payload_bytes(), self.config().max_frame_sent());
        if bytes <= limit { Ok(()) } else { Err(Error::TooLarge { bytes, limit }) }
    }

    /// Sends a frame to every socket in the room, on this node, the sender's own included. Nobody is there: nothing happens.
    /// It is sent at most once and not stored.
    ///
    /// Frames and notices reach each socket in the order in which the room got them. While a socket of the room has more
    /// waiting for it than it may but goes on reading, this waits for it, at most 1 s: a flood slows itself. For a socket that
    /// takes less than `steady_rate` all who send to it together wait at most `send_patience` longer than for one that takes that, at
    /// once and again in each minute; then it is closed with 1013.
    /// What a consumer waits for its own socket does not count, if it sends in its own methods and not in another task.
    ///
    /// # Errors
    /// [`Error::ShuttingDown`] once [`shutdown`](Self::shutdown) has closed all sockets: nothing was delivered.
    pub async fn send(&self, room: &RoomName, message: impl Into<Outgoing>) -> Result<()> {
        self.send_in(room, None, message.into()).await
    }

    /// Sends a frame to every socket in the room but one, on this node: what a client said, to all others. The rest is as for
    /// [`send`](Self::send).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_except(
        &self,
        room: &RoomName,
        channel: &ChannelName,
        message: impl Into<Outgoing>,
    ) -> Result<()> {
        self.send_in(room, Some(channel.clone()), message.into()).await
    }

    async fn send_in(&self, room: &RoomName, except: Option<ChannelName>, Outgoing(frames): Outgoing) -> Result<()> {
        self.check_sends()?;
        let (pressure, relieved) = pressure();
        self.0.table.send_running(room, ToRoom::Send { frames, except, pressure });
        let _ = relieved.await;
        Ok(())
    }

    /// Sends a frame to one socket of this node. No such socket: nothing happens.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_to(&self, channel: &ChannelName, message: impl Into<Outgoing>) -> Result<()> {
        self.check_sends()?;
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        // Without a hub nobody else holds the pressure, and this would wait for itself.
        let Some(hub) = self.0.hubs.of(channel) else { return Ok(()) };
        hub.addr.do_send(ToHub::SendTo { channel: channel.clone(), frames, pressure });
        let _ = relieved.await;
        Ok(())
    }

    /// Sends a frame to every socket of a user, on this node, in whichever rooms it is, also in none. No such socket: nothing happens. Waits
    /// as [`send`](Self::send) does. A socket is the user's that [`Upgrade`](crate::Upgrade) or
    /// [`Socket::set_user`](crate::Socket::set_user) gave it.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_to_user(&self, user: &UserId, message: impl Into<Outgoing>) -> Result<()> {
        let Outgoing(frames) = message.into();
        self.send_to_hubs(|pressure| ToHub::SendToUser {
            user: user.clone(),
            frames: frames.clone(),
            pressure: pressure.clone(),
            done: 0,
        })
        .await
    }

    /// Hands an event to the consumer of every socket in the room, on this node.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_event(&self, room: &RoomName, event: Event) -> Result<()> {
        self.check_sends()?;
        self.0.table.send_running(room, ToRoom::Event(Arc::new(event)));
        Ok(())
    }

    /// Hands an event to the consumer of one socket of this node. No such socket: nothing happens.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_event_to(&self, channel: &ChannelName, event: Event) -> Result<()> {
        self.check_sends()?;
        if let Some(hub) = self.0.hubs.of(channel) {
            hub.addr.do_send(ToHub::EventTo { channel: channel.clone(), event: Arc::new(event) });
        }
        Ok(())
    }

    /// Hands an event to the consumer of every socket of a user, on this node. No such socket: nothing happens.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_event_to_user(&self, user: &UserId, event: Event) -> Result<()> {
        self.check_sends()?;
        let event = Arc::new(event);
        for hub in self.0.hubs.all() {
            hub.addr.do_send(ToHub::EventToUser { user: user.clone(), event: event.clone(), done: 0 });
        }
        Ok(())
    }

    /// Sends a frame to every member of a group, on this node, the sender included if it is one. A group without members:
    /// nothing happens. Frames of one sender reach each member in order. Waits as [`send`](Self::send) does. As `group_send` of
    /// django-channels.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_to_group(&self, group: &GroupName, message: impl Into<Outgoing>) -> Result<()> {
        let Outgoing(frames) = message.into();
        self.send_to_hubs(|pressure| ToHub::SendToGroup {
            group: group.clone(),
            frames: frames.clone(),
            pressure: pressure.clone(),
        })
        .await
    }

    /// Hands an event to the consumer of every member of a group, on this node.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_event_to_group(&self, group: &GroupName, event: Event) -> Result<()> {
        self.check_sends()?;
        let event = Arc::new(event);
        for hub in self.0.hubs.all() {
            hub.addr.do_send(ToHub::EventToGroup { group: group.clone(), event: event.clone() });
        }
        Ok(())
    }

    async fn send_to_hubs(&self, message: impl Fn(&Pressure) -> ToHub) -> Result<()> {
        self.check_sends()?;
        let (pressure, relieved) = pressure();
        self.0.hubs.all().iter().for_each(|hub| hub.addr.do_send(message(&pressure)));
        drop(pressure);
        let _ = relieved.await;
        Ok(())
    }

    /// Whether there may be a socket to send to.
    fn check_sends(&self) -> Result<()> {
        if self.0.table.has_ended() { Err(Error::ShuttingDown) } else { Ok(()) }
    }
}

tokio::task_local! {
    /// The socket whose consumer this task is.
    static SENDER: ChannelName;
}

/// Does this as the consumer of a socket: what it sends is that socket's.
pub(crate) fn as_consumer_of<F: Future>(channel: ChannelName, work: F) -> impl Future<Output = F::Output> {
    SENDER.scope(channel, work)
}

/// A frame's claim on its sender's patience, and what resolves when all who delivered it have let go.
fn pressure() -> (Pressure, oneshot::Receiver<()>) {
    Claim::new(SENDER.try_with(Clone::clone).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_a_client_is_sent_on_as_it_came() {
        for (sent_on, made) in [
            (Outgoing::from(Frame::Text("hi".into())), Outgoing::text("hi")),
            (Outgoing::from(Frame::Binary(Bytes::from_static(b"\xff\0"))), Outgoing::binary(b"\xff\0")),
            (Outgoing::from(Bytes::from_static(b"hi")), Outgoing::binary(b"hi")),
        ] {
            assert_eq!(sent_on.frames().bytes, made.frames().bytes);
        }
    }
}
