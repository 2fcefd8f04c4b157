//! A socket in a room in the `diff` mode, together with what it knows of the room.

use super::roster::{ClientRoster, Diff};
use super::server::ChatServer;
use super::socket::ClientSocket;
use super::{BOUND, Duration, within};
use serde_json::{Value, json};

/// The content of a frame after the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Diff(Diff),
    Message { from: Option<String>, text: String },
}

/// One change of a room, as a test expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ExpectedChange {
    Joined(String),
    Left(String),
    Updated(String),
    Anonymous { from: u64, to: u64 },
}

/// The changes of a frame that the test has not asked for yet.
///
/// Changes that happen close together are merged into one frame, and on a busy machine also those that a test causes one
/// after the other. So a test asks for each change by itself, and whatever nobody has asked for at the end is a fault.
#[derive(Debug, Default)]
struct UnclaimedChanges(Vec<ExpectedChange>);

impl UnclaimedChanges {
    fn of(diff: &Diff, anonymous_before: u64) -> Self {
        let joined = diff.joined().into_iter().map(|user| ExpectedChange::Joined(user.to_owned()));
        let left = diff.left().into_iter().map(|user| ExpectedChange::Left(user.to_owned()));
        let updated = diff.updates.iter().map(|entry| ExpectedChange::Updated(entry.user.clone()));
        let count = ExpectedChange::Anonymous { from: anonymous_before, to: diff.anonymous };
        let count = (anonymous_before != diff.anonymous).then_some(count);
        Self(joined.chain(left).chain(updated).chain(count).collect())
    }

    fn claim(&mut self, change: &ExpectedChange) {
        let Some(at) = self.0.iter().position(|one| one == change) else {
            panic!("{change:?} is not in the next frame; what it holds and nobody has asked for: {:?}", self.0)
        };
        self.0.swap_remove(at);
    }

    /// The count of anonymous sockets may have gone on to another value in the same frame.
    fn claim_count(&mut self, count: u64) {
        let passes = |from: u64, to: u64| (from < count && count <= to) || (to <= count && count < from);
        for change in &mut self.0 {
            if let ExpectedChange::Anonymous { from, to } = change
                && passes(*from, *to)
            {
                *from = count;
                self.0.retain(|change| !matches!(change, ExpectedChange::Anonymous { from, to } if from == to));
                return;
            }
        }
        panic!("no frame tells of {count} anonymous sockets; what nobody has asked for: {:?}", self.0)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}

impl Drop for UnclaimedChanges {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "changes that the test did not expect: {:?}", self.0);
        }
    }
}

/// A client that keeps its roster by the rules.
#[derive(Debug)]
pub(crate) struct RoomClient {
    pub(crate) socket: ClientSocket,
    pub(crate) roster: ClientRoster,
    /// Frames received so far, the first included.
    pub(crate) frames: usize,
    news: UnclaimedChanges,
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

impl RoomClient {
    /// Joins as `user`, or as nobody in particular, and reads the first frame.
    pub(crate) async fn join<'a>(server: &ChatServer, room: &str, user: impl Into<Option<&'a str>>) -> Self {
        let user = user.into();
        let member = Self::begin(ClientSocket::open(server, &path(room, user)).await).await;
        assert_eq!(member.roster.room, room);
        match user {
            Some(user) => {
                assert!(member.roster.users[user].contains_key(&member.roster.me), "oneself is in one's room")
            }
            None => assert!(member.roster.anonymous > 0, "oneself is counted"),
        }
        member
    }

    /// Reads the first frame of a socket just opened, and those that continue it.
    pub(crate) async fn begin(mut socket: ClientSocket) -> Self {
        let roster = ClientRoster::first(&socket.value().await);
        let mut member = Self::with(socket, roster);
        member.rest_of_first().await;
        member
    }

    async fn rest_of_first(&mut self) {
        while self.roster.more {
            let page = self.diff().await;
            assert!(page.leaves.is_empty() && page.updates.is_empty(), "a page of a state has joins alone: {page:?}");
        }
    }

    /// A member whose first frame has been read already.
    pub(crate) fn with(socket: ClientSocket, roster: ClientRoster) -> Self {
        Self { socket, roster, frames: 1, news: UnclaimedChanges::default() }
    }

    /// Reads the first frame after coming back to the room on the same socket.
    pub(crate) async fn first_again(&mut self) {
        self.roster = ClientRoster::first(&self.socket.value().await);
        self.frames += 1;
        self.rest_of_first().await;
        self.news.forget();
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

    /// The next frame, which must be a diff, as it is: for a test that judges what one frame holds.
    pub(crate) async fn diff(&mut self) -> Diff {
        assert!(self.news.is_empty(), "the frame before holds changes that the test did not expect: {:?}", self.news);
        match self.told().await {
            Told::Diff(diff) => diff,
            told => panic!("a diff, not {told:?}"),
        }
    }

    /// Reads the next frame unless the one before still holds changes that nobody has asked for.
    async fn fresh(&mut self) {
        if self.news.is_empty() {
            let anonymous = self.roster.anonymous;
            self.news = UnclaimedChanges::of(&self.diff().await, anonymous);
        }
    }

    /// The next frame, which must be a message.
    pub(crate) async fn message(&mut self) -> (Option<String>, String) {
        match self.told().await {
            Told::Message { from, text } => (from, text),
            told => panic!("a message, not {told:?}"),
        }
    }

    /// The next frame must be this text, sent by `from`.
    pub(crate) async fn hears<'a>(&mut self, from: impl Into<Option<&'a str>>, text: &str) {
        assert_eq!(self.message().await, (from.into().map(str::to_owned), text.to_owned()));
    }

    /// The next change is that one socket of `user` has come; changes of the same frame are asked for in any order.
    pub(crate) async fn sees_join(&mut self, user: &str) {
        self.fresh().await;
        self.news.claim(&ExpectedChange::Joined(user.to_owned()));
    }

    /// The next change is that one socket of `user` has gone; changes of the same frame are asked for in any order.
    pub(crate) async fn sees_leave(&mut self, user: &str) {
        self.sees_leave_within(user, BOUND).await;
    }

    pub(crate) async fn sees_leave_within(&mut self, user: &str, bound: Duration) {
        within(bound, &format!("the leave of {user}"), self.fresh()).await;
        self.news.claim(&ExpectedChange::Left(user.to_owned()));
    }

    /// The next change is that there are so many anonymous sockets now.
    pub(crate) async fn sees_anonymous(&mut self, count: u64) {
        self.fresh().await;
        self.news.claim_count(count);
    }

    /// Has one socket of `fence` come, and sees its join as the very next news: nothing else was in between or with it.
    pub(crate) async fn sees_nothing_before(&mut self, server: &ChatServer, fence: &str) -> RoomClient {
        let fence_member = RoomClient::join(server, &self.roster.room.clone(), fence).await;
        self.sees_join(fence).await;
        assert!(self.news.is_empty(), "{fence} joins, and nothing else: {:?}", self.news);
        fence_member
    }

    /// Reads on, over messages too, until the roster is as asked.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&ClientRoster) -> bool) {
        self.news.forget();
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
        self.news.forget();
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

mod tests {
    use super::*;
    use crate::support::roster::Entry;

    fn entry(user: &str, id: &str) -> Entry {
        Entry { user: user.to_owned(), id: id.to_owned(), meta: json!({}) }
    }

    fn news() -> UnclaimedChanges {
        let diff =
            Diff { joins: vec![entry("ann", "1")], leaves: vec![entry("bob", "2")], updates: vec![], anonymous: 2 };
        UnclaimedChanges::of(&diff, 0)
    }

    #[test]
    fn changes_of_one_frame_are_asked_for_one_by_one_in_any_order() {
        let mut news = news();
        news.claim(&ExpectedChange::Left("bob".into()));
        news.claim_count(1);
        news.claim(&ExpectedChange::Joined("ann".into()));
        news.claim_count(2);
        assert!(news.is_empty());
    }

    #[test]
    #[should_panic(expected = "is not in the next frame")]
    fn a_change_that_is_not_there_fails_loudly() {
        let mut news = news();
        news.claim(&ExpectedChange::Left("ann".into()));
    }

    #[test]
    #[should_panic(expected = "that the test did not expect")]
    fn a_change_that_nobody_asks_for_fails_loudly() {
        let mut news = news();
        news.claim(&ExpectedChange::Joined("ann".into()));
        news.claim_count(2);
    }
}
