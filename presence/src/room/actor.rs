//! One room: owns who is in it, supervises its presences, tells its members.
//!
//! The rules are in `model`; the actor feeds them and carries out what they say. It never waits: what takes time (the
//! database) answers with a message. A panic is caught where messages come in, so that no other message is lost: the room
//! then reads itself anew from the store, asks the hubs who is on them, and tells its members the net difference.

use std::{
    collections::{HashSet, VecDeque, hash_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, SpawnHandle, WrapFuture};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::{
    Error,
    clock::Tick,
    config::Durability,
    model::{
        Meta, Presence, Snapshot,
        deadline::{Deadline, judge},
        delta::Change,
        replica::Applied,
    },
    name::{ChannelName, Epoch, PresenceId, RoomName, Version},
    store::{
        RoomCommit, StoreError, Write,
        writer::{Submitted, report},
    },
};

use super::{
    Rooms,
    message::{HubRef, Joiner, Reply, Report, ToHub, ToRoom, Told},
    presence::{DeathGuard, PresenceActor, ToPresence},
    state::{Cause, Joining, Leaving, Local, State},
    touch::Touch,
};

/// How often a room and its children may fail within [`FAULT_WINDOW`] before the room is given up.
const MAX_FAULTS: usize = 8;
const FAULT_WINDOW: Duration = Duration::from_secs(10);
/// How long a room stays in memory that nobody of this node is in or asks about.
const LINGER: Duration = Duration::from_secs(5);
/// The pause before the store is asked again for a room that it did not give.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);
/// How long hubs may take to say who is on them.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// One room of this node.
pub(crate) struct RoomActor {
    name: RoomName,
    rooms: Rooms,
    under_way: Arc<AtomicUsize>,
    state: State,
    loading: bool,
    /// The database was ahead of us, and until when we wait for what is under way.
    behind: Option<((Epoch, Version), Tick)>,
    /// The hubs that have still to say who is on them, and until when we wait for them.
    reports: Option<(HashSet<usize>, Tick)>,
    /// When somebody last asked about the room.
    used: Tick,
    timer: Option<(Tick, SpawnHandle)>,
    faults: VecDeque<Tick>,
    /// Set while the model changes: if a panic finds it set, the model is not to be trusted.
    in_model: bool,
}

impl std::fmt::Debug for RoomActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomActor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RoomActor {
    pub(crate) fn new(name: RoomName, rooms: Rooms, under_way: Arc<AtomicUsize>) -> Self {
        let state = State::new(rooms.config().notify_interval());
        let used = rooms.now();
        Self {
            name,
            rooms,
            under_way,
            state,
            loading: false,
            behind: None,
            reports: None,
            used,
            timer: None,
            faults: VecDeque::new(),
            in_model: false,
        }
    }
}

impl Actor for RoomActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The message that the room was started for may never have been sent.
        self.settle(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        for local in self.state.locals.values() {
            local.child.do_send(ToPresence::Stop);
        }
    }
}

impl Handler<Told> for RoomActor {
    type Result = ();

    fn handle(&mut self, Told { message, under_way }: Told, ctx: &mut Self::Context) {
        drop(under_way);
        self.handle(message, ctx);
    }
}

impl Handler<ToRoom> for RoomActor {
    type Result = ();

    fn handle(&mut self, message: ToRoom, ctx: &mut Self::Context) {
        let handled = catch_unwind(AssertUnwindSafe(|| {
            self.act(message, ctx);
            self.settle(ctx);
        }));
        if handled.is_err() {
            self.failed(ctx);
        }
    }
}

impl RoomActor {
    fn act(&mut self, message: ToRoom, ctx: &mut Context<Self>) {
        match message {
            ToRoom::Join { presence, hub, touch, reply } => self.join(presence, hub, touch, reply, ctx),
            ToRoom::Leave { id, channel, reply } => self.leave(id, channel, reply, ctx),
            ToRoom::Update { id, channel, meta, reply } => self.update(id, channel, meta, reply, ctx),
            ToRoom::Send { frames, pressure } => {
                self.to_hubs(|room| ToHub::Send { room, frames: frames.clone(), pressure: pressure.clone() });
            }
            ToRoom::Event(event) => self.to_hubs(|room| ToHub::Event { room, event: event.clone() }),
            ToRoom::Read(reader) => {
                self.used = self.rooms.now();
                self.state.readers.push_back(reader);
                if !self.state.known {
                    self.load(ctx);
                }
            }
            ToRoom::Prune { max_age, reply } => self.prune_older(max_age, reply, ctx),
            ToRoom::Stale(id) => {
                if self.state.stale.is_empty() {
                    // Handled after everything that has come in by now: what is due in one turn is one event.
                    ctx.notify(ToRoom::Tick);
                }
                self.state.stale.insert(id);
            }
            ToRoom::ChildDied(id) => self.child_died(id, ctx),
            ToRoom::Committed { batch, ids, result } => self.committed(batch, ids, result, ctx),
            ToRoom::Changed(commit) => self.apply(commit, ctx),
            ToRoom::Loaded(result) => self.loaded(result, ctx),
            ToRoom::Position(position) => self.compare(position),
            ToRoom::Rejoin => {
                let mine: Vec<_> = self.state.locals.values().map(|local| local.presence.clone()).collect();
                mine.into_iter().for_each(|presence| self.make_own(presence, ctx));
            }
            ToRoom::Report(report) => self.reported(report, ctx),
            ToRoom::Tick => self.prune_stale(ctx),
            #[cfg(any(test, feature = "testing"))]
            ToRoom::Panic => panic!("a room was told to fail"),
            #[cfg(any(test, feature = "testing"))]
            ToRoom::PanicChild(id) => {
                if let Some(local) = self.state.locals.get(&id) {
                    local.child.do_send(ToPresence::Panic);
                }
            }
        }
    }

    // ---- what sockets ask for ----

    fn join(&mut self, presence: Arc<Presence>, hub: HubRef, touch: Touch, reply: Reply<()>, ctx: &mut Context<Self>) {
        let id = presence.id;
        if let Some(local) = self.state.locals.get_mut(&id) {
            touch.mark(self.rooms.now());
            if local.hub.is_some() {
                let _ = reply.send(Ok(()));
            } else {
                self.claim(id, hub, touch, Some(reply), ctx);
            }
            return;
        }
        if let Some(joining) = self.state.joining.get_mut(&id) {
            joining.reply = Some(reply);
            return;
        }
        let channel = presence.channel.clone();
        match self.rooms.writer().submit(&self.name, &ctx.address(), Write::Join(presence)) {
            Ok(_) => {
                let relaxed = self.rooms.config().durability() == Durability::Relaxed;
                let reply = answer_now_if(relaxed, reply);
                self.state.joining.insert(id, Joining { channel, hub, touch, reply });
            }
            Err(_) => drop(reply.send(Err(Error::StoreUnavailable(None)))),
        }
    }

    fn leave(&mut self, id: PresenceId, channel: ChannelName, reply: Option<Reply<()>>, ctx: &mut Context<Self>) {
        let relaxed = self.rooms.config().durability() == Durability::Relaxed;
        let reply = reply.and_then(|reply| answer_now_if(relaxed, reply));
        if let Some(leaving) = self.state.leaving.get_mut(&id) {
            leaving.replies.extend(reply);
            return;
        }
        if let Some(Joining { reply: Some(joining), .. }) = self.state.joining.remove(&id) {
            let _ = joining.send(Err(Error::LeftWhileJoining { room: self.name.clone() }));
        }
        self.drop_local(id);
        self.take_out(id, channel, Cause::Left, reply, ctx);
    }

    fn update(&mut self, id: PresenceId, channel: ChannelName, meta: Meta, reply: Reply<()>, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get(&id) else {
            if self.state.joining.contains_key(&id) {
                self.submit_update(id, channel, meta, reply, ctx);
            } else {
                let _ = reply.send(Err(Error::NotInRoom { room: self.name.clone() }));
            }
            return;
        };
        if local.presence.meta == meta && !self.state.updating.contains_key(&id) {
            let _ = reply.send(Ok(()));
        } else {
            self.submit_update(id, channel, meta, reply, ctx);
        }
    }

    fn submit_update(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        meta: Meta,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        match self.rooms.writer().submit(&self.name, &ctx.address(), Write::Update { id, channel, meta }) {
            Ok(Submitted::Waits(after)) => {
                let relaxed = self.rooms.config().durability() == Durability::Relaxed;
                if let Some(reply) = answer_now_if(relaxed, reply) {
                    self.state.updating.entry(id).or_default().push((after, reply));
                }
            }
            Ok(Submitted::CancelledOut) => drop(reply.send(Ok(()))),
            Err(_) => drop(reply.send(Err(Error::StoreUnavailable(None)))),
        }
    }

    // ---- how presences go ----

    fn prune_older(&mut self, max_age: Duration, reply: oneshot::Sender<usize>, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        let stale =
            |local: &Local| !local.touch.is_behind() && judge(now, local.touch.seen(), max_age) == Deadline::Stale;
        let ids: Vec<_> = self.state.locals.iter().filter(|(_, local)| stale(local)).map(|(id, _)| *id).collect();
        let count = ids.len();
        let committed = self.prune(ids, ctx);
        let answer = async move {
            // What a leave cannot do now, it does later; so only a room that fails keeps this from being exact.
            futures_util::future::join_all(committed).await;
            let _ = reply.send(count);
        };
        ctx.spawn(answer.into_actor(self));
    }

    /// Those whose deadline passed, if they were not seen in the meantime.
    fn prune_stale(&mut self, ctx: &mut Context<Self>) {
        let (now, max_age) = (self.rooms.now(), self.rooms.config().max_age());
        let ids = std::mem::take(&mut self.state.stale);
        let stale = ids.into_iter().filter(|id| {
            let local = self.state.locals.get(id).filter(|local| !local.touch.is_behind());
            local.is_some_and(|local| judge(now, local.touch.seen(), max_age) == Deadline::Stale)
        });
        let stale = stale.collect();
        let _ = self.prune(stale, ctx);
    }

    /// Removes presences of this node together. Each receiver resolves when the store has removed one.
    fn prune(&mut self, ids: Vec<PresenceId>, ctx: &mut Context<Self>) -> Vec<oneshot::Receiver<Result<(), Error>>> {
        let mut committed = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            return committed;
        }
        debug!(room = %self.name, count = ids.len(), "pruning stale presences");
        let mut by_hub: std::collections::HashMap<usize, (HubRef, Vec<Arc<Presence>>)> =
            std::collections::HashMap::new();
        for id in ids {
            let Some(Local { presence, hub, .. }) = self.drop_local(id) else { continue };
            if let Some(hub) = hub {
                by_hub.entry(hub.id).or_insert((hub, Vec::new())).1.push(presence.clone());
            }
            let (reply, done) = oneshot::channel();
            committed.push(done);
            self.take_out(id, presence.channel.clone(), Cause::Pruned, Some(reply), ctx);
        }
        let on_stale = self.rooms.config().on_stale();
        for (hub, presences) in by_hub.into_values() {
            hub.addr.do_send(ToHub::Pruned { room: self.name.clone(), presences, on_stale });
        }
        committed
    }

    /// Ends what this node does for the presence: its child, its place in the group, its wait for a first frame.
    fn drop_local(&mut self, id: PresenceId) -> Option<Local> {
        self.state.stale.remove(&id);
        let local = self.state.locals.remove(&id)?;
        local.child.do_send(ToPresence::Stop);
        for joiner in self.state.notices.forget(|joiner| joiner.presence.id == id) {
            if let Some(reply) = joiner.reply {
                let _ = reply.send(Err(Error::LeftWhileJoining { room: self.name.clone() }));
            }
        }
        if let Some(hub) = &local.hub {
            self.state.leave_hub(hub);
            let channels = vec![local.presence.channel.clone()];
            hub.addr.do_send(ToHub::Leave { room: self.name.clone(), channels });
        }
        Some(local)
    }

    /// Has the store remove the presence; that it left is announced when it has.
    fn take_out(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        cause: Cause,
        reply: Option<Reply<()>>,
        ctx: &mut Context<Self>,
    ) {
        for (_, reply) in self.state.updating.remove(&id).unwrap_or_default() {
            let _ = reply.send(Err(Error::NotInRoom { room: self.name.clone() }));
        }
        match self.rooms.writer().submit(&self.name, &ctx.address(), Write::Leave { id, channel }) {
            Ok(Submitted::Waits(after)) => {
                self.state.leaving.insert(id, Leaving { cause, after, replies: reply.into_iter().collect() });
            }
            Ok(Submitted::CancelledOut) => drop(reply.map(|reply| reply.send(Ok(())))),
            Err(_) => unreachable!("leaves are always taken"),
        }
    }

    // ---- what the store says ----

    fn committed(
        &mut self,
        batch: u64,
        ids: Vec<PresenceId>,
        result: Result<RoomCommit, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let failure = match result {
            Ok(commit) => {
                let leaving = &self.state.leaving;
                let pruned = |presence: &Presence| {
                    leaving.get(&presence.id).is_some_and(|leaving| leaving.cause == Cause::Pruned)
                };
                self.rooms.signals().announce(&self.name, &commit.delta, pruned);
                for id in &ids {
                    if let Entry::Occupied(leaving) = self.state.leaving.entry(*id)
                        && leaving.get().after < batch
                    {
                        leaving.remove().replies.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
                    }
                }
                self.apply(commit, ctx);
                None
            }
            Err(error) => Some(error),
        };
        for id in ids {
            if let Some(failure) = &failure {
                let joining = self.state.joining.remove(&id).and_then(|joining| joining.reply);
                let leaving = self.state.leaving.remove(&id).map(|leaving| leaving.replies).unwrap_or_default();
                for reply in joining.into_iter().chain(leaving) {
                    let _ = reply.send(Err(failure.clone().into()));
                }
            }
            let Some(updating) = self.state.updating.remove(&id) else { continue };
            let (done, waiting): (Vec<_>, Vec<_>) = updating.into_iter().partition(|(after, _)| *after < batch);
            for (_, reply) in done {
                let _ = reply.send(failure.clone().map_or(Ok(()), |failure| Err(failure.into())));
            }
            if !waiting.is_empty() {
                self.state.updating.insert(id, waiting);
            }
        }
    }

    /// Takes in a change, our own or another's.
    fn apply(&mut self, RoomCommit { epoch, version, delta, .. }: RoomCommit, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        self.in_model = true;
        let applied = self.state.replica.apply(now, epoch, version, delta);
        self.in_model = false;
        match applied {
            Applied::Changed(changes) => {
                self.state.known = true;
                self.changed(changes, ctx);
            }
            Applied::Early => {}
            Applied::Reload => self.load(ctx),
        }
    }

    fn load(&mut self, ctx: &mut Context<Self>) {
        if self.loading {
            return;
        }
        self.loading = true;
        self.behind = None;
        self.state.replica.reloading();
        let (store, name) = (self.rooms.store().clone(), self.name.clone());
        let (room, timeout) = (ctx.address(), self.rooms.config().store_timeout());
        let load = async move {
            let loaded = tokio::time::timeout(timeout, store.load(&name)).await;
            let loaded = loaded.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))));
            room.do_send(ToRoom::Loaded(loaded));
        };
        ctx.spawn(load.into_actor(self));
    }

    fn loaded(&mut self, result: Result<Option<Snapshot>, StoreError>, ctx: &mut Context<Self>) {
        self.loading = false;
        match result {
            Ok(snapshot) => {
                self.in_model = true;
                let changes = self.state.replica.reload(snapshot);
                self.in_model = false;
                self.state.known = true;
                self.changed(changes, ctx);
                self.adopt(ctx);
            }
            Err(error) => {
                debug!(room = %self.name, error = %report(&error), "a room could not be read; it will be tried again");
                self.loading = true;
                ctx.run_later(RELOAD_PAUSE, |room, ctx| {
                    room.loading = false;
                    room.load(ctx);
                });
            }
        }
    }

    /// The database says that the room stands at `position`. If that is ahead of us, what is missing may be on its way.
    fn compare(&mut self, position: Option<(Epoch, Version)>) {
        let ours = self.state.replica.position();
        let behind = match (position, ours) {
            (Some((epoch, version)), Some((known, at))) => epoch != known || version > at,
            (Some(_), None) => self.state.known,
            (None, Some(_)) => !self.state.replica.roster().is_empty(),
            (None, None) => false,
        };
        if !behind {
            self.behind = None;
        } else if self.behind.is_none() {
            let until = self.rooms.now().after(self.rooms.config().hold_window());
            self.behind = Some((position.or(ours).unwrap_or_else(|| unreachable!("one of them is ahead")), until));
        }
    }

    /// The roster changed so.
    fn changed(&mut self, changes: Vec<Change>, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        for Change { was, now } in &changes {
            match now {
                Some(presence) => {
                    if let Some(local) = self.state.locals.get_mut(&presence.id) {
                        local.presence = presence.clone();
                    }
                }
                None => {
                    let id = was.as_ref().map(|presence| presence.id);
                    if let Some(local) = id.and_then(|id| self.state.locals.get(&id)) {
                        // Somebody took us for dead. The socket is alive, so it belongs here.
                        warn!(room = %self.name, channel = %local.presence.channel, "a live presence was removed; it joins again");
                        self.make_own(local.presence.clone(), ctx);
                    }
                }
            }
        }
        let arrived: Vec<_> = changes.iter().filter_map(|change| Some(change.now.as_ref()?.id)).collect();
        self.in_model = true;
        self.state.notices.changed(now, changes);
        self.in_model = false;
        for id in arrived {
            self.activate(id, ctx);
        }
        // Some are in the roster without a change: they joined again, or came with a reading.
        if !self.state.joining.is_empty() {
            let roster = self.state.replica.roster();
            let here: Vec<_> = self.state.joining.keys().filter(|id| roster.get(**id).is_some()).copied().collect();
            here.into_iter().for_each(|id| self.activate(id, ctx));
        }
    }

    /// Lets one who joined in, once the roster has it.
    fn activate(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        let Some(presence) = self.state.replica.roster().get(id).cloned() else { return };
        let Some(Joining { hub, touch, reply, channel }) = self.state.joining.remove(&id) else { return };
        if presence.channel != channel {
            return;
        }
        self.supervise(presence, touch.clone(), ctx);
        self.claim(id, hub, touch, reply, ctx);
    }

    /// Gives a socket its presence: its place in the group comes with its first frame.
    fn claim(&mut self, id: PresenceId, hub: HubRef, touch: Touch, reply: Option<Reply<()>>, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get_mut(&id) else { return };
        local.hub = Some(hub.clone());
        let presence = local.presence.clone();
        if local.touch.is(&touch) {
            local.touch = touch.clone();
        } else {
            local.child.do_send(ToPresence::Stop);
            self.state.locals.remove(&id);
            self.supervise(presence.clone(), touch.clone(), ctx);
            if let Some(local) = self.state.locals.get_mut(&id) {
                local.hub = Some(hub.clone());
            }
        }
        self.state.enter_hub(&hub);
        self.state.notices.joined(self.rooms.now(), Joiner { hub, presence, touch, reply });
    }

    /// Starts the child that looks after a presence.
    fn supervise(&mut self, presence: Arc<Presence>, touch: Touch, ctx: &mut Context<Self>) {
        let config = self.rooms.config();
        let child = PresenceActor {
            id: presence.id,
            told: touch.seen(),
            touch: touch.clone(),
            room: ctx.address(),
            clock: self.rooms.clock().clone(),
            writer: self.rooms.writer().clone(),
            max_age: config.max_age(),
            flush_interval: config.touch_flush_interval(),
            guard: DeathGuard::new(presence.id, ctx.address()),
        };
        let id = presence.id;
        self.state.locals.insert(id, Local { presence, child: child.start(), touch, hub: None });
    }

    /// Has the store note that a presence of ours is ours.
    fn make_own(&mut self, presence: Arc<Presence>, ctx: &mut Context<Self>) {
        if self.rooms.writer().submit(&self.name, &ctx.address(), Write::Join(presence)).is_err() {
            warn!(room = %self.name, "too much waits for the store; a presence joins again at the next reconcile");
        }
    }

    /// Presences of this node that no socket has claimed. If none does in time, they go stale.
    fn adopt(&mut self, ctx: &mut Context<Self>) {
        let Some(node) = self.rooms.node() else { return };
        let orphans = self.state.replica.roster().iter().filter(|one| one.node == node && !one.held);
        let orphans: Vec<_> = orphans.cloned().collect();
        for presence in orphans {
            let id = presence.id;
            let known = self.state.locals.contains_key(&id)
                || self.state.joining.contains_key(&id)
                || self.state.leaving.contains_key(&id);
            if !known {
                self.supervise(presence, Touch::new(self.rooms.now()), ctx);
            }
        }
    }

    // ---- faults ----

    fn child_died(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get(&id) else { return };
        if local.child.connected() {
            return;
        }
        let (presence, touch, hub) = (local.presence.clone(), local.touch.clone(), local.hub.clone());
        error!(room = %self.name, channel = %presence.channel, "a presence failed; it is started again");
        self.supervise(presence, touch, ctx);
        if let Some(local) = self.state.locals.get_mut(&id) {
            local.hub = hub;
        }
        self.count_fault(ctx);
    }

    /// Starts over after a panic: keeps what is under way, and learns everything else anew.
    fn failed(&mut self, ctx: &mut Context<Self>) {
        error!(room = %self.name, "a room failed; it starts over");
        let mut old = std::mem::replace(&mut self.state, State::new(self.rooms.config().notify_interval()));
        for local in old.locals.values() {
            local.child.do_send(ToPresence::Stop);
        }
        let state = &mut self.state;
        let hubs = self.rooms.hubs();
        if self.in_model {
            state.renew = hubs.iter().map(|hub| hub.id).collect();
        } else {
            // What members were told still stands, so they need no more than the difference.
            state.replica = old.replica;
            for Joiner { hub, presence, touch, reply } in old.notices.forget(|_| true) {
                let channel = presence.channel.clone();
                state.joining.insert(presence.id, Joining { channel, hub, touch, reply });
            }
            state.notices = old.notices;
        }
        state.joining.extend(old.joining);
        state.leaving = old.leaving;
        state.updating = old.updating;
        state.readers = old.readers;
        state.renew.extend(old.renew);
        self.in_model = false;
        self.loading = false;
        self.behind = None;
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let until = self.rooms.now().after(REPORT_TIMEOUT);
        self.reports = Some((hubs.iter().map(|hub| hub.id).collect(), until));
        for hub in hubs {
            hub.addr.do_send(ToHub::Report { room: self.name.clone(), to: ctx.address() });
        }
        self.load(ctx);
        self.arm(self.rooms.now().after(REPORT_TIMEOUT), ctx);
        self.count_fault(ctx);
    }

    /// A hub says who is on it.
    fn reported(&mut self, Report { hub, announced, members }: Report, ctx: &mut Context<Self>) {
        let Some((waiting, _)) = &mut self.reports else { return };
        waiting.remove(&hub.id);
        if !members.is_empty() && announced != self.state.notices.announced() {
            self.state.renew.insert(hub.id);
        }
        for (presence, touch) in members {
            let id = presence.id;
            if self.state.leaving.contains_key(&id) {
                let channels = vec![presence.channel.clone()];
                hub.addr.do_send(ToHub::Leave { room: self.name.clone(), channels });
                continue;
            }
            if let Some(joining) = self.state.joining.remove(&id)
                && let Some(reply) = joining.reply
            {
                let _ = reply.send(Ok(()));
            }
            self.supervise(presence, touch, ctx);
            if let Some(local) = self.state.locals.get_mut(&id) {
                local.hub = Some(hub.clone());
            }
            self.state.enter_hub(&hub);
        }
    }

    fn count_fault(&mut self, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        self.faults.push_back(now);
        self.faults.retain(|then| now.since(*then) <= FAULT_WINDOW);
        if self.faults.len() > MAX_FAULTS {
            error!(room = %self.name, "a room fails again and again; its sockets are closed");
            for hub in self.rooms.hubs() {
                hub.addr.do_send(ToHub::CloseRoom { room: self.name.clone() });
            }
            self.rooms.forget(&self.name, &ctx.address());
            ctx.stop();
        }
    }

    // ---- after each message ----

    /// Does what is due, and sets the timer for what will be.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        if self.state.known && !self.state.readers.is_empty() {
            for reader in std::mem::take(&mut self.state.readers) {
                reader(self.state.replica.roster());
            }
        }
        if self.reports.as_ref().is_some_and(|(hubs, until)| hubs.is_empty() || *until <= now) {
            self.reports = None;
        }
        // After a fault nothing is told before it is known who is there, and who is where.
        let recovering = self.reports.is_some() || !self.state.known;
        if !recovering {
            let renew = !self.state.renew.is_empty() && self.state.replica.position().is_some();
            if renew || self.state.due().is_some_and(|due| due <= now) {
                self.state.flush(now, &self.name, &self.rooms);
            }
        }
        let hold = self.rooms.config().hold_window();
        let gap = self.state.replica.reload_at(hold).is_some_and(|at| at <= now);
        let behind = self.behind.is_some_and(|(_, until)| until <= now);
        if (gap || behind) && !self.loading {
            self.load(ctx);
        }
        let idle = self.state.is_idle() && !self.loading && self.reports.is_none();
        if idle
            && (self.state.replica.roster().is_empty() || now.since(self.used) >= LINGER)
            && self.rooms.retire(&self.name, &self.under_way, &ctx.address())
        {
            ctx.stop();
            return;
        }
        let due = [
            self.state.due().filter(|_| !recovering),
            self.state.replica.reload_at(hold).filter(|_| !self.loading),
            self.behind.map(|(_, until)| until).filter(|_| !self.loading),
            self.reports.as_ref().map(|(_, until)| *until),
            idle.then(|| self.used.after(LINGER).max(now.after(RELOAD_PAUSE))),
        ];
        if let Some(next) = due.into_iter().flatten().min() {
            self.arm(next, ctx);
        }
    }

    fn arm(&mut self, at: Tick, ctx: &mut Context<Self>) {
        if let Some((set, timer)) = self.timer.take() {
            if set <= at {
                self.timer = Some((set, timer));
                return;
            }
            ctx.cancel_future(timer);
        }
        let wait = at.since(self.rooms.now());
        let timer = ctx.run_later(wait, |room, ctx| {
            room.timer = None;
            Handler::<ToRoom>::handle(room, ToRoom::Tick, ctx);
        });
        self.timer = Some((at, timer));
    }

    fn to_hubs(&self, message: impl Fn(RoomName) -> ToHub) {
        if self.reports.is_some() {
            // Who is where is just being found out, so all are asked; those without members pass it over.
            self.rooms.hubs().iter().for_each(|hub| hub.addr.do_send(message(self.name.clone())));
        } else {
            self.state.hubs.values().for_each(|here| here.hub.addr.do_send(message(self.name.clone())));
        }
    }
}

/// Answers at once if `now`; else gives the reply back.
fn answer_now_if(now: bool, reply: Reply<()>) -> Option<Reply<()>> {
    if now {
        let _ = reply.send(Ok(()));
        return None;
    }
    Some(reply)
}
