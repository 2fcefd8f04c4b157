//! Before anybody is removed for silence, the thread of its socket is asked.
//!
//! A room lives on another thread than the sockets of its members. What a client has sent may still be in the kernel, or
//! between the kernel and the consumer, because the thread of its socket was blocked or the whole process stood still. So a
//! room removes nobody by its own clock alone: each connection answers when it has read what had come by then, and the room
//! looks once more at who is left.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::Addr;
use tokio::sync::oneshot;

use crate::name::PresenceId;

use super::{actor::RoomActor, message::ToRoom};

/// How long a room waits for the answers. A thread that does not answer is blocked, so that its sockets are not read; who did not
/// answer stays.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(1);

/// One question to several connections. When the last of them has answered, or is gone, the room is told who is silent.
#[derive(Debug)]
pub(crate) struct Inquiry {
    room: Addr<RoomActor>,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    silent: Vec<PresenceId>,
    max_age: Duration,
    reply: Option<oneshot::Sender<usize>>,
}

impl Inquiry {
    pub(crate) fn new(room: Addr<RoomActor>, max_age: Duration, reply: Option<oneshot::Sender<usize>>) -> Arc<Self> {
        let open = Open { silent: Vec::new(), max_age, reply };
        Arc::new(Self { room, open: Mutex::new(Some(open)) })
    }

    /// Everything that had come from this one is read, and it was nothing.
    pub(crate) fn is_silent(&self, id: PresenceId) {
        if let Some(open) = &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            open.silent.push(id);
        }
    }

    /// Tells the room who has answered so far. Later answers are of no use.
    pub(crate) fn end(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Open { silent: ids, max_age, reply }) = open {
            self.room.do_send(ToRoom::Silent { ids, max_age, reply });
        }
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.end();
    }
}

/// The question whether one presence is silent. Dropped without an answer, it is not.
#[derive(Debug)]
pub(crate) struct AskedSilent {
    pub(crate) id: PresenceId,
    pub(crate) inquiry: Arc<Inquiry>,
}

impl AskedSilent {
    /// Answers that it is silent.
    pub(crate) fn agree(self) {
        self.inquiry.is_silent(self.id);
    }
}
