//! Where rooms are found, and what sockets ask of them.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::Future,
    hash::BuildHasher,
    rc::{Rc, Weak as RcWeak},
    sync::{Arc, MutexGuard, PoisonError, Weak, atomic::AtomicUsize, atomic::Ordering},
};

use actix::{Actor, Addr, Context};
use tokio::sync::oneshot;

use crate::{
    Error, Result,
    clock::{Clock, Tick},
    model::{Meta, Presence},
    name::{ChannelName, NodeId, PresenceId, RoomName},
    session::Session,
    signal::Signals,
    store::{apart::Apart, health::Health, writer::Writer},
};

use super::{
    ATTEMPTS, Entry, Inner, Rooms, SHARDS,
    actor::RoomActor,
    channel::Channels,
    hub::{HubActor, Sockets},
    message::{HubRef, Reply, ToHub, ToRoom, Told, UnderWay, WeakHub},
    outbox::Filling,
    threads::within,
    touch::Touch,
};

/// The hub of the thread that asks, and what it shares with the sockets of that thread.
#[derive(Clone)]
pub(crate) struct LocalHub {
    pub(crate) hub: HubRef,
    pub(crate) sockets: Rc<RefCell<Sockets>>,
    pub(crate) filling: Rc<Filling>,
}

/// A hub of this thread, as long as there is anything of its rooms.
struct Remembered {
    rooms: Weak<Inner>,
    hub: WeakHub,
    sockets: RcWeak<RefCell<Sockets>>,
    filling: RcWeak<Filling>,
}

impl Remembered {
    fn recall(&self) -> Option<LocalHub> {
        let hub = self.hub.upgrade().filter(|hub| hub.addr.connected())?;
        Some(LocalHub { hub, sockets: self.sockets.upgrade()?, filling: self.filling.upgrade()? })
    }
}

thread_local! {
    /// One hub for each `Rooms` whose sockets live on this thread.
    static HUBS: RefCell<Vec<Remembered>> = RefCell::default();
}

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

    pub(crate) fn hubs(&self) -> Vec<HubRef> {
        self.0.hubs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The hub of this thread, started at its first socket.
    pub(crate) fn local_hub(&self) -> LocalHub {
        let rooms = Arc::downgrade(&self.0);
        HUBS.with_borrow_mut(|local| {
            local.retain(|one| one.rooms.strong_count() > 0);
            let here = local.iter().find(|one| one.rooms.ptr_eq(&rooms)).and_then(Remembered::recall);
            if let Some(here) = here {
                return here;
            }
            local.retain(|one| !one.rooms.ptr_eq(&rooms));
            let mut hubs = self.0.hubs.write().unwrap_or_else(PoisonError::into_inner);
            let id = hubs.len();
            let (sockets, filling) = (Rc::default(), Rc::default());
            let addr = HubActor::new(id, Rc::clone(&sockets), Rc::clone(&filling), self.0.clock.clone()).start();
            let hub = HubRef::new(id, addr);
            hubs.push(hub.clone());
            local.push(Remembered {
                rooms,
                hub: hub.downgrade(),
                sockets: Rc::downgrade(&sockets),
                filling: Rc::downgrade(&filling),
            });
            LocalHub { hub, sockets, filling }
        })
    }

    /// A name for a new connection on this hub.
    pub(crate) fn new_channel(&self, hub: &HubRef) -> ChannelName {
        let name = format!("ws.{}.{}!{}", self.0.process, hub.id, PresenceId::random().as_uuid().simple());
        ChannelName::new(name).expect("short, and without control characters")
    }

    /// The hub that a connection of this process is on.
    pub(crate) fn hub_of(&self, channel: &ChannelName) -> Option<HubRef> {
        let (place, _) = channel.as_str().split_once('!')?;
        let (process, hub) = place.strip_prefix("ws.")?.split_once('.')?;
        let hub: usize = hub.parse().ok().filter(|_| process == self.0.process)?;
        self.0.hubs.read().unwrap_or_else(PoisonError::into_inner).get(hub).cloned()
    }

    pub(crate) fn socket_opened(&self) {
        self.0.sockets.send_modify(|open| *open += 1);
    }

    pub(crate) fn socket_closed(&self) {
        self.0.sockets.send_modify(|open| *open -= 1);
    }

    // ---- the table ----

    pub(super) fn shard(&self, shard: usize) -> MutexGuard<'_, HashMap<RoomName, Entry>> {
        self.0.table[shard].lock().unwrap_or_else(PoisonError::into_inner)
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

    // ---- what sockets ask ----

    /// Whether sockets may come in.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.0.supervisor.get().is_none() {
            return Err(Error::NoSupervisor);
        }
        if self.is_shutting_down() {
            return Err(Error::ShuttingDown);
        }
        Ok(())
    }

    /// Joins; whatever ends this but success, the presence leaves again. What it resumed is held again. The room is asked at
    /// once, not when this is awaited.
    pub(crate) fn join<'a>(
        &'a self,
        room: &'a RoomName,
        presence: Arc<Presence>,
        session: Option<Session>,
        hub: Option<HubRef>,
        touch: Touch,
    ) -> impl Future<Output = Result<()>> + 'a {
        let asked = self.check_open().map(|()| {
            let undo = LeaveOnDrop { rooms: self, room, presence: Some(presence.clone()) };
            (undo, self.ask_to_join(room, presence, session, hub, touch, false))
        });
        async move {
            let (mut undo, answer) = asked?;
            let answer = answer.await;
            if !matches!(answer, None | Some(Err(Error::RoomFailed { .. }))) {
                // The room has said what became of it: if it failed, there is nothing to take back.
                undo.presence = None;
            }
            answer.unwrap_or(Err(Error::StoreUnavailable(None)))
        }
    }

    /// Joins as one who is in the room already: that it stays so does not hang on this call. The room is asked at once, not
    /// when this is awaited.
    pub(crate) fn join_again<'a>(
        &'a self,
        room: &'a RoomName,
        presence: Arc<Presence>,
        hub: Option<HubRef>,
        touch: Touch,
    ) -> impl Future<Output = Result<()>> + 'a {
        let answer = self.ask_to_join(room, presence, None, hub, touch, true);
        async move { answer.await.unwrap_or(Err(Error::StoreUnavailable(None))) }
    }

    /// What the room answers; `None` if it does not in time.
    fn ask_to_join<'a>(
        &'a self,
        room: &'a RoomName,
        presence: Arc<Presence>,
        session: Option<Session>,
        hub: Option<HubRef>,
        touch: Touch,
        again: bool,
    ) -> impl Future<Output = Option<Result<()>>> + 'a {
        let limit = self.0.config.store_timeout() + self.0.config.notify_interval();
        self.repeat(room, limit, move |reply| ToRoom::Join {
            presence: presence.clone(),
            session,
            hub: hub.clone(),
            touch: touch.clone(),
            again,
            reply,
        })
    }

    /// Leaves. It happens even if this returns an error, or is not awaited to its end.
    /// The room is asked at once, not when this is awaited.
    pub(crate) fn leave<'a>(
        &'a self,
        room: &'a RoomName,
        id: PresenceId,
        channel: &'a ChannelName,
    ) -> impl Future<Output = Result<()>> + 'a {
        let answer = self.repeat(room, self.0.config.store_timeout(), move |reply| ToRoom::Leave {
            id,
            channel: channel.clone(),
            reply: Some(reply),
        });
        async move { answer.await.unwrap_or(Err(Error::StoreUnavailable(None))) }
    }

    /// Leaves, without waiting for it.
    pub(crate) fn leave_at_once(&self, room: &RoomName, id: PresenceId, channel: &ChannelName) {
        self.tell(room, ToRoom::Leave { id, channel: channel.clone(), reply: None });
    }

    /// The socket is lost: the presence is held if it can be resumed, and leaves if not.
    pub(crate) fn lose(&self, room: &RoomName, id: PresenceId, channel: &ChannelName) {
        self.tell(room, ToRoom::Lose { id, channel: channel.clone() });
    }

    pub(crate) async fn update(
        &self,
        room: &RoomName,
        id: PresenceId,
        channel: &ChannelName,
        meta: Meta,
    ) -> Result<()> {
        self.repeat(room, self.0.config.store_timeout(), |reply| ToRoom::Update {
            id,
            channel: channel.clone(),
            meta: meta.clone(),
            reply,
        })
        .await
        .unwrap_or(Err(Error::StoreUnavailable(None)))
    }

    /// Asks, and asks again if the room failed before it answered. All that is asked so may be repeated.
    /// `None` if there is no answer in time.
    fn repeat<'a>(
        &'a self,
        room: &'a RoomName,
        limit: std::time::Duration,
        message: impl Fn(Reply<()>) -> ToRoom + 'a,
    ) -> impl Future<Output = Option<Result<()>>> + 'a {
        // The first message is on its way before anything is awaited.
        let ask = move || {
            let (reply, answer) = oneshot::channel();
            self.tell(room, message(reply));
            answer
        };
        let mut answer = ask();
        async move {
            let answers = async {
                for _ in 1..ATTEMPTS {
                    match answer.await {
                        Ok(result) => return result,
                        Err(_) => answer = ask(),
                    }
                }
                answer.await.unwrap_or_else(|_| Err(self.gave_no_answer(room)))
            };
            within(limit, answers).await
        }
    }

    /// Why a room did not answer.
    pub(super) fn gave_no_answer(&self, room: &RoomName) -> Error {
        if self.0.ended.load(Ordering::Acquire) {
            Error::ShuttingDown
        } else {
            Error::RoomFailed { room: room.clone() }
        }
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

    pub(crate) fn set_superseded(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
        self.0.superseded.send_replace(true);
        self.close_all();
    }
}

/// Takes a join back that was not seen through: it failed, took too long, or nobody waits for it any more.
struct LeaveOnDrop<'a> {
    rooms: &'a Rooms,
    room: &'a RoomName,
    presence: Option<Arc<Presence>>,
}

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(presence) = &self.presence {
            self.rooms.lose(self.room, presence.id, &presence.channel);
        }
    }
}
