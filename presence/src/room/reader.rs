//! Who waits for a look at the roster of a room.

use tokio::sync::oneshot;

use crate::model::roster::Roster;

/// A part of the application that waits for a look at the roster.
pub(crate) trait Reader: Send {
    /// Whether it still waits.
    fn waits(&self) -> bool;

    fn read(self: Box<Self>, roster: &Roster);
}

/// Sends what a look at the roster finds.
pub(crate) struct Look<T, F> {
    pub(crate) reply: oneshot::Sender<T>,
    pub(crate) look: F,
}

impl<T: Send, F: FnOnce(&Roster) -> T + Send> Reader for Look<T, F> {
    fn waits(&self) -> bool {
        !self.reply.is_closed()
    }

    fn read(self: Box<Self>, roster: &Roster) {
        let Self { reply, look } = *self;
        if !reply.is_closed() {
            let _ = reply.send(look(roster));
        }
    }
}
