//! Decodes the frames of one client from the bytes that arrive.
//!
//! A frame is decoded while it arrives, so only the message that it belongs to is kept. A client may leave a message unfinished, and such
//! a message takes little more memory than its size. Its payload is copied out of the memory that the HTTP server read it into. Only when
//! many bytes arrive at once, that memory is large, and it stays allocated until the server reads again; then the message keeps this
//! memory, and its payload is copied and unmasked when the message is complete. If other frames arrive between the frames of such a
//! message, it takes up to twice its size and the size of two reads.

use actix_http::ws::OpCode;
use bytes::Bytes;
use bytestring::ByteString;

use crate::{CloseCode, Frame};

use super::heartbeat::{ANSWERED_HEARTBEAT, HEARTBEAT};

use self::pieces::{Pieces, append_unmasked};

mod pieces;

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// A whole text or binary message.
    Data(Frame),
    Ping(Bytes),
    Pong,
    /// With its code, if it has one.
    Close(Option<CloseCode>),
}

/// How a client broke the protocol or a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The close code that answers it.
    pub(crate) code: CloseCode,
    pub(crate) reason: &'static str,
    /// The violation is in a Close, so the client wanted to end the connection anyway.
    pub(crate) in_close: bool,
}

impl Violation {
    const fn new(code: CloseCode, reason: &'static str) -> Self {
        Self { code, reason, in_close: false }
    }
}

const fn protocol(reason: &'static str) -> Violation {
    Violation::new(CloseCode::PROTOCOL_ERROR, reason)
}

/// The bits of a frame's first two bytes (RFC 6455, 5.2).
const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// These values of the length say that the length follows in 2 or 8 bytes.
const IN_2_BYTES: u8 = 126;
const IN_8_BYTES: u8 = 127;
/// The bytes of the longest header of a frame.
const LONGEST_HEADER: usize = 2 + 8 + MASK;
/// The bytes of the key that a payload is masked with.
const MASK: usize = 4;
/// The first byte of a text in one frame.
const LAST_TEXT: u8 = LAST | 1;
/// Texts that clients send all the time.
const KNOWN_TEXTS: [&str; 2] = [HEARTBEAT, ANSWERED_HEARTBEAT];
/// The most bytes that the payload of a control frame may have.
const MOST_CONTROL: usize = 125;

/// Decodes the frames of one client.
pub(crate) struct Decoder {
    max_frame: usize,
    max_message: usize,
    /// The bytes that arrived last. They are released when the next ones arrive, although they are decoded earlier: as long as they
    /// exist, the HTTP server reads into a new, small buffer. Otherwise it would reuse this memory, and a client that sent many bytes at
    /// once would keep a large buffer until its socket closes.
    chunk: Bytes,
    /// How many bytes of the chunk are decoded.
    read: usize,
    header: Header,
    /// The frame of which the payload arrives now.
    frame: Option<Coming>,
    /// What has arrived of the payload of a control frame.
    control: Vec<u8>,
    /// The message that is not complete yet.
    message: Option<IncompleteMessage>,
    /// What `next` returned last, if it was one of the [`KNOWN_TEXTS`].
    known: Option<&'static str>,
}

/// What has arrived of the header of a frame.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; LONGEST_HEADER],
    len: usize,
}

/// A frame of which the header has arrived.
#[derive(Debug)]
struct Coming {
    last: bool,
    opcode: OpCode,
    /// Rotated so that it begins with the key of the next byte.
    mask: [u8; MASK],
    /// How many bytes of its payload have not arrived.
    left: usize,
}

/// A message of which not all frames have arrived.
#[derive(Debug)]
struct IncompleteMessage {
    is_text: bool,
    payload: Pieces,
}

impl Decoder {
    pub(crate) fn new(max_frame: usize, max_message: usize) -> Self {
        Self {
            max_frame,
            max_message,
            chunk: Bytes::new(),
            read: 0,
            header: Header::default(),
            frame: None,
            control: Vec::new(),
            message: None,
            known: None,
        }
    }

    /// Gives the decoder the next bytes, after `next` has returned `None`.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert_eq!(self.read, self.chunk.len(), "the bytes before were not decoded");
        if let Some(message) = &mut self.message {
            message.payload.more_arrives(chunk.len());
        }
        self.chunk = chunk;
        self.read = 0;
    }

    /// Releases everything that the decoder holds. What arrives from here on is not decoded.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.max_frame, self.max_message);
    }

    /// The next frame or message; `None` if more bytes are needed. Must not be called after a violation.
    pub(crate) fn next(&mut self) -> Result<Option<Sent>, Violation> {
        self.known = self.known_text();
        if let Some(text) = self.known {
            return Ok(Some(Sent::Data(Frame::Text(ByteString::from_static(text)))));
        }
        loop {
            if self.frame.is_none() {
                let Some(frame) = self.begin().map_err(|violation| self.header.marked(violation))? else {
                    return Ok(None);
                };
                self.frame = Some(frame);
            }
            if !self.take_payload() {
                return Ok(None);
            }
            let ended = self.end().map_err(|violation| self.header.marked(violation))?;
            self.header.len = 0;
            if ended.is_some() {
                return Ok(ended);
            }
        }
    }

    /// Reads the next messages that are the same text as the one that `next` has just returned, but `most` of them at the most. Returns how
    /// many. Only [`KNOWN_TEXTS`] are read so: the clients that send many heartbeats at once would otherwise pay for each as for a message.
    pub(crate) fn repetitions(&mut self, most: usize) -> usize {
        let Some(text) = self.known else { return 0 };
        let before = self.read;
        let frame = 2 + MASK + text.len();
        while self.read - before < most.saturating_mul(frame) && is_text(&self.chunk[self.read..], text) {
            self.read += frame;
        }
        (self.read - before) / frame
    }

    /// Reads the next message, if it is one frame with one of the [`KNOWN_TEXTS`] and has arrived completely. It is compared where it is,
    /// and not copied.
    fn known_text(&mut self) -> Option<&'static str> {
        if self.header.len != 0 || self.frame.is_some() || self.message.is_some() {
            return None;
        }
        let arrived = &self.chunk[self.read..];
        let text = KNOWN_TEXTS.into_iter().find(|text| text.len() <= self.max_frame && is_text(arrived, text))?;
        self.read += 2 + MASK + text.len();
        Some(text)
    }

    /// Reads the header of a frame. A frame that is not allowed is refused here, before anything of its payload is kept.
    fn begin(&mut self) -> Result<Option<Coming>, Violation> {
        let Some((opcode, length)) = self.read_header()? else { return Ok(None) };
        let header = &self.header;
        let last = header.bytes[0] & LAST != 0;
        match (opcode, &self.message) {
            (OpCode::Text | OpCode::Binary, None) => {
                self.message = Some(IncompleteMessage { is_text: opcode == OpCode::Text, payload: Pieces::default() });
            }
            (OpCode::Continue, Some(message)) if message.payload.len + length > self.max_message => {
                return Err(Violation::new(CloseCode::TOO_LARGE, "message too large"));
            }
            (OpCode::Continue, Some(_)) => {}
            (OpCode::Continue, None) => return Err(protocol("continuation of nothing")),
            (OpCode::Text | OpCode::Binary, Some(_)) => return Err(protocol("new message within an unfinished one")),
            _ if !last => return Err(protocol("fragmented control frame")),
            _ => self.control.clear(),
        }
        Ok(Some(Coming { last, opcode, mask: header.mask(), left: length }))
    }

    /// The opcode and the length of the next frame; `None` if its header is not complete.
    fn read_header(&mut self) -> Result<Option<(OpCode, usize)>, Violation> {
        if !self.read_header_to(2) {
            return Ok(None);
        }
        let [first, second, ..] = self.header.bytes;
        let opcode = OpCode::from(first & OPCODE);
        if first & RESERVED != 0 || second & MASKED == 0 || opcode == OpCode::Bad {
            return Err(protocol("malformed frame"));
        }
        let is_control = matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong);
        if is_control && usize::from(second & LENGTH) > MOST_CONTROL {
            return Err(protocol("control frame over 125 bytes"));
        }
        let ends = 2 + self.header.length_bytes();
        if !self.read_header_to(ends) {
            return Ok(None);
        }
        let length = self.header.length();
        if length > i64::MAX as u64 {
            return Err(protocol("frame length with the high bit set"));
        }
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= self.max_frame) else {
            return Err(Violation::new(CloseCode::TOO_LARGE, "frame too large"));
        };
        Ok(self.read_header_to(ends + MASK).then_some((opcode, length)))
    }

    /// Reads up to so many bytes of the header. Returns whether they have arrived.
    fn read_header_to(&mut self, len: usize) -> bool {
        let missing = len.saturating_sub(self.header.len);
        let arrived = &self.chunk[self.read..];
        let arrived = &arrived[..missing.min(arrived.len())];
        self.header.bytes[self.header.len..][..arrived.len()].copy_from_slice(arrived);
        self.header.len += arrived.len();
        self.read += arrived.len();
        arrived.len() == missing
    }

    /// Reads what has arrived of the frame's payload. Returns whether the payload is complete.
    fn take_payload(&mut self) -> bool {
        let Some(frame) = &mut self.frame else { return false };
        let arrived = frame.left.min(self.chunk.len() - self.read);
        let part = self.read..self.read + arrived;
        match (frame.opcode, &mut self.message) {
            (OpCode::Text | OpCode::Binary | OpCode::Continue, Some(message)) => {
                message.payload.add(&self.chunk, part, frame.mask);
            }
            _ => append_unmasked(&mut self.control, &self.chunk[part], frame.mask),
        }
        self.read += arrived;
        frame.left -= arrived;
        frame.mask.rotate_left(arrived % MASK);
        frame.left == 0
    }

    /// Ends the frame. Returns what it was, or `None` if it is a part of a message that is not complete.
    fn end(&mut self) -> Result<Option<Sent>, Violation> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        Ok(match frame.opcode {
            OpCode::Ping => Some(Sent::Ping(Bytes::copy_from_slice(&self.control))),
            OpCode::Pong => Some(Sent::Pong),
            OpCode::Close => Some(Sent::Close(close(&self.control)?)),
            _ if !frame.last => None,
            _ => match self.message.take() {
                Some(IncompleteMessage { is_text, payload }) => {
                    Some(Sent::Data(whole(is_text, payload.join().into())?))
                }
                None => None,
            },
        })
    }
}

impl Header {
    /// How many bytes follow that hold the length.
    const fn length_bytes(&self) -> usize {
        match self.bytes[1] & LENGTH {
            IN_2_BYTES => 2,
            IN_8_BYTES => 8,
            _ => 0,
        }
    }

    fn length(&self) -> u64 {
        match (self.bytes[1] & LENGTH, self.bytes) {
            (IN_2_BYTES, [_, _, a, b, ..]) => u64::from(u16::from_be_bytes([a, b])),
            (IN_8_BYTES, [_, _, a, b, c, d, e, f, g, h, ..]) => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            (length, _) => u64::from(length),
        }
    }

    fn mask(&self) -> [u8; MASK] {
        let mut mask = [0; MASK];
        mask.copy_from_slice(&self.bytes[2 + self.length_bytes()..][..MASK]);
        mask
    }

    /// Sets `in_close` if this is the header of a Close.
    fn marked(&self, violation: Violation) -> Violation {
        Violation { in_close: OpCode::from(self.bytes[0] & OPCODE) == OpCode::Close, ..violation }
    }
}

/// Whether the bytes begin with a whole frame that is this text.
fn is_text(arrived: &[u8], text: &str) -> bool {
    let [LAST_TEXT, length, rest @ ..] = arrived else { return false };
    let Some((mask, rest)) = rest.split_first_chunk::<MASK>() else { return false };
    usize::from(*length ^ MASKED) == text.len()
        && rest.get(..text.len()).is_some_and(|payload| is_masked(payload, *mask, text.as_bytes()))
}

/// Whether the payload is this text, masked with this key.
fn is_masked(payload: &[u8], mask: [u8; MASK], text: &[u8]) -> bool {
    let ((words, rest), (of_text, rest_of_text)) = (payload.as_chunks::<MASK>(), text.as_chunks::<MASK>());
    let in_words = u32::from_ne_bytes(mask);
    let is_same =
        |(word, text): (&[u8; MASK], &[u8; MASK])| u32::from_ne_bytes(*word) ^ in_words == u32::from_ne_bytes(*text);
    words.iter().zip(of_text).all(is_same)
        && rest.iter().zip(mask).map(|(byte, mask)| byte ^ mask).eq(rest_of_text.iter().copied())
}

/// The frame that the consumer receives.
fn whole(is_text: bool, message: Bytes) -> Result<Frame, Violation> {
    if !is_text {
        return Ok(Frame::Binary(message));
    }
    let text = ByteString::try_from(message);
    let text = text.map_err(|_| Violation::new(CloseCode::INVALID_TEXT, "text is not UTF-8"))?;
    Ok(Frame::Text(text))
}

/// The code and reason of a Close.
fn close(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    if payload.is_empty() {
        return Ok(None);
    }
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Err(protocol("close code of one byte"));
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    // The codes that RFC 6455, 7.4, allows in a frame.
    if !code.is_sendable() {
        return Err(protocol("invalid close code"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Violation::new(CloseCode::INVALID_TEXT, "close reason is not UTF-8"));
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests;
