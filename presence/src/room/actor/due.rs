//! What a room does after each message: what is due by now, and a timer for what is due next.

use std::{ops::ControlFlow, time::Duration};

use actix::{ActorContext, AsyncContext, Context, Handler};

use crate::{
    clock::Tick,
    room::{message::ToRoom, state::RoomState},
};

use super::{RELOAD_PAUSE, RoomActor};

/// How long a room stays in memory while no presence of this node is in it and nobody queries it.
const LINGER: Duration = Duration::from_secs(5);

/// A room that misses a change waits while its node removes presences, since the removal may have made the change. This is how often it
/// checks whether the removal is over.
const GAP_CHECK: Duration = Duration::from_millis(10);

impl RoomActor {
    /// Does what is due, and sets the timer for what comes next. Each step does what is due now, and returns its own next deadline.
    pub(super) fn settle(&mut self, ctx: &mut Context<Self>) {
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
            followers.iter_mut().for_each(|follower| follower.send_roster(replica.roster()));
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
        self.readings.note_position(self.state.replica.position());
        let due = self.readings.due(self.state.replica.reload_at(hold))?;
        if due <= now {
            self.read_missing(now, ctx);
            return None;
        }
        // The removal may be over earlier.
        Some(if removes { due.min(now.after(GAP_CHECK)) } else { due })
    }

    /// Stops the room if nothing is pending in it, and if it is empty or was not queried for a while.
    pub(super) fn retire_if_idle(&mut self, now: Tick, ctx: &mut Context<Self>) -> ControlFlow<(), Option<Tick>> {
        let is_ending = self.node.is_shutting_down();
        // When the node ends, other nodes end the graces of its held presences, which are in the database.
        let holds = !self.state.sessions.is_idle() && !is_ending;
        let is_waiting = self.readings.is_under_way() || self.phase.is_recovering();
        let is_followed = self.state.is_followed() && !is_ending;
        if !self.state.is_idle() || holds || is_waiting {
            return ControlFlow::Continue(None);
        }
        if is_followed {
            // Nothing tells the room that its last follower is gone.
            return ControlFlow::Continue(Some(now.after(LINGER)));
        }
        let lingers = now.since(self.last_queried) < LINGER && !is_ending;
        if (self.state.replica.roster().is_empty() || !lingers) && self.table.retire(&self.name, &self.in_flight) {
            ctx.stop();
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(Some(self.last_queried.after(LINGER).max(now.after(RELOAD_PAUSE))))
    }

    pub(super) fn arm(&mut self, at: Tick, ctx: &mut Context<Self>) {
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
}
