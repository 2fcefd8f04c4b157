//! Sending to the sockets of this node: frames for their clients, and events for their consumers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::{
    Error, Event, Frame, Result,
    delivery::{
        Claim, Pressure, ToHub,
        wire::{self, Frames},
    },
    name::{ChannelName, GroupName, RoomName, UserId},
    room::ToRoom,
};

use super::Rooms;

/// One WebSocket frame for clients. It is encoded once, however many sockets receive it, and a clone shares the bytes.
///
/// ```
/// use presence::Outgoing;
///
/// let text = Outgoing::text("hello");
/// let json = Outgoing::json(&serde_json::json!({ "text": "hello" }))?;
/// assert_eq!((text.payload_bytes(), json.payload_bytes()), (5, 16));
/// # Ok::<(), presence::Error>(())
/// ```
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

    /// A text frame with `value` as JSON.
    ///
    /// # Errors
    /// [`Error::Consumer`](crate::Error::Consumer) if `value` cannot be serialized.
    pub fn json(value: &impl serde::Serialize) -> Result<Self> {
        Ok(Self::text(serde_json::to_string(value)?))
    }

    /// The size of the payload in bytes, without the header of the frame. In a frame of [`json`](Self::json) each escaped character counts
    /// with the length of its escape.
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
    /// Checks that the payload of a message is not larger than the setting `max_frame_sent`. Clients may rely on that limit. The methods
    /// that send do not check it, since an application may know that its clients accept larger frames. Call this before a text of one
    /// client is passed on to others.
    ///
    /// ```
    /// # async fn forward(rooms: &presence::Rooms, room: &presence::RoomName, text: &str) -> presence::Result<()> {
    /// let message = presence::Outgoing::json(&serde_json::json!({ "text": text }))?;
    /// rooms.check_size(&message)?; // JSON may escape one byte as six.
    /// rooms.send(room, message).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it is larger; the error has both sizes in bytes.
    pub fn check_size(&self, message: &Outgoing) -> Result<()> {
        let (bytes, limit) = (message.payload_bytes(), self.config().max_frame_sent());
        if bytes <= limit { Ok(()) } else { Err(Error::TooLarge { bytes, limit }) }
    }

    /// Sends a frame to every socket of this node in the room, the sender's own socket included. If no socket is in the room, nothing
    /// happens. The frame is delivered at most once and is not stored.
    ///
    /// Frames and notices reach each socket in the order in which the room received them. If the outbox of a socket is over its bound and
    /// its client still reads, this waits for that socket, for at most 1 s, so that a flood slows its sender. It does not wait for a client
    /// that reads nothing for a moment, as long as `paused_bytes` allows that. If a client reads less than
    /// `steady_rate`, its senders together wait for it at most `send_patience` longer than for a steady reader, and this time is granted
    /// anew within each minute. After that its socket is closed with 1013.
    ///
    /// The time for which a consumer waits for its own socket does not count, if the consumer sends in its own methods and not in another
    /// task.
    ///
    /// ```
    /// # use presence::{Outgoing, RoomName, Rooms};
    /// async fn announce(rooms: &Rooms, room: &RoomName, text: &str) -> presence::Result<()> {
    ///     rooms.send(room, Outgoing::json(&serde_json::json!({ "announcement": text }))?).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::ShuttingDown`] after [`shutdown`](Self::shutdown) is over. Nothing was delivered. During the shutdown there is no error, and
    /// only sockets that are still open receive the frame.
    pub async fn send(&self, room: &RoomName, message: impl Into<Outgoing>) -> Result<()> {
        self.send_in(room, None, message.into()).await
    }

    /// Sends a frame to every socket of this node in the room except `channel`: for example, a message of one client to all others. The
    /// rest is as for [`send`](Self::send).
    ///
    /// ```
    /// # use presence::{Frame, RoomName, Socket};
    /// /// Forwards a message of one client to all others.
    /// async fn forward(socket: &Socket, room: &RoomName, message: Frame) -> presence::Result<()> {
    ///     socket.rooms().send_except(room, socket.channel(), message).await
    /// }
    /// ```
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

    /// Sends a frame to one socket of this node. If there is no such socket, nothing happens. It waits as [`send`](Self::send) does.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_to(&self, channel: &ChannelName, message: impl Into<Outgoing>) -> Result<()> {
        self.check_sends()?;
        let Outgoing(frames) = message.into();
        let (pressure, relieved) = pressure();
        // This returns before it waits if there is no hub: nobody would ever drop the pressure, and this would wait for itself.
        let Some(hub) = self.0.hubs.of(channel) else { return Ok(()) };
        hub.addr.do_send(ToHub::SendTo { channel: channel.clone(), frames, pressure });
        let _ = relieved.await;
        Ok(())
    }

    /// Sends a frame to every socket of a user on this node, also to a socket that is in no room. If there is no such socket, nothing
    /// happens. It waits as [`send`](Self::send) does. The user of a socket is the one that [`Upgrade`](crate::Upgrade) or
    /// [`Socket::set_user`](crate::Socket::set_user) set.
    ///
    /// ```
    /// # use presence::{Rooms, UserId};
    /// async fn remind(rooms: &Rooms, user: &UserId) -> presence::Result<()> {
    ///     rooms.send_to_user(user, "your order is ready").await
    /// }
    /// ```
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

    /// Sends an event to the consumer of every socket of this node in the room. It does not wait for slow readers.
    ///
    /// ```
    /// # use presence::{Event, EventName, RoomName, Rooms};
    /// fn close_room(rooms: &Rooms, room: &RoomName) -> presence::Result<()> {
    ///     rooms.send_event(room, Event::new(EventName::new("closing")?, &"in five minutes")?)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_event(&self, room: &RoomName, event: Event) -> Result<()> {
        self.check_sends()?;
        self.0.table.send_running(room, ToRoom::Event(Arc::new(event)));
        Ok(())
    }

    /// Sends an event to the consumer of one socket of this node. If there is no such socket, nothing happens.
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

    /// Sends an event to the consumer of every socket of a user on this node. If there is no such socket, nothing happens.
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

    /// Sends a frame to every socket of this node in a group, the sender's own socket included if it is in the group. If the group is
    /// empty, nothing happens. Frames of one sender reach each socket in order. It waits as [`send`](Self::send) does. It corresponds to
    /// `group_send` of django-channels.
    ///
    /// ```
    /// # use presence::{GroupName, Rooms};
    /// async fn publish(rooms: &Rooms, feed: &GroupName, news: String) -> presence::Result<()> {
    ///     rooms.send_to_group(feed, news).await
    /// }
    /// ```
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

    /// Sends an event to the consumer of every socket of this node in a group.
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

    /// Fails when the shutdown has closed all sockets.
    fn check_sends(&self) -> Result<()> {
        if self.0.table.has_ended() { Err(Error::ShuttingDown) } else { Ok(()) }
    }
}

tokio::task_local! {
    /// The socket whose consumer runs in this task.
    static SENDER: ChannelName;
}

/// Runs `work` as the consumer of a socket, so that this socket counts as the sender of all that `work` sends.
pub(crate) fn as_consumer_of<F: Future>(channel: ChannelName, work: F) -> impl Future<Output = F::Output> {
    SENDER.scope(channel, work)
}

/// The claim of a frame on its sender, and a receiver that resolves when every part that delivers the frame has dropped the claim.
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
