//! Presences that outlive their sockets: each is held for its grace, so that its client can return and resume it.

use std::time::Duration;

use actix::Context;
use tracing::debug;

use crate::{
    clock::Tick,
    model::{Presence, sessions::Lost},
    name::{ChannelName, PresenceId},
    node::Tried,
    room::leaving::{Cause, Leavers, Leaving},
    store::Write,
};

use super::RoomActor;

impl RoomActor {
    /// A socket is lost. Its presence is held if it can be resumed, and leaves otherwise.
    pub(super) fn lose(&mut self, id: PresenceId, channel: ChannelName, ctx: &mut Context<Self>) {
        if self.has_other_socket(id, &channel) {
            return;
        }
        let Some(grace) = self.grace_of(id) else {
            self.leave(id, channel, None, ctx);
            return;
        };
        if let Some(local) = self.drop_local(id) {
            self.hold(&local.presence, grace, ctx);
        } else if let Some(joining) = self.state.joining.remove(&id) {
            let cause = Cause::Lost(joining.presence().user.clone());
            self.left_while_joining(joining.replies);
            self.state.sessions.forget(id);
            let leaving = Leaving { channel, cause, after: 0, replies: Vec::new() };
            self.submit_leaves(vec![(id, leaving)], ctx);
        }
    }

    /// How long the presence is held when its socket is lost; `None` if it cannot be resumed.
    pub(super) fn grace_of(&self, id: PresenceId) -> Option<Duration> {
        self.state.sessions.session(id).map(|session| session.grace).filter(|grace| !grace.is_zero())
    }

    /// Holds a presence whose socket is gone, unless the database holds it already. Then its grace has begun already, too.
    pub(super) fn hold(&mut self, presence: &Presence, grace: Duration, ctx: &mut Context<Self>) {
        let (id, now) = (presence.id, self.node.now());
        let until = self.state.sessions.held_until(id).unwrap_or_else(|| {
            self.write_hold(presence, grace, ctx);
            now.after(grace)
        });
        let held = presence.as_held();
        self.state.replica.hand_over(&held);
        self.state.sessions.lose(held, until, self.node.standstills.stood(now));
    }

    fn write_hold(&self, presence: &Presence, grace: Duration, ctx: &Context<Self>) {
        let hold = Write::Hold { id: presence.id, channel: presence.channel.clone(), grace };
        self.write_always(hold, Tried::No, ctx);
    }

    /// The node is about to end: presences that can be resumed are written as held, so that they are held even if the process ends at
    /// once.
    pub(super) fn hold_all(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        let own: Vec<_> = self.state.locals.values().map(|local| local.presence.clone()).collect();
        for presence in own {
            let Some(grace) = self.grace_of(presence.id) else { continue };
            self.write_hold(&presence, grace, ctx);
            self.state.sessions.hold_until(presence.id, now.after(grace));
        }
    }

    /// Ends the graces that are over, and returns when the next one is. No client can return to a node that is about to end, so no grace
    /// ends there.
    pub(super) fn end_graces(&mut self, now: Tick, ctx: &mut Context<Self>) -> Option<Tick> {
        if self.node.is_shutting_down() {
            return None;
        }
        if self.state.sessions.next_expiry()? <= now {
            self.leave_overdue(now, ctx);
        }
        self.state.sessions.next_expiry()
    }

    /// Presences whose clients did not return in time leave together. No client could return while the node stood still, so that time
    /// extends a grace, also in the database.
    fn leave_overdue(&mut self, now: Tick, ctx: &mut Context<Self>) {
        for (presence, grace) in self.state.sessions.extend_overdue(now, self.node.standstills.stood(now)) {
            self.write_hold(&presence, grace, ctx);
        }
        let overdue = self.state.sessions.take_overdue(now);
        if overdue.is_empty() {
            return;
        }
        debug!(room = %self.name, count = overdue.len(), "lost presences did not return");
        let all = Leavers::new(self.node.leave_together(&self.name), overdue.len(), None);
        let leave = |Lost { presence, .. }: Lost| (presence.id, Leaving::removed(presence.channel.clone(), &all));
        self.submit_leaves(overdue.into_iter().map(leave).collect(), ctx);
    }
}
