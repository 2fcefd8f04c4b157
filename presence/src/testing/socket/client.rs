//! The client's end of a test's connection: the frames on it, and the answers that any client gives.

use std::{
    cell::{OnceCell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_http::ws::{self, Codec};
use actix_web::{
    body::{BoxBody, MessageBody},
    error::PayloadError,
};
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use tokio::sync::{Notify, mpsc};
use tokio_util::codec::{Decoder, Encoder};

use crate::{CloseCode, Frame};

use super::Received;

/// The connection, which the test shares with the task that reads.
#[derive(Debug)]
pub(super) struct TestConnection {
    pub(super) client: RefCell<TestClient>,
    /// The Close that was received.
    pub(super) close: OnceCell<Option<ws::CloseReason>>,
    /// Notified when something was read.
    pub(super) has_read: Notify,
}

/// The client's side of the protocol.
pub(super) struct TestClient {
    pub(super) to_server: Option<mpsc::UnboundedSender<Result<Bytes, PayloadError>>>,
    /// `None` once the response has ended.
    pub(super) body: Option<Pin<Box<BoxBody>>>,
    pub(super) codec: Codec,
    pub(super) buffer: BytesMut,
    pub(super) received: VecDeque<Received>,
}

impl std::fmt::Debug for TestClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestClient").field("received", &self.received).finish_non_exhaustive()
    }
}

impl TestClient {
    pub(super) fn write(&mut self, message: ws::Message) {
        self.write_together([message]);
    }

    /// Writes frames that the server reads at once.
    pub(super) fn write_together(&mut self, messages: impl IntoIterator<Item = ws::Message>) {
        let mut bytes = BytesMut::new();
        for message in messages {
            self.codec.encode(message, &mut bytes).expect("a client's frames encode");
        }
        if let Some(to_server) = &self.to_server {
            // The server may have ended already. It does not receive what a client sends then.
            let _ = to_server.send(Ok(bytes.freeze()));
        }
    }

    /// Reads what the server wrote last. Resolves to how many bytes that are, or to `None` at the end of the response.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let read = ready!(body.as_mut().poll_next(cx)).and_then(Result::ok);
        match &read {
            Some(bytes) => self.buffer.extend_from_slice(bytes),
            None => self.body = None,
        }
        Poll::Ready(read.map(|bytes| bytes.len()))
    }
}

impl TestConnection {
    /// Answers pings and a Close, and keeps every other frame for the test.
    pub(super) fn decode(&self) {
        let client = &mut *self.client.borrow_mut();
        while let Some(frame) = client.codec.decode(&mut client.buffer).expect("the server sends WebSocket frames") {
            match frame {
                ws::Frame::Text(text) => {
                    let text = ByteString::try_from(text).expect("the server sends UTF-8");
                    client.received.push_back(Received::Frame(Frame::Text(text)));
                }
                ws::Frame::Binary(bytes) => client.received.push_back(Received::Frame(Frame::Binary(bytes))),
                ws::Frame::Close(reason) => {
                    client.write(ws::Message::Close(reason.clone()));
                    let code = reason.as_ref().map(|reason| CloseCode(reason.code.into()));
                    client.received.push_back(Received::Close(code));
                    self.close.get_or_init(|| reason);
                }
                ws::Frame::Ping(payload) => client.write(ws::Message::Pong(payload)),
                ws::Frame::Pong(_) | ws::Frame::Continuation(_) => {}
            }
        }
    }

    /// Reads until there is something to decode. Returns whether the response goes on.
    pub(super) async fn read(&self) -> bool {
        let read = poll_fn(|cx| self.client.borrow_mut().poll_bytes(cx)).await;
        self.decode();
        read.is_some()
    }

    pub(super) async fn read_all(&self) {
        while self.read().await {
            self.has_read.notify_one();
        }
        self.has_read.notify_one();
    }
}
