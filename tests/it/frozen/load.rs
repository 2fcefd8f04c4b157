//! The load: sockets that join a room and leave it again and again, and a record of how each join went.

use crate::support::Duration;
use crate::support::frame::ReceivedFrame;
use crate::support::member::path;
use crate::support::server::ChatServer;
use crate::support::socket::{ClientSocket, HandshakeRequest};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const JOIN: &str = r#"{"type":"join"}"#;
const LEAVE: &str = r#"{"type":"leave"}"#;

/// One join.
#[derive(Debug, Clone)]
pub(super) struct Join {
    /// Which node it was on.
    pub(super) node: usize,
    /// Whether the room is one that all nodes have.
    pub(super) shared: bool,
    /// When it was due. One that is late because of the one before waits from then on, too.
    pub(super) due: Instant,
    /// How long it took from then on.
    pub(super) took: Duration,
    /// The code with which it was refused, if it was.
    pub(super) refused: Option<String>,
}

/// All joins so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Joins(Arc<Mutex<Vec<Join>>>);

impl Joins {
    /// Those on other nodes than `except` that were in progress between these moments, and have ended.
    pub(super) fn between(&self, from: Instant, to: Instant, except: usize) -> Vec<Join> {
        let joins = self.0.lock().unwrap();
        let in_progress = |join: &&Join| join.due < to && join.ended() >= from;
        joins.iter().filter(in_progress).filter(|join| join.node != except).cloned().collect()
    }

    /// As [`between`](Self::between), without those that were due before: a node that was stopped makes up for the joins that it missed.
    pub(super) fn due_between(&self, from: Instant, to: Instant, except: usize) -> Vec<Join> {
        self.between(from, to, except).into_iter().filter(|join| join.due >= from).collect()
    }

    fn note(&self, join: Join) {
        self.0.lock().unwrap().push(join);
    }
}

impl Join {
    fn ended(&self) -> Instant {
        self.due + self.took
    }
}

/// The longest time between these moments in which no join into another room ended on a node.
pub(super) fn longest_pause(joins: &[Join], node: usize, from: Instant, to: Instant) -> Duration {
    let joins = joins.iter().filter(|join| join.node == node && !join.shared);
    let mut ends: Vec<Instant> = joins.map(Join::ended).filter(|ended| (from..to).contains(ended)).collect();
    ends.extend([from, to]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// How long the slowest of a share of these took: with 0.99 the 99th percentile.
pub(super) fn percentile(share: f64, joins: impl Iterator<Item = Duration>) -> Duration {
    let mut all: Vec<Duration> = joins.collect();
    all.sort_unstable();
    let last = all.len().saturating_sub(1);
    all.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

/// A socket that joins a room of a node and leaves it, at least every `pace`, until its task is aborted.
pub(super) struct Visitor {
    pub(super) node: usize,
    pub(super) shared: bool,
    pub(super) room: String,
    pub(super) user: String,
    pub(super) pace: Duration,
    pub(super) joins: Joins,
}

impl Visitor {
    pub(super) fn begin(self, server: &ChatServer) -> JoinHandle<()> {
        let address = server.address();
        tokio::spawn(async move {
            let request = HandshakeRequest::to(path(&self.room, &*self.user));
            let mut socket = request.open(address).await.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", self.user));
            self.first_frame(&mut socket).await;
            // So that not all are due at the same moment.
            let mut due = Instant::now() + self.pace.mul_f64(fastrand::f64());
            loop {
                socket.text(LEAVE).await;
                tokio::time::sleep_until(due).await;
                socket.text(JOIN).await;
                let refused = self.first_frame(&mut socket).await;
                let (node, shared, took) = (self.node, self.shared, due.elapsed());
                self.joins.note(Join { node, shared, due, took, refused });
                due = if self.pace.is_zero() { Instant::now() } else { due + self.pace };
            }
        })
    }

    /// Reads until the answer to a join. Returns the code of a refusal.
    async fn first_frame(&self, socket: &mut ClientSocket) -> Option<String> {
        loop {
            let ReceivedFrame::Text(text) = socket.next_frame().await else { panic!("{} is closed", self.user) };
            let frame: Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str() {
                Some("presence.state") => return None,
                Some("error") => return Some(frame["code"].as_str().unwrap_or_default().to_owned()),
                _ => {}
            }
        }
    }
}
