//! How presences leave: one by one, or many together because they are stale or were removed on purpose.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::{AsyncContext, Context};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{
    CloseCode,
    clock::Tick,
    config::OnStale,
    delivery::{ANSWER_TIME, HubRef, Inquiry, Reply, SilenceResult, ToHub, UNANSWERED},
    model::{Close, Presence, deadline::Deadline, sessions::Lost},
    name::{ChannelName, PresenceId, UserId},
    node::{Priority, Submitted},
    room::{
        leaving::{Cause, Leavers, Leaving},
        message::PresenceKey,
        state::{Joining, Local, RoomState, TokenWaiter},
    },
    store::Write,
};

use super::{RoomActor, answer_all};

impl RoomActor {
    /// Removes the presences that were last seen longer ago than `max_age`, by the clock of this node.
    pub(super) fn prune_older(&mut self, max_age: Duration, reply: oneshot::Sender<usize>, ctx: &mut Context<Self>) {
        let now = self.node.now();
        let close = self.close_stale();
        if max_age.is_zero() {
            // All presences are removed, even those that were touched in this millisecond.
            self.remove_all(|_| true, close, reply, ctx);
            return;
        }
        let stale = self.state.locals.keys().copied().filter(|id| self.may_be_silent(*id, now, max_age)).collect();
        self.query_silence(stale, max_age, Some(reply), ctx);
    }

    /// Removes the presences whose deadline has passed, unless they were seen meanwhile.
    pub(super) fn prune_stale(&mut self, ctx: &mut Context<Self>) {
        let (now, max_age) = (self.node.now(), self.node.config.max_age());
        let ids = std::mem::take(&mut self.state.stale);
        let stale = ids.into_iter().filter(|id| self.may_be_silent(*id, now, max_age)).collect();
        self.query_silence(stale, max_age, None, ctx);
    }

    /// Whether its connection has to be queried. If its consumer has blocked its thread for good, what its client sent waits for ever, so
    /// that alone does not keep the presence.
    fn may_be_silent(&self, id: PresenceId, now: Tick, max_age: Duration) -> bool {
        self.is_stale(id, now, max_age) || self.is_overdue(id, now, max_age)
    }

    fn is_stale(&self, id: PresenceId, now: Tick, max_age: Duration) -> bool {
        let local = self.state.locals.get(&id);
        local.is_some_and(|local| local.touch.is_stale(&self.node.standstills, now, max_age))
    }

    /// Whether it was silent for so long that it is removed even if its connection has not answered, or if messages wait for its consumer.
    fn is_overdue(&self, id: PresenceId, now: Tick, max_age: Duration) -> bool {
        let limit = max_age.saturating_add(self.node.config.max_age().saturating_mul(UNANSWERED));
        let local = self.state.locals.get(&id);
        local.is_some_and(|local| local.touch.deadline(&self.node.standstills, now, limit) == Deadline::Stale)
    }

    /// Queries the connections of these presences whether they are silent, since what a client sent may not have been read yet.
    fn query_silence(
        &self,
        ids: Vec<PresenceId>,
        max_age: Duration,
        reply: Option<oneshot::Sender<usize>>,
        ctx: &mut Context<Self>,
    ) {
        if ids.is_empty() {
            if let Some(reply) = reply {
                let _ = reply.send(0);
            }
            return;
        }
        let inquiry = Inquiry::new(ctx.address().recipient(), max_age, reply);
        let mut by_hub: HashMap<usize, (HubRef, Vec<_>)> = HashMap::new();
        for id in ids {
            let Some(local) = self.state.locals.get(&id) else { continue };
            match local.hub.clone().or_else(|| self.hub_of(&local.presence)) {
                Some(hub) => {
                    let question = inquiry.ask(id);
                    let (_, all) = by_hub.entry(hub.id).or_insert_with(|| (hub, Vec::new()));
                    all.push((local.presence.channel.clone(), question));
                }
                // Without a socket there is nothing to be read.
                None => inquiry.is_silent(id),
            }
        }
        if by_hub.is_empty() {
            inquiry.end();
            return;
        }
        for (hub, questions) in by_hub.into_values() {
            hub.addr.do_send(ToHub::CheckSilence(questions));
        }
        let inquiry = Arc::downgrade(&inquiry);
        ctx.run_later(ANSWER_TIME, move |_, _| {
            if let Some(inquiry) = inquiry.upgrade() {
                inquiry.end();
            }
        });
    }

    /// Removes the presences whose connections have reported that they are silent, if they were not seen meanwhile. A presence whose
    /// connection has not answered is removed only after [`UNANSWERED`].
    pub(super) fn prune_silent(
        &mut self,
        SilenceResult { ids, unanswered, max_age, reply }: SilenceResult,
        ctx: &mut Context<Self>,
    ) {
        let now = self.node.now();
        let silent = ids.into_iter().filter(|id| self.is_stale(*id, now, max_age));
        let overdue = unanswered.into_iter().filter(|id| self.is_overdue(*id, now, max_age));
        let silent = silent.chain(overdue).collect();
        self.remove_together(silent, Vec::new(), self.close_stale(), reply, ctx);
    }

    fn close_stale(&self) -> Option<Close> {
        (self.node.config.on_stale() == OnStale::Close).then(|| Close::new(CloseCode::STALE, "stale"))
    }

    /// Presences leave that have no socket and cannot be resumed: those of jobs, and those that no socket has claimed.
    pub(super) fn leave_socketless(&mut self, ctx: &mut Context<Self>) {
        let state = &self.state;
        let alone =
            state.locals.iter().filter(|(id, local)| local.hub.is_none() && state.sessions.session(**id).is_none());
        let alone: Vec<_> = alone.map(|(_, local)| local.presence.clone()).collect();
        for presence in alone {
            self.notify_removed(vec![(presence.clone(), None)], None);
            self.leave(presence.id, presence.channel.clone(), None, ctx);
        }
    }

    /// Removes the presences of this node on purpose: those of a user, or all.
    pub(super) fn remove_ours(
        &mut self,
        user: Option<&UserId>,
        close: Option<Close>,
        reply: oneshot::Sender<usize>,
        ctx: &mut Context<Self>,
    ) {
        self.remove_all(|of| user.is_none() || of == user, close, reply, ctx);
    }

    /// Removes the presences of this node whose users are `concerned`, whether they are here, are joining, are held, or are about to be
    /// held.
    fn remove_all(
        &mut self,
        concerned: impl Fn(Option<&UserId>) -> bool,
        close: Option<Close>,
        reply: oneshot::Sender<usize>,
        ctx: &mut Context<Self>,
    ) {
        let state = &mut self.state;
        let here = state.locals.values().map(|local| (local.presence.id, state.user_of(&local.presence)));
        let joining = state.joining.iter().map(|(id, joining)| (*id, joining.presence().user.as_ref()));
        let lost = state.leaving.iter().filter_map(|(id, leaving)| match &leaving.cause {
            Cause::Lost(user) => Some((*id, user.as_ref())),
            _ => None,
        });
        let ids = here.chain(joining).chain(lost).filter(|(_, user)| concerned(*user)).map(|(id, _)| id).collect();
        // The database may not have these as held yet, and would not remove them.
        let held = state.sessions.take_lost(|presence| concerned(presence.user.as_ref()));
        self.refuse_token_waiters(|presence| concerned(presence.user.as_ref()), close.as_ref());
        self.remove_together(ids, held, close, Some(reply), ctx);
    }

    /// Refuses the joins that wait for the owner of their token and are `concerned`. Returns whether there were any.
    fn refuse_token_waiters(&mut self, concerned: impl Fn(&Presence) -> bool, close: Option<&Close>) -> bool {
        let refused = self.state.token_waiters.extract_if(.., |waiter| concerned(&waiter.entrant.presence));
        let (sockets, replies): (Vec<_>, Vec<_>) =
            refused.map(|TokenWaiter { entrant, reply }| ((entrant.presence, entrant.hub), reply)).unzip();
        let is_any = !replies.is_empty();
        self.notify_removed(sockets, close);
        self.left_while_joining(replies);
        is_any
    }

    /// Removes one presence of this node, whether it is here, is joining, is held, or is about to be held.
    pub(super) fn remove_one(
        &mut self,
        key: PresenceKey,
        close: Option<Close>,
        count: &AtomicUsize,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        // A socket that waits has no alias yet, so it is found by the id with which it joins.
        let is_meant = |presence: &Presence| key.matches(presence.id, &presence.channel);
        let key = match &key {
            PresenceKey::Id(id) => &PresenceKey::Id(self.state.sessions.canonical_id(*id)),
            PresenceKey::Channel(_) => &key,
        };
        let found = self.find(key);
        if self.refuse_token_waiters(is_meant, close.as_ref()) || found.is_some() {
            count.fetch_add(1, Ordering::AcqRel);
        }
        let Some((id, channel)) = found else {
            // If it is about to leave already, the caller waits for that.
            let mut leaving = self.state.leaving.iter_mut();
            match leaving.find(|(id, leaving)| key.matches(**id, &leaving.channel)) {
                Some((_, leaving)) => leaving.replies.push(reply),
                None => drop(reply.send(Ok(()))),
            }
            return;
        };
        debug!(room = %self.name, %channel, "removing a presence");
        self.notify_removed(self.state.socket_of(id).into_iter().collect(), close.as_ref());
        if let Some(leaving) = self.state.leaving.get_mut(&id)
            && matches!(leaving.cause, Cause::Lost(_))
        {
            // Otherwise it would be held if its join turns out to have resumed a presence.
            leaving.cause = Cause::Left;
        }
        self.leave_for_good(id, channel, Some(reply), ctx);
    }

    /// A presence of this node that is not about to leave, and its channel.
    fn find(&self, key: &PresenceKey) -> Option<(PresenceId, ChannelName)> {
        let RoomState { locals, joining, leaving, sessions, .. } = &self.state;
        let here = locals.iter().map(|(id, local)| (*id, &local.presence.channel));
        let joining = joining.iter().map(|(id, joining)| (*id, &joining.channel));
        let held = sessions.all_lost().map(|lost| (lost.presence.id, &lost.presence.channel));
        let lost = leaving.iter().filter(|(_, leaving)| matches!(leaving.cause, Cause::Lost(_)));
        let lost = lost.map(|(id, leaving)| (*id, &leaving.channel));
        let mut all = here.chain(joining).chain(held).chain(lost);
        all.find(|(id, channel)| key.matches(*id, channel)).map(|(id, channel)| (id, channel.clone()))
    }

    /// Removes presences of this node together, with one event, and replies with their number when the store has removed them. Pending
    /// joins are refused.
    fn remove_together(
        &mut self,
        ids: Vec<PresenceId>,
        held: Vec<Lost>,
        close: Option<Close>,
        reply: Option<oneshot::Sender<usize>>,
        ctx: &mut Context<Self>,
    ) {
        let count = ids.len() + held.len();
        if count == 0 {
            if let Some(reply) = reply {
                let _ = reply.send(0);
            }
            return;
        }
        debug!(room = %self.name, count, "removing presences");
        // A leave that cannot be written now is written later, so the number is exact unless the room fails.
        let all = Leavers::new(self.node.leave_together(&self.name), count, reply);
        // This precedes the refusal of the joins, after which their channels forget the room: their sockets have to be notified, too.
        self.notify_removed(ids.iter().filter_map(|id| self.state.socket_of(*id)).collect(), close.as_ref());
        let leaving: HashSet<_> = ids.iter().copied().collect();
        self.refuse_joiners(|id| leaving.contains(&id));
        let gone: Vec<_> = ids.into_iter().filter_map(|id| self.release(id)).collect();
        let held = held.into_iter().map(|Lost { presence, .. }| (presence.id, presence.channel.clone()));
        let leaves = gone.into_iter().chain(held).map(|(id, channel)| (id, Leaving::removed(channel, &all)));
        self.submit_leaves(leaves.collect(), ctx);
    }

    /// Stops watching a presence that is here, is joining, or was lost while it joined. Returns its channel.
    fn release(&mut self, id: PresenceId) -> Option<(PresenceId, ChannelName)> {
        if let Some(Joining { channel, replies, .. }) = self.state.joining.remove(&id) {
            self.left_while_joining(replies);
            return Some((id, channel));
        }
        if let Some(Local { presence, .. }) = self.stop_watching(id) {
            return Some((id, presence.channel.clone()));
        }
        self.state.leaving.get(&id).map(|leaving| (id, leaving.channel.clone()))
    }

    /// Removes presences that leave from their hubs, and notifies their sockets, by one message to each hub.
    pub(super) fn notify_removed(&mut self, left: Vec<(Arc<Presence>, Option<HubRef>)>, close: Option<&Close>) {
        let mut by_hub: HashMap<usize, (HubRef, Vec<ChannelName>, Vec<ChannelName>)> = HashMap::new();
        for (presence, hub) in left {
            // A socket that has left by itself since, and may have joined again, need not be notified.
            let alias = self.state.sessions.alias_of(presence.id);
            let was_in = self.channels.forget(&presence.channel, &self.name, alias);
            // Otherwise a client could dodge the close by leaving and joining again.
            let is_back = || self.channels.is_in(&presence.channel, &self.name);
            let is_closed = was_in || close.is_some_and(Close::is_for_client) && is_back();
            if let Some(close) = close.filter(|_| is_closed) {
                self.channels.note_close(&presence.channel, close);
            }
            self.state.sessions.forget(presence.id);
            let was_member = self.state.take_off_hub(&presence);
            if let (Some(hub), true) = (hub, is_closed || was_member) {
                let (_, channels, members) = by_hub.entry(hub.id).or_insert((hub, Vec::new(), Vec::new()));
                channels.extend(is_closed.then(|| presence.channel.clone()));
                members.extend(was_member.then(|| presence.channel.clone()));
            }
        }
        for (hub, channels, members) in by_hub.into_values() {
            hub.addr.do_send(ToHub::Removed { room: self.name.clone(), channels, members, close: close.cloned() });
        }
    }

    /// Stops watching a presence, removes it from its hub, and refuses its join if it still waits for its first frame.
    pub(super) fn drop_local(&mut self, id: PresenceId) -> Option<Local> {
        if self.state.locals.contains_key(&id) {
            self.refuse_joiners(|joiner| joiner == id);
        }
        self.stop_watching(id)
    }

    /// Refuses the joins of those that leave before their first frame was sent.
    fn refuse_joiners(&mut self, leaves: impl Fn(PresenceId) -> bool) {
        for joiner in self.state.notices.forget(|joiner| leaves(joiner.presence.id)) {
            self.left_while_joining(joiner.replies);
        }
    }

    /// As [`drop_local`](Self::drop_local), for a presence whose join was refused already.
    fn stop_watching(&mut self, id: PresenceId) -> Option<Local> {
        self.state.stale.remove(&id);
        let local = self.state.locals.remove(&id)?;
        if let Some(hub) = &local.hub {
            self.state.leave_hub(hub);
            let channels = vec![local.presence.channel.clone()];
            hub.addr.do_send(ToHub::Leave { room: self.name.clone(), channels });
        }
        Some(local)
    }

    /// Submits the leaves of presences to the writer. They are announced when they are committed.
    pub(super) fn submit_leaves(&mut self, leaves: Vec<(PresenceId, Leaving)>, ctx: &mut Context<Self>) {
        let write = |(id, leaving): &(PresenceId, Leaving)| {
            let priority = if matches!(leaving.cause, Cause::Left) { Priority::Requested } else { Priority::Pruned };
            (Write::Leave { id: *id, channel: leaving.channel.clone() }, priority)
        };
        let writes = leaves.iter().map(write).collect();
        let submitted = self.node.writer.submit_leaves(&self.name, &ctx.address().recipient(), writes);
        for ((id, mut leaving), submitted) in leaves.into_iter().zip(submitted) {
            let updates = self.state.updating.remove(&id).into_iter().flatten();
            answer_all(updates.filter_map(|one| one.reply), || Err(self.not_in_room()));
            if let Some(before) = self.state.leaving.remove(&id) {
                leaving.replies.extend(before.replies);
                // The presences that are removed together with it wait for it, even if something else removes it, too.
                if matches!(before.cause, Cause::Removed(_)) {
                    leaving.cause = before.cause;
                }
            }
            match submitted {
                Submitted::Queued(after) => drop(self.state.leaving.insert(id, Leaving { after, ..leaving })),
                Submitted::CancelledOut => answer_all(leaving.replies, || Ok(())),
            }
        }
    }
}
