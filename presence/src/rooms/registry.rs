//! Where rooms are found, and what they share.

use std::{
    collections::HashMap,
    future::Future,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use actix::{Actor, Addr, Context};
use parking_lot::MutexGuard;

use crate::{
    clock::{Clock, Tick},
    name::{NodeId, NodeName, RoomName},
    node::{apart::Apart, health::Health, writer::Writer},
    room::{
        actor::RoomActor,
        message::{ToHub, ToRoom, Told, UnderWay},
    },
    signal::Signals,
};

use super::{Entry, Rooms, SHARDS, channels::Channels};

impl Rooms {
    pub(crate) fn now(&self) -> Tick {
        self.0.clock.now()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn writer(&self) -> &Writer {
        &self.0.writer
    }

    /// The store. Its calls may be made on any thread, and run on its own.
    pub(crate) fn store(&self) -> &Apart {
        &self.0.store
    }

    /// Runs something on the thread of the store.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.threads.runtime().spawn(task);
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.0.signals
    }

    pub(crate) fn channels(&self) -> &Channels {
        &self.0.channels
    }

    pub(crate) fn socket_opened(&self) {
        self.0.sockets.send_modify(|open| *open += 1);
    }

    pub(crate) fn socket_closed(&self) {
        self.0.sockets.send_modify(|open| *open -= 1);
    }

    // ---- the table ----

    pub(super) fn shard(&self, shard: usize) -> MutexGuard<'_, HashMap<RoomName, Entry>> {
        self.0.table[shard].lock()
    }

    fn shard_of(&self, name: &RoomName) -> usize {
        usize::try_from(self.0.hasher.hash_one(name) % SHARDS as u64).expect("less than the number of shards")
    }

    /// Says something to a room, which is started if it does not run.
    pub(crate) fn tell(&self, name: &RoomName, message: ToRoom) {
        let shard = self.shard_of(name);
        let mut table = self.shard(shard);
        // Looked at under the lock: what is in the table when the shutdown ends is told to stop.
        if self.0.ended.load(Ordering::Acquire) {
            return;
        }
        let entry = match table.get(name) {
            Some(entry) if entry.actor.connected() => entry,
            _ => {
                table.insert(name.clone(), self.start_room(name));
                table.get(name).expect("inserted")
            }
        };
        entry.actor.do_send(Told { message, under_way: UnderWay::new(&entry.under_way) });
    }

    /// Says something to a room, unless it does not run.
    pub(crate) fn tell_running(&self, name: &RoomName, message: ToRoom) {
        if let Some(entry) = self.shard(self.shard_of(name)).get(name) {
            entry.actor.do_send(Told { message, under_way: UnderWay::new(&entry.under_way) });
        }
    }

    /// Whether a room is in memory.
    pub(crate) fn is_running(&self, name: &RoomName) -> bool {
        self.shard(self.shard_of(name)).contains_key(name)
    }

    fn start_room(&self, name: &RoomName) -> Entry {
        let under_way = Arc::new(AtomicUsize::new(0));
        let (rooms, room, count) = (self.clone(), name.clone(), under_way.clone());
        let thread = self.0.threads.of_room(self.0.hasher.hash_one((name, "thread")));
        let actor =
            RoomActor::start_in_arbiter(thread, move |_: &mut Context<RoomActor>| RoomActor::new(room, rooms, count));
        Entry { actor, under_way }
    }

    /// Takes a room that wants to stop out of the table, unless a message to it is on its way.
    pub(crate) fn retire(&self, name: &RoomName, under_way: &AtomicUsize, actor: &Addr<RoomActor>) -> bool {
        let mut table = self.shard(self.shard_of(name));
        // Messages are counted under the lock, so none can come between this look and the removal.
        if under_way.load(Ordering::Acquire) > 0 {
            return false;
        }
        if table.get(name).is_some_and(|entry| entry.actor == *actor) {
            table.remove(name);
        }
        true
    }

    /// Takes a room that gave up out of the table.
    pub(crate) fn forget(&self, name: &RoomName, actor: &Addr<RoomActor>) {
        let mut table = self.shard(self.shard_of(name));
        if table.get(name).is_some_and(|entry| entry.actor == *actor) {
            table.remove(name);
        }
    }

    /// The rooms in memory.
    pub(crate) fn names(&self) -> Vec<RoomName> {
        (0..SHARDS).flat_map(|shard| self.shard(shard).keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// Lets go of everything that would keep these rooms in memory, once their shutdown is over.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
        self.names().iter().for_each(|room| self.tell_running(room, ToRoom::End));
        self.hubs().iter().for_each(|hub| hub.addr.do_send(ToHub::End));
    }

    #[cfg(test)]
    pub(crate) fn count_children(&self, change: isize) {
        self.0.children.fetch_add(change, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn children(&self) -> usize {
        usize::try_from(self.0.children.load(Ordering::Relaxed)).expect("only those that started have stopped")
    }

    pub(crate) fn set_node(&self, node: Option<NodeId>) {
        self.0.node.send_replace(node);
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// Another process has the name of this node: nobody is served any more.
    pub(crate) fn lose_name(&self, name: NodeName) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.lost_name.send_replace(Some(name));
        self.close_all();
    }
}
