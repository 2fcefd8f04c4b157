//! Who waits for a look at the roster of a room.

use tokio::sync::oneshot;

use crate::model::roster::Roster;

/// A part of the application that waits for a look at the roster.
pub(crate) trait RosterReader: Send {
    /// Whether it still waits.
    fn is_waiting(&self) -> bool;

    fn read(self: Box<Self>, roster: &Roster);
}

/// Sends what a look at the roster finds.
pub(crate) struct RosterQuery<T, F> {
    pub(crate) reply: oneshot::Sender<T>,
    pub(crate) read: F,
}

impl<T: Send, F: FnOnce(&Roster) -> T + Send> RosterReader for RosterQuery<T, F> {
    fn is_waiting(&self) -> bool {
        !self.reply.is_closed()
    }

    fn read(self: Box<Self>, roster: &Roster) {
        let Self { reply, read } = *self;
        if !reply.is_closed() {
            let _ = reply.send(read(roster));
        }
    }
}
