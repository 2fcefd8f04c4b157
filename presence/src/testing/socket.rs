//! Drives a consumer without a network. Everything but TCP and HTTP is the code that runs in production.

mod client;
#[cfg(test)]
mod tests;

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    time::Duration,
};

use actix_http::ws::{self, Codec};
use actix_web::{
    FromRequest, HttpResponse,
    dev::Payload,
    error::PayloadError,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    rt::task::JoinHandle,
    test::TestRequest,
    web,
};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::FutureExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{CloseCode, Consumer, Frame, Rooms, Upgrade};

use self::client::{TestClient, TestConnection};

/// How long [`receive`](TestSocket::receive) and the like wait. Under paused time the wait takes no real time.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// What a client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text or binary frame.
    Frame(Frame),
    /// A Close, with its code if it has one. Nothing follows.
    Close(Option<CloseCode>),
    /// The connection ended.
    End,
}

/// Why a socket was not accepted.
///
/// ```
/// # use presence::{Consumer, Rooms, testing::TestSocket};
/// async fn needs_a_login(rooms: &Rooms, consumer: impl Consumer) {
///     let refused = TestSocket::connect(TestSocket::upgrade(rooms), consumer).await.unwrap_err();
///     assert_eq!((refused.status.as_u16(), &*refused.reason), (401, "log in first"));
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The status of the response.
    pub status: StatusCode,
    /// The body of the response.
    pub reason: String,
}

/// The client's end of a socket whose server end is a [`Consumer`]. It is what `WebsocketCommunicator` is in django-channels, but
/// when a wait for a frame times out, nothing is cancelled.
///
/// It reads all the time, as a browser does: pings and a Close are answered when they arrive, also while the test does something else
/// or moves the time. The frames wait until the test receives them. After [`stop_reading`](Self::stop_reading) it is a client that
/// does not read. It sends nothing by itself, so it goes stale when the test sends nothing for `max_age`.
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
    connection: Rc<TestConnection>,
    /// The task that reads. `None` after [`stop_reading`](Self::stop_reading).
    reader: Option<JoinHandle<()>>,
    headers: HeaderMap,
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
    /// The upgrade that a handler receives for an [`upgrade_request`].
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
    /// ```
    /// # use presence::{Consumer, Frame, Rooms, Socket, testing::{TestSocket, upgrade_request}};
    /// # struct Chat;
    /// # impl Consumer for Chat {
    /// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
    /// # }
    /// async fn with_cookie(rooms: &Rooms) -> TestSocket {
    ///     let request = upgrade_request().uri("/chat?lang=de").insert_header(("cookie", "session=5"));
    ///     TestSocket::connect_with(TestSocket::upgrade(rooms), Chat, request).await.expect("accepted")
    /// }
    /// ```
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
        let client = TestClient {
            to_server: Some(to_server),
            body: Some(Box::pin(body)),
            codec: Codec::new().client_mode().max_size(usize::MAX),
            buffer: BytesMut::new(),
            received: VecDeque::new(),
        };
        let connection =
            Rc::new(TestConnection { client: RefCell::new(client), close: OnceCell::new(), has_read: Notify::new() });
        let mut socket = Self { connection, reader: None, headers };
        // Any client fetches the response to its handshake, also one that reads nothing afterwards. The server cuts off a client that
        // does not, after `handshake_timeout`.
        socket.read_once();
        let reader = Rc::clone(&socket.connection);
        socket.reader = Some(actix_web::rt::spawn(async move { reader.read_all().await }));
        Ok(socket)
    }

    /// Stops reading, as a client that hangs or that is slow. From here on the socket reads only while the test waits in a method such
    /// as [`receive`](Self::receive): only then are pings answered, and only then is there space for more frames.
    pub fn stop_reading(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
        }
    }

    /// The subprotocol that the server chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.header(header::SEC_WEBSOCKET_PROTOCOL.as_str())
    }

    /// A header of the response to the handshake; the first one of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The code of the Close that arrived. [`CloseCode::NONE`] if the Close has no code, `None` if no Close arrived.
    ///
    /// A Close arrives before the test receives the frames that were sent before it.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        let close = self.connection.close.get()?.as_ref();
        Some(close.map_or(CloseCode::NONE, |close| CloseCode(close.code.into())))
    }

    /// The reason of the Close that arrived, if it has one.
    #[must_use]
    pub fn close_reason(&self) -> Option<&str> {
        self.connection.close.get()?.as_ref()?.description.as_deref()
    }

    fn write(&mut self, message: ws::Message) {
        self.connection.client.borrow_mut().write(message);
    }

    /// Sends a text.
    pub fn send_text(&mut self, text: impl Into<String>) {
        self.write(ws::Message::Text(ByteString::from(text.into())));
    }

    /// Sends texts that the server reads at once.
    #[cfg(test)]
    pub(crate) fn send_texts_together<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        let messages = texts.into_iter().map(|text| ws::Message::Text(text.into()));
        self.connection.client.borrow_mut().write_together(messages);
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

    /// Reads one piece of what the server wrote, as a client on a slow line. Returns how many bytes that are, 0 if there are none now.
    pub(crate) fn read_once(&mut self) -> usize {
        let mut client = self.connection.client.borrow_mut();
        poll_fn(|cx| client.poll_bytes(cx)).now_or_never().flatten().unwrap_or(0)
    }

    /// Closes the socket from the client's side, and does not wait for the answer.
    #[cfg(test)]
    pub(crate) fn send_close(&mut self) {
        self.write(ws::Message::Close(None));
    }

    async fn next(&mut self) -> Received {
        loop {
            // What `read_once` has read is not decoded yet.
            self.connection.decode();
            let received = self.connection.client.borrow_mut().received.pop_front();
            if let Some(received) = received {
                return received;
            }
            if !self.read_more().await {
                return Received::End;
            }
        }
    }

    /// Waits until more was read. Returns false if the response has ended, and nothing more can be read.
    async fn read_more(&self) -> bool {
        let connection = &*self.connection;
        if connection.client.borrow().body.is_none() {
            return false;
        }
        match self.reader {
            Some(_) => connection.has_read.notified().await,
            None => drop(connection.read().await),
        }
        true
    }

    /// Waits until a Close arrives, and returns its code and its reason. Without a code it is [`CloseCode::NONE`], and if the connection
    /// ends without a Close, [`CloseCode::LOST`], as in a browser. The reason is empty if there is none. The frames that were sent before
    /// the Close stay for [`receive`](Self::receive).
    ///
    /// It waits without a limit of its own. Under paused time the clock moves on meanwhile, so a silent socket is closed as stale.
    ///
    /// ```
    /// # use presence::{CloseCode, testing::TestSocket};
    /// async fn is_closed_as_stale(mut socket: TestSocket) {
    ///     assert_eq!(socket.closed().await.0, CloseCode::STALE);
    /// }
    /// ```
    pub async fn closed(&mut self) -> (CloseCode, String) {
        loop {
            self.connection.decode();
            if let Some(code) = self.close_code() {
                return (code, self.close_reason().unwrap_or_default().to_owned());
            }
            if !self.read_more().await {
                return (CloseCode::LOST, String::new());
            }
        }
    }

    /// The next frame, Close or end that arrives within [`PATIENCE`].
    ///
    /// # Panics
    /// If nothing arrives.
    pub async fn receive(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.next()).await.expect("something is received in time")
    }

    /// The next text.
    ///
    /// # Panics
    /// If something else arrives, or nothing.
    pub async fn receive_text(&mut self) -> String {
        match self.receive().await {
            Received::Frame(Frame::Text(text)) => text.into(),
            other => panic!("a text was expected, but the socket received {other:?}"),
        }
    }

    /// The next text as a value.
    ///
    /// # Panics
    /// If something else arrives, or nothing.
    pub async fn receive_json<T: DeserializeOwned>(&mut self) -> T {
        let text = self.receive_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?} is not what was expected: {error}"))
    }

    /// Whether nothing arrives within [`PATIENCE`]. What arrives is kept for the next call.
    pub async fn receive_nothing(&mut self) -> bool {
        match tokio::time::timeout(PATIENCE, self.next()).await {
            Ok(received) => {
                self.connection.client.borrow_mut().received.push_front(received);
                false
            }
            Err(_) => true,
        }
    }

    /// Closes the socket with this code, or without one ([`CloseCode::NONE`]), and waits until the server has closed its end.
    /// Returns what arrived before that. The server answers a code that no endpoint may send with 1002.
    ///
    /// ```
    /// # use presence::{CloseCode, testing::{Received, TestSocket}};
    /// async fn leaves(socket: TestSocket) {
    ///     let rest = socket.disconnect(CloseCode::NORMAL).await;
    ///     assert_eq!(rest.last(), Some(&Received::Close(Some(CloseCode::NORMAL))));
    /// }
    /// ```
    pub async fn disconnect(mut self, code: CloseCode) -> Vec<Received> {
        let reason = ws::CloseReason { code: code.0.into(), description: None };
        self.write(ws::Message::Close((code != CloseCode::NONE).then_some(reason)));
        let mut rest = Vec::new();
        loop {
            match self.receive().await {
                Received::End => return rest,
                received => {
                    if let Received::Close(_) = received {
                        // Both sides have sent a Close, so the client ends the connection.
                        self.connection.client.borrow_mut().to_server = None;
                    }
                    rest.push(received);
                }
            }
        }
    }

    /// Loses the connection, without a Close.
    pub fn lose(self) {
        if let Some(to_server) = self.connection.client.borrow_mut().to_server.take() {
            let _ = to_server.send(Err(PayloadError::Incomplete(None)));
        }
    }
}

impl Drop for TestSocket {
    fn drop(&mut self) {
        self.stop_reading();
        // The aborted task holds the connection a little longer.
        let mut client = self.connection.client.borrow_mut();
        client.body = None;
        client.to_server = None;
    }
}
