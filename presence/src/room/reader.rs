//! Parts of the application that read the roster of a room.

use tokio::sync::oneshot;

use crate::model::roster::Roster;

/// A part of the application that waits until the room knows its roster, and then reads it.
pub(crate) trait RosterReader: Send {
    /// Whether the application still waits for the result.
    fn is_waiting(&self) -> bool;

    fn read(self: Box<Self>, roster: &Roster);
}

/// Reads something from a roster, and sends it.
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
