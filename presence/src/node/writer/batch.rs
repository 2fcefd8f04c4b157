//! What goes into one transaction, and which room actors receive the results.

use std::{collections::HashMap, time::Duration};

use actix::Recipient;

use crate::{
    name::RoomName,
    store::{RoomCommit, RoomWrites, StoreError},
};

use super::{Committed, Priority, merge::Change};

#[derive(Default)]
pub(super) struct WriteBatch {
    pub(super) writes: Vec<RoomWrites>,
    /// The actor of each room in `writes`, in the same order.
    pub(super) room_actors: Vec<Recipient<Committed>>,
    pub(super) number: u64,
    /// The lane that writes it.
    pub(super) lane: u16,
    /// How long it waits for locks. `None`: as long as the store is set to.
    pub(super) patience: Option<Duration>,
    /// [`Priority::Requested`] if a caller requested at least one of the changes.
    pub(super) priority: Priority,
}

impl WriteBatch {
    /// Splits the second half off: half of the rooms, or half of the changes if there is one room. `None` if the batch is a
    /// single change.
    pub(super) fn split_off(&mut self) -> Option<Self> {
        let rest = Self { writes: Vec::new(), room_actors: Vec::new(), ..*self };
        if let [RoomWrites { room, writes }] = &mut self.writes[..] {
            if writes.len() < 2 {
                return None;
            }
            let writes = writes.split_off(writes.len() / 2);
            let writes = vec![RoomWrites { room: room.clone(), writes }];
            return Some(Self { writes, room_actors: self.room_actors.clone(), ..rest });
        }
        let half = self.writes.len() / 2;
        let writes = self.writes.split_off(half);
        Some(Self { writes, room_actors: self.room_actors.split_off(half), ..rest })
    }

    /// Sends each room its result.
    pub(super) fn send_results(self, results: impl IntoIterator<Item = Result<RoomCommit, StoreError>>) {
        let rooms = self.writes.into_iter().zip(self.room_actors);
        for ((RoomWrites { writes, .. }, room_actor), result) in rooms.zip(results) {
            room_actor.do_send(Committed { batch: self.number, writes, result });
        }
    }
}

/// A batch that is being built. A room that is on both lists is in it once.
#[derive(Default)]
pub(super) struct BatchBuilder {
    pub(super) batch: WriteBatch,
    /// Where each room is in the batch.
    pub(super) index: HashMap<RoomName, usize>,
    /// How many changes are in the batch.
    pub(super) count: usize,
}

impl BatchBuilder {
    pub(super) fn add(&mut self, room: &RoomName, actor: &Recipient<Committed>, changes: Vec<Change>) {
        // All changes of the room may have cancelled out.
        if changes.is_empty() {
            return;
        }
        self.count += changes.len();
        let WriteBatch { writes, room_actors, .. } = &mut self.batch;
        let index = *self.index.entry(room.clone()).or_insert_with(|| {
            writes.push(RoomWrites { room: room.clone(), writes: Vec::with_capacity(changes.len()) });
            room_actors.push(actor.clone());
            writes.len() - 1
        });
        writes[index].writes.extend(changes.into_iter().map(|change| change.write));
    }
}
