//! What sockets ask of a room, and how its presences go.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::{AsyncContext, Context};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{
    Error,
    config::OnStale,
    model::{Close, Meta, Presence, sessions::Lost},
    name::{ChannelName, PresenceId, UserId},
    room::{
        close_code,
        message::{HubRef, Reply, ToHub},
        state::{Cause, Joining, Leaving, Local, Updating},
        touch::Touch,
    },
    session::Session,
    store::{
        Write,
        writer::{Full, Haste, Submitted},
    },
};

use super::{RoomActor, answer_now_if};

impl RoomActor {
    pub(super) fn join(
        &mut self,
        presence: Arc<Presence>,
        session: Option<Session>,
        hub: Option<HubRef>,
        touch: Touch,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        let id = self.state.sessions.resolve(presence.id);
        if let Some(local) = self.state.locals.get(&id) {
            touch.mark(self.rooms.now());
            match hub {
                Some(hub) if local.hub.is_none() => self.claim(id, hub, touch, vec![reply], ctx),
                _ if local.presence.user == presence.user => drop(reply.send(Ok(()))),
                _ => {
                    // Its client's token is of the user it was.
                    self.state.sessions.drop_token(id);
                    let (channel, user) = (presence.channel.clone(), Some(presence.user.clone()));
                    self.submit_update(id, channel, (user, None), reply, ctx);
                }
            }
            return;
        }
        let relaxed = self.is_relaxed();
        if let Some(joining) = self.state.joining.get_mut(&id) {
            if joining.presence.user == presence.user {
                joining.replies.extend(answer_now_if(relaxed, reply));
            } else {
                // Its client's token is of the user it was.
                self.state.sessions.drop_token(id);
                let user = Some(presence.user.clone());
                joining.presence = Arc::new(joining.presence.changed(user.clone(), None));
                self.submit_update(id, presence.channel.clone(), (user, None), reply, ctx);
            }
            return;
        }
        if let Some(session) = session {
            self.join_with_token(presence, session, hub, touch, reply, ctx);
            return;
        }
        let channel = presence.channel.clone();
        // It is there already if it asks again after a fault.
        let said = self.state.replica.roster().get(id).cloned();
        // A room that failed may not know of it until it has read who is there. What led there was told with its commit, and
        // must not be told twice.
        let is_reading = self.has_failed && (self.loading || !self.state.known);
        let said = said.or_else(|| is_reading.then(|| presence.clone()));
        let (writer, room, write) = (self.rooms.writer(), ctx.address().recipient(), Write::Join(presence.clone()));
        let submitted = if self.has_failed || said.is_some() {
            writer.submit_again(&self.name, &room, write)
        } else {
            writer.submit(&self.name, &room, write)
        };
        match submitted {
            Ok(_) => {
                let replies = answer_now_if(relaxed, reply).into_iter().collect();
                self.state.joining.insert(id, Joining { presence, channel, hub, touch, replies, said });
            }
            Err(Full { limit }) => drop(reply.send(Err(Error::Overloaded { limit }))),
        }
    }

    pub(super) fn leave(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        reply: Option<Reply<()>>,
        ctx: &mut Context<Self>,
    ) {
        let relaxed = self.is_relaxed();
        let reply = reply.and_then(|reply| answer_now_if(relaxed, reply));
        if self.is_anothers(id, &channel) {
            // It was resumed: what its former socket says late is nothing.
            reply.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
            return;
        }
        self.forget_behind(id);
        // One may have joined again under the same id, if nobody waited for its first join any more.
        let joined_again = self.state.locals.contains_key(&id) || self.state.joining.contains_key(&id);
        if let Some(leaving) = self.state.leaving.get_mut(&id)
            && !joined_again
        {
            leaving.replies.extend(reply);
            return;
        }
        let (mut said, mut forgotten) = (None, self.has_failed);
        if let Some(joining) = self.state.joining.remove(&id) {
            self.left_while_joining(joining.replies);
            (said, forgotten) = (joining.said, false);
        }
        if let Some(local) = self.drop_local(id) {
            (said, forgotten) = ((!local.unsaid).then_some(local.presence), false);
        }
        self.state.sessions.forget(id);
        let replies = reply.into_iter().collect();
        self.take_out(vec![(id, Leaving { channel, cause: Cause::Left, after: 0, replies, said, forgotten })], ctx);
    }

    pub(super) fn update(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        meta: Meta,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        match self.state.locals.get(&id) {
            _ if self.is_anothers(id, &channel) => {
                let _ = reply.send(Err(Error::NotInRoom { room: self.name.clone() }));
            }
            Some(local) if local.presence.meta == meta && !self.state.updating.contains_key(&id) => {
                let _ = reply.send(Ok(()));
            }
            None if !self.state.joining.contains_key(&id) => {
                let _ = reply.send(Err(Error::NotInRoom { room: self.name.clone() }));
            }
            _ => self.submit_update(id, channel, (None, Some(meta)), reply, ctx),
        }
    }

    fn submit_update(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        (user, meta): (Option<Option<UserId>>, Option<Meta>),
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        let write = Write::Update { id, channel: channel.clone(), user: user.clone(), meta: meta.clone() };
        match self.rooms.writer().submit(&self.name, &ctx.address().recipient(), write) {
            Ok(Submitted::Waits(after)) => {
                let reply = answer_now_if(self.is_relaxed(), reply);
                self.state.updates(id, Updating { channel, after, user, meta, reply });
            }
            Ok(Submitted::CancelledOut) => drop(reply.send(Ok(()))),
            Err(Full { limit }) => drop(reply.send(Err(Error::Overloaded { limit }))),
        }
    }

    pub(super) fn left_while_joining(&self, replies: Vec<Reply<()>>) {
        for reply in replies {
            let _ = reply.send(Err(Error::LeftWhileJoining { room: self.name.clone() }));
        }
    }

    pub(super) fn prune_older(&mut self, max_age: Duration, reply: oneshot::Sender<usize>, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        // An age of zero is everybody's, also in the very millisecond of the last touch.
        let everybody = max_age.is_zero();
        let stale = self.state.locals.iter().filter(|(_, local)| everybody || local.touch.is_stale(now, max_age));
        let ids: Vec<_> = stale.map(|(id, _)| *id).collect();
        let close = self.close_stale();
        self.remove_together(ids, Vec::new(), close, Some(reply), ctx);
    }

    /// Those whose deadline passed, if they were not seen in the meantime.
    pub(super) fn prune_stale(&mut self, ctx: &mut Context<Self>) {
        let (now, max_age) = (self.rooms.now(), self.rooms.config().max_age());
        let ids = std::mem::take(&mut self.state.stale);
        let stale = |id: &PresenceId| self.state.locals.get(id).is_some_and(|local| local.touch.is_stale(now, max_age));
        let stale = ids.into_iter().filter(stale).collect();
        let close = self.close_stale();
        self.remove_together(stale, Vec::new(), close, None, ctx);
    }

    fn close_stale(&self) -> Option<Close> {
        (self.rooms.config().on_stale() == OnStale::Close).then(|| Close::new(close_code::STALE, "stale"))
    }

    /// Removes the presences of this node on purpose: those of a user, or all, who is held among them.
    pub(super) fn remove_ours(
        &mut self,
        user: Option<&UserId>,
        close: Option<Close>,
        reply: oneshot::Sender<usize>,
        ctx: &mut Context<Self>,
    ) {
        let concerned = |presence: &Presence| user.is_none() || presence.user.as_ref() == user;
        let here = self.state.locals.iter().filter(|(_, local)| concerned(&local.presence));
        let here = here.map(|(id, _)| *id).collect();
        // The database may not know yet that these are held, and would spare them.
        let lost = self.state.sessions.take_lost(concerned);
        self.remove_together(here, lost, close, Some(reply), ctx);
    }

    /// Removes presences of this node together, as one event, and says how many when the store has.
    fn remove_together(
        &mut self,
        ids: Vec<PresenceId>,
        lost: Vec<Lost>,
        close: Option<Close>,
        reply: Option<oneshot::Sender<usize>>,
        ctx: &mut Context<Self>,
    ) {
        let count = ids.len() + lost.len();
        let mut committed = Vec::with_capacity(count);
        if count > 0 {
            debug!(room = %self.name, count, "removing presences");
            let together = self.rooms.leave_together(&self.name);
            let left: Vec<Local> = ids.into_iter().filter_map(|id| self.drop_local(id)).collect();
            let here = left.iter().map(|local| (local.presence.clone(), local.unsaid));
            let gone = here.chain(lost.into_iter().map(|lost| (lost.presence, lost.unsaid)));
            let leaves = gone.map(|(presence, unsaid)| {
                let (reply, done) = oneshot::channel();
                committed.push(done);
                Leaving::removed(presence, unsaid, together.clone(), vec![reply])
            });
            let leaves = leaves.collect();
            self.take_out(leaves, ctx);
            self.tell_removed(left, close.as_ref());
        }
        if let Some(reply) = reply {
            // Not a task of this actor, which may stop with the last of them.
            actix_rt::spawn(async move {
                // What a leave cannot do now, it does later; so only a room that fails keeps this from being exact.
                futures_util::future::join_all(committed).await;
                let _ = reply.send(count);
            });
        }
    }

    /// Tells sockets that they are not in the room any more.
    pub(super) fn tell_removed(&mut self, left: Vec<Local>, close: Option<&Close>) {
        let mut by_hub: HashMap<usize, (HubRef, Vec<ChannelName>)> = HashMap::new();
        for Local { presence, hub, .. } in left {
            // One that has left by itself in the meantime, and may have joined again, need not hear of it.
            let called = self.state.sessions.called(presence.id);
            let was_in = self.rooms.channels().forget(&presence.channel, &self.name, called);
            self.state.sessions.forget(presence.id);
            if let (Some(hub), true) = (hub, was_in) {
                by_hub.entry(hub.id).or_insert((hub, Vec::new())).1.push(presence.channel.clone());
            }
        }
        for (hub, channels) in by_hub.into_values() {
            hub.addr.do_send(ToHub::Removed { room: self.name.clone(), channels, close: close.cloned() });
        }
    }

    /// Ends what this node does for the presence: its child, its place in the group, its wait for a first frame.
    pub(super) fn drop_local(&mut self, id: PresenceId) -> Option<Local> {
        self.state.stale.remove(&id);
        let local = self.state.locals.remove(&id)?;
        for joiner in self.state.notices.forget(|joiner| joiner.presence.id == id) {
            self.left_while_joining(joiner.replies);
        }
        if let Some(hub) = &local.hub {
            self.state.leave_hub(hub);
            let channels = vec![local.presence.channel.clone()];
            hub.addr.do_send(ToHub::Leave { room: self.name.clone(), channels });
        }
        Some(local)
    }

    /// Has the store remove presences; that they left is announced when it has.
    pub(super) fn take_out(&mut self, leaves: Vec<(PresenceId, Leaving)>, ctx: &mut Context<Self>) {
        let write = |(id, leaving): &(PresenceId, Leaving)| {
            let haste = if matches!(leaving.cause, Cause::Left) { Haste::Asked } else { Haste::Pruned };
            (Write::Leave { id: *id, channel: leaving.channel.clone() }, haste)
        };
        let writes = leaves.iter().map(write).collect();
        let submitted = self.rooms.writer().submit_leaves(&self.name, &ctx.address().recipient(), writes);
        for ((id, mut leaving), submitted) in leaves.into_iter().zip(submitted) {
            for reply in self.state.updating.remove(&id).into_iter().flatten().filter_map(|one| one.reply) {
                let _ = reply.send(Err(Error::NotInRoom { room: self.name.clone() }));
            }
            if let Some(before) = self.state.leaving.remove(&id) {
                leaving.replies.extend(before.replies);
                leaving.said = leaving.said.or(before.said);
            }
            match submitted {
                Submitted::Waits(after) => drop(self.state.leaving.insert(id, Leaving { after, ..leaving })),
                Submitted::CancelledOut => leaving.replies.into_iter().for_each(|reply| drop(reply.send(Ok(())))),
            }
        }
    }
}
