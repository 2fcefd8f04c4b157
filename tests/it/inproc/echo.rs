//! Clients whose texts come back, and the server's end of their connections.

use crate::support::frame::{FrameDecoder, Raw, ReceivedFrame};
use crate::support::http::Response;
use crate::support::{BOUND, eventually, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// The server's end of a connection, as the kernel shows it.
pub(super) struct ServerEnd {
    inode: String,
    /// How many bytes have arrived and were not read.
    pub(super) unread: usize,
}

pub(super) fn end_of(server: SocketAddr, client: SocketAddr) -> Option<ServerEnd> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a Linux with /proc");
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let unread = usize::from_str_radix(fields[4].rsplit(':').next()?, 16).ok()?;
        let is_it = port(fields[1])? == server.port() && port(fields[2])? == client.port();
        is_it.then(|| ServerEnd { inode: fields[9].to_owned(), unread })
    })
}

/// How many descriptors of this process are the server's end of a connection.
pub(super) fn descriptors(server: SocketAddr, client: SocketAddr) -> usize {
    let Some(end) = end_of(server, client) else { return 0 };
    let wanted = format!("socket:[{}]", end.inode);
    let held = std::fs::read_dir("/proc/self/fd").expect("a Linux with /proc").flatten();
    held.filter(|one| std::fs::read_link(one.path()).is_ok_and(|link| link.as_os_str() == &*wanted)).count()
}

pub(super) async fn descriptors_become(server: SocketAddr, client: SocketAddr, count: usize, what: &str) {
    eventually(BOUND, what, async || match descriptors(server, client) {
        now if now == count => Ok(()),
        now => Err(format!("{now} descriptors")),
    })
    .await;
}

/// So many texts that have the puppet answer with their number. Each is somewhat more than a kilobyte long.
pub(super) fn texts(numbers: std::ops::Range<usize>) -> Vec<u8> {
    numbers.flat_map(|n| Raw::text(format!("reply {n} {}", "x".repeat(1000))).encode()).collect()
}

/// A client whose texts come back.
pub(super) struct Echo {
    pub(super) local: SocketAddr,
    pub(super) writes: OwnedWriteHalf,
    pub(super) answers: Answers,
}

/// What a client reads.
pub(super) struct Answers {
    reads: OwnedReadHalf,
    pub(super) decoder: FrameDecoder,
    /// How many texts have come back.
    pub(super) count: usize,
}

impl Answers {
    /// The answers to so many requests and to a handshake.
    pub(super) async fn heads(&mut self, requests: usize) {
        for left in (0..=requests).rev() {
            let (response, end) = loop {
                match Response::head(&self.decoder.buffer) {
                    Some(head) => break head,
                    None => assert!(self.reads.read_buf(&mut self.decoder.buffer).await.unwrap() > 0, "an answer"),
                }
            };
            drop(self.decoder.buffer.split_to(end));
            assert_eq!(response.status, if left > 0 { 404 } else { 101 });
        }
    }

    /// The next text that arrives.
    pub(super) async fn text(&mut self) -> String {
        loop {
            match self.decoder.next() {
                Some(ReceivedFrame::Text(text)) => return text,
                Some(other) => panic!("{other:.40?} after {} texts", self.count),
                None => assert!(self.reads.read_buf(&mut self.decoder.buffer).await.unwrap() > 0, "{}", self.count),
            }
        }
    }

    /// The next texts are the next ones that were sent.
    pub(super) async fn come_back(&mut self, count: usize) {
        for _ in 0..count {
            let text = self.text().await;
            assert!(text.starts_with(&format!("{} ", self.count)), "{}: {text:.40}", self.count);
            self.count += 1;
        }
    }
}

impl Echo {
    pub(super) fn new(stream: TcpStream) -> Self {
        let local = stream.local_addr().unwrap();
        let (reads, writes) = stream.into_split();
        Self { local, writes, answers: Answers { reads, decoder: FrameDecoder::default(), count: 0 } }
    }

    /// Sends so many texts, which come back, and nothing else.
    pub(super) async fn exchange(&mut self, count: usize) {
        let texts = texts(self.answers.count..self.answers.count + count);
        let both = async { tokio::join!(self.writes.write_all(&texts), self.answers.come_back(count)) };
        within(BOUND, "all texts to come back", both).await.0.unwrap();
        assert_eq!(self.answers.decoder.next(), None, "no text came twice");
    }

    /// The connection is taken over, and goes on.
    pub(super) async fn goes_on(&mut self, server: SocketAddr) {
        descriptors_become(server, self.local, 1, "the connection to be taken over").await;
        self.exchange(3).await;
    }
}
