//! A socket as its hub sees it: an outbox, and an actor that receives the messages to its connection.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix::{Actor, Handler, Recipient};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::noop_waker_ref;
use serde_json::Value;

use crate::{
    CloseCode, Meta, Presence, Result, ResumeToken, Rooms,
    delivery::{Bounds, HubSocket, LocalHub, Outbound, Outbox, Owner, ToConnection, Touch},
    name::{ChannelName, NodeId, PresenceId, RoomName, UserId},
    room::Entrant,
    rooms::channel::Channel,
    session::Session,
};

use super::{ClientView, FakeKernel};

pub(crate) struct FakeClient {
    pub(crate) rooms: Rooms,
    pub(crate) channel: ChannelName,
    /// Its channel in the map of the node. The requests to rooms do not use it.
    open: Arc<Channel>,
    pub(crate) touch: Touch,
    pub(crate) outbox: Rc<Outbox>,
    user: Option<UserId>,
    /// The token by which it can be resumed, and for how long it is held.
    resume: Option<(ResumeToken, Duration)>,
    hub: LocalHub,
    joined: RefCell<HashMap<RoomName, PresenceId>>,
    connection: Recipient<ToConnection>,
    messages: Rc<RefCell<Vec<ToConnection>>>,
    is_blocked: Rc<Cell<bool>>,
    /// Whether the kernel accepts the bytes that are written.
    pub(crate) takes: Rc<Cell<bool>>,
    pub(crate) kernel: Rc<FakeKernel>,
    screen: RefCell<ClientView>,
    read: Cell<usize>,
}

/// Stands for the connection of the socket. It records the messages that it receives.
struct FakeConnection {
    messages: Rc<RefCell<Vec<ToConnection>>>,
    is_blocked: Rc<Cell<bool>>,
}

impl Actor for FakeConnection {
    type Context = actix::Context<Self>;
}

impl Handler<ToConnection> for FakeConnection {
    type Result = ();

    fn handle(&mut self, message: ToConnection, _: &mut Self::Context) {
        match message {
            ToConnection::CheckSilence(asked) if !self.is_blocked.get() => asked.agree(),
            message => self.messages.borrow_mut().push(message),
        }
    }
}

impl FakeClient {
    pub(crate) fn new(rooms: &Rooms, user: Option<UserId>) -> Self {
        let hub = rooms.hubs().here();
        let channel = rooms.hubs().new_channel(&hub.hub);
        let config = rooms.config();
        let bounds = Bounds {
            frames: config.outbox_frames(),
            bytes: config.outbox_bytes(),
            write_timeout: config.write_timeout(),
            patience: config.send_patience(),
            rate: config.steady_rate(),
        };
        let outbox = Outbox::new(bounds, rooms.this_node().clock.clone(), hub.filling.clone(), hub.hub.clone());
        let messages = Rc::<RefCell<Vec<_>>>::default();
        let is_blocked = Rc::<Cell<bool>>::default();
        let connection =
            FakeConnection { messages: messages.clone(), is_blocked: is_blocked.clone() }.start().recipient();
        let takes = Rc::new(Cell::new(true));
        let kernel = Rc::new(FakeKernel::new(takes.clone()));
        outbox.set_owner(Owner {
            channel: channel.clone(),
            connection: connection.clone(),
            kernel: Box::new(kernel.clone()),
        });
        hub.sockets.borrow_mut().enter(
            channel.clone(),
            HubSocket { outbox: outbox.clone(), connection: connection.clone(), user: user.clone() },
        );
        let touch = Touch::new(rooms.this_node().now());
        let open = rooms.channels().open(channel.clone(), touch.clone(), hub.hub.clone());
        Self {
            touch,
            rooms: rooms.clone(),
            channel,
            open,
            outbox,
            user,
            resume: None,
            hub,
            joined: RefCell::default(),
            connection,
            messages,
            is_blocked,
            takes,
            kernel,
            screen: RefCell::default(),
            read: Cell::default(),
        }
    }

    /// With a resume token that contains this text.
    pub(crate) fn with_token(self, token: &str, grace: Duration) -> Self {
        let token = ResumeToken::new(format!("token-{token:->10}")).unwrap();
        Self { resume: Some((token, grace)), ..self }
    }

    /// The id with which it joins the room. It is created when it is first used.
    pub(crate) fn id(&self, room: &RoomName) -> PresenceId {
        *self.joined.borrow_mut().entry(room.clone()).or_insert_with(PresenceId::random)
    }

    pub(crate) fn presence(&self, room: &RoomName) -> Arc<Presence> {
        let node = self.rooms.node().unwrap_or_else(NodeId::random);
        Arc::new(Presence::new(self.id(room), self.channel.clone(), self.user.clone(), node))
    }

    /// The join request of this socket with this presence.
    pub(crate) fn entrant(&self, presence: Arc<Presence>) -> Entrant {
        let (hub, touch) = (Some(self.hub.hub.clone()), self.touch.clone());
        Entrant { presence, session: None, limit: None, hub, touch }
    }

    pub(crate) async fn join(&self, room: &RoomName) -> Result<()> {
        self.touch();
        self.join_silently(room).await
    }

    /// Joins without a touch of its own.
    pub(crate) async fn join_silently(&self, room: &RoomName) -> Result<()> {
        self.join_on(room, None).await
    }

    /// Joins with this limit.
    pub(crate) async fn join_within(&self, room: &RoomName, limit: usize) -> Result<()> {
        self.touch();
        self.join_on(room, Some(limit)).await
    }

    async fn join_on(&self, room: &RoomName, limit: Option<usize>) -> Result<()> {
        let session = self
            .resume
            .as_ref()
            .map(|(token, grace)| Session { hash: token.hash(room, self.user.as_ref()), grace: *grace });
        self.open.considers_itself_in(room, self.id(room));
        self.rooms.join(room, Entrant { session, limit, ..self.entrant(self.presence(room)) }, None).await
    }

    /// Its connection is lost.
    pub(crate) fn lose(&self, room: &RoomName) {
        self.vanish();
        self.open.forget(room, self.id(room));
        self.rooms.lose(room, self.id(room), &self.channel);
    }

    /// The id of its presence, as in its first frame.
    pub(crate) fn me(&self) -> String {
        self.view().me
    }

    /// Leaves; a later join is another presence.
    pub(crate) async fn leave(&self, room: &RoomName) -> Result<()> {
        let id = self.id(room);
        self.joined.borrow_mut().remove(room);
        self.open.forget(room, id);
        self.rooms.leave(room, id, &self.channel).await
    }

    pub(crate) async fn update(&self, room: &RoomName, meta: &str) -> Result<()> {
        self.rooms.update_presence(room, self.id(room), &self.channel, Meta::from_json(meta).unwrap(), None).await
    }

    pub(crate) fn touch(&self) {
        self.touch.mark(self.rooms.this_node().now());
    }

    /// Removes the socket from its hub.
    pub(crate) fn vanish(&self) {
        self.hub.sockets.borrow_mut().leave(&self.channel);
    }

    /// The body of its response.
    pub(crate) fn response(&self) -> Outbound {
        Outbound { outbox: self.outbox.clone(), connection: self.connection.clone() }
    }

    /// The server drops the response, since the connection has ended.
    pub(crate) fn drop_response(&self) {
        drop(self.response());
    }

    /// From now on its connection does not answer whether it is silent, as if a consumer had blocked its thread.
    pub(crate) fn block(&self) {
        self.is_blocked.set(true);
    }

    /// The messages to its connection since this was last called.
    pub(crate) fn connection_messages(&self) -> Vec<ToConnection> {
        std::mem::take(&mut *self.messages.borrow_mut())
    }

    /// The close codes among the messages to its connection.
    pub(crate) fn close_codes(&self) -> Vec<CloseCode> {
        let close = |message| match message {
            ToConnection::Close { code, .. } => Some(code),
            ToConnection::Removed { close: Some(close), .. } => Some(close.code),
            ToConnection::Restart { .. } => Some(crate::CloseCode::RESTARTING),
            _ => None,
        };
        self.connection_messages().into_iter().filter_map(close).collect()
    }

    /// What the response has streamed since this was last called.
    pub(crate) fn bytes(&self) -> Bytes {
        read_bytes(&self.outbox)
    }

    /// The frames since this was last called.
    pub(crate) fn frames(&self) -> Vec<Value> {
        let frames = read(&self.outbox);
        self.read.set(self.read.get() + frames.len());
        frames.iter().for_each(|frame| self.screen.borrow_mut().show(frame));
        frames
    }

    /// What the client shows after all frames so far.
    pub(crate) fn view(&self) -> ClientView {
        self.frames();
        self.screen.borrow().clone()
    }

    /// The users that the client shows, a name for each presence.
    pub(crate) fn sees(&self) -> Vec<String> {
        self.view().names()
    }

    /// How many frames the client has received.
    pub(crate) fn count(&self) -> usize {
        self.frames();
        self.read.get()
    }
}

fn read_bytes(outbox: &Outbox) -> Bytes {
    let mut bytes = BytesMut::new();
    let cx = Context::from_waker(noop_waker_ref());
    while let Poll::Ready(Some(Ok(more))) = outbox.poll(&cx) {
        bytes.extend_from_slice(&more);
    }
    bytes.freeze()
}

fn read(outbox: &Outbox) -> Vec<Value> {
    let mut bytes = read_bytes(outbox);
    let mut frames = Vec::new();
    while bytes.has_remaining() {
        frames.push(serde_json::from_slice(&frame(&mut bytes)).unwrap());
    }
    frames
}

/// Removes one unmasked frame from the bytes, and returns its payload.
fn frame(bytes: &mut Bytes) -> Bytes {
    bytes.advance(1);
    let len = match bytes.get_u8() {
        126 => usize::from(bytes.get_u16()),
        127 => usize::try_from(bytes.get_u64()).unwrap(),
        short => usize::from(short),
    };
    bytes.split_to(len)
}
