//! What is sent to the sockets of this node: frames for their clients, events for their consumers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    Error, Frame, Result,
    name::{ChannelName, GroupName, RoomName},
};

use super::{
    Event, Rooms,
    message::{Claim, Pressure, ToHub, ToRoom},
    wire::{self, Frames},
};

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
    /// rooms.send(room, said).await;
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
    pub async fn send(&self, room: &RoomName, message: impl Into<Outgoing>) {
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        self.tell_running(room, ToRoom::Send { frames, pressure });
        let _ = relieved.await;
    }

    /// Sends a frame to one socket of this node. No such socket: nothing happens.
    pub async fn send_to(&self, channel: &ChannelName, message: impl Into<Outgoing>) {
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        // Without a hub nobody else holds the pressure, and this would wait for itself.
        let Some(hub) = self.hub_of(channel) else { return };
        hub.addr.do_send(ToHub::SendTo { channel: channel.clone(), frames, pressure });
        let _ = relieved.await;
    }

    /// Hands an event to the consumer of every socket in the room, on this node.
    pub fn send_event(&self, room: &RoomName, event: Event) {
        self.tell_running(room, ToRoom::Event(Arc::new(event)));
    }

    /// Hands an event to the consumer of one socket of this node. No such socket: nothing happens.
    pub fn send_event_to(&self, channel: &ChannelName, event: Event) {
        if let Some(hub) = self.hub_of(channel) {
            hub.addr.do_send(ToHub::EventTo { channel: channel.clone(), event: Arc::new(event) });
        }
    }

    /// Sends a frame to every member of a group, on this node, the sender included if it is one. A group without members:
    /// nothing happens. Frames of one sender reach each member in order. Waits as [`send`](Self::send) does. As `group_send` of
    /// django-channels.
    pub async fn send_to_group(&self, group: &GroupName, message: impl Into<Outgoing>) {
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        for hub in self.hubs() {
            let (group, frames, pressure) = (group.clone(), frames.clone(), pressure.clone());
            hub.addr.do_send(ToHub::SendToGroup { group, frames, pressure });
        }
        drop(pressure);
        let _ = relieved.await;
    }

    /// Hands an event to the consumer of every member of a group, on this node.
    pub fn send_event_to_group(&self, group: &GroupName, event: Event) {
        let event = Arc::new(event);
        for hub in self.hubs() {
            hub.addr.do_send(ToHub::EventToGroup { group: group.clone(), event: event.clone() });
        }
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
