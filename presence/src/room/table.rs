//! The rooms in memory, by name.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use actix::Recipient;
use parking_lot::{Mutex, MutexGuard};

use crate::name::RoomName;

use super::message::{InFlight, RoomEnvelope, ToRoom};

/// The number of locks. Each of them protects its share of the rooms.
const SHARDS: usize = 16;

/// The rooms in memory. Every message to a room is sent by this table.
#[derive(Default)]
pub(crate) struct RoomTable {
    shards: [Mutex<HashMap<RoomName, RunningRoom>>; SHARDS],
    hasher: RandomState,
    /// The shutdown is over: no room is started any more.
    has_ended: AtomicBool,
}

struct RunningRoom {
    actor: Recipient<RoomEnvelope>,
    in_flight: Arc<AtomicUsize>,
}

impl RunningRoom {
    fn send(&self, message: ToRoom) {
        self.actor.do_send(RoomEnvelope { message, in_flight: InFlight::new(&self.in_flight) });
    }
}

impl RoomTable {
    fn shard_of(&self, name: &RoomName) -> MutexGuard<'_, HashMap<RoomName, RunningRoom>> {
        let shard =
            usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).expect("less than the number of shards");
        self.shards[shard].lock()
    }

    /// Sends to a room. If it does not run, `start` starts it, with the counter of messages that are on their way to it.
    pub(crate) fn send(
        &self,
        name: &RoomName,
        message: ToRoom,
        start: impl FnOnce(Arc<AtomicUsize>) -> Recipient<RoomEnvelope>,
    ) {
        let mut shard = self.shard_of(name);
        // This is read under the lock, so that no room is added after `end` has sent `ToRoom::End` to all.
        if self.has_ended() {
            return;
        }
        if shard.get(name).is_none_or(|entry| !entry.actor.connected()) {
            let in_flight = Arc::default();
            shard.insert(name.clone(), RunningRoom { actor: start(Arc::clone(&in_flight)), in_flight });
        }
        shard[name].send(message);
    }

    /// Sends to a room, unless it does not run.
    pub(crate) fn send_running(&self, name: &RoomName, message: ToRoom) {
        if let Some(entry) = self.shard_of(name).get(name) {
            entry.send(message);
        }
    }

    /// Whether a room is in memory.
    pub(crate) fn is_running(&self, name: &RoomName) -> bool {
        self.shard_of(name).contains_key(name)
    }

    /// The number that selects the thread of a room.
    pub(crate) fn thread_hash(&self, name: &RoomName) -> u64 {
        self.hasher.hash_one((name, "thread"))
    }

    /// Removes a room that wants to stop, unless a message to it is on its way. Returns whether it may stop.
    pub(crate) fn retire(&self, name: &RoomName, in_flight: &Arc<AtomicUsize>) -> bool {
        let mut shard = self.shard_of(name);
        // Messages are counted under the lock, so none can be sent between this check and the removal.
        let is_free = in_flight.load(Ordering::Acquire) == 0;
        if is_free {
            Self::remove(&mut shard, name, in_flight);
        }
        is_free
    }

    /// Removes a room that gave up.
    pub(crate) fn forget(&self, name: &RoomName, in_flight: &Arc<AtomicUsize>) {
        Self::remove(&mut self.shard_of(name), name, in_flight);
    }

    fn remove(shard: &mut HashMap<RoomName, RunningRoom>, name: &RoomName, in_flight: &Arc<AtomicUsize>) {
        // Another room may have been started under this name meanwhile.
        if shard.get(name).is_some_and(|entry| Arc::ptr_eq(&entry.in_flight, in_flight)) {
            shard.remove(name);
        }
    }

    /// The rooms in memory.
    pub(crate) fn names(&self) -> Vec<RoomName> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// One of `slices` parts of the rooms in memory. Each room is always in the same part.
    pub(crate) fn slice(&self, slice: u64, slices: u64) -> Vec<RoomName> {
        let mut names = self.names();
        names.retain(|name| self.hasher.hash_one((name, "slice")) % slices == slice);
        names
    }

    /// Nobody sends to a room before this is dropped.
    #[cfg(test)]
    pub(crate) fn lock(&self) -> Vec<impl Drop + '_> {
        self.shards.iter().map(Mutex::lock).collect()
    }

    /// How many rooms are in memory.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Ends all rooms, and starts none any more.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.names().iter().for_each(|room| self.send_running(room, ToRoom::End));
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire)
    }
}
