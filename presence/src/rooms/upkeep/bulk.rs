//! Those who are removed by other hands than their rooms', in as many transactions as that takes: one event in each room.

use std::collections::{HashMap, HashSet};

use crate::{
    Rooms,
    name::RoomName,
    room::message::ToRoom,
    signal::{Together, Unfinished},
    store::RoomCommit,
    store::pace::MAX_ROOMS_PER_REMOVAL,
};

/// Tells what transactions changed: rooms that run hear of each at once, and subscribers, who left, when nobody else does.
/// That is when this is dropped, also because the rest could not be removed.
#[derive(Debug)]
pub(crate) struct Bulk {
    rooms: Rooms,
    gathered: HashMap<RoomName, Together>,
}

impl Bulk {
    pub(crate) fn new(rooms: &Rooms) -> Self {
        Self { rooms: rooms.clone(), gathered: HashMap::new() }
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
                let together = self.rooms.signals().together(&room);
                begun.push(together.unfinished());
                together
            });
            self.rooms.signals().announce(&room, &commit.delta, &commit.turns, |_| Some(together));
            self.rooms.tell_running(&room, ToRoom::Changed(commit));
        }
        if !begun.is_empty() {
            self.rooms.tell_in_time(begun);
        }
    }
}

impl Rooms {
    /// Makes those one event who leave a room together. If the last of them is long in coming, the others are told first.
    pub(crate) fn leave_together(&self, room: &RoomName) -> Together {
        let together = self.signals().together(room);
        self.tell_in_time(vec![together.unfinished()]);
        together
    }

    /// Tells of those who left, if the rest of them does not come in time.
    fn tell_in_time(&self, unfinished: Vec<Unfinished>) {
        let patience = self.config().store_timeout();
        self.spawn(async move {
            tokio::time::sleep(patience).await;
            unfinished.iter().for_each(Unfinished::tell);
        });
    }
}
