//! A node without a network, and consumers that tell what they are told.

use presence::{
    ChannelName, Clock, CloseCode, Config, ConfigBuilder, Consumer, Error, Event, Frame, MemoryStore, NodeName, Notify,
    Presence, PresenceChange, PruningSupervisor, Result, RoomName, Rooms, Socket, UserId, remove_presence,
    testing::{ManualTime, Probe, TestSocket, store::FaultyStore},
    touch_presence,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A leave that is all there is to write is written no later than this.
pub(super) const LONE_LEAVE: Duration = Duration::from_millis(6);

pub(super) fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(super) fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).unwrap()
}

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a consumer was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Frame(Frame),
    Event(String),
    Removed(String),
    /// The code, and whether the socket was still in the lobby.
    Disconnected(u16, bool),
}

/// A node of its own.
pub(super) struct Bed {
    pub(super) rooms: Rooms,
    pub(super) store: FaultyStore<MemoryStore>,
    pub(super) changes: Probe,
    pub(super) time: ManualTime,
    pub(super) heard: mpsc::UnboundedReceiver<Heard>,
    tell: mpsc::UnboundedSender<Heard>,
}

/// A client, and the name of its channel.
pub(super) struct Client {
    pub(super) socket: TestSocket,
    pub(super) channel: ChannelName,
}

pub(super) async fn bed() -> Bed {
    bed_with(|config| config).await
}

pub(super) async fn bed_with(set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Bed {
    let time = ManualTime::pause();
    bed_of(time, MemoryStore::new(Clock::system()), set).await
}

/// On a database of the test's own.
pub(super) async fn bed_on(database: MemoryStore, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Bed {
    bed_of(ManualTime::pause(), database, set).await
}

async fn bed_of(time: ManualTime, database: MemoryStore, set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Bed {
    // A client without a network answers pings only while a test listens to it.
    let defaults = Config::builder().room_threads(0).notify(Notify::Silent).ping_interval(secs(86_400));
    let config = set(defaults).build().unwrap();
    let store = FaultyStore::new(database);
    let rooms = Rooms::start(config, store.clone(), NodeName::new("here").unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    time.settle().await;
    let (tell, heard) = mpsc::unbounded_channel();
    Bed { changes: Probe::new(&rooms), rooms, store, time, heard, tell }
}

impl Bed {
    /// Lets just so much time pass at once.
    pub(super) async fn leap(&self, time: Duration) {
        self.time.advance(time).await;
    }

    /// Lets everything happen that needs no time.
    pub(super) async fn settle(&self) {
        self.time.settle().await;
    }

    /// A member of the lobby. The empty name: an anonymous one.
    pub(super) async fn member(&self, name: &str) -> Client {
        self.wrapped(name, |member| member).await
    }

    /// As `member`, within another consumer.
    pub(super) async fn wrapped<C: Consumer>(&self, name: &str, wrap: impl FnOnce(Member) -> C) -> Client {
        let (told, channel) = tokio::sync::oneshot::channel();
        let consumer = wrap(Member { channel: Some(told), tell: self.tell.clone() });
        let upgrade = TestSocket::upgrade(&self.rooms).user(UserId::new(name).ok());
        let socket = TestSocket::connect(upgrade, consumer).await.expect("accepted");
        Client { socket, channel: channel.await.unwrap() }
    }

    /// Adds a channel without a socket to the lobby.
    pub(super) async fn add(&self, name: &str, who: &str) {
        self.rooms.add(&room("lobby"), &channel(name), UserId::new(who).ok().as_ref()).await.unwrap();
    }

    pub(super) async fn here(&self) -> usize {
        self.rooms.count(&room("lobby")).await.unwrap().presences
    }

    /// The rooms that the database knows.
    pub(super) async fn rows(&self) -> Vec<String> {
        let rooms = presence::store::RoomStore::rooms(self.store.inner(), None, u64::MAX).await.unwrap();
        rooms.into_iter().map(|room| room.room.to_string()).collect()
    }

    /// The next change, in short: `+ann`, `-ann`, `~ann`, `bulk ann,bob`, with the room if it is not the lobby.
    pub(super) async fn told(&mut self) -> String {
        self.time.settle().await;
        if let Some(told) = self.try_told() {
            return told;
        }
        self.time.advance(LONE_LEAVE).await;
        self.try_told().expect("a change")
    }

    pub(super) fn try_told(&mut self) -> Option<String> {
        let changed = self.changes.try_next()?;
        let of = |presence: &Arc<Presence>| presence.user.as_ref().map_or("?".to_owned(), ToString::to_string);
        let what = match &changed.change {
            PresenceChange::Added(one) => format!("+{}", of(one)),
            PresenceChange::Removed(one) => format!("-{}", of(one)),
            PresenceChange::Updated(one) => format!("~{}", of(one)),
            PresenceChange::Bulk(all) => {
                let mut all: Vec<_> = all.iter().map(of).collect();
                all.sort();
                format!("bulk {}", all.join(","))
            }
            other => panic!("{other:?} is new"),
        };
        Some(if changed.room.as_str() == "lobby" { what } else { format!("{what} in {}", changed.room) })
    }

    /// Nothing changed that was not told yet.
    pub(super) async fn quiet(&mut self) {
        self.time.settle().await;
        assert_eq!(self.try_told(), None);
    }

    pub(super) async fn hears(&mut self) -> Heard {
        self.time.settle().await;
        if let Ok(heard) = self.heard.try_recv() {
            return heard;
        }
        self.time.advance(LONE_LEAVE).await;
        self.heard.try_recv().expect("a consumer was told something")
    }
}

/// Joins the lobby, and does what it is told.
pub(super) struct Member {
    channel: Option<tokio::sync::oneshot::Sender<ChannelName>>,
    tell: mpsc::UnboundedSender<Heard>,
}

impl Consumer for Member {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        if let Some(tell) = self.channel.take() {
            drop(tell.send(socket.channel().clone()));
        }
        socket.join(&room("lobby")).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        drop(self.tell.send(Heard::Frame(frame.clone())));
        match std::str::from_utf8(frame.as_bytes()).unwrap_or("") {
            "fail" => Err(Error::other("told to fail")),
            "panic" => panic!("told to panic"),
            "close" => socket.close(CloseCode(4444), "told to"),
            "last words" => {
                socket.send("good bye").await?;
                socket.close(CloseCode(4444), "told to")
            }
            "group" => socket.join_group(&presence::GroupName::new("team").unwrap()),
            "ungroup" => {
                socket.leave_group(&presence::GroupName::new("team").unwrap());
                Ok(())
            }
            "rejoin" => socket.join(&room("lobby")).await,
            text => match text.strip_prefix("echo ") {
                Some(text) => socket.send(text).await,
                None => Ok(()),
            },
        }
    }

    async fn event(&mut self, _: &mut Socket, event: Event) -> Result<()> {
        drop(self.tell.send(Heard::Event(event.name().to_string())));
        Ok(())
    }

    async fn removed(&mut self, _: &mut Socket, room: RoomName) -> Result<()> {
        drop(self.tell.send(Heard::Removed(room.to_string())));
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        drop(self.tell.send(Heard::Disconnected(code.0, socket.is_in(&room("lobby")))));
        Ok(())
    }
}
