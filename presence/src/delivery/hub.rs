//! The hub of one worker thread, which delivers to the sockets of that thread.
//!
//! A room sends one message to each hub that has members of it. The hub pushes the frame into the outboxes of its own thread, which costs a
//! reference count each. Messages of a room to a hub arrive in order, so first frames, notices and broadcasts never overtake one another.
//!
//! If the hub panics during a message, it delivers the message again to the sockets that have not received it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use actix::{Actor, AsyncContext, Context, Handler, Recipient};
use tracing::error;

use crate::{
    CloseCode,
    clock::Clock,
    model::Presence,
    name::{ChannelName, Epoch, GroupName, RoomName, UserId, Version},
};

use super::{
    message::{Broadcast, HubMembers, HubRef, Joiner, RoomFlush, ToConnection, ToHub},
    outbox::{Filling, Outbox, WATCH_INTERVAL},
    touch::Touch,
};

/// A client that reads first frames more slowly than this, in bytes a second, is cut off first when their memory is needed.
const LEAST_RATE: f64 = 8.0 * 1024.0;

/// One socket of this thread.
pub(crate) struct HubSocket {
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) connection: Recipient<ToConnection>,
    pub(crate) user: Option<UserId>,
}

/// The outbox and the connection of a socket. The address of the connection is shared, since a clone of it takes three allocations.
#[derive(Clone)]
struct SocketHandle {
    outbox: Rc<Outbox>,
    connection: Rc<Recipient<ToConnection>>,
}

struct HubMember {
    socket: SocketHandle,
    presence: Arc<Presence>,
    touch: Touch,
    /// The number of the last message that was delivered to it.
    last_message: u64,
}

struct HubRoom {
    /// The position of the room that its members on this hub know.
    announced: (Epoch, Version),
    members: HashMap<ChannelName, HubMember>,
}

/// The sockets of this thread, with their users, rooms and groups. A socket enters directly, without a message to the hub.
#[derive(Default)]
pub(crate) struct Sockets {
    sockets: HashMap<ChannelName, SocketHandle>,
    /// The sockets of each user, by numbers, so that each is found at once however many there are.
    users: HashMap<UserId, BTreeMap<u64, ChannelName>>,
    /// The user of each socket that has one, and its number there.
    named: HashMap<ChannelName, (UserId, u64)>,
    /// How many sockets were given to a user so far.
    numbers: u64,
    rooms: HashMap<RoomName, HubRoom>,
    groups: HashMap<GroupName, HashMap<ChannelName, GroupMember>>,
    /// The groups of each socket that is in one.
    grouped: HashMap<ChannelName, HashSet<GroupName>>,
    /// The number of deliveries to sockets. It is increased before a delivery, so that a socket at which the hub panics is skipped afterwards.
    served: u64,
    /// The number of messages to this hub.
    #[cfg(test)]
    pub(crate) messages: u64,
}

struct GroupMember {
    socket: SocketHandle,
    /// The number of the last message that was delivered to it.
    last_message: u64,
}

impl Sockets {
    pub(crate) fn enter(&mut self, channel: ChannelName, HubSocket { outbox, connection, user }: HubSocket) {
        self.sockets.insert(channel.clone(), SocketHandle { outbox, connection: Rc::new(connection) });
        self.set_user(&channel, user.as_ref());
    }

    /// Sets the user of a socket.
    pub(crate) fn set_user(&mut self, channel: &ChannelName, user: Option<&UserId>) {
        if let Some((former, number)) = self.named.remove(channel)
            && let Entry::Occupied(mut sockets) = self.users.entry(former)
        {
            sockets.get_mut().remove(&number);
            if sockets.get().is_empty() {
                sockets.remove();
            }
        }
        if let Some(user) = user.filter(|_| self.sockets.contains_key(channel)) {
            self.numbers += 1;
            self.named.insert(channel.clone(), (user.clone(), self.numbers));
            self.users.entry(user.clone()).or_default().insert(self.numbers, channel.clone());
        }
    }

    /// The next socket of a user, after that of this number.
    fn next_of(&mut self, user: &UserId, done: &mut u64) -> Option<&SocketHandle> {
        let (number, channel) = self.users.get(user)?.range(*done + 1..).next()?;
        *done = *number;
        self.served += 1;
        self.sockets.get(channel)
    }

    /// How many sockets there are on this thread.
    pub(crate) fn count(&self) -> usize {
        self.sockets.len()
    }

    pub(crate) fn leave(&mut self, channel: &ChannelName) {
        self.set_user(channel, None);
        self.sockets.remove(channel);
        for group in self.grouped.remove(channel).unwrap_or_default() {
            self.leave_members(&group, channel);
        }
    }

    /// Adds a socket to a group. Returns false if the socket is gone, or is in `limit` other groups already.
    pub(crate) fn join_group(&mut self, group: &GroupName, channel: &ChannelName, limit: usize) -> bool {
        let Some(socket) = self.sockets.get(channel) else { return false };
        let groups = self.grouped.entry(channel.clone()).or_default();
        if groups.len() >= limit && !groups.contains(group) {
            return false;
        }
        groups.insert(group.clone());
        let members = self.groups.entry(group.clone()).or_default();
        members.entry(channel.clone()).or_insert_with(|| GroupMember { socket: socket.clone(), last_message: 0 });
        true
    }

    pub(crate) fn leave_group(&mut self, group: &GroupName, channel: &ChannelName) {
        if let Entry::Occupied(mut groups) = self.grouped.entry(channel.clone()) {
            groups.get_mut().remove(group);
            if groups.get().is_empty() {
                groups.remove();
            }
        }
        self.leave_members(group, channel);
    }

    fn leave_members(&mut self, group: &GroupName, channel: &ChannelName) {
        if let Entry::Occupied(mut members) = self.groups.entry(group.clone()) {
            members.get_mut().remove(channel);
            if members.get().is_empty() {
                members.remove();
            }
        }
    }

    /// The members of a group to which the message with this number was not delivered. Each counts as delivered when the iterator returns it.
    fn group(&mut self, group: &GroupName, number: u64) -> impl Iterator<Item = &SocketHandle> {
        let members = self.groups.get_mut(group).into_iter().flat_map(HashMap::values_mut);
        let served = &mut self.served;
        members.filter(move |member| member.last_message < number).map(move |member| {
            member.last_message = number;
            *served += 1;
            &member.socket
        })
    }
}

/// The actor of a hub.
pub(crate) struct HubActor {
    id: usize,
    sockets: Rc<RefCell<Sockets>>,
    clock: Clock,
    /// The number of the message being delivered.
    number: u64,
    filling: Rc<Filling>,
    /// Whether a look at the outboxes is scheduled, since some are not empty.
    is_watching: bool,
}

impl std::fmt::Debug for HubActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubActor").field("id", &self.id).finish_non_exhaustive()
    }
}

impl HubActor {
    pub(crate) fn new(id: usize, sockets: Rc<RefCell<Sockets>>, filling: Rc<Filling>, clock: Clock) -> Self {
        Self { id, sockets, clock, number: 0, filling, is_watching: false }
    }
}

impl Actor for HubActor {
    type Context = Context<Self>;
}

impl Handler<ToHub> for HubActor {
    type Result = ();

    fn handle(&mut self, mut message: ToHub, ctx: &mut Self::Context) {
        self.number += 1;
        let mut again = true;
        while again {
            let before = self.sockets.borrow().served;
            let delivered = catch_unwind(AssertUnwindSafe(|| self.deliver(&mut message, ctx)));
            if delivered.is_ok() {
                return;
            }
            error!(hub = self.id, "a hub panicked; it goes on with the sockets that have not received the message");
            // This ends after at most one round for each socket, since no socket is served twice.
            again = self.sockets.borrow().served > before;
        }
    }
}

impl HubActor {
    fn deliver(&mut self, message: &mut ToHub, ctx: &mut Context<Self>) {
        let number = self.number;
        let sockets = &mut *self.sockets.borrow_mut();
        #[cfg(test)]
        {
            sockets.messages += 1;
        }
        match message {
            ToHub::Flush(flush) => sockets.flush(flush, number),
            ToHub::Send { room, frames, except, pressure } => {
                let Some(room) = sockets.rooms.get_mut(room) else { return };
                let except = except.as_ref();
                for member in room.members.values_mut().filter(|member| member.last_message < number) {
                    member.last_message = number;
                    if except == Some(&member.presence.channel) {
                        continue;
                    }
                    sockets.served += 1;
                    member.socket.outbox.push(frames, Some(pressure));
                }
            }
            ToHub::Event { room, event } => {
                let Some(room) = sockets.rooms.get_mut(room) else { return };
                for member in room.members.values_mut().filter(|member| member.last_message < number) {
                    member.last_message = number;
                    sockets.served += 1;
                    member.socket.connection.do_send(ToConnection::Event(event.clone()));
                }
            }
            ToHub::Leave { room, channels } => sockets.remove(room, channels),
            ToHub::Removed { room, channels, members, close } => {
                sockets.remove(room, members);
                for channel in channels {
                    if let Some(socket) = sockets.sockets.get(channel) {
                        socket.connection.do_send(ToConnection::Removed { room: room.clone(), close: close.clone() });
                    }
                }
            }
            ToHub::CheckSilence(asked) => {
                while let Some((channel, asked)) = asked.pop() {
                    sockets.served += 1;
                    match sockets.sockets.get(&channel) {
                        Some(socket) => socket.connection.do_send(ToConnection::CheckSilence(asked)),
                        // Its socket is gone, so no frame can arrive any more.
                        None => asked.agree(),
                    }
                }
            }
            ToHub::CloseRoom { room } => {
                let Some(room) = sockets.rooms.remove(room) else { return };
                for member in room.members.into_values() {
                    let close = ToConnection::Close { code: CloseCode::INTERNAL_ERROR, reason: "the room failed" };
                    member.socket.connection.do_send(close);
                }
            }
            ToHub::SendToGroup { group, frames, pressure } => {
                sockets.group(group, number).for_each(|socket| socket.outbox.push(frames, Some(pressure)));
            }
            ToHub::EventToGroup { group, event } => {
                let event = || ToConnection::Event(event.clone());
                sockets.group(group, number).for_each(|socket| socket.connection.do_send(event()));
            }
            ToHub::SendToUser { user, frames, pressure, done } => {
                while let Some(socket) = sockets.next_of(user, done) {
                    socket.outbox.push(frames, Some(pressure));
                }
            }
            ToHub::EventToUser { user, event, done } => {
                while let Some(socket) = sockets.next_of(user, done) {
                    socket.connection.do_send(ToConnection::Event(event.clone()));
                }
            }
            ToHub::SendTo { channel, frames, pressure } => {
                if let Some(socket) = sockets.sockets.get(channel) {
                    socket.outbox.push(frames, Some(pressure));
                }
            }
            ToHub::EventTo { channel, event } => {
                if let Some(socket) = sockets.sockets.get(channel) {
                    socket.connection.do_send(ToConnection::Event(event.clone()));
                }
            }
            ToHub::CloseAll { code, reason } => {
                for socket in sockets.sockets.values() {
                    socket.connection.do_send(ToConnection::Close { code: *code, reason });
                }
            }
            ToHub::Restart { within } => {
                let all = sockets.sockets.len();
                for (n, socket) in sockets.sockets.values().enumerate() {
                    #[expect(clippy::cast_precision_loss, reason = "so many sockets need not be told apart")]
                    let part = n as f64 / all as f64;
                    socket.connection.do_send(ToConnection::Restart { within: *within, part });
                }
            }
            ToHub::End => *sockets = Sockets::default(),
            ToHub::Report { room, to } => {
                let here = sockets.rooms.get(room);
                let members = here.into_iter().flat_map(|room| room.members.values());
                to.do_send(HubMembers {
                    hub: HubRef::new(self.id, ctx.address().recipient()),
                    announced: here.map(|room| room.announced),
                    members: members.map(|member| (member.presence.clone(), member.touch.clone())).collect(),
                });
            }
            ToHub::CutSlowest { room } => self.cut_slowest(room.as_ref()),
            ToHub::Watch => {
                if !std::mem::replace(&mut self.is_watching, true) {
                    watch_later(&self.filling, &self.clock, ctx);
                }
            }
            #[cfg(any(test, feature = "testing"))]
            ToHub::Panic => panic!("a hub was made to panic"),
        }
    }

    /// Cuts off clients that read first frames of this room, or of any room, slowly: all below [`LEAST_RATE`], or the slowest one if there are
    /// none. Sockets that are closing already are included, since they hold first frames, too.
    fn cut_slowest(&self, room: Option<&RoomName>) {
        let filling = self.filling.outboxes.borrow();
        let rate = |outbox: &Rc<Outbox>| outbox.first_frame_rate(room);
        let mut taking: Vec<_> = filling.iter().filter_map(|outbox| Some((rate(outbox)?, outbox))).collect();
        taking.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let too_slow = taking.iter().take_while(|(rate, _)| *rate < LEAST_RATE).count().max(1);
        taking.iter().take(too_slow).for_each(|(_, outbox)| outbox.make_room());
    }

    /// Looks at the outboxes that are not empty, and schedules the next look if there are any.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        self.filling.looks(self.clock.now(), false);
        let filling = std::mem::take(&mut *self.filling.outboxes.borrow_mut());
        let still: Vec<_> = filling.into_iter().filter(|outbox| outbox.watch()).collect();
        self.filling.outboxes.borrow_mut().extend(still);
        self.is_watching = !self.filling.outboxes.borrow().is_empty();
        if self.is_watching {
            watch_later(&self.filling, &self.clock, ctx);
        }
    }
}

fn watch_later(filling: &Filling, clock: &Clock, ctx: &mut Context<HubActor>) {
    filling.looks(clock.now(), true);
    ctx.run_later(WATCH_INTERVAL, HubActor::watch);
}

impl Sockets {
    /// Sends a notice to the members, and then first frames to the sockets that join.
    fn flush(&mut self, flush: &mut RoomFlush, number: u64) {
        let RoomFlush { room: name, announced, notice, first, resend, joiners, broadcasts } = flush;
        let room = self
            .rooms
            .entry(name.clone())
            .or_insert_with(|| HubRoom { announced: *announced, members: HashMap::new() });
        for member in room.members.values_mut().filter(|member| member.last_message < number) {
            member.last_message = number;
            self.served += 1;
            if let (true, Some(first)) = (*resend, &*first) {
                member.socket.outbox.push_first(name, first.pieces(member.presence.id));
            } else if let Some(notice) = notice {
                member.socket.outbox.push_notice(name, notice);
            }
        }
        room.announced = *announced;
        while let Some(Joiner { presence, touch, replies, skipped, .. }) = joiners.pop() {
            self.served += 1;
            // The leave of a socket that is gone is on its way to the room.
            if let Some(socket) = self.sockets.get(&presence.channel).cloned() {
                let (outbox, connection) = (Rc::clone(&socket.outbox), Rc::clone(&socket.connection));
                let member = HubMember { socket, touch, last_message: number, presence: presence.clone() };
                room.members.insert(presence.channel.clone(), member);
                if let Some(first) = &*first {
                    outbox.push_first(name, first.pieces(presence.id));
                }
                for broadcast in broadcasts.iter().skip(skipped) {
                    match broadcast {
                        Broadcast::Frames(_, Some(except)) if *except == presence.channel => {}
                        Broadcast::Frames(frames, _) => outbox.push(frames, None),
                        Broadcast::Event(event) => connection.do_send(ToConnection::Event(event.clone())),
                    }
                }
            }
            replies.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
        }
        if room.members.is_empty() {
            self.rooms.remove(name);
        }
    }

    fn remove(&mut self, name: &RoomName, channels: &[ChannelName]) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        for channel in channels {
            room.members.remove(channel);
        }
        if room.members.is_empty() {
            self.rooms.remove(name);
        }
    }
}
