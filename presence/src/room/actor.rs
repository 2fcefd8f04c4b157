//! One room: owns who is in it, supervises its presences, tells its members.
//!
//! The rules are in `model`; the actor feeds them and carries out what they say. It never waits: what takes time (the
//! database) answers with a message. A panic is caught where messages come in, so that no other message is lost: the room
//! then reads itself anew from the store, asks the hubs who is on them, and tells its members the net difference.

mod commits;
mod faults;
mod locals;
mod removing;
mod requests;
mod resuming;

use std::{
    collections::{HashSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Weak,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, SpawnHandle};

use crate::{
    clock::Tick,
    config::Durability,
    model::reached::Reached,
    name::{Epoch, RoomName, Version},
    store::writer::Committed,
};

use super::{
    Rooms,
    message::{Reply, Said, ToHub, ToRoom, Told},
    state::State,
    wire::Held,
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
    rooms: Rooms,
    under_way: Arc<AtomicUsize>,
    /// Its own address, if it has children: they have it.
    address: Weak<Addr<Self>>,
    state: State,
    loading: bool,
    /// The number of the last reading of the database.
    reading: u64,
    /// When that was asked for, and before when the next one does not begin because the room only learned of a change.
    asked: Tick,
    rested: Tick,
    /// How far the database has come for certain.
    reached: Reached,
    /// The database was ahead of us, and until when we wait for what is under way.
    behind: Option<(Option<(Epoch, Version)>, Tick)>,
    /// The hubs that have still to say who is on them, and until when we wait for them.
    reports: Option<(HashSet<usize>, Tick)>,
    /// When somebody last asked about the room.
    used: Tick,
    timer: Option<(Tick, SpawnHandle)>,
    faults: VecDeque<Tick>,
    /// Set while the model changes: if a panic finds it set, the model is not to be trusted.
    in_model: bool,
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
    pub(crate) fn new(name: RoomName, rooms: Rooms, under_way: Arc<AtomicUsize>) -> Self {
        let state = State::new(rooms.config().notify_interval(), Held::of(rooms.first_frames().clone()));
        let used = rooms.now();
        Self {
            name,
            rooms,
            under_way,
            address: Weak::new(),
            state,
            loading: false,
            reading: 0,
            asked: used,
            rested: used,
            reached: Reached::default(),
            behind: None,
            reports: None,
            used,
            timer: None,
            faults: VecDeque::new(),
            in_model: false,
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

impl Handler<Committed> for RoomActor {
    type Result = ();

    fn handle(&mut self, committed: Committed, ctx: &mut Self::Context) {
        self.announce(&committed);
        self.guarded(ctx, |room, ctx| room.committed(committed, ctx));
    }
}

/// Where the handling of a commit can be made to fail.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Answer,
    Apply,
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
        if self.reports.is_some() && message.is_about_ours() {
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
                self.leave(self.state.sessions.resolve(id), channel, reply, ctx);
            }
            ToRoom::Lose { id, channel } => self.lose(self.state.sessions.resolve(id), channel, ctx),
            ToRoom::HoldAll => self.hold_all(ctx),
            ToRoom::LeaveSocketless => self.leave_socketless(ctx),
            ToRoom::Update { id, channel, meta, reply } => {
                self.update(self.state.sessions.resolve(id), channel, meta, reply, ctx);
            }
            ToRoom::Send { frames, pressure } => {
                self.state.said(|| Said::Frames(frames.clone()));
                self.to_hubs(|room| ToHub::Send { room, frames: frames.clone(), pressure: pressure.clone() });
            }
            ToRoom::Event(event) => {
                self.state.said(|| Said::Event(event.clone()));
                self.to_hubs(|room| ToHub::Event { room, event: event.clone() });
            }
            ToRoom::Read(reader) => {
                self.used = self.rooms.now();
                self.state.readers.push_back(reader);
                if !self.state.known {
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
            ToRoom::Silent { ids, unanswered, max_age, reply } => {
                self.prune_silent(ids, unanswered, max_age, reply, ctx)
            }
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
                self.rooms.forget(&self.name, &ctx.address());
                ctx.stop();
            }
            ToRoom::Tick => self.prune_stale(ctx),
            ToRoom::TellTouches => {
                for (id, local) in &self.state.locals {
                    self.rooms.writer().touch(*id, local.touch.seen());
                }
            }
            #[cfg(any(test, feature = "testing"))]
            ToRoom::Panic => panic!("a room was told to fail"),
            #[cfg(test)]
            ToRoom::PanicInModel => {
                self.in_model = true;
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
        self.rooms.config().durability() == Durability::Relaxed
    }

    /// Does what is due, and sets the timer for what will be.
    fn settle(&mut self, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        if self.state.known && !self.state.readers.is_empty() {
            for reader in std::mem::take(&mut self.state.readers) {
                reader(self.state.replica.roster());
            }
        }
        if self.reports.as_ref().is_some_and(|(hubs, until)| hubs.is_empty() || *until <= now) {
            self.recovered(ctx);
        }
        self.resume_token_waiters(ctx);
        if self.next_grace().is_some_and(|until| until <= now) {
            self.end_graces(now, ctx);
        }
        // After a fault nothing is told before it is known who is there, and who is where.
        let recovering = self.reports.is_some() || !self.state.known;
        if !recovering {
            let renew = !self.state.renew.is_empty() && self.state.replica.position().is_some();
            // As much as may wait for a client is kept for those who join, and no more.
            let full = self.state.kept() >= self.rooms.config().outbox_frames();
            if renew || full || self.state.due().is_some_and(|due| due <= now) {
                self.state.flush(now, &self.name, &self.rooms);
            }
        }
        if self.has_caught_up() {
            self.behind = None;
        }
        if !self.loading && self.reload_at().is_some_and(|at| at <= now) {
            self.load(ctx);
        }
        // What is held when the node ends, the database holds.
        let holds = !self.state.sessions.is_idle() && !self.rooms.is_shutting_down();
        let idle = self.state.is_idle() && !holds && !self.loading && self.reports.is_none();
        let lingers = now.since(self.used) < LINGER && !self.rooms.is_shutting_down();
        if idle
            && (self.state.replica.roster().is_empty() || !lingers)
            && self.rooms.retire(&self.name, &self.under_way, &ctx.address())
        {
            ctx.stop();
            return;
        }
        let due = [
            self.state.due().filter(|_| !recovering),
            self.reload_at().filter(|_| !self.loading).map(|at| self.look_at(at, now)),
            self.reports.as_ref().map(|(_, until)| *until),
            self.next_grace(),
            idle.then(|| self.used.after(LINGER).max(now.after(RELOAD_PAUSE))),
        ];
        if let Some(next) = due.into_iter().flatten().min() {
            self.arm(next, ctx);
        }
    }

    /// When the room is to be read anew, unless it learns before of what it misses.
    ///
    /// No node sends its changes to another, and the writer commits in order. So a change that is missing before one of ours was
    /// made by another node, and only a reading brings it; unless this node removes presences right now, beside its writer.
    fn reload_at(&self) -> Option<Tick> {
        let hold = if self.rooms.writer().removes() { self.rooms.config().hold_window() } else { Duration::ZERO };
        let missing = self.state.replica.reload_at(hold);
        let at = missing.into_iter().chain(self.behind.map(|(_, until)| until)).min()?;
        Some(at.max(self.rested))
    }

    /// When to look at that again: a removal may be over before.
    fn look_at(&self, reload: Tick, now: Tick) -> Tick {
        if self.rooms.writer().removes() { reload.min(now.after(GAP_CHECK)) } else { reload }
    }

    /// Until when the room waits for changes of this node if it learns that the database is ahead of it.
    fn wait_for_own(&self) -> Tick {
        let now = self.rooms.now();
        let is_under_way = self.state.is_writing() || self.rooms.writer().removes();
        if is_under_way { now.after(self.rooms.config().hold_window()) } else { now }
    }

    /// When the next grace ends. Nobody can come back to a node that is about to end, so no grace runs out there.
    fn next_grace(&self) -> Option<Tick> {
        self.state.sessions.next().filter(|_| !self.rooms.is_shutting_down())
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
