//! The clients: one loop on one thread, without a task or a timer for each, so that the server is the limit and not the load.

mod checks;
mod client;
mod dismissal;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    mem::MaybeUninit,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};

use crate::{
    stop,
    wire::{self, Dialect, Message, User},
};

use self::client::{Books, Client, Phase, Sender};

/// Bytes that are read at once.
const READ: usize = 256 * 1024;
/// Sockets that are handled at once.
const BATCH: usize = 256;
/// The longest wait before a signal or the deadline is seen.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// The receive buffer of a client that does not read.
const FROZEN_BUFFER: usize = 16 * 1024;

/// The number of a client.
pub(crate) type Index = usize;

/// What a scenario reacts to.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client has received its own first frame, this long after it began to connect.
    Joined { client: Index, room: u32, took: Duration },
    /// A client that left has received the answer.
    Left { room: u32 },
    /// A sender has received its own message.
    Returned { sender: usize },
}

/// All clients of one server.
#[derive(Debug)]
pub(crate) struct Load {
    epoll: OwnedFd,
    /// The server of the clients that are opened next.
    pub(crate) server: SocketAddr,
    dialect: Dialect,
    /// The address of the clients.
    source: Option<IpAddr>,
    first_user: User,
    clients: Vec<Option<Client>>,
    free: Vec<Index>,
    books: Books,
    buffer: Vec<u8>,
    deadline: Instant,
    mask: u32,
}

fn system(what: &str) -> impl Fn(Errno) -> String {
    move |error| format!("{what}: {error}")
}

impl Load {
    /// Fails in `turn` after `bound`, whatever it waits for.
    pub(crate) fn new(server: SocketAddr, bound: Duration) -> Result<Self, String> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("epoll_create"))?,
            server,
            dialect: Dialect::default(),
            source: None,
            first_user: 0,
            clients: Vec::new(),
            free: Vec::new(),
            books: Books::default(),
            buffer: vec![0; READ],
            deadline: Instant::now() + bound,
            mask: 1,
        })
    }

    /// Speaks to the server in another way.
    pub(crate) fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Gives the clients an address, and users that no other process of clients has.
    pub(crate) fn apart(mut self, source: IpAddr, first_user: User) -> Self {
        self.source = Some(source);
        (self.first_user, self.books.first_user) = (first_user, first_user);
        self
    }

    /// Begins to connect a new user to a room.
    pub(crate) fn open(&mut self, room: u32) -> Result<Index, String> {
        self.open_with(room, None)
    }

    fn open_with(&mut self, room: u32, receive_buffer: Option<usize>) -> Result<Index, String> {
        let began = Instant::now();
        let user = self.first_user + User::try_from(self.books.began.len()).map_err(|_| "too many users")?;
        self.books.began.push(began);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).map_err(system("socket"))?;
        sockopt::set_tcp_nodelay(&socket, true).map_err(system("TCP_NODELAY"))?;
        // The end of a connection leaves nothing in the kernel. The client closes after the Close of the server.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(system("SO_LINGER"))?;
        if let Some(bytes) = receive_buffer {
            sockopt::set_socket_recv_buffer_size(&socket, bytes).map_err(system("SO_RCVBUF"))?;
        }
        if let Some(source) = self.source {
            let failed = |error| format!("the address {source} of the clients cannot be used: {error}");
            bind(&socket, &SocketAddr::new(source, 0)).map_err(failed)?;
        }
        match connect(&socket, &self.server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(format!("cannot connect to {}: {error}", self.server)),
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        let data = epoll::EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::OUT).map_err(system("epoll_ctl"))?;
        self.clients[index] = Some(Client {
            index,
            server: self.server,
            dialect: self.dialect,
            stream: TcpStream::from(socket),
            room,
            user,
            phase: Phase::Connecting,
            began,
            unread: Vec::new(),
            unsent: Vec::new(),
            is_waiting: true,
            view: Vec::new(),
            messages: Vec::new(),
            frames: 0,
            bytes: 0,
        });
        Ok(index)
    }

    fn client(&mut self, index: Index) -> Result<&mut Client, String> {
        self.clients.get_mut(index).and_then(Option::as_mut).ok_or_else(|| format!("client {index} has ended"))
    }

    /// Sends a Close. The client is forgotten when the answer comes.
    pub(crate) fn leave(&mut self, index: Index) -> Result<(), String> {
        self.send(index, wire::CLOSE, wire::CLOSE_NORMAL)?;
        self.client(index)?.phase = Phase::Leaving;
        Ok(())
    }

    /// Makes a client a sender of messages.
    pub(crate) fn add_sender(&mut self, client: Index) -> Result<usize, String> {
        let room = self.client(client)?.room;
        self.books.senders.push(Sender { client, room, sent: 0 });
        Ok(self.books.senders.len() - 1)
    }

    /// Sends the next message of a sender, after other frames in the same write.
    pub(crate) fn say(&mut self, sender: usize, size: usize, frames_before: &[u8]) -> Result<(), String> {
        let mask = self.next_mask();
        let state = self.books.senders.get_mut(sender).ok_or("there is no such sender")?;
        state.sent += 1;
        let (client, text) = (state.client, self.dialect.say(Message { sender, number: state.sent }.text(size)));
        let mut bytes = frames_before.to_vec();
        wire::encode(&mut bytes, wire::TEXT, text.as_bytes(), mask);
        self.send_bytes(client, &bytes)
    }

    pub(crate) fn send(&mut self, index: Index, opcode: u8, payload: &[u8]) -> Result<(), String> {
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        wire::encode(&mut bytes, opcode, payload, self.next_mask());
        self.send_bytes(index, &bytes)
    }

    /// Frames of heartbeats, for `send_bytes`.
    pub(crate) fn heartbeats(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let heartbeat = self.dialect.heartbeat();
        (0..count).for_each(|_| wire::encode(&mut bytes, wire::TEXT, heartbeat, self.next_mask()));
        bytes
    }

    /// Masks need not be secret here, only different.
    fn next_mask(&mut self) -> u32 {
        self.mask = self.mask.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
        self.mask
    }

    /// Sends frames by one write, if nothing waits before them.
    pub(crate) fn send_bytes(&mut self, index: Index, bytes: &[u8]) -> Result<(), String> {
        let client = self.client(index)?;
        let waits = !client.unsent.is_empty();
        client.unsent.extend_from_slice(bytes);
        if waits { Ok(()) } else { self.write(index) }
    }

    fn write(&mut self, index: Index) -> Result<(), String> {
        let client = self.client(index)?;
        while !client.unsent.is_empty() {
            match (&client.stream).write(&client.unsent) {
                Ok(count) => drop(client.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The end is seen when it is read.
                Err(_) if client.is_ending() => client.unsent.clear(),
                Err(error) => return Err(client.failure(&format!("the connection ended: {error}"))),
            }
        }
        let waits = !client.unsent.is_empty();
        if std::mem::replace(&mut client.is_waiting, waits) != waits {
            let flags = if waits { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            let data = epoll::EventData::new_u64(index as u64);
            let client = self.clients[index].as_ref().ok_or("a client has ended")?;
            epoll::modify(&self.epoll, &client.stream, data, flags).map_err(system("epoll_ctl"))?;
        }
        Ok(())
    }

    /// Handles what comes until then, or returns earlier when something came.
    pub(crate) fn turn(&mut self, until: Instant) -> Result<(), String> {
        stop::check()?;
        let now = Instant::now();
        if now > self.deadline {
            return Err(self.late());
        }
        let wait = until.saturating_duration_since(now).min(LONGEST_WAIT);
        let millis = Duration::from_millis(wait.as_millis() as u64);
        // epoll_wait counts in milliseconds; a shorter wait is exact by ppoll.
        if millis.is_zero() && !wait.is_zero() {
            let timeout = Timespec::try_from(wait).map_err(|error| error.to_string())?;
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(format!("ppoll: {error}")),
            }
        }
        let timeout = Timespec::try_from(millis).map_err(|error| error.to_string())?;
        let mut ready = [const { MaybeUninit::uninit() }; BATCH];
        let ready = match epoll::wait(&self.epoll, &mut ready, Some(&timeout)) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(format!("epoll_wait: {error}")),
        };
        for event in ready.iter() {
            let flags = event.flags;
            let index = event.data.u64() as Index;
            if flags.contains(epoll::EventFlags::OUT) {
                self.writable(index)?;
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.readable(index)?;
            }
        }
        Ok(())
    }

    /// What came. The rest of the events comes with the next `turn`.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.books.events.pop_front()
    }

    fn writable(&mut self, index: Index) -> Result<(), String> {
        let client = self.client(index)?;
        if client.phase == Phase::Connecting {
            client.phase = Phase::Upgrading;
            let (server, target) = (client.server, client.dialect.target(client.room, client.user));
            let request = format!(
                "GET {target} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            );
            client.unsent.extend_from_slice(request.as_bytes());
        }
        self.write(index)
    }

    fn readable(&mut self, index: Index) -> Result<(), String> {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { return Ok(()) };
        let mut replies = Vec::new();
        let mut ended = false;
        loop {
            let count = match (&client.stream).read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) if client.is_ending() => 0,
                Err(error) => return Err(client.failure(&format!("the connection ended: {error}"))),
            };
            if count == 0 {
                if !client.is_ending() {
                    return Err(client.failure("the server ended the connection"));
                }
                ended = true;
                break;
            }
            let bytes = &self.buffer[..count];
            if client.unread.is_empty() {
                let used = client.take(bytes, &mut self.books, &mut replies, &mut ended)?;
                client.unread.extend_from_slice(&bytes[used..]);
            } else {
                let mut unread = std::mem::take(&mut client.unread);
                unread.extend_from_slice(bytes);
                let used = client.take(&unread, &mut self.books, &mut replies, &mut ended)?;
                unread.drain(..used);
                client.unread = unread;
            }
            if ended || count < READ {
                break;
            }
        }
        if ended {
            if client.phase == Phase::Dismissed {
                *self.books.closes.entry(None).or_default() += 1;
            }
            self.books.events.push_back(Event::Left { room: client.room });
            self.clients[index] = None;
            self.free.push(index);
        } else {
            for (opcode, payload) in replies {
                self.send(index, opcode, &payload)?;
            }
        }
        Ok(())
    }

    /// Opens a client that reads its first frame and then nothing.
    pub(crate) fn open_frozen(&mut self, room: u32) -> Result<Index, String> {
        let index = self.open_with(room, Some(FROZEN_BUFFER))?;
        while self.client(index)?.phase != Phase::Joined {
            self.turn(Instant::now() + LONGEST_WAIT)?;
        }
        while self.next_event().is_some() {}
        let client = self.client(index)?;
        client.phase = Phase::Frozen;
        let client = self.clients[index].as_ref().ok_or("a client has ended")?;
        epoll::delete(&self.epoll, &client.stream).map_err(system("epoll_ctl"))?;
        Ok(index)
    }

    /// Handles what comes within a time.
    pub(crate) fn turns(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(end)?;
        }
        Ok(())
    }

    /// Measures from now on how long others take to receive a join.
    pub(crate) fn measure_notices(&mut self) {
        self.books.notices = Some(Vec::new());
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Duration> {
        self.books.notices.take().unwrap_or_default()
    }

    pub(crate) fn deliveries(&self) -> u64 {
        self.books.deliveries
    }

    /// How many texts a client has received, and their bytes.
    pub(crate) fn received(&mut self, index: Index) -> Result<(u64, u64), String> {
        let client = self.client(index)?;
        Ok((client.frames, client.bytes))
    }
}

#[cfg(test)]
mod tests;
