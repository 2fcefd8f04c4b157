//! The presences of this node. Each has a task that watches it, and the hub of its socket.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::{AsyncContext, Context, Recipient};
use tracing::{debug, warn};

use crate::{
    delivery::{HubRef, Reply, Touch},
    model::{
        Presence,
        delta::RosterChange,
        own::{self, OwnPresences, Repair},
    },
    name::{PresenceId, RoomName},
    node::{Node, Tried},
    room::{
        leaving::{Cause, Leaving},
        local_channels::LocalChannels,
        message::{Entrant, ToRoom},
        presence::{DeathGuard, PresenceActor},
        state::{Joining, Local, RoomState},
    },
    store::Write,
};

use super::{RoomActor, answer_all, resuming::Evidence};

impl RoomActor {
    /// The roster has changed.
    pub(super) fn changed(&mut self, changes: Vec<RosterChange>, evidence: Evidence, ctx: &mut Context<Self>) {
        let now = self.node.now();
        for RosterChange { was, now } in &changes {
            match now {
                Some(presence) => {
                    if let Some(local) = self.state.locals.get_mut(&presence.id) {
                        // A reading that began before its last update has the former user and meta.
                        let late = local.updated.is_some_and(|at| self.state.replica.is_before(at));
                        let presence = if late {
                            let (user, meta) = (local.presence.user.clone(), local.presence.meta.clone());
                            Arc::new(presence.changed(Some(user), Some(meta)))
                        } else {
                            presence.clone()
                        };
                        // A commit that was made before it was resumed has its former socket.
                        let resumed = local.presence.channel != presence.channel;
                        local.presence = if resumed { presence.with_owner_of(&local.presence) } else { presence };
                        if resumed {
                            self.state.replica.hand_over(&local.presence);
                        }
                    } else if let Some(held) = self.state.sessions.update_lost(presence) {
                        // A commit that was made before its socket was lost does not show it as held.
                        self.state.replica.hand_over(&held);
                    }
                }
                None => {
                    let id = was.as_ref().map(|presence| presence.id);
                    if let Some(lost) = id.filter(|id| self.state.sessions.lost(*id).is_some()) {
                        self.state.sessions.forget(lost);
                    }
                }
            }
        }
        self.state.followers.iter().for_each(|follower| follower.send_changes(&changes));
        // A room that recovers does not know its presences yet. The reading that it waits for shows them all.
        let node = if self.phase.is_recovering() { None } else { self.node.id() };
        let repairs = own::after_changes(&changes, &self.state.replica, node, &self.ours());
        self.repair(repairs, evidence, None, ctx);
        let here = changes.iter().filter_map(|change| change.now.as_ref()).map(|presence| presence.id).collect();
        self.change_model(|state| state.notices.changed(now, changes));
        self.complete_joins(here, ctx);
    }

    /// A commit of this node has moved a presence to it, and since then its socket was lost, or another one resumed it here. The roster
    /// shows that again.
    pub(super) fn keep_own_owner(&mut self, id: PresenceId) {
        let local = self.state.locals.get(&id).map(|local| &local.presence);
        let Some(own) = local.or(self.state.sessions.lost(id).map(|lost| &lost.presence)).cloned() else { return };
        let there = self.state.replica.roster().get(id);
        if there.is_some_and(|there| (&there.channel, there.held) != (&own.channel, own.held)) {
            self.state.replica.hand_over(&own);
        }
    }

    /// Completes the pending joins of these presences, if they are in the roster by now: by a change, by a repeated join, or by a reading.
    pub(super) fn complete_joins(&mut self, ids: Vec<PresenceId>, ctx: &mut Context<Self>) {
        for id in ids {
            if self.state.joining.contains_key(&id) {
                self.complete_join(id, ctx);
            }
        }
    }

    /// Completes a join if its presence is in the roster.
    pub(super) fn complete_join(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        #[cfg(test)]
        self.node.joins_looked_at.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some(presence) = self.state.replica.roster().get(id).cloned() else { return };
        let waits = self.state.joining.get(&id);
        // If the roster has it with another channel or user, its change to this one is still pending.
        if waits.is_none_or(|one| one.channel != presence.channel || one.presence().user != presence.user) {
            return;
        }
        let Some(Joining { entrant, replies, .. }) = self.state.joining.remove(&id) else { return };
        self.supervise(presence, entrant.touch.clone(), ctx);
        self.claim(id, entrant, replies, ctx);
    }

    /// Gives a socket its presence. The socket becomes a member with its first frame. Without a socket, the join is complete.
    pub(super) fn claim(&mut self, id: PresenceId, entrant: Entrant, replies: Vec<Reply<()>>, ctx: &mut Context<Self>) {
        let Entrant { touch, hub: Some(hub), .. } = entrant else {
            answer_all(replies, || Ok(()));
            return;
        };
        let Some(local) = self.state.locals.get_mut(&id) else { return };
        local.hub = Some(hub.clone());
        let presence = local.presence.clone();
        if !local.touch.is(&touch) {
            self.supervise(presence.clone(), touch.clone(), ctx);
        }
        self.state.joined(self.node.now(), hub, presence, touch, replies);
    }

    /// Starts the task that watches a presence, in place of an earlier one.
    pub(super) fn supervise(&mut self, presence: Arc<Presence>, touch: Touch, ctx: &mut Context<Self>) {
        let id = presence.id;
        let guard = DeathGuard::new(id, self.shared_address(ctx));
        let child = PresenceActor::start(touch.clone(), self.node.clone(), guard);
        let before = self.state.locals.remove(&id);
        let (hub, updated) = before.map_or((None, None), |before| (before.hub, before.updated));
        self.state.locals.insert(id, Local { presence, child, touch, hub, updated });
    }

    /// The address of this room, for the tasks that watch its presences. Only they hold it, so that it does not keep a room alive that
    /// has no such task.
    pub(super) fn shared_address(&mut self, ctx: &Context<Self>) -> Rc<Recipient<ToRoom>> {
        self.shared_address.upgrade().unwrap_or_else(|| {
            let address = Rc::new(ctx.address().recipient());
            self.shared_address = Rc::downgrade(&address);
            address
        })
    }

    /// A presence of this node has a socket, and is not in the database any more.
    fn bring_back(&mut self, presence: Arc<Presence>, evidence: Evidence, ctx: &mut Context<Self>) {
        if self.was_resumed_and_left(&presence, evidence) {
            self.superseded(presence.id);
            return;
        }
        // Another node considered this node dead, or the database has lost the join. The socket is open, so its presence belongs in the
        // room.
        warn!(room = %self.name, channel = %presence.channel, "a live presence was removed; it joins again");
        self.write_as_own(presence, ctx);
    }

    /// A presence of this node is in the database, and its socket is closed. Either the room failed while it handled the message about
    /// that, or the database has lost the commit. The presence is held if it can be resumed, and leaves otherwise.
    fn remove_orphan(&mut self, presence: &Presence, orphan_grace: Option<Duration>, ctx: &mut Context<Self>) {
        debug!(room = %self.name, channel = %presence.channel, "a presence has no socket any more; it is held, or leaves");
        match self.grace_of(presence.id).or(orphan_grace) {
            Some(grace) => self.hold(presence, grace, ctx),
            None => self.leave_without_request(presence, ctx),
        }
    }

    /// Removes a presence whose socket did not request to leave.
    fn leave_without_request(&mut self, presence: &Presence, ctx: &mut Context<Self>) {
        let channel = presence.channel.clone();
        let leaving = Leaving { channel, cause: Cause::Left, after: 0, replies: Vec::new() };
        self.submit_leaves(vec![(presence.id, leaving)], ctx);
    }

    /// Writes a presence as one of the current incarnation of this node.
    pub(super) fn write_as_own(&mut self, mut presence: Arc<Presence>, ctx: &mut Context<Self>) {
        // If the database does not have the presence, a pending update changes nothing there. So the join contains its values.
        for one in self.state.updating.get(&presence.id).into_iter().flatten() {
            presence = Arc::new(presence.changed(one.user.clone(), one.meta.clone()));
        }
        let session = self.state.sessions.session(presence.id);
        self.state.sessions.claim_again(presence.id, presence.channel.clone());
        let write = match session {
            Some(session) => Write::Restore { presence, session },
            None => Write::Join(presence),
        };
        self.write_always(write, Tried::Yes, ctx);
    }

    /// Makes the presences of this node the same here and in the database, once both are known.
    pub(super) fn reconcile_own(&mut self, evidence: Evidence, ctx: &mut Context<Self>) {
        let repairs = own::after_load(&self.state.replica, self.node.id(), &self.ours());
        // These were in the room before the reading. If the database has lost changes, they belonged to another node, which has their
        // sockets, and notices the loss when it next compares its rooms. That may take it a little longer than the interval.
        let config = &self.node.config;
        let until_compared = evidence.went_back.then(|| config.reconcile_interval() * 2 + config.store_timeout());
        self.repair(repairs, evidence, until_compared, ctx);
    }

    fn ours(&self) -> Ours<'_> {
        Ours { state: &self.state, node: &self.node, channels: &*self.channels, room: &self.name }
    }

    /// Carries repairs out. Presences without a socket and without a known token are held for `orphan_grace`, or leave.
    fn repair(
        &mut self,
        repairs: Vec<Repair>,
        evidence: Evidence,
        orphan_grace: Option<Duration>,
        ctx: &mut Context<Self>,
    ) {
        for repair in repairs {
            match repair {
                Repair::Supervise(presence) => self.adopt(presence, ctx),
                Repair::Remove(presence) => self.remove_orphan(&presence, orphan_grace, ctx),
                Repair::Restore(presence) => self.bring_back(presence, evidence, ctx),
                Repair::Forget(presence) => {
                    self.drop_local(presence.id);
                    self.state.sessions.forget(presence.id);
                    // A node that has ended writes nothing any more.
                    if self.node.id().is_some() {
                        self.leave_without_request(&presence, ctx);
                    }
                }
            }
        }
    }

    /// The store has refused these leaves, so the presences are still there and have to be watched. When they are stale, they are
    /// removed again.
    pub(super) fn keep_refused(&mut self, writes: &[Write], ctx: &mut Context<Self>) {
        for write in writes {
            let Write::Leave { id, channel } = write else { continue };
            let there = self.state.replica.roster().get(*id).filter(|there| there.channel == *channel && !there.held);
            let there = there.filter(|there| Some(there.node) == self.node.id());
            let Some(there) = there.cloned() else { continue };
            let ours = self.ours();
            if ours.supervised(*id).is_none() && !ours.is_in_progress(&there) {
                self.adopt(there, ctx);
            }
        }
    }

    /// Watches a presence of this node that no socket has claimed. If none claims it in time, it becomes stale. Its socket may exist all
    /// the same, on a blocked thread. So the hub is noted: the socket receives what members receive, and is queried before the presence is
    /// removed.
    fn adopt(&mut self, presence: Arc<Presence>, ctx: &mut Context<Self>) {
        // If this node has the channel, its socket updates this touch.
        let touch = self.channels.touch_of(&presence.channel);
        let (id, hub) = (presence.id, self.hub_of(&presence));
        self.supervise(presence, touch.unwrap_or_else(|| Touch::new(self.node.now())), ctx);
        if let Some(hub) = hub
            && let Some(local) = self.state.locals.get_mut(&id)
            && local.hub.is_none()
        {
            local.hub = Some(hub.clone());
            self.state.enter_hub(&hub);
        }
    }

    /// The hub of the presence's socket, if that socket is in the room as this presence.
    pub(super) fn hub_of(&self, presence: &Presence) -> Option<HubRef> {
        let alias = self.state.sessions.alias_of(presence.id);
        let is_in = self.channels.has(&presence.channel, &self.name, alias);
        is_in.then(|| self.hubs.of(&presence.channel)).flatten()
    }
}

/// The presences of this node, as [`own`] sees them.
struct Ours<'a> {
    state: &'a RoomState,
    node: &'a Node,
    channels: &'a dyn LocalChannels,
    room: &'a RoomName,
}

impl OwnPresences for Ours<'_> {
    fn supervised(&self, id: PresenceId) -> Option<&Arc<Presence>> {
        self.state.locals.get(&id).map(|local| &local.presence)
    }

    fn all_supervised(&self) -> impl Iterator<Item = &Arc<Presence>> {
        self.state.locals.values().map(|local| &local.presence)
    }

    fn is_in_progress(&self, Presence { id, channel, .. }: &Presence) -> bool {
        let RoomState { joining, leaving, sessions, .. } = self.state;
        joining.contains_key(id)
            || leaving.contains_key(id)
            || sessions.lost(*id).is_some()
            // Until its commit is answered, a socket that resumes a presence has another id here.
            || joining.values().any(|joining| joining.channel == *channel)
            || leaving.values().any(|leaving| leaving.channel == *channel)
    }

    fn is_alive(&self, presence: &Presence) -> bool {
        // Once a node has ended, the database has removed what it left.
        let has_ended = self.node.is_shutting_down() && self.node.id().is_none();
        let alias = self.state.sessions.alias_of(presence.id);
        !has_ended && self.channels.has(&presence.channel, self.room, alias)
    }
}
