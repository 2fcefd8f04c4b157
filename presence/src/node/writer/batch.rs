//! What goes into one transaction, and whom to tell what became of it.

use actix::Recipient;

use crate::store::{RoomCommit, RoomWrites, StoreError};

use super::{Committed, Haste};

#[derive(Default)]
pub(super) struct Batch {
    pub(super) writes: Vec<RoomWrites>,
    /// Where each of them came from.
    pub(super) actors: Vec<Recipient<Committed>>,
    pub(super) number: u64,
    /// Whether somebody waits for any of them.
    pub(super) haste: Haste,
}

impl Batch {
    /// Takes the second half off: half of the rooms, or half of the changes of the only one. `None`: it is but one change.
    pub(super) fn split_off(&mut self) -> Option<Self> {
        let (number, haste) = (self.number, self.haste);
        if let [RoomWrites { room, writes }] = &mut self.writes[..] {
            if writes.len() < 2 {
                return None;
            }
            let writes = writes.split_off(writes.len() / 2);
            let writes = vec![RoomWrites { room: room.clone(), writes }];
            return Some(Self { writes, actors: self.actors.clone(), number, haste });
        }
        let half = self.writes.len() / 2;
        Some(Self { writes: self.writes.split_off(half), actors: self.actors.split_off(half), number, haste })
    }

    /// Tells the rooms what became of it.
    pub(super) fn answer(self, commits: impl IntoIterator<Item = Result<RoomCommit, StoreError>>) {
        let rooms = self.writes.into_iter().zip(self.actors);
        for ((RoomWrites { writes, .. }, actor), result) in rooms.zip(commits) {
            actor.do_send(Committed { batch: self.number, writes, result });
        }
    }
}
