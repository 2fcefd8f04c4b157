//! Those who are removed by other hands than their rooms', in as many transactions as that takes: one event in each room.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    Rooms,
    name::RoomName,
    node::Node,
    room::{message::ToRoom, table::Table},
    signal::LeaveGroup,
    store::{RoomCommit, pace::MAX_ROOMS_PER_REMOVAL},
};

/// Tells what transactions changed: rooms that run hear of each at once, and subscribers, who left, when nobody else does.
/// That is when this is dropped, also because the rest could not be removed.
pub(crate) struct Bulk {
    node: Arc<Node>,
    table: Arc<Table>,
    gathered: HashMap<RoomName, LeaveGroup>,
}

impl Bulk {
    pub(crate) fn new(rooms: &Rooms) -> Self {
        Self { node: rooms.0.node.clone(), table: rooms.0.table.clone(), gathered: HashMap::new() }
    }

    pub(crate) fn add(&mut self, commits: Vec<RoomCommit>) {
        if self.gathered.len() >= MAX_ROOMS_PER_REMOVAL {
            // Presences are taken room by room, so those rooms are done that do not appear again.
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
