//! What a room does when it, or a task that watches a presence, has panicked.

use std::{sync::Arc, time::Duration};

use actix::{ActorContext, AsyncContext, Context};
use tracing::error;

use crate::{
    clock::Tick,
    delivery::{HubMembers, Joiner, ToHub},
    model::Presence,
    name::{ChannelName, PresenceId},
    node::Tried,
    room::{
        message::Entrant,
        state::{Joining, Local, RoomState},
    },
};

use super::{RoomActor, answer_all, resuming::Evidence, sockets};

/// How often a room and the tasks that watch its presences may panic within [`FAULT_WINDOW`] before the room is given up.
const MAX_FAULTS: usize = 8;
const FAULT_WINDOW: Duration = Duration::from_secs(10);
/// How long a room that has failed waits for its hubs to report their members.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

impl RoomActor {
    pub(super) fn child_died(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get(&id) else { return };
        if local.child.is_running() {
            return;
        }
        let (presence, touch) = (local.presence.clone(), local.touch.clone());
        error!(room = %self.name, channel = %presence.channel, "a presence failed; it is started again");
        self.supervise(presence, touch, ctx);
        self.count_fault(ctx);
    }

    /// Starts over after a panic: keeps what is pending, and reads everything else again.
    pub(super) fn failed(&mut self, ctx: &mut Context<Self>) {
        error!(room = %self.name, "a room failed; it starts over");
        let held = self.state.pages.held().clone();
        let mut old = std::mem::replace(&mut self.state, RoomState::new(self.node.config.notify_interval(), held));
        let channels = &self.channels;
        let sessions = &old.sessions;
        // Hubs report sockets, so presences without a socket have to be kept here.
        let has_no_socket = |id: &PresenceId, local: &mut Local| {
            local.hub.is_none() && channels.has(&local.presence.channel, &self.name, sessions.alias_of(*id))
        };
        let state = &mut self.state;
        state.locals = old.locals.extract_if(has_no_socket).collect();
        old.locals.clear();
        let hubs = self.hubs.all();
        for Joiner { hub, presence, touch, replies, .. } in old.notices.forget(|_| true) {
            let entrant = Entrant { presence, session: None, limit: None, hub: Some(hub), touch };
            state.joining.insert(entrant.presence.id, Joining::new(entrant, replies));
        }
        if self.is_changing_model {
            state.outdated_hubs = hubs.iter().map(|hub| hub.id).collect();
        } else {
            // What members have received is still valid, so they need only the difference.
            (state.replica, state.notices) = (old.replica, old.notices);
        }
        let pending_joins: Vec<_> = old.joining.values().map(|joining| joining.presence().clone()).collect();
        state.joining.extend(old.joining);
        state.committed = old.committed;
        // Pending updates are not kept. A caller that waits for one repeats it, because the answer may have been sent to this room before
        // it failed, and would not come again.
        (state.readers, state.followers) = (old.readers, old.followers);
        state.deferred = old.deferred;
        (state.sessions, state.token_waiters) = (old.sessions, old.token_waiters);
        state.outdated_hubs.extend(old.outdated_hubs);
        // The room may have failed while it handled the commits of these leaves and joins, which are not sent again. It does no harm to
        // write them twice, so they are submitted again.
        self.submit_leaves(old.leaving.into_iter().collect(), ctx);
        for mut presence in pending_joins {
            for one in old.updating.get(&presence.id).into_iter().flatten() {
                presence = Arc::new(presence.changed(one.user.clone(), one.meta.clone()));
            }
            self.join_again(presence, ctx);
        }
        (self.is_changing_model, self.has_failed) = (false, true);
        self.readings.start_over();
        self.note_position();
        if let Some((_, timer)) = self.timer.take() {
            ctx.cancel_future(timer);
        }
        let until = self.node.now().after(REPORT_TIMEOUT);
        self.phase.fails(hubs.iter().map(|hub| hub.id).collect(), until);
        for hub in hubs {
            hub.addr.do_send(ToHub::Report { room: self.name.clone(), to: ctx.address().recipient() });
        }
        self.load(ctx);
        self.arm(until, ctx);
        self.count_fault(ctx);
    }

    /// Submits a pending join again, since its result may have been lost.
    pub(super) fn join_again(&mut self, presence: Arc<Presence>, ctx: &mut Context<Self>) {
        let session = self.state.sessions.session(presence.id);
        let limit = self.state.joining.get(&presence.id).and_then(|joining| joining.entrant.limit);
        if session.is_none() && limit.is_none() {
            self.write_as_own(presence, ctx);
            return;
        }
        // If the queue is full, the join is refused. Then its socket repeats it, or gives up.
        let join = sockets::join(presence, session, limit);
        let _ = self.node.writer.submit(&self.name, &ctx.address().recipient(), join, Tried::Yes);
    }

    /// A hub reports its members.
    pub(super) fn reported(&mut self, HubMembers { hub, announced, members }: HubMembers, ctx: &mut Context<Self>) {
        let in_time = self.phase.hub_reported(hub.id);
        if !members.is_empty() && announced != self.state.notices.announced() {
            self.state.outdated_hubs.insert(hub.id);
        }
        let mut have_left = Vec::new();
        for (presence, touch) in members {
            let id = presence.id;
            // The hub has the presence as it was when it joined.
            let now = self.state.replica.roster().get(id).cloned();
            // If a resume is not in the database yet, the roster still has the former socket.
            let now = now.map(|now| if now.channel == presence.channel { now } else { now.with_owner_of(&presence) });
            // Leaves are deferred until all hubs have reported. After that, a presence that is not in the roster has left meanwhile.
            let has_left = !in_time && self.phase.is_known() && now.is_none();
            if self.state.leaving.contains_key(&id) || has_left {
                have_left.push(presence.channel.clone());
                continue;
            }
            if let Some(joining) = self.state.joining.remove(&id) {
                answer_all(joining.replies, || Ok(()));
            }
            if self.state.locals.get(&id).is_none_or(|local| !local.touch.is(&touch)) {
                self.supervise(now.unwrap_or(presence), touch, ctx);
            }
            if let Some(local) = self.state.locals.get_mut(&id)
                && local.hub.is_none()
            {
                local.hub = Some(hub.clone());
                self.state.enter_hub(&hub);
            }
        }
        if !have_left.is_empty() {
            hub.addr.do_send(ToHub::Leave { room: self.name.clone(), channels: have_left });
        }
    }

    /// If all hubs have reported, or if their time is over, handles the messages that were deferred until then.
    pub(super) fn end_recovery(&mut self, now: Tick, ctx: &mut Context<Self>) -> Option<Tick> {
        if !self.phase.recovers(now) {
            return self.phase.deadline();
        }
        self.lose_closed_joiners(ctx);
        if self.phase.is_known() {
            self.reconcile_own(Evidence { reading: self.readings.last(), went_back: false }, ctx);
        }
        while let Some(message) = self.state.deferred.pop_front() {
            self.act(message, ctx);
        }
        None
    }

    /// Loses the sockets that have closed while their joins are pending: if the room failed while it handled the message about that, the
    /// message does not come again.
    fn lose_closed_joiners(&mut self, ctx: &mut Context<Self>) {
        let (channels, sessions) = (&self.channels, &self.state.sessions);
        let is_open = |id: PresenceId, channel: &ChannelName| channels.has(channel, &self.name, sessions.alias_of(id));
        let joining = self.state.joining.iter().map(|(id, joining)| (*id, joining.channel.clone()));
        let closed: Vec<_> = joining.filter(|(id, channel)| !is_open(*id, channel)).collect();
        closed.into_iter().for_each(|(id, channel)| self.lose(id, channel, ctx));
    }

    pub(super) fn count_fault(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        self.faults.push_back(now);
        self.faults.retain(|then| now.since(*then) <= FAULT_WINDOW);
        if self.faults.len() > MAX_FAULTS {
            error!(room = %self.name, "a room fails again and again; its sockets are closed");
            for hub in self.hubs.all() {
                hub.addr.do_send(ToHub::CloseRoom { room: self.name.clone() });
            }
            self.table.forget(&self.name, &self.in_flight);
            ctx.stop();
        }
    }
}
