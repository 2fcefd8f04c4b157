//! WebSocket frames from a request's payload, and the handshake. The only file that names `actix-web-actors`.
//!
//! The actor of `actix-web-actors` itself is not used: it is polled as the response's body, so a client that stops reading
//! stops the whole actor. What the codec leaves open is checked here: the length that a header declares, before anything is
//! buffered for it; the size of a message in several frames; and that texts are UTF-8.

use std::{cell::Cell, rc::Rc};

use actix_http::ws::{OpCode, Parser, verify_handshake};
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::BoxBody,
    http::{
        StatusCode, Version,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    web::Payload,
};
use actix_web_actors::ws;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::StreamExt;

use crate::{
    Frame,
    clock::{Clock, Tick},
    room::close_code,
};

/// Checks the client's handshake, and begins the answer that accepts it. `Err`: the answer that refuses it.
///
/// `actix_http` checks the method, the version, the key and `Connection`, more strictly than `actix-web-actors` does, which would
/// accept the drafts 7 and 8 and any key. That crate makes the 101 with its proof. Neither checks the rest of RFC 6455, 4.2.1.
pub(crate) fn handshake(req: &HttpRequest) -> Result<HttpResponseBuilder, Box<HttpResponse>> {
    verify(req)?;
    ws::handshake(req).map_err(|error| Box::new(HttpResponse::from_error(error)))
}

/// Headers of a handshake that may come once only: of two, one part of a chain would go by the first and another by the second.
const ONCE: [(HeaderName, &str); 3] = [
    (header::SEC_WEBSOCKET_KEY, "a handshake has one `Sec-WebSocket-Key`"),
    (header::SEC_WEBSOCKET_VERSION, "a handshake has one `Sec-WebSocket-Version`"),
    (header::ORIGIN, "a handshake has one `Origin`"),
];

fn verify(req: &HttpRequest) -> Result<(), Box<HttpResponse>> {
    verify_handshake(req.head()).map_err(|error| {
        let mut refused = HttpResponse::from_error(error).set_body(BoxBody::new(error.to_string()));
        if refused.status() == StatusCode::BAD_REQUEST {
            name_version(refused.headers_mut());
        }
        Box::new(refused)
    })?;
    if req.version() != Version::HTTP_11 {
        return Err(bad_handshake("a handshake needs HTTP/1.1"));
    }
    // In a list with others, `actix_http` does not take it for an upgrade, and reads no frames.
    let upgrades = req.headers().get_all(header::UPGRADE);
    if !upgrades.filter_map(|value| value.to_str().ok()).any(|value| value.trim().eq_ignore_ascii_case("websocket")) {
        return Err(bad_handshake("`Upgrade` must be `websocket` and nothing else"));
    }
    match ONCE.iter().find(|(name, _)| req.headers().get_all(name).count() > 1) {
        Some((_, reason)) => Err(bad_handshake(reason)),
        None => Ok(()),
    }
}

fn bad_handshake(reason: &'static str) -> Box<HttpResponse> {
    let mut refused = HttpResponse::BadRequest().body(reason);
    name_version(refused.headers_mut());
    Box::new(refused)
}

/// A client that speaks another version learns which one is spoken here (RFC 6455, 4.4).
fn name_version(headers: &mut HeaderMap) {
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
}

/// What a client sent.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A whole text or binary message.
    Data(Frame),
    Ping(Bytes),
    Pong,
    /// With its code and reason, if it has one.
    Close(Option<(u16, Bytes)>),
    /// It broke the protocol or a limit.
    Violation(Violation),
    /// The connection is gone.
    Lost,
}

/// What became of one frame.
enum Decoded {
    /// It is part of a message that is not whole yet.
    Nothing,
    /// It is not whole yet.
    Unfinished,
    Incoming(Incoming),
}

/// The bits of a frame's first byte that say what it is, and what they are in a Close.
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;

/// A buffer that is full grows by at least one part in so many of what it holds.
const SLACK: usize = 16;

/// Reads a client's frames.
pub(crate) struct Inbound {
    payload: Payload,
    buffer: BytesMut,
    max_frame: usize,
    max_message: usize,
    clock: Clock,
    /// When anything last came in.
    seen: Rc<Cell<Tick>>,
    /// The frames of an unfinished message so far, and whether it is a text.
    message: Option<(bool, Vec<u8>)>,
}

/// What a client broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The close code that answers it.
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    /// It was in a Close: the connection was to end in any case.
    pub(crate) in_close: bool,
}

impl Violation {
    const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason, in_close: false }
    }
}

const fn protocol(reason: &'static str) -> Violation {
    Violation::new(close_code::PROTOCOL_ERROR, reason)
}

impl Inbound {
    pub(crate) fn new(
        payload: Payload,
        (max_frame, max_message): (usize, usize),
        clock: Clock,
        seen: Rc<Cell<Tick>>,
    ) -> Self {
        Self { payload, buffer: BytesMut::new(), max_frame, max_message, clock, seen, message: None }
    }

    /// The next frame that means something. After a violation, a close or a loss there is none.
    pub(crate) async fn next(&mut self) -> Incoming {
        loop {
            match self.decode() {
                Ok(Some(incoming)) => return incoming,
                Ok(None) => {}
                Err(violation) => return Incoming::Violation(violation),
            }
            match self.payload.next().await {
                Some(Ok(bytes)) => {
                    self.seen.set(self.clock.now());
                    self.buffer.extend_from_slice(&bytes);
                }
                Some(Err(_)) | None => return Incoming::Lost,
            }
        }
    }

    /// Takes what else there is, without a look at it, to the end of the connection.
    pub(crate) async fn drain(&mut self) {
        self.buffer = BytesMut::new();
        while let Some(Ok(_)) = self.payload.next().await {}
    }

    fn decode(&mut self) -> Result<Option<Incoming>, Violation> {
        while let Some(first) = self.buffer.first() {
            let in_close = first & OPCODE == CLOSE;
            let decoded = self.decode_frame().map_err(|violation| Violation { in_close, ..violation })?;
            match decoded {
                Decoded::Nothing => {}
                Decoded::Unfinished => return Ok(None),
                Decoded::Incoming(incoming) => return Ok(Some(incoming)),
            }
        }
        Ok(None)
    }

    /// Takes the next frame off the buffer, if it is whole.
    fn decode_frame(&mut self) -> Result<Decoded, Violation> {
        self.check_header()?;
        let parsed = Parser::parse(&mut self.buffer, true, self.max_frame);
        let Some((last, opcode, payload)) = parsed.map_err(|_| protocol("malformed frame"))? else {
            return Ok(Decoded::Unfinished);
        };
        if self.buffer.is_empty() {
            // Else every idle socket would keep the largest buffer that it ever needed.
            self.buffer = BytesMut::new();
        }
        let payload = payload.unwrap_or_default();
        let is_control = matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong);
        if is_control && !last {
            return Err(protocol("fragmented control frame"));
        }
        Ok(match opcode {
            OpCode::Ping => Decoded::Incoming(Incoming::Ping(payload.freeze())),
            OpCode::Pong => Decoded::Incoming(Incoming::Pong),
            OpCode::Close => Decoded::Incoming(Incoming::Close(close(&payload.freeze())?)),
            _ => match self.assemble(last, opcode, payload)? {
                Some(frame) => Decoded::Incoming(Incoming::Data(frame)),
                None => Decoded::Nothing,
            },
        })
    }

    /// Looks at the length that the next frame declares, so that nothing is buffered for one that will be refused.
    fn check_header(&self) -> Result<(), Violation> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return Ok(()) };
        let length = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => u64::from(u16::from_be_bytes([*a, *b])),
            (127, [a, b, c, d, e, f, g, h, ..]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            (126 | 127, _) => return Ok(()),
            (length, _) => u64::from(length),
        };
        if length > i64::MAX as u64 {
            return Err(protocol("frame length with the high bit set"));
        }
        if first & 0x08 != 0 && length > 125 {
            return Err(protocol("control frame over 125 bytes"));
        }
        if length > self.max_frame as u64 {
            return Err(Violation::new(close_code::TOO_LARGE, "frame too large"));
        }
        Ok(())
    }

    /// Joins the frames of a message.
    fn assemble(&mut self, last: bool, opcode: OpCode, payload: BytesMut) -> Result<Option<Frame>, Violation> {
        let (is_text, message) = match (opcode, self.message.take()) {
            (OpCode::Text | OpCode::Binary, None) if last => return whole(opcode == OpCode::Text, payload.freeze()),
            (OpCode::Text | OpCode::Binary, None) => {
                let mut message = Vec::new();
                append(&mut message, &payload);
                (opcode == OpCode::Text, message)
            }
            (OpCode::Continue, Some((is_text, mut message))) => {
                if message.len() + payload.len() > self.max_message {
                    return Err(Violation::new(close_code::TOO_LARGE, "message too large"));
                }
                append(&mut message, &payload);
                (is_text, message)
            }
            (OpCode::Continue, None) => return Err(protocol("continuation of nothing")),
            _ => return Err(protocol("new message within an unfinished one")),
        };
        if !last {
            self.message = Some((is_text, message));
            return Ok(None);
        }
        whole(is_text, message.into())
    }
}

/// Adds a frame's payload to those before it. A client may leave many messages unfinished, so such a buffer takes what it holds and
/// [`SLACK`] more, and not up to twice as much, as one that doubles; nor does it keep the read buffer, of which a payload is a part.
fn append(message: &mut Vec<u8>, payload: &[u8]) {
    if message.capacity() - message.len() < payload.len() {
        message.reserve_exact(payload.len().max(message.len() / SLACK));
    }
    message.extend_from_slice(payload);
}

/// What a client said in one frame or several.
fn whole(is_text: bool, message: Bytes) -> Result<Option<Frame>, Violation> {
    if !is_text {
        return Ok(Some(Frame::Binary(message)));
    }
    let text = ByteString::try_from(message);
    let text = text.map_err(|_| Violation::new(close_code::INVALID_TEXT, "text is not UTF-8"))?;
    Ok(Some(Frame::Text(text)))
}

/// The code and reason of a Close.
fn close(payload: &Bytes) -> Result<Option<(u16, Bytes)>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Err(protocol("close code of one byte"));
    };
    let code = u16::from_be_bytes(*code);
    // RFC 6455, 7.4: what may stand in a frame.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("invalid close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation::new(close_code::INVALID_TEXT, "close reason is not UTF-8"));
    }
    Ok(Some((code, payload.slice(2..))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_frames_takes_little_more_than_its_size_however_small_they_are() {
        for piece in [1, 100, 4096, 62_000] {
            let payload = vec![b'x'; piece];
            let mut message = Vec::new();
            while message.len() < 248_000 {
                append(&mut message, &payload);
                let (len, capacity) = (message.len(), message.capacity());
                assert!(capacity <= (len + len / 16).max(piece), "{capacity} for {len} in pieces of {piece}");
            }
        }
    }
}
