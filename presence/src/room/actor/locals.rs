//! The presences that this node answers for: each has a child that looks after it, and a hub that its socket is on.

use std::{rc::Rc, sync::Arc};

use actix::{Addr, AsyncContext, Context};
use tracing::warn;

use crate::{
    model::{Presence, delta::Change},
    name::PresenceId,
    room::{
        message::{HubRef, Reply},
        presence::{DeathGuard, PresenceActor},
        state::{Joining, Local},
        touch::Touch,
    },
};

use super::RoomActor;

impl RoomActor {
    /// The roster changed so.
    pub(super) fn changed(&mut self, changes: Vec<Change>, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        for Change { was, now } in &changes {
            match now {
                Some(presence) => {
                    if let Some(local) = self.state.locals.get_mut(&presence.id) {
                        // A commit from before it was resumed tells of its former socket.
                        let resumed = local.presence.channel != presence.channel;
                        local.presence = if resumed { presence.in_hands_of(&local.presence) } else { presence.clone() };
                        if resumed {
                            self.state.replica.hand_over(&local.presence);
                        }
                    }
                }
                None => {
                    let id = was.as_ref().map(|presence| presence.id);
                    if let Some(lost) = id.filter(|id| self.state.sessions.lost(*id).is_some()) {
                        self.state.sessions.forget(lost);
                    }
                    if let Some(local) = id.and_then(|id| self.state.locals.get(&id)) {
                        self.bring_back(local.presence.clone(), ctx);
                    }
                }
            }
        }
        self.in_model = true;
        self.state.notices.changed(now, changes);
        self.in_model = false;
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
        if waits.is_none_or(|one| one.channel != presence.channel || one.presence.user != presence.user) {
            return;
        }
        let Some(Joining { hub, touch, replies, .. }) = self.state.joining.remove(&id) else { return };
        self.supervise(presence, touch.clone(), ctx);
        match hub {
            Some(hub) => self.claim(id, hub, touch, replies, ctx),
            None => replies.into_iter().for_each(|reply| drop(reply.send(Ok(())))),
        }
    }

    /// Gives a socket its presence: its place in the group comes with its first frame.
    pub(super) fn claim(
        &mut self,
        id: PresenceId,
        hub: HubRef,
        touch: Touch,
        replies: Vec<Reply<()>>,
        ctx: &mut Context<Self>,
    ) {
        let Some(local) = self.state.locals.get_mut(&id) else { return };
        local.hub = Some(hub.clone());
        let presence = local.presence.clone();
        if !local.touch.is(&touch) {
            self.supervise(presence.clone(), touch.clone(), ctx);
        }
        self.state.joined(self.rooms.now(), hub, presence, touch, replies);
    }

    /// Starts the child that looks after a presence; in the place of the one before, if there was one.
    pub(super) fn supervise(&mut self, presence: Arc<Presence>, touch: Touch, ctx: &mut Context<Self>) {
        let id = presence.id;
        let guard = DeathGuard::new(id, self.shared_address(ctx));
        let child = PresenceActor::start(touch.clone(), self.rooms.clone(), guard);
        let before = self.state.locals.remove(&id);
        let hub = before.and_then(|before| before.hub);
        self.state.locals.insert(id, Local { presence, child, touch, hub });
    }

    /// The address of this room that its children share. It is theirs alone, so that it keeps no room that they do not.
    pub(super) fn shared_address(&mut self, ctx: &Context<Self>) -> Rc<Addr<Self>> {
        self.address.upgrade().unwrap_or_else(|| {
            let address = Rc::new(ctx.address());
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

    /// Has the store note that a presence of ours is ours.
    pub(super) fn make_own(&mut self, mut presence: Arc<Presence>, ctx: &mut Context<Self>) {
        // An update is under way, which may not find it there.
        for one in self.state.updating.get(&presence.id).into_iter().flatten() {
            presence = Arc::new(presence.changed(one.user.clone(), one.meta.clone()));
        }
        let session = self.state.sessions.session(presence.id);
        self.state.sessions.claim_again(presence.id, presence.channel.clone());
        self.rooms.writer().restore(&self.name, &ctx.address().recipient(), presence, session);
    }

    /// Sees to it that the presences of this node are the same here and in the database, once both are known.
    pub(super) fn look_after_all(&mut self, ctx: &mut Context<Self>) {
        let roster = self.state.replica.roster();
        let lost = self.state.locals.iter().filter(|(id, _)| roster.get(**id).is_none());
        let lost: Vec<_> = lost.map(|(_, local)| local.presence.clone()).collect();
        lost.into_iter().for_each(|presence| self.bring_back(presence, ctx));
        self.adopt(ctx);
    }

    /// Presences of this node that no socket has claimed. If none does in time, they go stale.
    pub(super) fn adopt(&mut self, ctx: &mut Context<Self>) {
        let Some(node) = self.rooms.node() else { return };
        let orphans = self.state.replica.roster().iter().filter(|one| one.node == node && !one.held);
        let orphans: Vec<_> = orphans.cloned().collect();
        for presence in orphans {
            let id = presence.id;
            let known = self.state.locals.contains_key(&id)
                || self.state.joining.contains_key(&id)
                || self.state.leaving.contains_key(&id)
                || self.state.sessions.lost(id).is_some();
            if !known {
                // What is known of the channel is what its owner touches.
                let touch = self.rooms.channels().get(&presence.channel).map(|channel| channel.touch().clone());
                self.supervise(presence, touch.unwrap_or_else(|| Touch::new(self.rooms.now())), ctx);
            }
        }
    }
}
