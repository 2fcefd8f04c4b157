//! Presences on their way out.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::oneshot;

use crate::{
    delivery::message::{HubRef, Reply, ToHub},
    model::Close,
    name::{ChannelName, RoomName, UserId},
    signal::LeaveGroup,
};

/// A leave whose commit is under way.
pub(crate) struct Leaving {
    pub(crate) channel: ChannelName,
    pub(crate) cause: Cause,
    /// The commit has a higher batch number than this.
    pub(crate) after: u64,
    pub(crate) replies: Vec<Reply<()>>,
}

/// Why a presence is on its way out.
#[derive(Debug)]
pub(crate) enum Cause {
    Left,
    /// With others: they were stale, their grace was over, or they were removed on purpose.
    Removed(Leavers),
    /// The socket of this user was lost while it joined with a resume token. It leaves if it is new, and is held if it was
    /// resumed.
    Lost(Option<UserId>),
}

impl Leaving {
    /// One that leaves with others.
    pub(crate) fn removed(channel: ChannelName, with: &Leavers) -> Self {
        Self { channel, cause: Cause::Removed(with.clone()), after: 0, replies: Vec::new() }
    }
}

/// By what a socket learns that somebody else has removed it from a room. The room sends it when the removal has its turn, so that the
/// socket gets nothing of the room after that; clones are one, and sent once, however often the room is asked.
#[derive(Debug, Clone)]
pub(crate) struct Farewell(Arc<Notice>);

#[derive(Debug)]
struct Notice {
    hub: HubRef,
    close: Option<Close>,
    is_sent: AtomicBool,
}

impl Farewell {
    /// For a socket on this hub, which is closed so, or stays open and learns it by its consumer.
    pub(crate) fn new(hub: HubRef, close: Option<Close>) -> Self {
        Self(Arc::new(Notice { hub, close, is_sent: AtomicBool::new(false) }))
    }

    /// Sends it to the socket of `channel`.
    pub(crate) fn send(&self, room: &RoomName, channel: &ChannelName) {
        let Notice { hub, close, is_sent } = &*self.0;
        if !is_sent.swap(true, Ordering::AcqRel) {
            let (room, channels) = (room.clone(), vec![channel.clone()]);
            // It stays a member until the room has taken it out.
            hub.addr.do_send(ToHub::Removed { room, channels, members: Vec::new(), close: close.clone() });
        }
    }
}

/// Those who leave a room together: when the last of them lets go of this, there is one event, and then one answer. Clones
/// are one.
#[derive(Debug, Clone)]
pub(crate) struct Leavers(Arc<AllLeft>);

/// In this order: who hears the answer finds the event fired.
#[derive(Debug)]
struct AllLeft {
    together: LeaveGroup,
    _answer: Answer,
}

/// Says how many they are, when it is dropped.
#[derive(Debug)]
struct Answer {
    count: usize,
    reply: Option<oneshot::Sender<usize>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A room that fails in the middle does not know how many it is going to remove.
        if let Some(reply) = self.reply.take().filter(|_| !std::thread::panicking()) {
            let _ = reply.send(self.count);
        }
    }
}

impl Leavers {
    pub(crate) fn new(together: LeaveGroup, count: usize, reply: Option<oneshot::Sender<usize>>) -> Self {
        Self(Arc::new(AllLeft { together, _answer: Answer { count, reply } }))
    }

    pub(crate) fn together(&self) -> &LeaveGroup {
        &self.0.together
    }
}
