//! Before anybody is removed for silence, the thread of its socket is asked.
//!
//! A room lives on another thread than the sockets of its members. What a client has sent may still be in the kernel, or
//! between the kernel and the consumer, because the thread of its socket was blocked or the whole process stood still. So a
//! room removes nobody by its own clock alone: each connection answers when it has read what had come by then, and the room
//! looks once more at who is left. A thread that is blocked for good never answers, and never learns either that a client has
//! gone; so a missing answer keeps nobody for longer than [`UNANSWERED`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::Addr;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    name::PresenceId,
    room::{actor::RoomActor, message::ToRoom},
};

/// How long a room waits for the answers. A thread that does not answer is blocked, so that its sockets are not read.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(1);
/// For how many times the setting `max_age` a presence is kept beyond its deadline if its connection does not answer. After that it
/// counts as silent.
pub(crate) const UNANSWERED: u32 = 1;

/// One question to several connections. When the last of them has answered, or is gone, the room is told who is silent.
#[derive(Debug)]
pub(crate) struct Inquiry {
    room: Addr<RoomActor>,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    silent: Vec<PresenceId>,
    /// Those whose connections have not answered.
    unanswered: HashSet<PresenceId>,
    max_age: Duration,
    reply: Option<oneshot::Sender<usize>>,
}

impl Inquiry {
    pub(crate) fn new(room: Addr<RoomActor>, max_age: Duration, reply: Option<oneshot::Sender<usize>>) -> Arc<Self> {
        let open = Open { silent: Vec::new(), unanswered: HashSet::new(), max_age, reply };
        Arc::new(Self { room, open: Mutex::new(Some(open)) })
    }

    fn note(&self, note: impl FnOnce(&mut Open)) {
        if let Some(open) = &mut *self.open.lock() {
            note(open);
        }
    }

    /// The question about this one, for its connection.
    pub(crate) fn ask(self: &Arc<Self>, id: PresenceId) -> AskedSilent {
        self.note(|open| {
            open.unanswered.insert(id);
        });
        AskedSilent { id, inquiry: self.clone() }
    }

    /// Everything that had come from this one is read, and it was nothing.
    pub(crate) fn is_silent(&self, id: PresenceId) {
        self.note(|open| open.silent.push(id));
    }

    /// Tells the room who has answered so far. Later answers are of no use.
    pub(crate) fn end(&self) {
        let open = self.open.lock().take();
        if let Some(Open { silent: ids, unanswered, max_age, reply }) = open {
            self.room.do_send(ToRoom::Silent { ids, unanswered, max_age, reply });
        }
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.end();
    }
}

/// The question whether one presence is silent. If it is dropped, the answer is that it is not.
#[derive(Debug)]
pub(crate) struct AskedSilent {
    id: PresenceId,
    inquiry: Arc<Inquiry>,
}

impl AskedSilent {
    /// Answers that it is silent.
    pub(crate) fn agree(self) {
        self.inquiry.is_silent(self.id);
    }
}

impl Drop for AskedSilent {
    fn drop(&mut self) {
        self.inquiry.note(|open| {
            open.unanswered.remove(&self.id);
        });
    }
}
