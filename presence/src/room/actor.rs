//! One room: owns who is in it, supervises its presences, tells its members.
//!
//! The rules are in `model`; the actor feeds them and carries out what they say. It never waits: what takes time (the
//! database) answers with a message. A panic is caught where messages come in, so that no other message is lost: the room
//! then reads itself anew from the store, asks the hubs who is on them, and tells its members the net difference.

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
    delivery::{
        hubs::Hubs,
        inquiry::Silent,
        message::{Reply, Report, Said, ToHub},
        wire::Held,
    },
    model::high_water::HighWaterMark,
    name::RoomName,
    node::{Node, writer::Committed},
};

use self::phase::{Phase, Readings};

#[cfg(test)]
use super::message::Point;
use super::{
    local_channels::LocalChannels,
    message::{ToRoom, Told},
    state::State,
    table::Table,
};

/// How long a room stays in memory that nobody of this node is in or asks about.
const LINGER: Duration = Duration::from_secs(5);
/// The pause before the store is asked again for a room that it did not give.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);

/// How often a room that misses a change looks whether a removal of its node is over, which may have made it.
const GAP_CHECK: Duration = Duration::from_millis(10);

/// One room of this node.
pub(crate) struct RoomActor {
    name: RoomName,
    node: Arc<Node>,
    hubs: Arc<Hubs>,
    channels: Arc<dyn LocalChannels>,
    table: Arc<Table>,
    under_way: Arc<AtomicUsize>,
    /// Its own address, if it has children: they have it.
    address: Weak<Recipient<ToRoom>>,
    state: State,
    phase: Phase,
    readings: Readings,
    /// How far the database has come for certain.
    reached: HighWaterMark,
    /// When somebody last asked about the room.
    used: Tick,
    timer: Option<(Tick, SpawnHandle)>,
    faults: VecDeque<Tick>,
    /// Set while the model changes: if a panic finds it set, the model is not to be trusted.
    model_changes: bool,
    /// It has lost its memory at least once, so that one who joins may be in the database already.
    has_failed: bool,
    #[cfg(test)]
    fails_at: Option<Point>,
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
        table: Arc<Table>,
        under_way: Arc<AtomicUsize>,
    ) -> Self {
        let state = State::new(node.config.notify_interval(), Held::of(hubs.first_frames.clone()));
        let used = node.now();
        Self {
            name,
            node,
            hubs,
            channels,
            table,
            under_way,
            address: Weak::new(),
            state,
            phase: Phase::default(),
            readings: Readings::new(used),
            reached: HighWaterMark::default(),
            used,
            timer: None,
            faults: VecDeque::new(),
            model_changes: false,
            has_failed: false,
            #[cfg(test)]
            fails_at: None,
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
        self.state.locals.clear();
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
        self.guarded(ctx, |room, ctx| room.act(message, ctx));
    }
}

impl Handler<Report> for RoomActor {
    type Result = ();

    fn handle(&mut self, report: Report, ctx: &mut Self::Context) {
        self.handle(ToRoom::Report(report), ctx);
    }
}

impl Handler<Silent> for RoomActor {
    type Result = ();

    fn handle(&mut self, silent: Silent, ctx: &mut Self::Context) {
        self.handle(ToRoom::Silent(silent), ctx);
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
    /// Handles a message. A panic costs that message and no other.
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
        if self.phase.is_recovering() && message.is_about_ours() {
            self.state.deferred.push_back(message);
            return;
        }
        match message {
            ToRoom::Join { entrant, again: true, reply } if self.was_removed(&entrant.presence) => {
                self.left_while_joining(vec![reply]);
            }
            ToRoom::Join { entrant, again: true, reply } => self.join(entrant, reply, ctx),
            ToRoom::Join { entrant, again: false, reply } => self.join_if_read(entrant, reply, ctx),
            ToRoom::Leave { id, channel, farewell, reply } => {
                if let Some(farewell) = farewell {
                    farewell.send(&self.name, &channel);
                }
                self.leave(self.state.sessions.canonical_id(id), channel, reply, ctx);
            }
            ToRoom::Lose { id, channel } => self.lose(self.state.sessions.canonical_id(id), channel, ctx),
            ToRoom::HoldAll => self.hold_all(ctx),
            ToRoom::LeaveSocketless => self.leave_socketless(ctx),
            ToRoom::Update { id, channel, meta, reply } => {
                self.update(self.state.sessions.canonical_id(id), channel, meta, reply, ctx);
            }
            ToRoom::Send { frames, except, pressure } => {
                self.state.said(|| Said::Frames(frames.clone(), except.clone()));
                self.to_hubs(|room| ToHub::Send {
                    room,
                    frames: frames.clone(),
                    except: except.clone(),
                    pressure: pressure.clone(),
                });
            }
            ToRoom::Event(event) => {
                self.state.said(|| Said::Event(event.clone()));
                self.to_hubs(|room| ToHub::Event { room, event: event.clone() });
            }
            ToRoom::Read(reader) => {
                self.used = self.node.now();
                self.state.readers.push_back(reader);
                if self.phase.is_cold() {
                    self.load(ctx);
                }
            }
            ToRoom::Prune { max_age, reply } => self.prune_older(max_age, reply, ctx),
            ToRoom::Remove { user, close, reply } => self.remove_ours(user.as_ref(), close, reply, ctx),
            ToRoom::RemoveOne { which, close, count, reply } => self.remove_one(which, close, &count, reply, ctx),
            ToRoom::Stale(id) => {
                if self.state.stale.is_empty() {
                    // Handled after everything that has come in by now: what is due in one turn is one event.
                    ctx.notify(ToRoom::Tick);
                }
                self.state.stale.insert(id);
            }
            ToRoom::Silent(silent) => self.prune_silent(silent, ctx),
            ToRoom::ChildDied(id) => self.child_died(id, ctx),
            ToRoom::Changed(commit) => {
                self.apply(commit, ctx);
                self.note_position();
            }
            ToRoom::Loaded(number, result) => self.loaded(number, result, ctx),
            ToRoom::Position { position, asked } => self.stands_at(position, asked, ctx),
            ToRoom::Rejoin => {
                let mine: Vec<_> = self.state.locals.values().map(|local| local.presence.clone()).collect();
                mine.into_iter().for_each(|presence| self.make_own(presence, ctx));
            }
            ToRoom::Report(report) => self.reported(report, ctx),
            ToRoom::End => {
                self.table.forget(&self.name, &self.under_way);
                ctx.stop();
            }
            ToRoom::Tick => self.prune_stale(ctx),
            ToRoom::TellTouches => {
                for (id, local) in &self.state.locals {
                    self.node.writer.touch(*id, local.touch.seen());
                }
            }
            #[cfg(any(test, feature = "testing"))]
            ToRoom::Panic => panic!("a room was told to fail"),
            #[cfg(test)]
            ToRoom::PanicInModel => {
                self.model_changes = true;
                panic!("a room was told to fail in its model");
            }
            #[cfg(test)]
            ToRoom::PanicAt(point) => self.fails_at = Some(point),
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

    /// Fails if a test wants it so, once.
    #[cfg(test)]
    fn fail_if(&mut self, point: Point) {
        if self.fails_at.take_if(|at| *at == point).is_some() {
            panic!("a room was told to fail over a commit");
        }
    }

    fn is_relaxed(&self) -> bool {
        self.node.config.durability() == Durability::Relaxed
    }

    /// Does what is due, and sets the timer for what will be. Each step does what it has to do by now, and returns when it next has to.
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
                reader(self.state.replica.roster());
            }
        }
    }

    /// Sends members what is due, once it is known who is there, and who is where.
    fn send_notices(&mut self, now: Tick) -> Option<Tick> {
        if !self.phase.is_live() {
            return None;
        }
        let renew = !self.state.renew.is_empty() && self.state.replica.position().is_some();
        // As much as may wait for a client is kept for those who join, and no more.
        let full = self.state.kept() >= self.node.config.outbox_frames();
        if renew || full || self.state.due().is_some_and(|due| due <= now) {
            self.state.flush(now, &self.name, &self.node.config);
        }
        self.state.due()
    }

    /// Reads the room anew if it misses something, unless that may still come in by itself.
    ///
    /// No node sends its changes to another, and the writer commits in order. So a change that is missing before one of ours was
    /// made by another node, and only a reading brings it; unless this node removes presences right now, beside its writer.
    fn read_what_is_missing(&mut self, now: Tick, ctx: &mut Context<Self>) -> Option<Tick> {
        let removes = self.node.writer.is_removing();
        let hold = if removes { self.node.config.hold_window() } else { Duration::ZERO };
        self.readings.stands_at(self.state.replica.position());
        let due = self.readings.due(self.state.replica.reload_at(hold))?;
        if due <= now {
            self.load(ctx);
            return None;
        }
        // The removal may be over before.
        Some(if removes { due.min(now.after(GAP_CHECK)) } else { due })
    }

    /// Stops the room if nothing is under way in it and it is empty, or nobody of this node has asked about it lately.
    fn retire_if_idle(&mut self, now: Tick, ctx: &mut Context<Self>) -> ControlFlow<(), Option<Tick>> {
        let is_ending = self.node.is_shutting_down();
        // What is held when the node ends, the database holds.
        let holds = !self.state.sessions.is_idle() && !is_ending;
        let is_waiting = self.readings.is_under_way() || self.phase.is_recovering();
        if !self.state.is_idle() || holds || is_waiting {
            return ControlFlow::Continue(None);
        }
        let lingers = now.since(self.used) < LINGER && !is_ending;
        if (self.state.replica.roster().is_empty() || !lingers) && self.table.retire(&self.name, &self.under_way) {
            ctx.stop();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(Some(self.used.after(LINGER).max(now.after(RELOAD_PAUSE))))
    }

    /// Changes what is known of the room. If this panics, that is not to be trusted any more.
    fn change_model<T>(&mut self, change: impl FnOnce(&mut State) -> T) -> T {
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
            // Who is where is just being found out, so all are asked; those without members pass it over.
            self.hubs.all().iter().for_each(|hub| hub.addr.do_send(message(self.name.clone())));
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
