//! A member with a task of its own: it reads all the time, sends heartbeats, and records what it receives.

use super::frame::{Raw, ReceivedFrame};
use super::member::{RoomClient, Told};
use super::roster::ClientRoster;
use super::server::ChatServer;
use super::{BOUND, Duration};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

/// What a guest has seen so far.
#[derive(Debug, Clone)]
pub(crate) struct GuestView {
    pub(crate) roster: ClientRoster,
    /// Who came and went, as `+ann`, `-ann`; who changed, as `~ann`.
    pub(crate) told: Vec<String>,
    /// The messages.
    pub(crate) heard: Vec<String>,
    /// The codes of refusals.
    pub(crate) refused: Vec<String>,
    /// The last frame, if the connection has ended or is ending.
    pub(crate) end: Option<ReceivedFrame>,
}

#[derive(Debug)]
pub(crate) struct Guest {
    send: mpsc::UnboundedSender<Raw>,
    seen: watch::Receiver<GuestView>,
}

impl Guest {
    /// Joins, and from then on beats every `beat`.
    pub(crate) async fn join<'a>(
        server: &ChatServer,
        room: &str,
        user: impl Into<Option<&'a str>>,
        beat: Duration,
    ) -> Self {
        Self::of(RoomClient::join(server, room, user).await, beat)
    }

    pub(crate) fn of(mut member: RoomClient, beat: Duration) -> Self {
        let (send, mut to_send) = mpsc::unbounded_channel();
        let (told, heard, refused, end) = (Vec::new(), Vec::new(), Vec::new(), None);
        let (tell, seen) = watch::channel(GuestView { roster: member.roster.clone(), told, heard, refused, end });
        member.socket.beats_every(beat);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    frame = member.socket.next_frame() => {
                        tell.send_modify(|seen| note(seen, &mut member, frame));
                        if tell.borrow().end.is_some() {
                            return;
                        }
                    }
                    // When the guest is dropped, so is the connection.
                    raw = to_send.recv() => match raw {
                        Some(raw) => drop(member.socket.try_send(&raw).await),
                        None => return,
                    },
                }
            }
        });
        Self { send, seen }
    }

    fn send(&self, raw: Raw) {
        self.send.send(raw).expect("the guest lives");
    }

    pub(crate) fn says(&self, text: &str) {
        self.send(Raw::text(text));
    }

    pub(crate) fn asks(&self, command: Value) {
        self.send(Raw::text(command.to_string()));
    }

    /// Closes in order, and waits for the end.
    pub(crate) async fn leaves(mut self) {
        self.send(Raw::close(1000, b""));
        self.until("the answer to its close", BOUND, |seen| seen.end.is_some()).await;
    }

    pub(crate) fn seen(&self) -> GuestView {
        self.seen.borrow().clone()
    }

    /// Waits until what it has seen is as asked.
    pub(crate) async fn until(&mut self, what: &str, bound: Duration, is_so: impl Fn(&GuestView) -> bool) {
        let waited = tokio::time::timeout(bound, self.seen.wait_for(|seen| is_so(seen))).await.map(drop);
        if waited.is_err() {
            panic!("waited {bound:?} in vain for {what}; seen: {:?}", self.seen());
        }
    }

    pub(crate) async fn hears(&mut self, text: &str) {
        self.until(&format!("`{text}`"), BOUND, |seen| seen.heard.iter().any(|heard| heard == text)).await;
    }
}

fn note(seen: &mut GuestView, member: &mut RoomClient, frame: ReceivedFrame) {
    let ReceivedFrame::Text(text) = frame else {
        seen.end = Some(frame);
        return;
    };
    let frame: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON, not {text:?}"));
    match frame["type"].as_str() {
        Some("error") => seen.refused.push(frame["code"].as_str().unwrap_or_default().to_owned()),
        Some("presence.state") => {
            member.roster = ClientRoster::first(&frame);
            seen.roster = member.roster.clone();
        }
        _ => match member.apply(&frame) {
            Told::Message { text, .. } => seen.heard.push(text),
            Told::Diff(diff) => {
                let sign = |sign: &str, names: Vec<&str>| names.iter().map(|name| format!("{sign}{name}")).collect();
                let updated = diff.updated().into_iter().map(|(name, _)| name).collect();
                let all: [Vec<String>; 3] = [sign("+", diff.joined()), sign("-", diff.left()), sign("~", updated)];
                seen.told.extend(all.into_iter().flatten());
                seen.roster = member.roster.clone();
            }
        },
    }
}
