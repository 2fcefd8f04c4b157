//! Before anybody is removed for silence, the thread of its socket is asked.
//!
//! A room lives on another thread than the sockets of its members. What a client has sent may still be in the kernel, or
//! between the kernel and the consumer, because the thread of its socket was blocked or the whole process stood still. So a
//! room removes nobody by its own clock alone: each connection answers when it has read what had come by then, and the room
//! looks once more at who is left. A thread that is blocked for good never answers, and never learns either that a client has
//! gone; so a missing answer keeps nobody for longer than [`UNANSWERED`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::name::PresenceId;

/// How long a room waits for the answers. A thread that does not answer is blocked, so that its sockets are not read.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(1);
/// For how many times the setting `max_age` a presence is kept beyond its deadline if its connection does not answer. After that it
/// counts as silent.
pub(crate) const UNANSWERED: u32 = 1;

/// One question to several connections. When the last of them has answered, or is gone, the room is told who is silent.
#[derive(Debug)]
pub(crate) struct Inquiry {
    room: Recipient<Silent>,
    open: Mutex<Option<Silent>>,
}

/// What came of an inquiry: remove those of these that were last seen longer ago than `max_age`, or much longer if their connections have
/// not answered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Silent {
    pub(crate) ids: Vec<PresenceId>,
    pub(crate) unanswered: HashSet<PresenceId>,
    pub(crate) max_age: Duration,
    pub(crate) reply: Option<oneshot::Sender<usize>>,
}

impl Inquiry {
    pub(crate) fn new(room: Recipient<Silent>, max_age: Duration, reply: Option<oneshot::Sender<usize>>) -> Arc<Self> {
        let open = Silent { ids: Vec::new(), unanswered: HashSet::new(), max_age, reply };
        Arc::new(Self { room, open: Mutex::new(Some(open)) })
    }

    fn note(&self, note: impl FnOnce(&mut Silent)) {
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
        self.note(|open| open.ids.push(id));
    }

    /// Tells the room who has answered so far. Later answers are of no use.
    pub(crate) fn end(&self) {
        let open = self.open.lock().take();
        if let Some(silent) = open {
            self.room.do_send(silent);
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
