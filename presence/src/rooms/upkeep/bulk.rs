//! Removals in the database that a room does not make itself. They may take many transactions, and make one event for each room.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    Rooms,
    name::RoomName,
    node::Node,
    room::{RoomTable, ToRoom},
    signal::LeaveGroup,
    store::{RoomCommit, pace::MAX_ROOMS_PER_REMOVAL},
};

/// Publishes what several transactions removed. Rooms that run are notified of each transaction at once. Subscribers receive one event for
/// each room with all presences that left. It is published when this is dropped, also after an error.
pub(crate) struct Bulk {
    node: Arc<Node>,
    table: Arc<RoomTable>,
    gathered: HashMap<RoomName, LeaveGroup>,
}

impl Bulk {
    pub(crate) fn new(rooms: &Rooms) -> Self {
        Self { node: rooms.0.node.clone(), table: rooms.0.table.clone(), gathered: HashMap::new() }
    }

    pub(crate) fn add(&mut self, commits: Vec<RoomCommit>) {
        if self.gathered.len() >= MAX_ROOMS_PER_REMOVAL {
            // The database removes presences room by room, so a room that does not appear in this batch is complete.
            let here: HashSet<&RoomName> = commits.iter().map(|commit| &commit.room).collect();
            self.gathered.retain(|room, _| here.contains(room));
        }
        let mut begun = Vec::new();
        for commit in commits {
            let room = commit.room.clone();
            let together = self.gathered.entry(room.clone()).or_insert_with(|| {
                let together = self.node.signals.leave_group(&room);
                begun.push(together.downgrade());
                together
            });
            self.node.signals.announce(&room, &commit.delta, &commit.online_changes, |_| Some(together));
            self.table.send_running(&room, ToRoom::Changed(commit));
        }
        if !begun.is_empty() {
            self.node.fire_after_timeout(begun);
        }
    }
}
