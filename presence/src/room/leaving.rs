//! Presences that are about to leave.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::oneshot;

use crate::{
    delivery::{HubRef, Reply, ToHub},
    model::Close,
    name::{ChannelName, RoomName, UserId},
    signal::LeaveGroup,
};

/// A leave whose commit is pending.
pub(crate) struct Leaving {
    pub(crate) channel: ChannelName,
    pub(crate) cause: Cause,
    /// The commit has a higher batch number than this.
    pub(crate) after: u64,
    pub(crate) replies: Vec<Reply<()>>,
}

/// Why a presence leaves.
#[derive(Debug)]
pub(crate) enum Cause {
    Left,
    /// It leaves together with others: they were stale, their grace was over, or they were removed on purpose.
    Removed(Leavers),
    /// The socket of this user was lost while it joined with a resume token. If the presence is new, it leaves; if it was resumed, it
    /// is held.
    Lost(Option<UserId>),
}

impl Leaving {
    /// A leave together with others.
    pub(crate) fn removed(channel: ChannelName, with: &Leavers) -> Self {
        Self { channel, cause: Cause::Removed(with.clone()), after: 0, replies: Vec::new() }
    }
}

/// Notifies a socket that the application has removed it from a room. The room sends it when it handles the removal, so that the socket
/// receives nothing from the room after it. It is sent once, even if the room handles several clones of it.
#[derive(Debug, Clone)]
pub(crate) struct Farewell(Arc<FarewellState>);

#[derive(Debug)]
struct FarewellState {
    hub: HubRef,
    close: Option<Close>,
    is_sent: AtomicBool,
}

impl Farewell {
    /// For a socket on this hub. With `close` the socket is closed; without, its consumer is notified.
    pub(crate) fn new(hub: HubRef, close: Option<Close>) -> Self {
        Self(Arc::new(FarewellState { hub, close, is_sent: AtomicBool::new(false) }))
    }

    /// Sends it to the socket of `channel`.
    pub(crate) fn send(&self, room: &RoomName, channel: &ChannelName) {
        let FarewellState { hub, close, is_sent } = &*self.0;
        if !is_sent.swap(true, Ordering::AcqRel) {
            let (room, channels) = (room.clone(), vec![channel.clone()]);
            // The hub keeps it as a member until the room has removed it.
            hub.addr.do_send(ToHub::Removed { room, channels, members: Vec::new(), close: close.clone() });
        }
    }
}

/// Presences that leave a room together. Each of them has a clone: when the last clone is dropped, one event is fired, and then one
/// reply is sent.
#[derive(Debug, Clone)]
pub(crate) struct Leavers(Arc<AllLeft>);

/// The fields are dropped in this order, so the event is fired before the reply is sent.
#[derive(Debug)]
struct AllLeft {
    together: LeaveGroup,
    _reply: CountReply,
}

/// Replies with the number of presences when it is dropped.
#[derive(Debug)]
struct CountReply {
    count: usize,
    reply: Option<oneshot::Sender<usize>>,
}

impl Drop for CountReply {
    fn drop(&mut self) {
        // A room that panics before it has submitted all leaves does not know how many presences it is going to remove.
        if let Some(reply) = self.reply.take().filter(|_| !std::thread::panicking()) {
            let _ = reply.send(self.count);
        }
    }
}

impl Leavers {
    pub(crate) fn new(together: LeaveGroup, count: usize, reply: Option<oneshot::Sender<usize>>) -> Self {
        Self(Arc::new(AllLeft { together, _reply: CountReply { count, reply } }))
    }

    pub(crate) fn together(&self) -> &LeaveGroup {
        &self.0.together
    }
}
