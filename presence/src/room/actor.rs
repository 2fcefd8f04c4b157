//! One room: it keeps the list of its members, supervises the tasks that watch its presences, and notifies its members.
//!
//! The rules are in `model`; the actor gives them their input and carries out their results. It never waits: the database, which takes
//! time, answers with a message. A panic is caught around each message, so that no other message is lost. After a panic, the room is
//! read again from the store, its hubs report their members, and the members receive the net difference.

mod catching_up;
mod commits;
mod due;
mod faults;
mod holding;
mod leavers;
mod locals;
mod phase;
mod resuming;
mod sockets;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Weak,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, SpawnHandle};

use crate::{
    Result,
    clock::Tick,
    config::Durability,
    delivery::{Broadcast, HubMembers, Hubs, Reply, SilenceResult, ToHub, wire::Held},
    model::high_water::HighWaterMark,
    name::{Epoch, RoomName, Version},
    node::{Committed, Node, Tried},
    store::Write,
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

/// The pause before a room is read again when a reading has failed.
const RELOAD_PAUSE: Duration = Duration::from_millis(200);

/// One room of this node.
pub(crate) struct RoomActor {
    name: RoomName,
    node: Arc<Node>,
    hubs: Arc<Hubs>,
    channels: Arc<dyn LocalChannels>,
    table: Arc<RoomTable>,
    in_flight: Arc<AtomicUsize>,
    /// Its own address, which the tasks that watch its presences share.
    shared_address: Weak<Recipient<ToRoom>>,
    state: RoomState,
    phase: RoomPhase,
    readings: Readings,
    /// A change of this node that the log has, and that had not arrived when the room last read changes.
    expected: Option<(Epoch, Version)>,
    /// The position that the database has certainly reached.
    high_water: HighWaterMark,
    last_queried: Tick,
    timer: Option<(Tick, SpawnHandle)>,
    faults: VecDeque<Tick>,
    /// Set while the model is being changed. If it is set after a panic, the model cannot be trusted.
    is_changing_model: bool,
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
        let now = node.now();
        Self {
            name,
            node,
            hubs,
            channels,
            table,
            in_flight,
            shared_address: Weak::new(),
            state,
            phase: RoomPhase::default(),
            readings: Readings::new(now),
            expected: None,
            high_water: HighWaterMark::default(),
            last_queried: now,
            timer: None,
            faults: VecDeque::new(),
            is_changing_model: false,
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
                self.state.add_reader(reader);
                self.queried(ctx);
            }
            ToRoom::Follow(follower) => {
                self.state.followers.retain(Follower::is_connected);
                self.state.followers.push(follower);
                self.queried(ctx);
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
            ToRoom::Missed(number, missed) => self.missed(number, missed, ctx),
            ToRoom::Position { position, queried } => self.position_read(position, queried, ctx),
            ToRoom::WentBack { position, may_differ } => self.went_back(position, may_differ, ctx),
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
                self.is_changing_model = true;
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

    /// A part of the application wants to know the roster.
    fn queried(&mut self, ctx: &mut Context<Self>) {
        self.last_queried = self.node.now();
        if self.phase.is_cold() {
            self.load(ctx);
        }
    }

    /// Submits a write that nobody waits for. It is queued even if too many changes wait for the database.
    fn write_always(&self, write: Write, tried: Tried, ctx: &Context<Self>) {
        self.node.writer.submit_always(&self.name, &ctx.address().recipient(), write, tried);
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

    /// Changes the model of the room. If this panics, the model cannot be trusted any more.
    fn change_model<T>(&mut self, change: impl FnOnce(&mut RoomState) -> T) -> T {
        self.is_changing_model = true;
        let changed = change(&mut self.state);
        self.is_changing_model = false;
        changed
    }

    /// Until when the room waits for changes of this node if it learns that the database is ahead of it.
    fn wait_for_own(&self) -> Tick {
        let now = self.node.now();
        let is_under_way = self.state.is_writing() || self.node.writer.is_removing();
        if is_under_way { now.after(self.node.config.hold_window()) } else { now }
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

/// Answers callers that wait for the same result.
fn answer_all(replies: impl IntoIterator<Item = Reply<()>>, result: impl Fn() -> Result<()>) {
    for reply in replies {
        let _ = reply.send(result());
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
