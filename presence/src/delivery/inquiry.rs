//! The check of connections before their presences are removed as stale.
//!
//! A room runs on another thread than the sockets of its members. What a client has sent may still be in the kernel, or between the kernel
//! and the consumer, because the thread of its socket was blocked or the whole process stood still. So a room does not decide by its own
//! clock alone. Each connection answers when it has read what had arrived before the question, and then the room looks at the times again.
//! A thread that is blocked for ever never answers, and never notices that a client is gone. So a missing answer keeps a presence for at
//! most [`UNANSWERED`].

use std::{collections::HashSet, sync::Arc, time::Duration};

use actix::{Message, Recipient};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::name::PresenceId;

/// How long a room waits for the answers. A thread that does not answer within this time is blocked, and does not read its sockets.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(1);
/// For how many times `max_age` a presence is kept beyond its deadline if its connection does not answer. After that it counts as silent.
pub(crate) const UNANSWERED: u32 = 1;

/// One question to several connections. When the last of them has answered, or is gone, the room receives [`SilenceResult`].
#[derive(Debug)]
pub(crate) struct Inquiry {
    room: Recipient<SilenceResult>,
    open: Mutex<Option<SilenceResult>>,
}

/// The result of an inquiry. The room removes the presences of `ids` that were last seen longer ago than `max_age`. It keeps those of
/// `unanswered` longer, since their connections have not answered.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SilenceResult {
    pub(crate) ids: Vec<PresenceId>,
    pub(crate) unanswered: HashSet<PresenceId>,
    pub(crate) max_age: Duration,
    pub(crate) reply: Option<oneshot::Sender<usize>>,
}

impl Inquiry {
    pub(crate) fn new(
        room: Recipient<SilenceResult>,
        max_age: Duration,
        reply: Option<oneshot::Sender<usize>>,
    ) -> Arc<Self> {
        let open = SilenceResult { ids: Vec::new(), unanswered: HashSet::new(), max_age, reply };
        Arc::new(Self { room, open: Mutex::new(Some(open)) })
    }

    fn note(&self, note: impl FnOnce(&mut SilenceResult)) {
        if let Some(open) = &mut *self.open.lock() {
            note(open);
        }
    }

    /// The question about this presence, for its connection.
    pub(crate) fn ask(self: &Arc<Self>, id: PresenceId) -> SilenceQuestion {
        self.note(|open| {
            open.unanswered.insert(id);
        });
        SilenceQuestion { id, inquiry: self.clone() }
    }

    /// Records that the connection of this presence has read all that had arrived, and nothing touched the presence.
    pub(crate) fn is_silent(&self, id: PresenceId) {
        self.note(|open| open.ids.push(id));
    }

    /// Sends the answers so far to the room. Later answers are ignored.
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

/// The question whether one presence is silent. If it is dropped without an answer, the presence is not silent.
#[derive(Debug)]
pub(crate) struct SilenceQuestion {
    id: PresenceId,
    inquiry: Arc<Inquiry>,
}

impl SilenceQuestion {
    /// Answers that the presence is silent.
    pub(crate) fn agree(self) {
        self.inquiry.is_silent(self.id);
    }
}

impl Drop for SilenceQuestion {
    fn drop(&mut self) {
        self.inquiry.note(|open| {
            open.unanswered.remove(&self.id);
        });
    }
}
