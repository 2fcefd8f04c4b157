//! A node without a network, and consumers that report how they were called.

use presence::{
    ChannelName, Clock, CloseCode, Config, ConfigBuilder, Consumer, Error, Event, Frame, MemoryStore, NodeId, NodeName,
    Notify, Presence, PresenceChange, PresenceId, PruningSupervisor, Result, RoomName, Rooms, Socket, UserId,
    remove_presence,
    store::{Attempt, NodeStore, RoomStore, RoomWrites, Write},
    testing::{ManualTime, Probe, TestSocket, store::FaultyStore},
    touch_presence,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A leave is written no later than this after it, also if nothing else is to be written.
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

/// A call of a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConsumerCall {
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
    pub(super) calls: mpsc::UnboundedReceiver<ConsumerCall>,
    report: mpsc::UnboundedSender<ConsumerCall>,
}

/// A client, and the name of its channel.
pub(super) struct BedClient {
    pub(super) socket: TestSocket,
    pub(super) channel: ChannelName,
}

pub(super) async fn bed() -> Bed {
    bed_with(|config| config).await
}

pub(super) async fn bed_with(set: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Bed {
    let time = ManualTime::pause();
    // A client without a network answers pings only while a test listens to it.
    let defaults = Config::builder().room_threads(0).notify(Notify::Silent).ping_interval(secs(86_400));
    let config = set(defaults).build().unwrap();
    let store = FaultyStore::new(MemoryStore::new(Clock::system()));
    let rooms = Rooms::start(config, store.clone(), NodeName::new("here").unwrap());
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    time.settle().await;
    let (report, calls) = mpsc::unbounded_channel();
    Bed { changes: Probe::new(&rooms), rooms, store, time, calls, report }
}

impl Bed {
    /// Lets exactly this time pass, at once.
    pub(super) async fn leap(&self, time: Duration) {
        self.time.advance(time).await;
    }

    /// Lets everything happen that needs no time.
    pub(super) async fn settle(&self) {
        self.time.settle().await;
    }

    /// A member of the lobby. The empty name: an anonymous one.
    pub(super) async fn member(&self, name: &str) -> BedClient {
        self.wrapped(name, |member| member).await
    }

    /// As `member`, within another consumer.
    pub(super) async fn wrapped<C: Consumer>(&self, name: &str, wrap: impl FnOnce(EchoMember) -> C) -> BedClient {
        let (name_it, channel) = tokio::sync::oneshot::channel();
        let consumer = wrap(EchoMember { channel: Some(name_it), report: self.report.clone() });
        let upgrade = TestSocket::upgrade(&self.rooms).user(UserId::new(name).ok());
        let socket = TestSocket::connect(upgrade, consumer).await.expect("accepted");
        BedClient { socket, channel: channel.await.unwrap() }
    }

    /// Adds a channel without a socket to the lobby.
    pub(super) async fn add(&self, name: &str, who: &str) {
        self.rooms.add(&room("lobby"), &channel(name), UserId::new(who).ok().as_ref()).await.unwrap();
    }

    pub(super) async fn here(&self) -> usize {
        self.rooms.count(&room("lobby")).await.unwrap().presences
    }

    /// The next change, in short: `+ann`, `-ann`, `~ann`, `bulk ann,bob`, with the room if it is not the lobby.
    pub(super) async fn change(&mut self) -> String {
        self.time.settle().await;
        if let Some(change) = self.try_change() {
            return change;
        }
        self.time.advance(LONE_LEAVE).await;
        self.try_change().expect("a change")
    }

    pub(super) fn try_change(&mut self) -> Option<String> {
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

    /// There is no change that the test has not read.
    pub(super) async fn quiet(&mut self) {
        self.time.settle().await;
        assert_eq!(self.try_change(), None);
    }

    pub(super) async fn next_call(&mut self) -> ConsumerCall {
        self.time.settle().await;
        if let Ok(call) = self.calls.try_recv() {
            return call;
        }
        self.time.advance(LONE_LEAVE).await;
        self.calls.try_recv().expect("a consumer was called")
    }
}

/// Joins the lobby, echoes, and fails on request.
pub(super) struct EchoMember {
    channel: Option<tokio::sync::oneshot::Sender<ChannelName>>,
    report: mpsc::UnboundedSender<ConsumerCall>,
}

impl Consumer for EchoMember {
    async fn connect(&mut self, socket: &mut Socket) -> Result<()> {
        if let Some(name_it) = self.channel.take() {
            drop(name_it.send(socket.channel().clone()));
        }
        socket.join(&room("lobby")).await
    }

    #[touch_presence]
    async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> Result<()> {
        drop(self.report.send(ConsumerCall::Frame(frame.clone())));
        match std::str::from_utf8(frame.as_bytes()).unwrap_or("") {
            "fail" => Err(Error::other("the test asked for it")),
            text => match text.strip_prefix("echo ") {
                Some(text) => socket.send(text).await,
                None => Ok(()),
            },
        }
    }

    async fn event(&mut self, _: &mut Socket, event: Event) -> Result<()> {
        drop(self.report.send(ConsumerCall::Event(event.name().to_string())));
        Ok(())
    }

    async fn removed(&mut self, _: &mut Socket, room: RoomName) -> Result<()> {
        drop(self.report.send(ConsumerCall::Removed(room.to_string())));
        Ok(())
    }

    #[remove_presence]
    async fn disconnect(&mut self, socket: &mut Socket, code: CloseCode) -> Result<()> {
        drop(self.report.send(ConsumerCall::Disconnected(code.0, socket.is_in(&room("lobby")))));
        Ok(())
    }
}

/// A presence of another node, which does nothing and counts as alive until its lease expires.
pub(super) async fn ghost(bed: &Bed, lease: Duration) {
    let (node, name) = (NodeId::random(), NodeName::new("elsewhere").unwrap());
    bed.store.register(node, name.clone(), lease).await.unwrap();
    let presence = Presence::new(PresenceId::random(), channel("ghost"), None, node);
    let writes = vec![Write::Join(Arc::new(presence))];
    bed.store.commit(node, Attempt::next(), [RoomWrites { room: room("lobby"), writes }].into()).await.unwrap();
}
