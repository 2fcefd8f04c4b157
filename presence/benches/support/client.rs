//! One WebSocket client that blocks: nothing but the time that the server takes lies between its question and its answer.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// The handshake of a client.
pub(crate) fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A text frame of at most 125 bytes, masked with zeros.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    assert!(length <= 125, "a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// Where the payload of the first frame in `bytes` lies, if its header is there.
pub(crate) fn payload(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let (start, length) = match *bytes {
        [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
        [_, 126, a, b, ..] => (4, u64::from(u16::from_be_bytes([a, b]))),
        [_, 126 | 127, ..] | [] | [_] => return None,
        [_, length, ..] => (2, u64::from(length)),
    };
    Some(start..start + usize::try_from(length).expect("it fits into memory"))
}

/// A client whose reads block.
pub(crate) struct BenchClient {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// How much of the buffer was handed out.
    taken: usize,
}

impl BenchClient {
    /// Connects, and waits for the 101.
    pub(crate) fn connect(port: u16, path: &str) -> Self {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the server listens");
        socket.set_nodelay(true).expect("an option of every socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("an option of every socket");
        socket.write_all(request(path).as_bytes()).expect("the server reads");
        let mut client = Self { socket, buffer: Vec::new(), taken: 0 };
        let end = loop {
            if let Some(end) = client.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            client.fill();
        };
        assert!(client.buffer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&client.buffer));
        client.taken = end;
        client
    }

    /// Sends a short text.
    pub(crate) fn say(&mut self, words: &str) {
        self.send(&text(words));
    }

    /// Sends frames as they stand.
    pub(crate) fn send(&mut self, frames: &[u8]) {
        self.socket.write_all(frames).expect("the server reads");
    }

    /// Waits for a text that begins so, passing over all others, and returns it.
    pub(crate) fn hear(&mut self, beginning: &str) -> &[u8] {
        loop {
            let frame = loop {
                let rest = &self.buffer[self.taken..];
                match payload(rest) {
                    Some(frame) if frame.end <= rest.len() => break self.taken + frame.start..self.taken + frame.end,
                    _ => self.fill(),
                }
            };
            self.taken = frame.end;
            if self.buffer[frame.clone()].starts_with(beginning.as_bytes()) {
                return &self.buffer[frame];
            }
        }
    }

    fn fill(&mut self) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + 64 * 1024, 0);
        let read = self.socket.read(&mut self.buffer[old..]).expect("the server answers in time");
        assert!(read > 0, "the server closed the connection");
        self.buffer.truncate(old + read);
    }
}
