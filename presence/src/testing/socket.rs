//! Drives a consumer without a network: everything but TCP and HTTP is what runs in production.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use actix_http::ws::{self, Codec};
use actix_web::{
    FromRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::Payload,
    error::PayloadError,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    test::TestRequest,
    web,
};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::FutureExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::codec::{Decoder, Encoder};

use crate::{CloseCode, Consumer, Frame, Rooms, Upgrade};

/// How long [`receive`](TestSocket::receive) and the like wait. Under paused time this costs nothing.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text or binary frame.
    Frame(Frame),
    /// A Close, with its code if it has one. Nothing follows.
    Close(Option<CloseCode>),
    /// The connection ended without a Close.
    End,
}

/// The socket was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's body.
    pub reason: String,
}

/// The client's end of a socket whose server end is a [`Consumer`]. As `WebsocketCommunicator` of django-channels, but to wait
/// in vain for a frame cancels nothing.
///
/// It answers pings only while it is asked to receive: a test that lets much time pass meanwhile raises `ping_interval`.
///
/// ```
/// # use presence::{
/// #     Config, Consumer, Frame, MemoryStore, NodeName, PruningSupervisor, Rooms, Socket,
/// #     testing::TestSocket,
/// # };
/// struct Echo;
///
/// impl Consumer for Echo {
///     async fn receive(&mut self, socket: &mut Socket, frame: Frame) -> presence::Result<()> {
///         let Frame::Text(text) = frame else { return Ok(()) };
///         socket.send(&*text).await
///     }
/// }
///
/// # #[actix_web::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("test")?);
/// # PruningSupervisor::spawn(&rooms);
/// let mut socket = TestSocket::connect(TestSocket::upgrade(&rooms), Echo).await.expect("accepted");
/// socket.send_text("hello");
/// assert_eq!(socket.receive_text().await, "hello");
/// assert!(socket.receive_nothing().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestSocket {
    to_server: Option<mpsc::UnboundedSender<Result<Bytes, PayloadError>>>,
    body: Body,
    codec: Codec,
    buffer: BytesMut,
    ready: VecDeque<Received>,
    headers: HeaderMap,
    reason: Option<String>,
}

struct Body(Pin<Box<BoxBody>>);

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

/// A request that asks for a WebSocket, to which path, query, headers and cookies can be added.
#[must_use]
pub fn upgrade_request() -> TestRequest {
    TestRequest::get()
        .insert_header((header::CONNECTION, "upgrade"))
        .insert_header((header::UPGRADE, "websocket"))
        .insert_header((header::SEC_WEBSOCKET_VERSION, "13"))
        .insert_header((header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="))
}

impl TestSocket {
    /// The upgrade that a handler gets, by an [`upgrade_request`].
    pub fn upgrade(rooms: &Rooms) -> Upgrade {
        let (req, mut payload) = upgrade_request().to_http_parts();
        let payload = web::Payload::from_request(&req, &mut payload).into_inner().expect("a payload is always there");
        Upgrade::new(rooms, &req, payload)
    }

    /// Connects to `consumer`. Must be called on a thread of an actix system.
    ///
    /// # Errors
    /// [`Refused`] if the socket was not accepted.
    pub async fn connect(mut upgrade: Upgrade, consumer: impl Consumer) -> Result<Self, Refused> {
        let (to_server, from_client) = mpsc::unbounded_channel();
        let mut payload: Payload = Payload::Stream { payload: Box::pin(UnboundedReceiverStream::new(from_client)) };
        upgrade.payload =
            web::Payload::from_request(&upgrade.req, &mut payload).await.expect("a payload is always there");
        let response = upgrade.start(consumer).await;
        Self::of(response, to_server).await
    }

    /// Connects to `consumer` by this request; see [`upgrade_request`].
    ///
    /// # Errors
    /// [`Refused`] if the socket was not accepted.
    pub async fn connect_with(
        mut upgrade: Upgrade,
        consumer: impl Consumer,
        req: TestRequest,
    ) -> Result<Self, Refused> {
        upgrade.req = req.to_http_request();
        Self::connect(upgrade, consumer).await
    }

    async fn of(
        response: HttpResponse,
        to_server: mpsc::UnboundedSender<Result<Bytes, PayloadError>>,
    ) -> Result<Self, Refused> {
        let status = response.status();
        let headers = response.headers().clone();
        let body = response.into_body();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let reason = actix_web::body::to_bytes(body).await.unwrap_or_default();
            return Err(Refused { status, reason: String::from_utf8_lossy(&reason).into_owned() });
        }
        let codec = Codec::new().client_mode().max_size(usize::MAX);
        let (buffer, ready) = (BytesMut::new(), VecDeque::new());
        let mut socket = Self {
            to_server: Some(to_server),
            body: Body(Box::pin(body)),
            codec,
            buffer,
            ready,
            headers,
            reason: None,
        };
        // The answer is fetched, as by any client; one that does not would be given up after `handshake_timeout`.
        if let Some(Some(Ok(bytes))) = socket.poll_body().now_or_never() {
            socket.buffer.extend_from_slice(&bytes);
        }
        Ok(socket)
    }

    /// The subprotocol that the server chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.header(header::SEC_WEBSOCKET_PROTOCOL.as_str())
    }

    /// A header of the answer to the handshake; the first one of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The reason of the Close that was received, if there was one.
    #[must_use]
    pub fn close_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn write(&mut self, message: ws::Message) {
        let mut bytes = BytesMut::new();
        self.codec.encode(message, &mut bytes).expect("a client's frames encode");
        if let Some(to_server) = &self.to_server {
            // The server may have ended already; what a client sends then is lost.
            let _ = to_server.send(Ok(bytes.freeze()));
        }
    }

    /// Sends a text.
    pub fn send_text(&mut self, text: impl Into<String>) {
        self.write(ws::Message::Text(ByteString::from(text.into())));
    }

    /// Sends bytes.
    pub fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.write(ws::Message::Binary(bytes.into()));
    }

    /// Sends a value as JSON.
    ///
    /// # Panics
    /// If it does not serialize.
    pub fn send_json(&mut self, value: &impl Serialize) {
        self.send_text(serde_json::to_string(value).expect("the value serializes"));
    }

    async fn poll_body(&mut self) -> Option<Result<Bytes, Box<dyn std::error::Error>>> {
        std::future::poll_fn(|cx| self.body.0.as_mut().poll_next(cx)).await
    }

    /// Takes one piece of what is written, as a client on a slow line. Returns how many bytes that were, 0 if there are none now.
    #[cfg(test)]
    pub(crate) fn take_a_piece(&mut self) -> usize {
        let Some(Some(Ok(bytes))) = self.poll_body().now_or_never() else { return 0 };
        self.buffer.extend_from_slice(&bytes);
        bytes.len()
    }

    /// Closes the socket from the client's side, and does not wait for the answer.
    #[cfg(test)]
    pub(crate) fn send_close(&mut self) {
        self.write(ws::Message::Close(None));
    }

    async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.ready.pop_front() {
                return received;
            }
            match self.codec.decode(&mut self.buffer) {
                Ok(Some(frame)) => {
                    if let Some(received) = self.received(frame) {
                        return received;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => panic!("the server sent what is no WebSocket frame: {error}"),
            }
            match self.poll_body().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(_)) | None => return Received::End,
            }
        }
    }

    /// What a frame means to a test. Pings are answered.
    fn received(&mut self, frame: ws::Frame) -> Option<Received> {
        match frame {
            ws::Frame::Text(text) => {
                let text = ByteString::try_from(text).expect("the server sends UTF-8");
                Some(Received::Frame(Frame::Text(text)))
            }
            ws::Frame::Binary(bytes) => Some(Received::Frame(Frame::Binary(bytes))),
            ws::Frame::Close(reason) => {
                self.write(ws::Message::Close(reason.clone()));
                self.reason = reason.as_ref().and_then(|reason| reason.description.clone());
                Some(Received::Close(reason.map(|reason| CloseCode(reason.code.into()))))
            }
            ws::Frame::Ping(payload) => {
                self.write(ws::Message::Pong(payload));
                None
            }
            ws::Frame::Pong(_) | ws::Frame::Continuation(_) => None,
        }
    }

    /// What comes next, within [`PATIENCE`].
    ///
    /// # Panics
    /// If nothing comes.
    pub async fn receive(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.next()).await.expect("something is received in time")
    }

    /// The next text.
    ///
    /// # Panics
    /// If something else comes, or nothing.
    pub async fn receive_text(&mut self) -> String {
        match self.receive().await {
            Received::Frame(Frame::Text(text)) => text.into(),
            other => panic!("a text was expected, and this came: {other:?}"),
        }
    }

    /// The next text as a value.
    ///
    /// # Panics
    /// If something else comes, or nothing.
    pub async fn receive_json<T: DeserializeOwned>(&mut self) -> T {
        let text = self.receive_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?} is not what was expected: {error}"))
    }

    /// Whether nothing comes within [`PATIENCE`]. What comes is kept for the next call.
    pub async fn receive_nothing(&mut self) -> bool {
        match tokio::time::timeout(PATIENCE, self.next()).await {
            Ok(received) => {
                self.ready.push_front(received);
                false
            }
            Err(_) => true,
        }
    }

    /// Closes the socket with this code, or without one ([`CloseCode::NONE`]), and waits until the server has closed its end:
    /// what came before that is returned. A code that nobody may send is a mistake of the client's, and answered with 1002.
    pub async fn disconnect(mut self, code: CloseCode) -> Vec<Received> {
        let reason = ws::CloseReason { code: code.0.into(), description: None };
        self.write(ws::Message::Close((code != CloseCode::NONE).then_some(reason)));
        let mut rest = Vec::new();
        loop {
            match self.receive().await {
                Received::End => return rest,
                received => {
                    if let Received::Close(_) = received {
                        // Both have said it: the connection is of no use any more.
                        self.to_server = None;
                    }
                    rest.push(received);
                }
            }
        }
    }

    /// Loses the connection, without a Close.
    pub fn lose(mut self) {
        if let Some(to_server) = self.to_server.take() {
            let _ = to_server.send(Err(PayloadError::Incomplete(None)));
        }
    }
}
