//! The sockets of one worker thread, by name, user, room and group.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    rc::Rc,
    sync::Arc,
};

use actix::Recipient;

use crate::{
    delivery::{
        message::{Broadcast, Joiner, RoomFlush, ToConnection},
        outbox::Outbox,
        touch::Touch,
    },
    model::Presence,
    name::{ChannelName, Epoch, GroupName, RoomName, UserId, Version},
};

/// One socket of this thread.
pub(crate) struct HubSocket {
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) connection: Recipient<ToConnection>,
    pub(crate) user: Option<UserId>,
}

/// The outbox and the connection of a socket. The address of the connection is shared, since a clone of it takes three allocations.
#[derive(Clone)]
pub(super) struct SocketHandle {
    pub(super) outbox: Rc<Outbox>,
    pub(super) connection: Rc<Recipient<ToConnection>>,
}

pub(super) struct HubMember {
    pub(super) socket: SocketHandle,
    pub(super) presence: Arc<Presence>,
    pub(super) touch: Touch,
    /// The number of the last message that was delivered to it.
    last_message: u64,
}

pub(super) struct HubRoom {
    /// The position of the room that its members on this hub know.
    pub(super) announced: (Epoch, Version),
    pub(super) members: HashMap<ChannelName, HubMember>,
}

/// The sockets of this thread, with their users, rooms and groups. A socket enters directly, without a message to the hub.
#[derive(Default)]
pub(crate) struct Sockets {
    pub(super) sockets: HashMap<ChannelName, SocketHandle>,
    /// The sockets of each user, by numbers, so that each is found at once however many there are.
    users: HashMap<UserId, BTreeMap<u64, ChannelName>>,
    /// The user of each socket that has one, and its number there.
    named: HashMap<ChannelName, (UserId, u64)>,
    /// How many sockets were given to a user so far.
    numbers: u64,
    pub(super) rooms: HashMap<RoomName, HubRoom>,
    groups: HashMap<GroupName, HashMap<ChannelName, GroupMember>>,
    /// The groups of each socket that is in one.
    grouped: HashMap<ChannelName, HashSet<GroupName>>,
    /// The number of deliveries to sockets. It is increased before a delivery, so that a socket at which the hub panics is skipped afterwards.
    pub(super) served: u64,
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
    pub(super) fn next_of(&mut self, user: &UserId, done: &mut u64) -> Option<&SocketHandle> {
        let (number, channel) = self.users.get(user)?.range(*done + 1..).next()?;
        *done = *number;
        self.served += 1;
        self.sockets.get(channel)
    }

    /// How many sockets there are on this thread.
    pub(crate) fn count(&self) -> usize {
        self.sockets.len()
    }

    /// How many entries there are for users. It is 0 if no socket has a user.
    #[cfg(test)]
    pub(crate) fn user_entries(&self) -> usize {
        self.users.len() + self.named.len()
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

    /// The members of a room to which the message with this number was not delivered. Each counts as delivered when the iterator returns it.
    pub(super) fn room(&mut self, room: &RoomName, number: u64) -> impl Iterator<Item = &HubMember> {
        let members = self.rooms.get_mut(room).into_iter().flat_map(|room| room.members.values_mut());
        let served = &mut self.served;
        members.filter(move |member| member.last_message < number).map(move |member| {
            member.last_message = number;
            *served += 1;
            &*member
        })
    }

    /// As [`room`](Self::room), for the members of a group.
    pub(super) fn group(&mut self, group: &GroupName, number: u64) -> impl Iterator<Item = &SocketHandle> {
        let members = self.groups.get_mut(group).into_iter().flat_map(HashMap::values_mut);
        let served = &mut self.served;
        members.filter(move |member| member.last_message < number).map(move |member| {
            member.last_message = number;
            *served += 1;
            &member.socket
        })
    }

    /// Sends a notice to the members, and then first frames to the sockets that join.
    pub(super) fn flush(&mut self, flush: &mut RoomFlush, number: u64) {
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

    pub(super) fn remove(&mut self, name: &RoomName, channels: &[ChannelName]) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        for channel in channels {
            room.members.remove(channel);
        }
        if room.members.is_empty() {
            self.rooms.remove(name);
        }
    }
}
