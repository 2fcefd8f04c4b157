//! The presences that this node answers for: each has a child that looks after it, and a hub that its socket is on.

use std::{rc::Rc, sync::Arc};

use actix::{AsyncContext, Context, Recipient};
use tracing::{debug, warn};

use crate::{
    delivery::{
        message::{HubRef, Reply},
        touch::Touch,
    },
    model::{
        Presence,
        delta::Change,
        own::{self, OwnPresences, Repair},
    },
    name::{PresenceId, RoomName},
    node::{Node, writer::Tried},
    room::{
        leaving::{Cause, Leaving},
        local_channels::LocalChannels,
        message::{Entrant, ToRoom},
        presence::{DeathGuard, PresenceActor},
        state::{Joining, Local, State},
    },
    store::Write,
};

use super::RoomActor;

impl RoomActor {
    /// The roster changed so.
    pub(super) fn changed(&mut self, changes: Vec<Change>, ctx: &mut Context<Self>) {
        let now = self.node.now();
        for Change { was, now } in &changes {
            match now {
                Some(presence) => {
                    if let Some(local) = self.state.locals.get_mut(&presence.id) {
                        // A reading from before its last update tells what it said of itself before.
                        let late = local.updated.is_some_and(|at| self.state.replica.is_before(at));
                        let presence = if late {
                            let (user, meta) = (local.presence.user.clone(), local.presence.meta.clone());
                            Arc::new(presence.changed(Some(user), Some(meta)))
                        } else {
                            presence.clone()
                        };
                        // A commit from before it was resumed tells of its former socket.
                        let resumed = local.presence.channel != presence.channel;
                        local.presence = if resumed { presence.with_owner_of(&local.presence) } else { presence };
                        if resumed {
                            self.state.replica.hand_over(&local.presence);
                        }
                    } else if let Some(held) = self.state.sessions.update_lost(presence) {
                        // A commit from before its socket was lost shows it as one that is not held.
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
        let cares = own::after_changes(&changes, &self.ours());
        self.care(cares, ctx);
        self.change_model(|state| state.notices.changed(now, changes));
        self.let_in(ctx);
    }

    /// Lets all in who joined and are in the roster by now: by a change, or because they joined again, or came with a reading.
    pub(super) fn let_in(&mut self, ctx: &mut Context<Self>) {
        let roster = self.state.replica.roster();
        let here: Vec<_> = self.state.joining.keys().filter(|id| roster.get(**id).is_some()).copied().collect();
        here.into_iter().for_each(|id| self.activate(id, ctx));
    }

    /// Lets one who joined in, once the roster has it.
    pub(super) fn activate(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        let Some(presence) = self.state.replica.roster().get(id).cloned() else { return };
        let waits = self.state.joining.get(&id);
        // If it is there as another's, that it becomes this user's is still under way.
        if waits.is_none_or(|one| one.channel != presence.channel || one.presence().user != presence.user) {
            return;
        }
        let Some(Joining { entrant, replies, .. }) = self.state.joining.remove(&id) else { return };
        self.supervise(presence, entrant.touch.clone(), ctx);
        self.claim(id, entrant, replies, ctx);
    }

    /// Gives a socket its presence: its place in the group comes with its first frame. Without a socket, the join is over.
    pub(super) fn claim(&mut self, id: PresenceId, entrant: Entrant, replies: Vec<Reply<()>>, ctx: &mut Context<Self>) {
        let Entrant { touch, hub: Some(hub), .. } = entrant else {
            replies.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
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

    /// Starts the child that looks after a presence; in the place of the one before, if there was one.
    pub(super) fn supervise(&mut self, presence: Arc<Presence>, touch: Touch, ctx: &mut Context<Self>) {
        let id = presence.id;
        let guard = DeathGuard::new(id, self.shared_address(ctx));
        let child = PresenceActor::start(touch.clone(), self.node.clone(), guard);
        let before = self.state.locals.remove(&id);
        let (hub, updated) = before.map_or((None, None), |before| (before.hub, before.updated));
        self.state.locals.insert(id, Local { presence, child, touch, hub, updated });
    }

    /// The address of this room that its children share. It is theirs alone, so that it keeps no room that they do not.
    pub(super) fn shared_address(&mut self, ctx: &Context<Self>) -> Rc<Recipient<ToRoom>> {
        self.address.upgrade().unwrap_or_else(|| {
            let address = Rc::new(ctx.address().recipient());
            self.address = Rc::downgrade(&address);
            address
        })
    }

    /// A live presence of ours is not in the database any more.
    fn bring_back(&mut self, presence: Arc<Presence>, ctx: &mut Context<Self>) {
        if self.was_resumed_and_left(&presence) {
            self.superseded(presence.id);
            return;
        }
        // Somebody took us for dead. The socket is alive, so it belongs here.
        warn!(room = %self.name, channel = %presence.channel, "a live presence was removed; it joins again");
        self.make_own(presence, ctx);
    }

    /// A presence of ours is in the database, and its socket is gone: what its socket said last was lost when the room failed,
    /// or the database lost the end of it. As its socket would have it, it is held, or it leaves.
    fn take_orphan_out(&mut self, presence: Arc<Presence>, ctx: &mut Context<Self>) {
        debug!(room = %self.name, channel = %presence.channel, "a presence has no socket any more; it is taken out");
        let id = presence.id;
        match self.state.sessions.session(id).filter(|session| !session.grace.is_zero()) {
            Some(session) => self.hold(presence, session.grace, ctx),
            None => self.leave_unasked(&presence, ctx),
        }
    }

    /// Takes a presence out of the room that nobody asked to leave, and that has no socket.
    fn leave_unasked(&mut self, presence: &Presence, ctx: &mut Context<Self>) {
        let channel = presence.channel.clone();
        let leaving = Leaving { channel, cause: Cause::Left, after: 0, replies: Vec::new() };
        self.take_out(vec![(presence.id, leaving)], ctx);
    }

    /// Has the store note that a presence of ours is ours.
    pub(super) fn make_own(&mut self, mut presence: Arc<Presence>, ctx: &mut Context<Self>) {
        // An update is under way, which may not find it there.
        for one in self.state.updating.get(&presence.id).into_iter().flatten() {
            presence = Arc::new(presence.changed(one.user.clone(), one.meta.clone()));
        }
        let session = self.state.sessions.session(presence.id);
        self.state.sessions.claim_again(presence.id, presence.channel.clone());
        let restore = match session {
            Some(session) => Write::Restore { presence, session },
            None => Write::Join(presence),
        };
        self.node.writer.submit_always(&self.name, &ctx.address().recipient(), restore, Tried::Yes);
    }

    /// Sees to it that the presences of this node are the same here and in the database, once both are known.
    pub(super) fn look_after_all(&mut self, ctx: &mut Context<Self>) {
        let cares = own::after_load(&self.state.replica, self.node.id(), &self.ours());
        self.care(cares, ctx);
    }

    fn ours(&self) -> Ours<'_> {
        Ours { state: &self.state, node: &self.node, channels: &*self.channels, room: &self.name }
    }

    fn care(&mut self, cares: Vec<Repair>, ctx: &mut Context<Self>) {
        for care in cares {
            match care {
                Repair::Supervise(presence) => self.adopt(presence, ctx),
                Repair::Remove(presence) => self.take_orphan_out(presence, ctx),
                Repair::Restore(presence) => self.bring_back(presence, ctx),
                Repair::Forget(presence) => {
                    self.drop_local(presence.id);
                    self.state.sessions.forget(presence.id);
                    // A node that has ended writes nothing any more.
                    if self.node.id().is_some() {
                        self.leave_unasked(&presence, ctx);
                    }
                }
            }
        }
    }

    /// The store refuses to let these leave: they are still there, and have to be looked after. When they are stale, they are
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

    /// A presence of this node that no socket has claimed. If none does in time, it goes stale. Its socket may be there all the
    /// same, on a thread that is blocked: then it is asked before that, and receives what members receive.
    fn adopt(&mut self, presence: Arc<Presence>, ctx: &mut Context<Self>) {
        // What is known of the channel is what its owner touches.
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

    /// The hub of its socket, if that is in the room as this presence.
    pub(super) fn hub_of(&self, presence: &Presence) -> Option<HubRef> {
        let called = self.state.sessions.alias_of(presence.id);
        let is_in = self.channels.has(&presence.channel, &self.name, called);
        is_in.then(|| self.hubs.of(&presence.channel)).flatten()
    }
}

/// The room's presences of this node.
struct Ours<'a> {
    state: &'a State,
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
        let State { joining, leaving, sessions, .. } = self.state;
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
        let called = self.state.sessions.alias_of(presence.id);
        !has_ended && self.channels.has(&presence.channel, self.room, called)
    }
}
