//! What goes into one transaction, and which room actors receive the results.

use actix::Recipient;

use crate::store::{RoomCommit, RoomWrites, StoreError};

use super::{Committed, Priority};

#[derive(Default)]
pub(super) struct WriteBatch {
    pub(super) writes: Vec<RoomWrites>,
    /// The actor of each room in `writes`, in the same order.
    pub(super) room_actors: Vec<Recipient<Committed>>,
    pub(super) number: u64,
    /// [`Priority::Requested`] if a caller requested at least one of the changes.
    pub(super) priority: Priority,
}

impl WriteBatch {
    /// Splits the second half off: half of the rooms, or half of the changes if there is one room. `None` if the batch is a
    /// single change.
    pub(super) fn split_off(&mut self) -> Option<Self> {
        let (number, priority) = (self.number, self.priority);
        if let [RoomWrites { room, writes }] = &mut self.writes[..] {
            if writes.len() < 2 {
                return None;
            }
            let writes = writes.split_off(writes.len() / 2);
            let writes = vec![RoomWrites { room: room.clone(), writes }];
            return Some(Self { writes, room_actors: self.room_actors.clone(), number, priority });
        }
        let half = self.writes.len() / 2;
        let writes = self.writes.split_off(half);
        Some(Self { writes, room_actors: self.room_actors.split_off(half), number, priority })
    }

    /// Sends each room its result.
    pub(super) fn send_results(self, results: impl IntoIterator<Item = Result<RoomCommit, StoreError>>) {
        let rooms = self.writes.into_iter().zip(self.room_actors);
        for ((RoomWrites { writes, .. }, room_actor), result) in rooms.zip(results) {
            room_actor.do_send(Committed { batch: self.number, writes, result });
        }
    }
}
