//! A socket in a room in the `diff` mode, together with what it knows of the room.

use super::roster::{Diff, Roster};
use super::server::Server;
use super::socket::Socket;
use super::{BOUND, Duration, within};
use serde_json::{Value, json};

/// What a frame after the first told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Diff(Diff),
    Message { from: Option<String>, text: String },
}

/// A client that keeps its roster by the rules.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) socket: Socket,
    pub(crate) roster: Roster,
    /// Frames received so far, the first included.
    pub(crate) frames: usize,
}

/// The path of a room, and of a user in it.
pub(crate) fn path<'a>(room: &str, user: impl Into<Option<&'a str>>) -> String {
    match user.into() {
        Some(user) => format!("/ws/{}?user={}", encoded(room), encoded(user)),
        None => format!("/ws/{}", encoded(room)),
    }
}

/// Percent-encodes everything but letters and digits.
pub(crate) fn encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    name.bytes().map(encode).collect()
}

impl Member {
    /// Joins as `user`, or as nobody in particular, and reads the first frame.
    pub(crate) async fn join<'a>(server: &Server, room: &str, user: impl Into<Option<&'a str>>) -> Self {
        let user = user.into();
        let member = Self::begin(Socket::open(server, &path(room, user)).await).await;
        assert_eq!(member.roster.room, room);
        match user {
            Some(user) => {
                assert!(member.roster.users[user].contains_key(&member.roster.me), "oneself is in one's room")
            }
            None => assert!(member.roster.anonymous > 0, "oneself is counted"),
        }
        member
    }

    /// Reads the first frame of a socket just opened.
    pub(crate) async fn begin(mut socket: Socket) -> Self {
        let roster = Roster::first(&socket.value().await);
        Self { socket, roster, frames: 1 }
    }

    /// Reads the first frame after coming back to the room on the same socket.
    pub(crate) async fn first_again(&mut self) {
        self.roster = Roster::first(&self.socket.value().await);
        self.frames += 1;
    }

    /// The next frame, applied.
    pub(crate) async fn told(&mut self) -> Told {
        let frame = self.socket.value().await;
        self.apply(&frame)
    }

    pub(crate) fn apply(&mut self, frame: &Value) -> Told {
        self.frames += 1;
        if frame["type"] != "message" {
            return Told::Diff(self.roster.apply(frame));
        }
        let keys: Vec<_> = frame.as_object().into_iter().flat_map(|object| object.keys()).collect();
        assert_eq!(keys, ["from", "text", "type"], "a message has these keys and no other");
        assert!(frame["from"].is_string() || frame["from"].is_null(), "`from` in {frame}");
        let text = frame["text"].as_str().unwrap_or_else(|| panic!("`text` in {frame}")).to_owned();
        Told::Message { from: frame["from"].as_str().map(str::to_owned), text }
    }

    /// The next frame, which must be a diff.
    pub(crate) async fn diff(&mut self) -> Diff {
        match self.told().await {
            Told::Diff(diff) => diff,
            told => panic!("a diff, not {told:?}"),
        }
    }

    /// The next frame, which must be a message.
    pub(crate) async fn message(&mut self) -> (Option<String>, String) {
        match self.told().await {
            Told::Message { from, text } => (from, text),
            told => panic!("a message, not {told:?}"),
        }
    }

    /// The next frame must be this text, said by `from`.
    pub(crate) async fn hears<'a>(&mut self, from: impl Into<Option<&'a str>>, text: &str) {
        assert_eq!(self.message().await, (from.into().map(str::to_owned), text.to_owned()));
    }

    /// The next frame tells that one socket of `user` has come, and nothing else.
    pub(crate) async fn sees_join(&mut self, user: &str) {
        let anonymous = self.roster.anonymous;
        let diff = self.diff().await;
        assert_eq!((diff.joined(), diff.left(), diff.updated()), (vec![user], vec![], vec![]), "{user} joins");
        assert_eq!(self.roster.anonymous, anonymous, "{user} joins, and nobody else");
    }

    /// The next frame tells that one socket of `user` has gone, and nothing else.
    pub(crate) async fn sees_leave(&mut self, user: &str) {
        self.sees_leave_within(user, BOUND).await;
    }

    pub(crate) async fn sees_leave_within(&mut self, user: &str, bound: Duration) {
        let anonymous = self.roster.anonymous;
        let diff = within(bound, &format!("the leave of {user}"), self.diff()).await;
        assert_eq!((diff.joined(), diff.left(), diff.updated()), (vec![], vec![user], vec![]), "{user} leaves");
        assert_eq!(self.roster.anonymous, anonymous, "{user} leaves, and nobody else");
    }

    /// The next frame tells that there are so many anonymous sockets now, and nothing else.
    pub(crate) async fn sees_anonymous(&mut self, count: u64) {
        let diff = self.diff().await;
        assert_eq!(diff, Diff { anonymous: count, ..Diff::default() });
    }

    /// Has one socket of `fence` come, and sees its join as the very next news: nothing else was in between.
    pub(crate) async fn sees_nothing_before(&mut self, server: &Server, fence: &str) -> Member {
        let fence_member = Member::join(server, &self.roster.room.clone(), fence).await;
        self.sees_join(fence).await;
        fence_member
    }

    /// Reads on, over messages too, until the roster is as asked.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Roster) -> bool) {
        let what = format!("{what} in {}", self.roster.room);
        within(BOUND, &what, async {
            while !is_so(&self.roster) {
                self.told().await;
            }
        })
        .await;
    }

    /// Reads on until this many users are here.
    pub(crate) async fn until_all(&mut self, users: usize) {
        within(super::secs(60), "everybody to be here", async {
            while self.roster.users.len() < users {
                self.told().await;
            }
        })
        .await;
    }

    pub(crate) async fn says(&mut self, text: &str) {
        self.socket.text(text).await;
    }

    pub(crate) async fn updates(&mut self, meta: Value) {
        self.socket.json(json!({"type": "update", "meta": meta})).await;
    }

    /// Closes in order.
    pub(crate) async fn leave(self) {
        self.socket.leave().await;
    }
}
