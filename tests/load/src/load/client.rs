//! One client: the frames that it receives, and its view of its room.
//!
//! A notice that does not fit to the view is a fault, and so is a message that comes twice or not in its order.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::wire::{self, Dialect, Incoming, Message, Text, User};

use super::{Event, Index};

/// From how many joins of one diff on they are added together.
const MANY: usize = 16;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    /// The request is sent, and the response is not complete.
    Upgrading,
    /// The response is there, and the first frame is not.
    Entering,
    Joined,
    Leaving,
    /// The server is expected to close the socket.
    Dismissed,
    /// It has joined, and is not read from.
    Frozen,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) index: Index,
    pub(super) server: SocketAddr,
    pub(super) dialect: Dialect,
    pub(super) stream: TcpStream,
    pub(super) room: u32,
    pub(super) user: User,
    pub(super) phase: Phase,
    pub(super) began: Instant,
    /// An incomplete frame.
    pub(super) unread: Vec<u8>,
    pub(super) unsent: Vec<u8>,
    /// Whether the loop waits until the socket can be written to.
    pub(super) is_waiting: bool,
    /// The users of the room in order. New ones have higher numbers than all others, so most are appended.
    pub(super) view: Vec<User>,
    /// How many messages were received of each sender.
    pub(super) messages: Vec<u32>,
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

/// A client that sends messages.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) client: Index,
    pub(super) room: u32,
    /// How many messages it has sent.
    pub(super) sent: u32,
}

/// All that clients share while frames are read.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) events: VecDeque<Event>,
    pub(super) senders: Vec<Sender>,
    pub(super) deliveries: u64,
    /// When each user began to connect, by its number after the first.
    pub(super) began: Vec<Instant>,
    pub(super) first_user: User,
    /// How many dismissed clients were closed with each code.
    pub(super) closes: BTreeMap<Option<u16>, usize>,
    /// How long others took to receive a join, if that is measured.
    pub(super) notices: Option<Vec<Duration>>,
}

impl Client {
    pub(super) fn failure(&self, what: &str) -> String {
        let phase = format!("{:?}", self.phase).to_lowercase();
        format!("{} in room r{} ({phase}): {what}", wire::user_name(self.user), self.room)
    }

    /// Whether the end of the connection is expected.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Leaving | Phase::Dismissed)
    }

    /// Handles the complete parts of `bytes` and returns their length.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        books: &mut Books,
        replies: &mut Vec<(u8, Vec<u8>)>,
        ended: &mut bool,
    ) -> Result<usize, String> {
        let mut used = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101 ") {
                let response = String::from_utf8_lossy(bytes);
                return Err(self.failure(&format!("refused with {:?}", response.lines().next().unwrap_or_default())));
            }
            self.phase = Phase::Entering;
            used = end + 4;
        }
        while let Some(frame) = wire::decode(&bytes[used..]).map_err(|error| self.failure(&error))? {
            let end = used + frame.payload.end;
            let payload = &bytes[used..][frame.payload];
            match frame.opcode {
                wire::TEXT => match self.dialect.receive(payload, self.room, self.user) {
                    Incoming::Text(text) => self.text(text, books)?,
                    Incoming::Answer(text) => replies.push((wire::TEXT, text)),
                    Incoming::Nothing => {}
                },
                wire::PING => replies.push((wire::PONG, payload.to_vec())),
                wire::PONG => {}
                wire::CLOSE if self.phase == Phase::Leaving => *ended = true,
                wire::CLOSE if self.phase == Phase::Dismissed => {
                    *books.closes.entry(wire::close_code(payload)).or_default() += 1;
                    replies.push((wire::CLOSE, payload.to_vec()));
                    // The server ends the connection after the answer.
                    self.phase = Phase::Leaving;
                }
                wire::CLOSE => {
                    let code = wire::close_code(payload);
                    return Err(self.failure(&format!("the server closed the socket with {code:?}")));
                }
                opcode => return Err(self.failure(&format!("a frame with opcode {opcode}"))),
            }
            used = end;
        }
        Ok(used)
    }

    fn text(&mut self, bytes: &[u8], books: &mut Books) -> Result<(), String> {
        self.frames += 1;
        self.bytes += bytes.len() as u64;
        match Text::parse(bytes).map_err(|error| self.failure(&error))? {
            Text::All(users) => {
                self.view = users;
                if self.phase == Phase::Entering {
                    self.phase = Phase::Joined;
                    let (client, room, took) = (self.index, self.room, self.began.elapsed());
                    books.events.push_back(Event::Joined { client, room, took });
                }
            }
            Text::Join(user) => self.join(user, books)?,
            Text::Leave(user) => self.left(user)?,
            Text::Diff { leaves, joins } => {
                self.leave_together(leaves)?;
                self.join_together(joins, books)?;
            }
            Text::Message(message) => self.message(&message, books)?,
        }
        Ok(())
    }

    fn join(&mut self, user: User, books: &mut Books) -> Result<(), String> {
        if let (Some(notices), Some(began)) =
            (&mut books.notices, books.began.get(user.wrapping_sub(books.first_user) as usize))
        {
            notices.push(began.elapsed());
        }
        if self.view.last().is_none_or(|&last| last < user) {
            self.view.push(user);
            return Ok(());
        }
        match self.view.binary_search(&user) {
            Ok(_) => Err(self.failure(&format!("{} joined a second time", wire::user_name(user)))),
            Err(place) => {
                self.view.insert(place, user);
                Ok(())
            }
        }
    }

    /// The joins of a diff. A large room is sorted once, which is fast because it was sorted before.
    fn join_together(&mut self, joins: Vec<User>, books: &mut Books) -> Result<(), String> {
        if joins.len() < MANY || books.notices.is_some() {
            return joins.into_iter().try_for_each(|user| self.join(user, books));
        }
        self.view.extend(joins);
        self.view.sort();
        match self.view.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(self.failure(&format!("{} joined a second time", wire::user_name(pair[0])))),
            None => Ok(()),
        }
    }

    fn left(&mut self, user: User) -> Result<(), String> {
        match self.view.binary_search(&user) {
            Ok(place) => {
                self.view.remove(place);
                Ok(())
            }
            Err(_) => Err(self.failure(&format!("{} left and was not there", wire::user_name(user)))),
        }
    }

    /// The leaves of a diff. A large room is walked once, and not for each of them.
    fn leave_together(&mut self, mut leaves: Vec<User>) -> Result<(), String> {
        if leaves.len() < 2 {
            return leaves.into_iter().try_for_each(|user| self.left(user));
        }
        leaves.sort_unstable();
        let before = self.view.len();
        self.view.retain(|user| leaves.binary_search(user).is_err());
        let gone = before - self.view.len();
        let failure = || self.failure(&format!("{} left at once, and {gone} of them were there", leaves.len()));
        if gone == leaves.len() { Ok(()) } else { Err(failure()) }
    }

    fn message(&mut self, message: &Message, books: &mut Books) -> Result<(), String> {
        let sender = message.sender;
        if self.messages.len() <= sender {
            self.messages.resize(sender + 1, 0);
        }
        let last = &mut self.messages[sender];
        if message.number != *last + 1 {
            let (received, next) = (message.number, *last + 1);
            return Err(self.failure(&format!("message {received} of sender {sender} came, and {next} was the next")));
        }
        *last = message.number;
        books.deliveries += 1;
        let state = books.senders.get(sender).filter(|state| state.room == self.room && message.number <= state.sent);
        let state =
            state.ok_or_else(|| self.failure(&format!("nobody sent message {} of {sender}", message.number)))?;
        if state.client == self.index {
            books.events.push_back(Event::Returned { sender });
        }
        Ok(())
    }

    /// The first message that is missing.
    pub(super) fn loss(&self, senders: &[Sender]) -> Option<String> {
        let mut numbers = senders.iter().enumerate().filter(|(_, state)| state.room == self.room);
        numbers.find_map(|(sender, state)| {
            let received = self.messages.get(sender).copied().unwrap_or_default();
            let sent = state.sent;
            (received != sent)
                .then(|| self.failure(&format!("it received {received} of {sent} messages of sender {sender}")))
        })
    }

    /// How the view differs from the truth.
    pub(super) fn difference(&self, truth: &[User]) -> Option<String> {
        if self.view == truth {
            return None;
        }
        let names = |users: &[User], others: &[User]| {
            let names = users.iter().filter(|user| !others.contains(user)).map(|&user| wire::user_name(user));
            names.take(5).collect::<Vec<_>>().join(", ")
        };
        let (missing, extra) = (names(truth, &self.view), names(&self.view, truth));
        let counts = format!("has {} users instead of {}", self.view.len(), truth.len());
        Some(self.failure(&format!("its view of the room {counts}; missing: {missing}; too many: {extra}")))
    }
}
