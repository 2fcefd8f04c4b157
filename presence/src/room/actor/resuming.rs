//! Presences that outlive their sockets: how they are held, and how a newer socket takes them over.
//!
//! A presence of this node is taken over at once, without the database: it is ours, and the database follows. One that is not
//! known here may be another node's, or of a former life of this one: the database finds it by its token.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context};
use tracing::{debug, warn};

use crate::{
    CloseCode,
    clock::Tick,
    delivery::message::Reply,
    model::{Close, Delta, Presence, sessions::Lost},
    name::{ChannelName, PresenceId},
    node::writer::Tried,
    room::{
        leaving::{Cause, Leavers, Leaving},
        message::Entrant,
        state::{Joining, TokenWaiter},
    },
    session::Session,
    store::{Resumed, RoomCommit, Write},
};

use super::{RoomActor, answer_now_if, sockets};

fn taken_over() -> Close {
    Close::new(CloseCode::SUPERSEDED, "taken over")
}

impl RoomActor {
    /// Whether the presence is here, but in the hands of another socket than this one.
    pub(super) fn is_anothers(&self, id: PresenceId, channel: &ChannelName) -> bool {
        let here = self.state.locals.get(&id).map(|local| &local.presence.channel);
        let joining = self.state.joining.get(&id).map(|joining| &joining.channel);
        let lost = self.state.sessions.lost(id).map(|lost| &lost.presence.channel);
        here.or(joining).or(lost).is_some_and(|other| other != channel)
    }

    /// A socket comes with a resume token.
    pub(super) fn join_with_token(
        &mut self,
        entrant: Entrant,
        session: Session,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        let owner = self.state.sessions.owner(&session.hash);
        if owner.is_some_and(|id| self.state.joining.contains_key(&id)) {
            let entrant = Entrant { session: Some(session), ..entrant };
            self.state.token_waiters.push(TokenWaiter { entrant, reply });
            return;
        }
        let known = owner.filter(|id| self.state.locals.contains_key(id) || self.state.sessions.lost(*id).is_some());
        if let Some(id) = known {
            self.resume_here(id, entrant, session, reply, ctx);
            return;
        }
        let (id, channel) = (entrant.presence.id, entrant.presence.channel.clone());
        let resume = sockets::join(entrant.presence.clone(), Some(session), entrant.limit);
        match self.node.writer.submit(&self.name, &ctx.address().recipient(), resume, Tried::No) {
            Ok(_) => {
                self.state.sessions.claim(id, id, session, channel);
                self.await_commit(id, entrant, reply);
            }
            Err(full) => drop(reply.send(Err(self.overloaded(full)))),
        }
    }

    /// A socket that waited to take over from one who was joining is gone.
    pub(super) fn forget_token_waiter(&mut self, id: PresenceId) {
        let gone = self.state.token_waiters.extract_if(.., |waiter| waiter.entrant.presence.id == id);
        let replies = gone.map(|waiter| waiter.reply).collect();
        self.left_while_joining(replies);
    }

    /// Joins that came with the token of one who was joining.
    pub(super) fn resume_token_waiters(&mut self, ctx: &mut Context<Self>) {
        if self.phase.is_recovering() {
            return;
        }
        // Those that still have to wait go to the end again, in their order.
        for TokenWaiter { entrant, reply } in std::mem::take(&mut self.state.token_waiters) {
            self.join_if_read(entrant, reply, ctx);
        }
    }

    /// A socket takes over a presence of this node: a lost one, or one whose socket is closed for it.
    fn resume_here(
        &mut self,
        id: PresenceId,
        entrant: Entrant,
        session: Session,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        self.write_what_waits(id, ctx);
        // Who still waits for its first frame had joined, and is told so before it is closed.
        for joiner in self.state.notices.forget(|joiner| joiner.presence.id == id) {
            joiner.replies.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
        }
        let was = if let Some(local) = self.state.locals.get(&id) {
            let (was, hub) = (local.presence.clone(), local.hub.clone());
            self.tell_removed(vec![(was.clone(), hub)], Some(&taken_over()));
            self.drop_local(id);
            was
        } else if let Some(lost) = self.state.sessions.end_hold(id) {
            lost.presence
        } else {
            return;
        };
        let socket = &entrant.presence;
        debug!(room = %self.name, channel = %socket.channel, was = %was.channel, "a presence is resumed");
        let node = self.node.id().unwrap_or(was.node);
        let now = Arc::new(Presence { channel: socket.channel.clone(), node, held: false, ..Presence::clone(&was) });
        self.state.sessions.claim(id, socket.id, session, now.channel.clone());
        self.channels.note_resumed(&socket.channel, &self.name, socket.id);
        self.hand_over(&now, ctx);
        self.supervise(now.clone(), entrant.touch.clone(), ctx);
        let resume = Write::Resume { presence: now, session };
        self.node.writer.submit_always(&self.name, &ctx.address().recipient(), resume, Tried::Yes);
        let replies = answer_now_if(self.is_relaxed(), reply).into_iter().collect();
        self.claim(id, entrant, replies, ctx);
    }

    /// An update of its former socket may wait until that socket may have one written. When the socket does not have the presence any
    /// more, nobody would take it from it.
    fn write_what_waits(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get(&id) else { return };
        let channel = local.presence.channel.clone();
        let waits = self.channels.take_update(&channel, &self.name, self.state.sessions.alias_of(id));
        if let Some(meta) = waits {
            self.update(id, channel, meta, None, ctx);
        }
    }

    /// Notes who has a presence now, and whether it is held.
    fn hand_over(&mut self, to: &Presence, ctx: &mut Context<Self>) {
        if !self.state.replica.hand_over(to) && self.phase.is_known() {
            // It is in the database, so what we know of the room is old.
            self.load(ctx);
        }
    }

    /// A socket is lost.
    pub(super) fn lose(&mut self, id: PresenceId, channel: ChannelName, ctx: &mut Context<Self>) {
        if self.is_anothers(id, &channel) {
            return;
        }
        let grace = self.state.sessions.session(id).map(|session| session.grace).filter(|grace| !grace.is_zero());
        let Some(grace) = grace else {
            self.leave(id, channel, None, ctx);
            return;
        };
        if let Some(local) = self.drop_local(id) {
            let presence = local.presence;
            let held_until = self.state.sessions.held_until(id);
            let until = held_until.unwrap_or_else(|| self.node.now().after(grace));
            if held_until.is_none() {
                let hold = Write::Hold { id, channel, grace };
                self.node.writer.submit_always(&self.name, &ctx.address().recipient(), hold, Tried::No);
            }
            let held = Arc::new(Presence { held: true, ..Presence::clone(&presence) });
            self.state.replica.hand_over(&held);
            self.state.sessions.lose(held, until, self.stood());
        } else if let Some(joining) = self.state.joining.remove(&id) {
            let cause = Cause::Lost(joining.presence().user.clone());
            self.left_while_joining(joining.replies);
            self.state.sessions.forget(id);
            let leaving = Leaving { channel, cause, after: 0, replies: Vec::new() };
            self.take_out(vec![(id, leaving)], ctx);
        }
    }

    /// Keeps a presence whose socket is gone for its grace.
    pub(super) fn hold(&mut self, presence: Arc<Presence>, grace: Duration, ctx: &mut Context<Self>) {
        let (id, channel) = (presence.id, presence.channel.clone());
        let held = Arc::new(Presence { held: true, ..Presence::clone(&presence) });
        self.state.replica.hand_over(&held);
        self.state.sessions.lose(held, self.node.now().after(grace), self.stood());
        let hold = Write::Hold { id, channel, grace };
        self.node.writer.submit_always(&self.name, &ctx.address().recipient(), hold, Tried::No);
    }

    /// The node is about to end: the database holds those that can be resumed, so that they are held if it ends at once.
    pub(super) fn hold_all(&mut self, ctx: &mut Context<Self>) {
        let now = self.node.now();
        for (id, local) in &self.state.locals {
            let grace = self.state.sessions.session(*id).map(|session| session.grace);
            let Some(grace) = grace.filter(|grace| !grace.is_zero()) else { continue };
            let hold = Write::Hold { id: *id, channel: local.presence.channel.clone(), grace };
            self.node.writer.submit_always(&self.name, &ctx.address().recipient(), hold, Tried::No);
            self.state.sessions.hold_until(*id, now.after(grace));
        }
    }

    /// For how long this node stood still in all.
    fn stood(&self) -> Duration {
        self.node.listening.stood(self.node.now())
    }

    /// Ends the graces that are over. Nobody can come back to a node that is about to end, so none ends there.
    pub(super) fn end_graces(&mut self, now: Tick, ctx: &mut Context<Self>) -> Option<Tick> {
        if self.node.is_shutting_down() {
            return None;
        }
        if self.state.sessions.next_expiry()? <= now {
            self.leave_overdue(now, ctx);
        }
        self.state.sessions.next_expiry()
    }

    /// Those who did not return in time leave, together. Nobody could return while the node stood still, so such time extends a
    /// grace, also in the database.
    fn leave_overdue(&mut self, now: Tick, ctx: &mut Context<Self>) {
        for (presence, grace) in self.state.sessions.extend_overdue(now, self.node.listening.stood(now)) {
            let hold = Write::Hold { id: presence.id, channel: presence.channel.clone(), grace };
            self.node.writer.submit_always(&self.name, &ctx.address().recipient(), hold, Tried::No);
        }
        let over = self.state.sessions.take_overdue(now);
        if over.is_empty() {
            return;
        }
        debug!(room = %self.name, count = over.len(), "lost presences did not return");
        let all = Leavers::new(self.node.leave_together(&self.name), over.len(), None);
        let leave = |Lost { presence, .. }: Lost| (presence.id, Leaving::removed(presence.channel.clone(), &all));
        let leaves = over.into_iter().map(leave);
        self.take_out(leaves.collect(), ctx);
    }

    /// What the store says of those who came with a token, or came back.
    pub(super) fn resumed(&mut self, writes: &[Write], commit: &RoomCommit, ctx: &mut Context<Self>) {
        for write in writes {
            let (Write::Join(asked)
            | Write::Restore { presence: asked, .. }
            | Write::Resume { presence: asked, .. }
            | Write::JoinWithin { presence: asked, .. }) = write
            else {
                continue;
            };
            self.state.sessions.claimed(asked.id, &asked.channel, self.readings.last());
            let Some(taken) = commit.resumed.iter().find(|taken| taken.requested == asked.id) else {
                self.is_of_this_life(asked);
                continue;
            };
            if taken.presence.channel == asked.channel {
                if matches!(write, Write::Resume { .. } | Write::JoinWithin { .. }) && taken.presence.id != asked.id {
                    self.channels.note_resumed(&asked.channel, &self.name, asked.id);
                }
                self.took(asked, taken, write.session().copied(), ctx);
            } else if self.state.locals.get(&asked.id).is_some_and(|local| local.presence.channel == asked.channel) {
                self.superseded(asked.id);
                self.hand_over(&taken.presence, ctx);
            }
        }
    }

    /// The database has a presence of ours as that of the life in which it was written.
    fn is_of_this_life(&mut self, written: &Presence) {
        if let Some(local) = self.state.locals.get_mut(&written.id)
            && local.presence.channel == written.channel
            && local.presence.node != written.node
        {
            local.presence = local.presence.with_owner_of(written);
            self.state.replica.hand_over(written);
        }
    }

    /// A socket of ours has the presence that it came for.
    fn took(&mut self, asked: &Presence, taken: &Resumed, session: Option<Session>, ctx: &mut Context<Self>) {
        let Resumed { presence, moved, .. } = taken;
        let (was, id) = (asked.id, presence.id);
        if let Some(leaving) = self.state.leaving.get(&was)
            && leaving.channel == asked.channel
            && was != id
        {
            self.left_before_it_took(was, presence, session, ctx);
        } else if was != id {
            let joining = self.state.joining.remove(&was).or_else(|| {
                // What it took over here is gone, and it has another that it left elsewhere.
                let local = self.state.locals.get(&was).filter(|local| local.presence.channel == asked.channel)?;
                let (hub, touch, presence) = (local.hub.clone(), local.touch.clone(), local.presence.clone());
                self.drop_local(was);
                Some(Joining::new(Entrant { presence, session: None, limit: None, hub, touch }, Vec::new()))
            });
            if let Some(mut joining) = joining.filter(|joining| joining.channel == asked.channel) {
                self.state.sessions.became(was, id);
                joining.entrant.presence = presence.clone();
                self.state.joining.insert(id, joining);
            }
        }
        let ours = self.state.locals.get(&id).is_some_and(|local| local.presence.channel == asked.channel)
            || self.state.joining.get(&id).is_some_and(|joining| joining.channel == asked.channel);
        if ours && !moved {
            if let Some(local) = self.state.locals.get_mut(&id).filter(|local| local.presence.channel == asked.channel)
            {
                local.presence = presence.clone();
            }
            self.hand_over(presence, ctx);
            self.activate(id, ctx);
        }
    }

    /// A socket was lost, or left, before it was known whose presence it has.
    fn left_before_it_took(
        &mut self,
        was: PresenceId,
        presence: &Arc<Presence>,
        session: Option<Session>,
        ctx: &mut Context<Self>,
    ) {
        let Some(leaving) = self.state.leaving.remove(&was) else { return };
        let id = presence.id;
        match session {
            Some(session) if matches!(leaving.cause, Cause::Lost(_)) => {
                let channel = leaving.channel;
                self.state.sessions.claim(id, id, session, channel.clone());
                self.state.sessions.claimed(id, &channel, self.readings.last());
                self.hold(presence.clone(), session.grace, ctx);
            }
            _ => self.take_out(vec![(id, leaving)], ctx),
        }
    }

    /// Whether a live presence that is not in the database any more was resumed on another node and left there. Nobody else
    /// removes one with a token: those of a node that is taken for dead are held, and the node begins another life.
    pub(super) fn was_resumed_and_left(&self, presence: &Presence) -> bool {
        self.state.sessions.session(presence.id).is_some()
            && self.state.sessions.is_confirmed_by(presence.id, u64::MAX)
            && self.node.id() == Some(presence.node)
    }

    /// A newer socket, on another node, has the presence of one of ours.
    pub(super) fn superseded(&mut self, id: PresenceId) {
        let Some(local) = self.state.locals.get(&id) else { return };
        let (presence, hub) = (local.presence.clone(), local.hub.clone());
        warn!(room = %self.name, channel = %presence.channel, "a presence was resumed on another node; its socket here is closed");
        self.tell_removed(vec![(presence, hub)], Some(&taken_over()));
        self.drop_local(id);
    }

    /// The database was read: who of ours was resumed on another node, and who only seems so, since the database is behind.
    pub(super) fn compare_owners(&mut self, reading: u64) {
        for id in self.state.sessions.ids() {
            let Some(now) = self.state.replica.roster().get(id).cloned() else { continue };
            if let Some(joining) = self.state.joining.get(&id).filter(|joining| joining.channel != now.channel) {
                self.compare_owner_of_joining(joining.presence().clone(), reading);
                continue;
            }
            let ours = self.state.locals.get(&id).map(|local| local.presence.clone());
            let lost = self.state.sessions.lost(id).map(|lost| lost.presence.clone());
            let Some(ours) = ours.or(lost) else { continue };
            if ours.channel != now.channel && self.state.sessions.is_confirmed_by(id, reading) {
                self.superseded(id);
                self.state.sessions.forget(id);
            } else if (&ours.channel, ours.held) != (&now.channel, now.held) {
                self.state.replica.hand_over(&ours);
            }
        }
    }

    /// A socket of ours joins with a token, and the reading shows its presence as another socket's. That a presence is resumed has
    /// no version, so only the order of reading and commit tells which of them is right.
    fn compare_owner_of_joining(&mut self, ours: Arc<Presence>, reading: u64) {
        let id = ours.id;
        if !self.state.sessions.is_confirmed_by(id, reading) {
            // It was resumed while the room was read: no later reading would be asked for.
            self.state.replica.hand_over(&ours);
        } else if let Some(Joining { entrant, replies, .. }) = self.state.joining.remove(&id) {
            self.tell_removed(vec![(ours, entrant.hub)], Some(&taken_over()));
            self.left_while_joining(replies);
            self.state.sessions.forget(id);
        }
    }

    /// Whether one that was to leave is here all the same: it was resumed on another node, which is not in the roster yet.
    pub(super) fn stayed(&self, writes: &[Write], done: &Delta) -> bool {
        writes.iter().any(|write| {
            let Write::Leave { id, channel } = write else { return false };
            let here = self.state.replica.roster().get(*id).is_some_and(|presence| presence.channel == *channel);
            here && done.left.iter().all(|left| left.id != *id)
        })
    }
}
