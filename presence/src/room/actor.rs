//! One room: it keeps the list of its members, supervises the tasks that watch its presences, and notifies its members.
//!
//! The rules are in `model`; the actor gives them their input and carries out their results. It never waits: the database, which takes
//! time, answers with a message. A panic is caught around each message, so that no other message is lost. After a panic, the room is
//! read again from the store, its hubs report their members, and the members receive the net difference.

mod commits;
mod faults;
mod leavers;
mod locals;
mod phase;
mod resuming;
mod sockets;

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Weak,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, SpawnHandle};

use crate::{
    clock::Tick,
    config::Durability,
    delivery::{Broadcast, HubMembers, Hubs, Reply, SilenceResult, ToHub, wire::Held},
    model::high_water::HighWaterMark,
    name::RoomName,
    node::{Committed, Node},
};

use self::phase::{Readings, RoomPhase};

#[cfg(test)]
use super::message::FaultPoint;
use super::{
    following::Follower,
    local_channels::LocalChannels,
    message::{RoomEnvelope, ToRoom},
    state::RoomState,
    table::RoomTable,
};

/// How long a room stays in memory while no presence of this node is in it and nobody queries it.
const LINGER: Duration = Duration::from_secs(5);
/// The pause before a room is read again when a reading has failed.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);

/// A room that misses a change waits while its node removes presences, since the removal may have made the change. This is how often it
/// checks whether the removal is over.
const GAP_CHECK: Duration = Duration::from_millis(10);

/// One room of this node.
pub(crate) struct RoomActor {
    name: RoomName,
    node: Arc<Node>,
    hubs: Arc<Hubs>,
    channels: Arc<dyn LocalChannels>,
    table: Arc<RoomTable>,
    in_flight: Arc<AtomicUsize>,
    /// Its own address, while there are tasks that watch its presences: they share it.
    address: Weak<Recipient<ToRoom>>,
    state: RoomState,
    phase: RoomPhase,
    readings: Readings,
    /// The position that the database has certainly reached.
    reached: HighWaterMark,
    /// When the room was last queried.
    used: Tick,
    timer: Option<(Tick, SpawnHandle)>,
    faults: VecDeque<Tick>,
    /// Set while the model changes. If it is set after a panic, the model cannot be trusted.
    model_changes: bool,
    /// The room has failed at least once. Since then, a presence that joins may be in the database already.
    has_failed: bool,
    #[cfg(test)]
    fault_at: Option<FaultPoint>,
}

impl std::fmt::Debug for RoomActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomActor").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RoomActor {
    pub(crate) fn new(
        name: RoomName,
        node: Arc<Node>,
        hubs: Arc<Hubs>,
        channels: Arc<dyn LocalChannels>,
        table: Arc<RoomTable>,
        in_flight: Arc<AtomicUsize>,
    ) -> Self {
        let state = RoomState::new(node.config.notify_interval(), Held::of(hubs.first_frames.clone()));
        let used = node.now();
        Self {
            name,
            node,
            hubs,
            channels,
            table,
            in_flight,
            address: Weak::new(),
            state,
            phase: RoomPhase::default(),
            readings: Readings::new(used),
            reached: HighWaterMark::default(),
            used,
            timer: None,
            faults: VecDeque::new(),
            model_changes: false,
            has_failed: false,
            #[cfg(test)]
            fault_at: None,
        }
    }
}

impl Actor for RoomActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The message for which the room was started may never arrive. Then this makes the room stop again.
        self.settle(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.state.locals.clear();
    }
}

impl Handler<RoomEnvelope> for RoomActor {
    type Result = ();

    fn handle(&mut self, RoomEnvelope { message, in_flight }: RoomEnvelope, ctx: &mut Self::Context) {
        drop(in_flight);
        self.handle(message, ctx);
    }
}

impl Handler<ToRoom> for RoomActor {
    type Result = ();

    fn handle(&mut self, message: ToRoom, ctx: &mut Self::Context) {
        self.guarded(ctx, |room, ctx| room.act(message, ctx));
    }
}

impl Handler<HubMembers> for RoomActor {
    type Result = ();

    fn handle(&mut self, report: HubMembers, ctx: &mut Self::Context) {
        self.handle(ToRoom::Report(report), ctx);
    }
}

impl Handler<SilenceResult> for RoomActor {
    type Result = ();

    fn handle(&mut self, silent: SilenceResult, ctx: &mut Self::Context) {
        self.handle(ToRoom::SilenceResult(silent), ctx);
    }
}

impl Handler<Committed> for RoomActor {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Self::Context) {
        self.announce(&committed);
        self.guarded(ctx, |room, ctx| room.committed(committed, ctx));
    }
}

impl RoomActor {
    /// Handles a message. If this panics, only that message is lost.
    fn guarded(&mut self, ctx: &mut Context<Self>, handle: impl FnOnce(&mut Self, &mut Context<Self>)) {
        let handled = catch_unwind(AssertUnwindSafe(|| {
            handle(self, ctx);
            self.settle(ctx);
        }));
        if handled.is_err() {
            self.failed(ctx);
        }
    }

    fn act(&mut self, message: ToRoom, ctx: &mut Context<Self>) {
        if self.phase.is_recovering() && message.concerns_own_presences() {
            self.state.deferred.push_back(message);
            return;
        }
        match message {
            ToRoom::Join { entrant, was_in_room: true, reply } if self.was_removed(&entrant.presence) => {
                self.left_while_joining(vec![reply]);
            }
            ToRoom::Join { entrant, was_in_room: true, reply } => self.join(entrant, reply, ctx),
            ToRoom::Join { entrant, was_in_room: false, reply } => self.join_if_read(entrant, reply, ctx),
            ToRoom::Leave { id, channel, farewell, reply } => {
                if let Some(farewell) = farewell {
                    farewell.send(&self.name, &channel);
                }
                self.leave(self.state.sessions.canonical_id(id), channel, reply, ctx);
            }
            ToRoom::Lose { id, channel } => self.lose(self.state.sessions.canonical_id(id), channel, ctx),
            ToRoom::HoldAll => self.hold_all(ctx),
            ToRoom::LeaveSocketless => self.leave_socketless(ctx),
            ToRoom::Update { id, channel, meta, fallback, reply } => {
                self.update(self.state.sessions.canonical_id(id), channel, (meta, fallback), reply, ctx);
            }
            ToRoom::Send { frames, except, pressure } => {
                self.state.keep_for_joiners(|| Broadcast::Frames(frames.clone(), except.clone()));
                self.to_hubs(|room| ToHub::Send {
                    room,
                    frames: frames.clone(),
                    except: except.clone(),
                    pressure: pressure.clone(),
                });
            }
            ToRoom::Event(event) => {
                self.state.keep_for_joiners(|| Broadcast::Event(event.clone()));
                self.to_hubs(|room| ToHub::Event { room, event: event.clone() });
            }
            ToRoom::Read(reader) => {
                self.used = self.node.now();
                self.state.add_reader(reader);
                if self.phase.is_cold() {
                    self.load(ctx);
                }
            }
            ToRoom::Follow(follower) => {
                self.used = self.node.now();
                self.state.followers.retain(Follower::is_there);
                self.state.followers.push(follower);
                if self.phase.is_cold() {
                    self.load(ctx);
                }
            }
            ToRoom::Prune { max_age, reply } => self.prune_older(max_age, reply, ctx),
            ToRoom::Remove { user, close, reply } => self.remove_ours(user.as_ref(), close, reply, ctx),
            ToRoom::RemoveOne { key, close, count, reply } => self.remove_one(key, close, &count, reply, ctx),
            ToRoom::Stale(id) => {
                if self.state.stale.is_empty() {
                    // This is handled after all messages that have arrived by now, so presences that are stale together leave with
                    // one event.
                    ctx.notify(ToRoom::Tick);
                }
                self.state.stale.insert(id);
            }
            ToRoom::SilenceResult(silent) => self.prune_silent(silent, ctx),
            ToRoom::ChildDied(id) => self.child_died(id, ctx),
            ToRoom::Changed(commit) => {
                self.apply(commit, ctx);
                self.note_position();
            }
            ToRoom::Loaded(number, result) => self.loaded(number, result, ctx),
            ToRoom::Position { position, asked } => self.position_read(position, asked, ctx),
            ToRoom::Rejoin => {
                let mine: Vec<_> = self.state.locals.values().map(|local| local.presence.clone()).collect();
                mine.into_iter().for_each(|presence| self.write_as_own(presence, ctx));
            }
            ToRoom::Report(report) => self.reported(report, ctx),
            ToRoom::End => {
                self.table.forget(&self.name, &self.in_flight);
                ctx.stop();
            }
            ToRoom::Tick => self.prune_stale(ctx),
            ToRoom::WriteTouches => {
                for (id, local) in &self.state.locals {
                    self.node.writer.touch(*id, local.touch.seen());
                }
            }
            #[cfg(any(test, feature = "testing"))]
            ToRoom::Panic => panic!("a test made this room panic"),
            #[cfg(test)]
            ToRoom::PanicInModel => {
                self.model_changes = true;
                panic!("a test made this room panic in its model");
            }
            #[cfg(test)]
            ToRoom::PanicAt(point) => self.fault_at = Some(point),
            #[cfg(any(test, feature = "testing"))]
            ToRoom::PanicChild(id) => {
                if let Some(local) = self.state.locals.get(&id) {
                    let (presence, touch) = (local.presence.clone(), local.touch.clone());
                    touch.make_child_fail();
                    self.supervise(presence, touch, ctx);
                }
            }
        }
    }

    /// Panics once, if a test has requested that for this point.
    #[cfg(test)]
    fn fail_if(&mut self, point: FaultPoint) {
        if self.fault_at.take_if(|at| *at == point).is_some() {
            panic!("a test made this room panic over a commit");
        }
    }

    fn is_relaxed(&self) -> bool {
        self.node.config.durability() == Durability::Relaxed
    }

    /// Does what is due, and sets the timer for what comes next. Each step does what is due now, and returns its own next deadline.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        self.answer_readers();
        let recovery = self.end_recovery(now, ctx);
        self.resume_token_waiters(ctx);
        let grace = self.end_graces(now, ctx);
        let notices = self.send_notices(now);
        let reading = self.read_what_is_missing(now, ctx);
        let ControlFlow::Continue(idle) = self.retire_if_idle(now, ctx) else { return };
        if let Some(next) = [recovery, grace, notices, reading, idle].into_iter().flatten().min() {
            self.arm(next, ctx);
        }
    }

    fn answer_readers(&mut self) {
        if self.phase.is_known() {
            for reader in std::mem::take(&mut self.state.readers) {
                reader.read(self.state.replica.roster());
            }
            let RoomState { followers, replica, .. } = &mut self.state;
            followers.iter_mut().for_each(|follower| follower.show(replica.roster()));
        }
    }

    /// Sends the notices that are due, once the roster and the hubs of the members are known.
    fn send_notices(&mut self, now: Tick) -> Option<Tick> {
        if !self.phase.is_live() {
            return None;
        }
        let resend = !self.state.outdated_hubs.is_empty() && self.state.replica.position().is_some();
        // No more is kept for members that wait for their first frame than may be queued for a client.
        let full = self.state.kept_for_joiners() >= self.node.config.outbox_frames();
        if resend || full || self.state.due().is_some_and(|due| due <= now) {
            self.state.flush(now, &self.name, &self.node.config);
        }
        self.state.due()
    }

    /// Reads the room again if it misses a change, unless that change may still arrive by itself.
    ///
    /// Nodes do not send their changes to each other, and the writer commits in order. So a change that is missing before one of this
    /// node was made by another node, and only a reading shows it. The exception is a removal by this node, which is not made by the
    /// writer.
    fn read_what_is_missing(&mut self, now: Tick, ctx: &mut Context<Self>) -> Option<Tick> {
        let removes = self.node.writer.is_removing();
        let hold = if removes { self.node.config.hold_window() } else { Duration::ZERO };
        self.readings.stands_at(self.state.replica.position());
        let due = self.readings.due(self.state.replica.reload_at(hold))?;
        if due <= now {
            self.load(ctx);
            return None;
        }
        // The removal may be over earlier.
        Some(if removes { due.min(now.after(GAP_CHECK)) } else { due })
    }

    /// Stops the room if nothing is under way in it and it is empty, or nobody of this node has asked about it lately.
    pub(super) fn retire_if_idle(&mut self, now: Tick, ctx: &mut Context<Self>) -> ControlFlow<(), Option<Tick>> {
        let is_ending = self.node.is_shutting_down();
        // Presences that are held when the node ends are held by the database.
        let holds = !self.state.sessions.is_idle() && !is_ending;
        let is_waiting = self.readings.is_under_way() || self.phase.is_recovering();
        let is_followed = self.state.is_followed() && !is_ending;
        if !self.state.is_idle() || holds || is_waiting || is_followed {
            return ControlFlow::Continue(None);
        }
        let lingers = now.since(self.used) < LINGER && !is_ending;
        if (self.state.replica.roster().is_empty() || !lingers) && self.table.retire(&self.name, &self.in_flight) {
            ctx.stop();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(Some(self.used.after(LINGER).max(now.after(RELOAD_PAUSE))))
    }

    /// Changes the model of the room. If this panics, the model cannot be trusted any more.
    fn change_model<T>(&mut self, change: impl FnOnce(&mut RoomState) -> T) -> T {
        self.model_changes = true;
        let changed = change(&mut self.state);
        self.model_changes = false;
        changed
    }

    /// Until when the room waits for changes of this node if it learns that the database is ahead of it.
    fn wait_for_own(&self) -> Tick {
        let now = self.node.now();
        let is_under_way = self.state.is_writing() || self.node.writer.is_removing();
        if is_under_way { now.after(self.node.config.hold_window()) } else { now }
    }

    fn arm(&mut self, at: Tick, ctx: &mut Context<Self>) {
        if let Some((set, timer)) = self.timer.take() {
            if set <= at {
                self.timer = Some((set, timer));
                return;
            }
            ctx.cancel_future(timer);
        }
        let wait = at.since(self.node.now());
        let timer = ctx.run_later(wait, |room, ctx| {
            room.timer = None;
            Handler::<ToRoom>::handle(room, ToRoom::Tick, ctx);
        });
        self.timer = Some((at, timer));
    }

    fn to_hubs(&self, message: impl Fn(RoomName) -> ToHub) {
        if self.phase.is_recovering() {
            // The hubs of the members are not known yet, so the message goes to all hubs. A hub without members ignores it.
            self.hubs.all().iter().for_each(|hub| hub.addr.do_send(message(self.name.clone())));
        } else {
            self.state.hubs.values().for_each(|here| here.hub.addr.do_send(message(self.name.clone())));
        }
    }
}

/// Answers at once if `now`; otherwise returns the reply.
fn answer_now_if(now: bool, reply: Reply<()>) -> Option<Reply<()>> {
    if now {
        let _ = reply.send(Ok(()));
        return None;
    }
    Some(reply)
}
