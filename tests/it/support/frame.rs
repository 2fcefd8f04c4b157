//! WebSocket frames as bytes: encoding right and wrong ones, decoding what a server may send.

use bytes::{Buf, Bytes, BytesMut};

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A frame to send, with every bit at the test's disposal.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    fin: bool,
    reserved: u8,
    opcode: u8,
    masked: bool,
    declared: Option<u64>,
    payload: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, reserved: 0, opcode, masked: true, declared: None, payload: payload.into() }
    }

    pub(crate) fn text(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(TEXT, payload)
    }

    pub(crate) fn binary(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(BINARY, payload)
    }

    pub(crate) fn more(payload: impl Into<Vec<u8>>) -> Self {
        Self::new(CONTINUATION, payload)
    }

    pub(crate) fn close(code: u16, reason: &[u8]) -> Self {
        Self::new(CLOSE, [&code.to_be_bytes(), reason].concat())
    }

    /// The message goes on in the next frame.
    pub(crate) fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    pub(crate) fn unmasked(mut self) -> Self {
        self.masked = false;
        self
    }

    /// Sets reserved bits: 4 is RSV1, 2 RSV2, 1 RSV3.
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits & 7;
        self
    }

    /// Declares a length, in 64 bits, that need not be the payload's.
    pub(crate) fn declaring(mut self, length: u64) -> Self {
        self.declared = Some(length);
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode];
        let mask = u8::from(self.masked) << 7;
        match (self.declared, self.payload.len()) {
            (None, length @ 0..=125) => bytes.push(mask | length as u8),
            (None, length @ 126..=65_535) => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            (declared, length) => {
                bytes.push(mask | 127);
                bytes.extend(declared.unwrap_or(length as u64).to_be_bytes());
            }
        }
        if self.masked {
            bytes.extend(KEY);
            bytes.extend(self.payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// What arrives on a socket: a frame, or the end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReceivedFrame {
    Text(String),
    Binary(Bytes),
    Ping(Bytes),
    Pong(Bytes),
    /// The code, none for an empty close, and the reason.
    Close(Option<u16>, String),
    /// The connection ended in order.
    End,
    /// The connection was cut.
    Reset,
}

/// Cuts a server's bytes into frames and holds the server to its side of the protocol.
#[derive(Debug, Default)]
pub(crate) struct FrameDecoder {
    pub(crate) buffer: BytesMut,
    message: Option<(u8, BytesMut)>,
}

impl FrameDecoder {
    /// The next frame, if all of it is here. Panics at what no server may send.
    pub(crate) fn next(&mut self) -> Option<ReceivedFrame> {
        loop {
            let (head, length, start) = self.header()?;
            if self.buffer.len() < start + length {
                self.buffer.reserve(start + length - self.buffer.len());
                return None;
            }
            self.buffer.advance(start);
            let payload = self.buffer.split_to(length).freeze();
            if let Some(frame) = self.frame(head & 0x80 != 0, head & 0x0f, payload) {
                return Some(frame);
            }
        }
    }

    fn header(&self) -> Option<(u8, usize, usize)> {
        let [head, second, rest @ ..] = &self.buffer[..] else { return None };
        assert_eq!(head & 0x70, 0, "the server set a reserved bit");
        assert_eq!(second & 0x80, 0, "the server masked a frame");
        let (length, start) = match second {
            126 => (u64::from(u16::from_be_bytes(rest.first_chunk().copied()?)), 4),
            127 => (u64::from_be_bytes(rest.first_chunk().copied()?), 10),
            short => (u64::from(*short), 2),
        };
        Some((*head, usize::try_from(length).expect("a length that fits"), start))
    }

    fn frame(&mut self, fin: bool, opcode: u8, payload: Bytes) -> Option<ReceivedFrame> {
        if opcode >= CLOSE {
            assert!(fin && payload.len() <= 125, "the server sent a control frame that is too long or in pieces");
        }
        match opcode {
            TEXT | BINARY => {
                assert!(self.message.is_none(), "the server began a message inside a message");
                self.message = Some((opcode, BytesMut::from(payload)));
            }
            CONTINUATION => {
                let (_, message) = self.message.as_mut().expect("a continuation continues something");
                message.extend_from_slice(&payload);
            }
            CLOSE => return Some(close(&payload)),
            PING => return Some(ReceivedFrame::Ping(payload)),
            PONG => return Some(ReceivedFrame::Pong(payload)),
            other => panic!("the server sent the reserved opcode {other}"),
        }
        if !fin {
            return None;
        }
        let (opcode, message) = self.message.take()?;
        if opcode == BINARY {
            return Some(ReceivedFrame::Binary(message.freeze()));
        }
        Some(ReceivedFrame::Text(String::from_utf8(message.to_vec()).expect("the server's text is UTF-8")))
    }
}

fn close(payload: &[u8]) -> ReceivedFrame {
    match payload {
        [] => ReceivedFrame::Close(None, String::new()),
        [_] => panic!("the server sent a close of one byte"),
        [high, low, reason @ ..] => ReceivedFrame::Close(
            Some(u16::from_be_bytes([*high, *low])),
            String::from_utf8(reason.to_vec()).expect("the server's close reason is UTF-8"),
        ),
    }
}

mod tests {
    use super::*;

    fn decode(raw: &Raw) -> Option<ReceivedFrame> {
        let mut decoder = FrameDecoder { buffer: BytesMut::from(&raw.encode()[..]), ..FrameDecoder::default() };
        decoder.next()
    }

    #[test]
    fn a_decoded_frame_is_the_encoded_one_at_every_form_of_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let text = "x".repeat(length);
            assert_eq!(decode(&Raw::text(&text[..]).unmasked()), Some(ReceivedFrame::Text(text)), "{length} bytes");
        }
    }

    #[test]
    fn a_frame_in_single_bytes_is_whole_at_the_last() {
        let bytes = Raw::text("tschüß".repeat(40)).unmasked().encode();
        let mut decoder = FrameDecoder::default();
        let (last, before) = bytes.split_last().unwrap();
        for byte in before {
            decoder.buffer.extend([byte]);
            assert_eq!(decoder.next(), None);
        }
        decoder.buffer.extend([last]);
        assert_eq!(decoder.next(), Some(ReceivedFrame::Text("tschüß".repeat(40))));
    }

    #[test]
    fn masking_twice_gives_the_payload_back() {
        let bytes = Raw::text("hello").encode();
        let [0x81, 0x85, a, b, c, d, masked @ ..] = &bytes[..] else { panic!("a masked text of five: {bytes:?}") };
        let plain: Vec<_> = masked.iter().zip([a, b, c, d].into_iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(plain, b"hello");
    }

    #[test]
    #[should_panic(expected = "reserved bit")]
    fn a_reserved_bit_of_the_servers_fails_the_test() {
        decode(&Raw::text("x").unmasked().reserved(4));
    }
}
