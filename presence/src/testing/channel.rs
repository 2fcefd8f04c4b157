//! A member of rooms and groups that has no consumer.

use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::{
    Consumer, Error, Event, Frame, Result, Rooms, Socket,
    name::{ChannelName, GroupName, RoomName},
};

use super::{PATIENCE, Received, TestSocket};

/// Receives what is sent to a channel, to a group or to a room, frames and events. It tests what an HTTP handler or a job sends,
/// without a consumer.
///
/// There is no channel layer to set up: the rooms and groups of one process are the in-memory layer, and this is one of its channels, as
/// the name given to `group_add` in tests of django-channels.
///
/// ```
/// # use presence::{Config, GroupName, MemoryStore, NodeName, PruningSupervisor, Rooms, testing::TestChannel};
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rooms = Rooms::start(Config::builder().room_threads(0).build()?, MemoryStore::default(), NodeName::new("test")?);
/// # PruningSupervisor::spawn(&rooms);
/// # rooms.ready().await;
/// let feed = GroupName::new("feed")?;
/// let mut follower = TestChannel::open(&rooms).await;
/// follower.join_group(&feed)?;
///
/// rooms.send_to_group(&feed, "news").await?; // as the code under test would
/// assert_eq!(follower.receive_text().await, "news");
/// assert!(follower.receive_nothing().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestChannel {
    rooms: Rooms,
    name: ChannelName,
    socket: TestSocket,
    events: mpsc::UnboundedReceiver<Event>,
    /// An event that arrived while none was expected.
    kept: Option<Event>,
}

/// Sends the name of its channel once, and then every event.
struct Forwarding {
    name: Option<tokio::sync::oneshot::Sender<ChannelName>>,
    events: mpsc::UnboundedSender<Event>,
}

impl Consumer for Forwarding {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        if let Some(name) = self.name.take() {
            // If this fails, the test has ended.
            let _ = name.send(socket.channel().clone());
        }
        Ok(())
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }

    async fn event(&mut self, _: &mut Socket, event: Event) -> Result<()> {
        let _ = self.events.send(event);
        Ok(())
    }
}

impl TestChannel {
    /// Opens an anonymous channel. Must be called on a thread of an actix system.
    ///
    /// # Panics
    /// If these rooms are shutting down.
    pub async fn open(rooms: &Rooms) -> Self {
        let (send_name, name) = tokio::sync::oneshot::channel();
        let (send_event, events) = mpsc::unbounded_channel();
        let consumer = Forwarding { name: Some(send_name), events: send_event };
        let socket = TestSocket::connect(TestSocket::upgrade(rooms), consumer).await.expect("the channel is opened");
        let name = name.await.expect("an open channel has sent its name");
        Self { rooms: rooms.clone(), name, socket, events, kept: None }
    }

    /// The name, for [`Rooms::send_to`].
    #[must_use]
    pub const fn name(&self) -> &ChannelName {
        &self.name
    }

    /// Joins a room with an anonymous presence, which the others see.
    ///
    /// # Errors
    /// As [`Rooms::add`].
    pub async fn join(&self, room: &RoomName) -> Result<()> {
        self.rooms.add(room, &self.name, None).await.map(drop)
    }

    /// Joins a group.
    ///
    /// # Errors
    /// [`Error::TooManyRooms`] if it is in `max_rooms_per_socket` groups already.
    pub fn join_group(&self, group: &GroupName) -> Result<()> {
        let limit = self.rooms.config().max_rooms_per_socket();
        let joined = self.rooms.hubs().here().sockets.borrow_mut().join_group(group, &self.name, limit);
        if joined { Ok(()) } else { Err(Error::TooManyRooms { limit }) }
    }

    /// Leaves a group.
    pub fn leave_group(&self, group: &GroupName) {
        self.rooms.hubs().here().sockets.borrow_mut().leave_group(group, &self.name);
    }

    /// The next frame, or the end, within [`PATIENCE`].
    ///
    /// # Panics
    /// If nothing arrives.
    pub async fn receive(&mut self) -> Received {
        self.socket.receive().await
    }

    /// The next frame, which is a text.
    ///
    /// # Panics
    /// If something else arrives, or nothing.
    pub async fn receive_text(&mut self) -> String {
        self.socket.receive_text().await
    }

    /// The next event, within [`PATIENCE`]. Frames and events are received separately, so their order is not known.
    ///
    /// # Panics
    /// If none arrives.
    pub async fn receive_event(&mut self) -> Event {
        if let Some(event) = self.kept.take() {
            return event;
        }
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time");
        event.expect("the channel is open")
    }

    /// Whether neither a frame nor an event arrives within [`PATIENCE`]. What arrives is kept for the next call.
    pub async fn receive_nothing(&mut self) -> bool {
        if self.kept.is_none() {
            self.kept = self.events.recv().now_or_never().flatten();
        }
        self.socket.receive_nothing().await && self.kept.is_none() && {
            self.kept = self.events.recv().now_or_never().flatten();
            self.kept.is_none()
        }
    }
}
