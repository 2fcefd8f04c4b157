//! One WebSocket connection, written by hand so that it can also do what no decent client would.

use super::frame::{CLOSE, FrameDecoder, PING, PONG, Raw, ReceivedFrame};
use super::http::Response;
use super::server::ChatServer;
use super::{BOUND, within};
use serde_json::Value;
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Interval;

/// The nonce of RFC 6455, section 1.3, and the answer that the RFC works out for it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A request for an upgrade, which is correct unless a test changes it.
#[derive(Debug, Clone)]
pub(crate) struct HandshakeRequest {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    receive_buffer: Option<u32>,
    version: &'static str,
    end: &'static str,
    rest: Vec<u8>,
}

impl HandshakeRequest {
    pub(crate) fn to(path: impl Into<String>) -> Self {
        let headers = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", KEY),
        ];
        let headers = headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        Self {
            method: "GET",
            path: path.into(),
            headers,
            receive_buffer: None,
            version: "HTTP/1.1",
            end: "\r\n",
            rest: Vec::new(),
        }
    }

    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(crate) fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    /// Sends these bytes together with the request.
    pub(crate) fn followed_by(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.rest = bytes.into();
        self
    }

    /// Adds a header to what is there.
    pub(crate) fn and(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets a header in the place of what was there.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self = self.without(name);
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(header, _)| *header != name);
        self
    }

    /// Asks the kernel for a receive buffer this small, so that a client that does not read is soon full.
    pub(crate) fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Leaves out the empty line at which a request is complete.
    pub(crate) fn unfinished(mut self) -> Self {
        self.end = "";
        self
    }

    /// Connects and sends the request; the answer has yet to be read.
    pub(crate) async fn send(&self, address: SocketAddr) -> io::Result<ClientSocket> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let mut stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("{} {} {}\r\n", self.method, self.path, self.version);
        if !self.headers.iter().any(|(name, _)| *name == "Host") {
            request += &format!("Host: {address}\r\n");
        }
        for (name, value) in &self.headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += self.end;
        stream.write_all(&[request.as_bytes(), &self.rest].concat()).await?;
        Ok(ClientSocket { stream, decoder: FrameDecoder::default(), path: self.path.clone(), beat: None })
    }

    /// Connects and reads the answer: the open socket, or the response that refused it.
    pub(crate) async fn open(&self, address: SocketAddr) -> Result<ClientSocket, Response> {
        let what = format!("the answer to the handshake for {}", self.path);
        within(BOUND, &what, async { self.send(address).await.unwrap().answer().await }).await
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    stream: TcpStream,
    decoder: FrameDecoder,
    path: String,
    beat: Option<Interval>,
}

impl ClientSocket {
    /// Opens a socket that must be accepted.
    pub(crate) async fn open(server: &ChatServer, path: &str) -> Self {
        match HandshakeRequest::to(path).open(server.address()).await {
            Ok(socket) => socket,
            Err(response) => panic!("{path} was refused: {response:?}"),
        }
    }

    /// Reads the answer to a handshake that was only sent.
    pub(crate) async fn answered(self) -> Result<Self, Response> {
        within(BOUND, "the answer to the handshake", self.answer()).await
    }

    async fn answer(self) -> Result<Self, Response> {
        let path = self.path.clone();
        self.answer_or_end().await.unwrap_or_else(|| panic!("{path}: no answer to the handshake"))
    }

    /// Reads the answer to a handshake; `None`: the connection ended before it came, as that to a dying server does.
    pub(crate) async fn answer_or_end(mut self) -> Option<Result<Self, Response>> {
        let buffer = &mut self.decoder.buffer;
        loop {
            if let Some((mut response, start)) = Response::head(buffer) {
                if response.status == 101 {
                    assert_eq!(response.header("sec-websocket-accept"), Some(ACCEPT), "the proof of RFC 6455");
                    bytes::Buf::advance(buffer, start);
                    return Some(Ok(self));
                }
                let length = response.header("content-length").and_then(|length| length.parse().ok());
                while buffer.len() < start + length.unwrap_or(usize::MAX - start) {
                    if self.stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
                response.body = String::from_utf8_lossy(&buffer[start..]).into_owned();
                return Some(Err(response));
            }
            if self.stream.read_buf(buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// This end's address: the server's descriptor for this connection is known by it.
    pub(crate) fn local(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends a frame; an error is that the server has closed already.
    pub(crate) async fn try_send(&mut self, raw: &Raw) -> io::Result<()> {
        self.try_bytes(&raw.encode()).await
    }

    pub(crate) async fn try_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        within(BOUND, "room in the server's receive buffer", self.stream.write_all(bytes)).await
    }

    /// Sends without a bound, for those who want to see the server stop reading.
    pub(crate) async fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    pub(crate) async fn send(&mut self, raw: Raw) {
        self.try_send(&raw).await.unwrap_or_else(|error| panic!("{}: sending {raw:?}: {error}", self.path));
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.send(Raw::text(text)).await;
    }

    pub(crate) async fn json(&mut self, command: Value) {
        self.text(&command.to_string()).await;
    }

    pub(crate) async fn heartbeat(&mut self) {
        self.text("\"heartbeat\"").await;
    }

    pub(crate) async fn binary(&mut self, payload: &[u8]) {
        self.send(Raw::binary(payload)).await;
    }

    pub(crate) async fn ping(&mut self, payload: &[u8]) {
        self.send(Raw::new(PING, payload)).await;
    }

    pub(crate) async fn pong(&mut self, payload: &[u8]) {
        self.send(Raw::new(PONG, payload)).await;
    }

    pub(crate) async fn close(&mut self, code: u16) {
        self.send(Raw::close(code, b"")).await;
    }

    pub(crate) async fn close_empty(&mut self) {
        self.send(Raw::new(CLOSE, "")).await;
    }

    /// The next frame, pings of the server too, without answering them; `None` when the time is up.
    pub(crate) async fn frame_within(&mut self, bound: Duration) -> Option<ReceivedFrame> {
        tokio::time::timeout(bound, self.frame()).await.ok()
    }

    /// The next frame, pings of the server too, without answering them and without a bound.
    pub(crate) async fn frame(&mut self) -> ReceivedFrame {
        read(&mut self.stream, &mut self.decoder).await
    }

    /// The next frame that is not a ping of the server's, those being answered.
    pub(crate) async fn next(&mut self) -> ReceivedFrame {
        self.next_within(BOUND).await
    }

    pub(crate) async fn next_within(&mut self, bound: Duration) -> ReceivedFrame {
        let what = format!("a frame on {}", self.path);
        within(bound, &what, self.next_frame()).await
    }

    /// As `next`, for those who have a bound of their own. Nothing is lost when it is dropped while waiting.
    pub(crate) async fn next_frame(&mut self) -> ReceivedFrame {
        loop {
            let frame = match &mut self.beat {
                None => read(&mut self.stream, &mut self.decoder).await,
                Some(beat) => tokio::select! {
                    frame = read(&mut self.stream, &mut self.decoder) => frame,
                    _ = beat.tick() => {
                        // To a connection that has ended: its end is read next.
                        drop(self.try_send(&Raw::text("\"heartbeat\"")).await);
                        continue;
                    }
                },
            };
            match frame {
                // A ping to a connection that is ending needs no answer.
                ReceivedFrame::Ping(payload) => drop(self.try_send(&Raw::new(PONG, payload)).await),
                frame => return frame,
            }
        }
    }

    /// From now on sends a heartbeat this often, whenever the test waits for a frame.
    pub(crate) fn beats_every(&mut self, period: Duration) {
        self.beat = Some(tokio::time::interval(period));
    }

    /// The next frame as the JSON it must be.
    pub(crate) async fn value(&mut self) -> Value {
        match self.next().await {
            ReceivedFrame::Text(text) => serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON, not {text:?}")),
            frame => panic!("{}: a text frame, not {frame:?}", self.path),
        }
    }

    /// The next frame must be this.
    #[track_caller]
    pub(crate) fn hears(&mut self, expected: Value) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let heard = self.value().await;
            assert_eq!(heard, expected, "on {}, expected at {caller}", self.path);
        }
    }

    /// The next frame must be the refusal of a command, with a text for people.
    pub(crate) async fn refused(&mut self, code: &str) {
        let heard = self.value().await;
        assert_eq!((&heard["type"], &heard["code"]), (&"error".into(), &code.into()), "{}: {heard}", self.path);
        assert!(heard["message"].as_str().is_some_and(|text| !text.is_empty()), "an error says why: {heard}");
    }

    /// Reads over texts to the close, and gives its code.
    pub(crate) async fn closing(&mut self) -> Option<u16> {
        self.closing_within(BOUND).await
    }

    pub(crate) async fn closing_within(&mut self, bound: Duration) -> Option<u16> {
        let path = self.path.clone();
        within(bound, &format!("a close frame on {path}"), async {
            loop {
                match self.next_frame().await {
                    ReceivedFrame::Close(code, _) => return code,
                    ReceivedFrame::Text(_) | ReceivedFrame::Pong(_) => {}
                    frame => panic!("{path}: a close frame, not {frame:?}"),
                }
            }
        })
        .await
    }

    /// The connection ends, in order or cut, and nothing more arrives.
    pub(crate) async fn ended(&mut self) {
        let frame = self.next().await;
        assert!(matches!(frame, ReceivedFrame::End | ReceivedFrame::Reset), "{}: the end, not {frame:?}", self.path);
    }

    /// Reads whatever there still is to the end of the connection.
    pub(crate) async fn drained(&mut self) {
        let path = self.path.clone();
        within(BOUND, &format!("the end of the connection on {path}"), async {
            while !matches!(self.frame().await, ReceivedFrame::End | ReceivedFrame::Reset) {}
        })
        .await;
    }

    /// Closes in order: 1000, the echo, the end.
    pub(crate) async fn leave(mut self) {
        self.close(1000).await;
        assert_eq!(self.closing().await, Some(1000), "the echo of one's own close on {}", self.path);
    }

    /// Ends this half of the connection; the other is still read.
    pub(crate) async fn end_writing(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Cuts the connection with a reset, as a crashing kernel or an impatient proxy does.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("linger can be set");
    }
}

/// Reads until a frame is whole. What has been read stays in the decoder when this is dropped.
async fn read(stream: &mut TcpStream, decoder: &mut FrameDecoder) -> ReceivedFrame {
    loop {
        if let Some(frame) = decoder.next() {
            return frame;
        }
        match stream.read_buf(&mut decoder.buffer).await {
            Ok(0) => return ReceivedFrame::End,
            Ok(_) => {}
            Err(_) => return ReceivedFrame::Reset,
        }
    }
}
