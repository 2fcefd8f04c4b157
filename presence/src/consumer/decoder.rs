//! From bytes, as they come, to what a client sent.
//!
//! A frame is decoded while it comes, and not only when it is whole: nothing is gathered but the message that it is a part of. A client
//! may leave messages unfinished, and each of these takes little more than its size. What comes is copied out of the memory that the HTTP
//! server read it into. But when much comes at once that memory is large, and stays until the server needs the next; then it is the
//! message's own memory, and what is in it is copied and unmasked when the message is whole. If frames of other kinds come between those
//! of such a message, it takes up to twice its size and two reads more.

use std::ops::Range;

use actix_http::ws::OpCode;
use bytes::Bytes;
use bytestring::ByteString;

use crate::{CloseCode, Frame};

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

/// What a client broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The close code that answers it.
    pub(crate) code: CloseCode,
    pub(crate) reason: &'static str,
    /// It was in a Close: the connection was to end in any case.
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
/// What stands in the place of a length that takes 2 or 8 bytes of its own.
const IN_2_BYTES: u8 = 126;
const IN_8_BYTES: u8 = 127;
/// The longest header of a frame.
const LONGEST_HEADER: usize = 2 + 8 + MASK;
const MASK: usize = 4;
/// The most that a control frame may hold.
const MOST_CONTROL: usize = 125;

/// A buffer that is full grows by at least one part in so many of what it holds.
const SLACK: usize = 16;
/// What comes at once in so many bytes or more is kept as it came.
const KEPT_CHUNK: usize = 64 * 1024;
/// Smaller parts of it are copied all the same.
const KEPT_PART: usize = 4 * 1024;
/// What is kept as it came is at least one part in so many of all that came since; else it is copied, and that memory let go of.
const MOST_BESIDES: usize = 2;

/// Decodes what one client sends.
pub(crate) struct Decoder {
    max_frame: usize,
    max_message: usize,
    /// What came last. It is let go of when more comes, and not when it is read: the HTTP server reads into what is left of the same
    /// memory, and while this is alive its next buffer is a new, small one. Else a client that once sent much at a time would keep the
    /// large one for the life of its socket.
    chunk: Bytes,
    /// How much of it is read.
    read: usize,
    header: Header,
    /// Whose payload comes now.
    frame: Option<Coming>,
    /// The payload of a control frame, so far.
    control: Vec<u8>,
    /// A message that is not whole yet.
    message: Option<Message>,
}

/// The header of a frame, as far as it has come.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; LONGEST_HEADER],
    len: usize,
}

/// A frame of which the header has come.
#[derive(Debug)]
struct Coming {
    last: bool,
    opcode: OpCode,
    /// As it applies to the next byte.
    mask: [u8; MASK],
    /// How much of its payload has not come.
    left: usize,
}

/// A message of which not all has come.
#[derive(Debug)]
struct Message {
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
        }
    }

    /// Takes what came, once all that came before it is decoded.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert_eq!(self.read, self.chunk.len(), "something was not decoded");
        if let Some(message) = &mut self.message {
            message.payload.more_comes(chunk.len());
        }
        (self.chunk, self.read) = (chunk, 0);
    }

    /// Lets go of all that it holds; what comes from here on is not decoded.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.max_frame, self.max_message);
    }

    /// The next that a client sent; `None` if more has to come. After a violation there is nothing.
    pub(crate) fn next(&mut self) -> Result<Option<Sent>, Violation> {
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

    /// Reads the header of a frame, and refuses what it says before anything is kept of its payload.
    fn begin(&mut self) -> Result<Option<Coming>, Violation> {
        let Some((opcode, length)) = self.read_header()? else { return Ok(None) };
        let header = &self.header;
        let last = header.bytes[0] & LAST != 0;
        match (opcode, &self.message) {
            (OpCode::Text | OpCode::Binary, None) => {
                self.message = Some(Message { is_text: opcode == OpCode::Text, payload: Pieces::default() });
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

    /// What the next frame is, and how long; `None` if its header is not whole.
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

    /// Reads on until so much of the header has come, if it has.
    fn read_header_to(&mut self, len: usize) -> bool {
        let missing = len.saturating_sub(self.header.len);
        let comes = &self.chunk[self.read..];
        let comes = &comes[..missing.min(comes.len())];
        self.header.bytes[self.header.len..][..comes.len()].copy_from_slice(comes);
        self.header.len += comes.len();
        self.read += comes.len();
        comes.len() == missing
    }

    /// Takes what has come of the frame's payload. Returns whether that is all of it.
    fn take_payload(&mut self) -> bool {
        let Some(frame) = &mut self.frame else { return false };
        let comes = frame.left.min(self.chunk.len() - self.read);
        let part = self.read..self.read + comes;
        match (frame.opcode, &mut self.message) {
            (OpCode::Text | OpCode::Binary | OpCode::Continue, Some(message)) => {
                message.payload.add(&self.chunk, part, frame.mask);
            }
            _ => append_unmasked(&mut self.control, &self.chunk[part], frame.mask),
        }
        self.read += comes;
        frame.left -= comes;
        frame.mask.rotate_left(comes % MASK);
        frame.left == 0
    }

    /// What the frame was whose payload has come; `None` if it is a part of a message that goes on.
    fn end(&mut self) -> Result<Option<Sent>, Violation> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        Ok(match frame.opcode {
            OpCode::Ping => Some(Sent::Ping(Bytes::copy_from_slice(&self.control))),
            OpCode::Pong => Some(Sent::Pong),
            OpCode::Close => Some(Sent::Close(close(&self.control)?)),
            _ if !frame.last => None,
            _ => match self.message.take() {
                Some(Message { is_text, payload }) => Some(Sent::Data(whole(is_text, payload.join().into())?)),
                None => None,
            },
        })
    }
}

impl Header {
    /// How many bytes the length has of its own.
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

    fn marked(&self, violation: Violation) -> Violation {
        Violation { in_close: OpCode::from(self.bytes[0] & OPCODE) == OpCode::Close, ..violation }
    }
}

/// What has come of a message.
#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Piece>,
    len: usize,
    /// How much of it is kept as it came.
    kept: usize,
    /// How much came of the connection since the first of these, which may be in the same memory.
    came: usize,
}

#[derive(Debug)]
enum Piece {
    /// Still masked, in the memory that it was read into.
    Kept(Bytes, [u8; MASK]),
    Copied(Vec<u8>),
}

impl Pieces {
    /// Adds a part of `chunk`.
    fn add(&mut self, chunk: &Bytes, part: Range<usize>, mask: [u8; MASK]) {
        self.len += part.len();
        if chunk.len() >= KEPT_CHUNK && part.len() >= KEPT_PART {
            // Whether that is worth it is seen when more comes: until then `chunk` is there in any case.
            if self.kept == 0 {
                self.came = chunk.len();
            }
            self.kept += part.len();
            self.pieces.push(Piece::Kept(chunk.slice(part), mask));
            return;
        }
        if !matches!(self.pieces.last(), Some(Piece::Copied(_))) {
            self.pieces.push(Piece::Copied(Vec::new()));
        }
        if let Some(Piece::Copied(copied)) = self.pieces.last_mut() {
            append_unmasked(copied, &chunk[part], mask);
        }
    }

    /// More comes of the connection. The memory that is kept may be large and not this message's, so it is let go of in time.
    fn more_comes(&mut self, bytes: usize) {
        if self.kept == 0 {
            return;
        }
        if self.came <= MOST_BESIDES * self.kept {
            self.came += bytes;
            return;
        }
        let copied = std::mem::take(self).join();
        self.len = copied.len();
        self.pieces.push(Piece::Copied(copied));
    }

    /// The whole of it, unmasked.
    fn join(mut self) -> Vec<u8> {
        if let [Piece::Copied(copied)] = &mut self.pieces[..] {
            return std::mem::take(copied);
        }
        let mut joined = Vec::with_capacity(self.len);
        for piece in self.pieces {
            match piece {
                Piece::Kept(bytes, mask) => append_unmasked(&mut joined, &bytes, mask),
                Piece::Copied(bytes) => joined.extend_from_slice(&bytes),
            }
        }
        joined
    }
}

/// Adds a part of a payload to those before it. Such a buffer takes what it holds and [`SLACK`] more, and not up to twice as much, as
/// one that doubles.
fn append_unmasked(buffer: &mut Vec<u8>, payload: &[u8], mask: [u8; MASK]) {
    if buffer.capacity() - buffer.len() < payload.len() {
        buffer.reserve_exact(payload.len().max(buffer.len() / SLACK));
    }
    let at = buffer.len();
    buffer.extend_from_slice(payload);
    let (words, rest) = buffer[at..].as_chunks_mut::<MASK>();
    let in_words = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ in_words).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// What a client said in one frame or several.
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
    // RFC 6455, 7.4: what may stand in a frame.
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
