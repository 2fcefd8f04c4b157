//! A TCP proxy before a database's server, through which a test makes the network go wrong.

use super::{Duration, millis};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What a connection sends at the beginning of a transaction in which a room is read.
const READ_ONLY: &[u8] = b"READ ONLY";

/// What happens to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    Open,
    /// Each packet to the server, and so each statement, is this late.
    Slow(Duration),
    /// Each packet from the server is this late on connections by which rooms are read.
    SlowReadings(Duration),
    /// Nothing passes, and no end is reported: the network is gone. Connections stay open.
    Dead,
}

/// Forwards each connection to the server. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    wires: Arc<Wires>,
    listening: AbortHandle,
}

#[derive(Debug)]
struct Wires {
    line: watch::Sender<Network>,
    /// They are cut.
    cut: watch::Sender<bool>,
    /// The connections up to this number carry nothing ever again, and do not end.
    lost: watch::Sender<u64>,
    /// The number of the last connection.
    made: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let wires = Arc::new(Wires {
            line: watch::Sender::new(Network::Open),
            cut: watch::Sender::new(false),
            lost: watch::Sender::new(0),
            made: watch::Sender::new(0),
        });
        let shared = wires.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let wires = shared.clone();
                wires.made.send_modify(|made| *made += 1);
                let number = *wires.made.borrow();
                tokio::spawn(async move {
                    let mut cut = wires.cut.subscribe();
                    tokio::select! {
                        () = forward(client, server, &wires, number) => {}
                        _ = cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Self { address, wires, listening: listening.abort_handle() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes every statement so late.
    pub(crate) fn slow(&self, by: Duration) {
        self.wires.line.send_replace(Network::Slow(by));
    }

    /// Makes the answers to readings of rooms so late, and nothing else.
    pub(crate) fn slow_readings(&self, by: Duration) {
        self.wires.line.send_replace(Network::SlowReadings(by));
    }

    /// Lets nothing through, and reports no end.
    pub(crate) fn die(&self) {
        self.wires.line.send_replace(Network::Dead);
    }

    /// Lets everything through again: what waited, too.
    pub(crate) fn open(&self) {
        self.wires.line.send_replace(Network::Open);
    }

    /// The connections that there are carry nothing any more and never end, as if the server's machine had gone and another
    /// had taken its address. New ones work.
    pub(crate) fn lose(&self) {
        self.wires.lost.send_replace(*self.wires.made.borrow());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.wires.cut.send_replace(true);
    }
}

async fn forward(client: TcpStream, server: SocketAddr, wires: &Wires, number: u64) {
    // A server that is away: the client is cut off.
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let reads = AtomicBool::new(false);
    tokio::select! {
        () = pass(from_client, to_server, wires, number, Direction::ToServer, &reads) => {}
        () = pass(from_server, to_client, wires, number, Direction::FromServer, &reads) => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    FromServer,
}

/// `reads` shows whether the connection ever began a transaction that only reads, as readings of rooms are.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wires: &Wires,
    number: u64,
    way: Direction,
    reads: &AtomicBool,
) {
    let (mut line, lost) = (wires.line.subscribe(), wires.lost.subscribe());
    let mut bytes = Vec::with_capacity(65_536);
    loop {
        bytes.clear();
        let end = !matches!(from.read_buf(&mut bytes).await, Ok(1..));
        let now = *line.borrow();
        if way == Direction::ToServer && bytes.windows(READ_ONLY.len()).any(|part| part == READ_ONLY) {
            reads.store(true, Ordering::Relaxed);
        }
        match now {
            Network::Slow(by) if way == Direction::ToServer => tokio::time::sleep(by.max(millis(1))).await,
            Network::SlowReadings(by) if way == Direction::FromServer && reads.load(Ordering::Relaxed) => {
                tokio::time::sleep(by.max(millis(1))).await;
            }
            _ => {}
        }
        // The proxy is dropped only after this, so the way on is that the line is another.
        let _ = line.wait_for(|line| *line != Network::Dead).await;
        if *lost.borrow() >= number {
            std::future::pending::<()>().await;
        }
        if end || to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
