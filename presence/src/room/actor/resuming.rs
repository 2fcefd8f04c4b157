//! How a newer socket resumes the presence of another socket, by its token.
//!
//! A presence of this node is resumed at once, without the database, which is written afterwards. A presence that is not known here may
//! belong to another node, or to a former incarnation of this one. The database finds it by its token.

use std::{collections::hash_map::Entry, sync::Arc};

use actix::{AsyncContext, Context};
use tracing::{debug, warn};

use crate::{
    CloseCode,
    delivery::Reply,
    model::{Close, Delta, Presence},
    name::{ChannelName, PresenceId},
    node::Tried,
    room::{
        leaving::Cause,
        message::Entrant,
        state::{Joining, TokenWaiter, Updating},
    },
    session::Session,
    store::{Resumed, RoomCommit, Write},
};

use super::{RoomActor, answer_all, answer_now_if, sockets};

/// What shows that a presence of this node is not in the database, or belongs to another socket there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence {
    /// The number of the reading. It shows the claims that were written before it began.
    pub(super) reading: u64,
    /// Whether the database has lost changes. Then it may show what was before a join or a resume.
    pub(super) went_back: bool,
}

impl Evidence {
    /// A change of the room. It is later than all claims that were answered.
    pub(super) const CHANGE: Self = Self { reading: u64::MAX, went_back: false };
}

/// How the socket is closed whose presence a newer socket has resumed.
fn superseded_close() -> Close {
    Close::new(CloseCode::SUPERSEDED, "taken over")
}

impl RoomActor {
    /// Whether the presence is here, and belongs to another socket than that of `channel`.
    pub(super) fn has_other_socket(&self, id: PresenceId, channel: &ChannelName) -> bool {
        let here = self.state.locals.get(&id).map(|local| &local.presence.channel);
        let joining = self.state.joining.get(&id).map(|joining| &joining.channel);
        let lost = self.state.sessions.lost(id).map(|lost| &lost.presence.channel);
        here.or(joining).or(lost).is_some_and(|other| other != channel)
    }

    /// A socket joins with a resume token.
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

    /// A socket has left while its join waited for the owner of its token.
    pub(super) fn forget_token_waiter(&mut self, id: PresenceId) {
        let left = self.state.token_waiters.extract_if(.., |waiter| waiter.entrant.presence.id == id);
        let replies = left.map(|waiter| waiter.reply).collect();
        self.left_while_joining(replies);
    }

    /// Tries the joins again that wait for the owner of their token.
    pub(super) fn resume_token_waiters(&mut self, ctx: &mut Context<Self>) {
        if self.phase.is_recovering() {
            return;
        }
        // Those that still have to wait are added to the list again, in the same order.
        for TokenWaiter { entrant, reply } in std::mem::take(&mut self.state.token_waiters) {
            self.join_if_read(entrant, reply, ctx);
        }
    }

    /// A socket resumes a presence of this node. The presence is held, or its former socket is still open and is closed now.
    fn resume_here(
        &mut self,
        id: PresenceId,
        entrant: Entrant,
        session: Session,
        reply: Reply<()>,
        ctx: &mut Context<Self>,
    ) {
        self.submit_waiting_update(id, ctx);
        // A former socket that still waits for its first frame has joined. Its join is answered before it is closed.
        for joiner in self.state.notices.forget(|joiner| joiner.presence.id == id) {
            answer_all(joiner.replies, || Ok(()));
        }
        let was = if let Some(local) = self.state.locals.get(&id) {
            let (was, hub) = (local.presence.clone(), local.hub.clone());
            self.notify_removed(vec![(was.clone(), hub)], Some(&superseded_close()));
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
        self.write_always(Write::Resume { presence: now, session }, Tried::Yes, ctx);
        let replies = answer_now_if(self.is_relaxed(), reply).into_iter().collect();
        self.claim(id, entrant, replies, ctx);
    }

    /// The channel of the former socket may keep an update back, because of its rate. It is submitted now, since that channel does not
    /// submit it once another socket has the presence.
    fn submit_waiting_update(&mut self, id: PresenceId, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get(&id) else { return };
        let channel = local.presence.channel.clone();
        let waiting = self.channels.take_update(&channel, &self.name, self.state.sessions.alias_of(id));
        if let Some(meta) = waiting {
            self.update(id, channel, (meta, None), None, ctx);
        }
    }

    /// Changes the owner of a presence in the roster before a version of the room shows it, or without one: a resume by another socket
    /// of the same node has none.
    fn hand_over(&mut self, to: &Presence, ctx: &mut Context<Self>) {
        if !self.state.replica.hand_over(to) && self.phase.is_known() {
            // The presence is in the database and not in the roster, so the roster is outdated.
            self.load(ctx);
        }
    }

    /// Applies the results of joins with a token, and of repeated joins. A change or a hold of a presence shows it, too, if a newer socket
    /// has resumed it elsewhere.
    pub(super) fn resumed(&mut self, writes: &[Write], commit: &RoomCommit, ctx: &mut Context<Self>) {
        for write in writes {
            if let Write::Update { id, channel, .. } | Write::Hold { id, channel, .. } = write {
                if let Some(resumed) = commit.resumed.iter().find(|resumed| resumed.requested == *id) {
                    self.resumed_by_another(*id, channel, &resumed.presence, ctx);
                }
                continue;
            }
            let (Write::Join(requested)
            | Write::Restore { presence: requested, .. }
            | Write::Resume { presence: requested, .. }
            | Write::JoinWithin { presence: requested, .. }) = write
            else {
                continue;
            };
            self.state.sessions.claimed(requested.id, &requested.channel, self.readings.last());
            let Some(resumed) = commit.resumed.iter().find(|resumed| resumed.requested == requested.id) else {
                self.note_incarnation(requested);
                continue;
            };
            if resumed.presence.channel == requested.channel {
                if matches!(write, Write::Resume { .. } | Write::JoinWithin { .. })
                    && resumed.presence.id != requested.id
                {
                    self.channels.note_resumed(&requested.channel, &self.name, requested.id);
                }
                self.note_resumed_by(requested, resumed, write.session().copied(), ctx);
            } else {
                self.resumed_by_another(requested.id, &requested.channel, &resumed.presence, ctx);
            }
        }
    }

    /// A commit found that the presence does not belong to this socket of this node, but to that of `now`.
    fn resumed_by_another(&mut self, id: PresenceId, of: &ChannelName, now: &Presence, ctx: &mut Context<Self>) {
        if !self.can_have_resumed(now) {
            return;
        }
        if self.state.local_of(id, of).is_some() {
            self.superseded(id);
            self.hand_over(now, ctx);
        } else if self.state.sessions.lost(id).is_some_and(|lost| lost.presence.channel == *of) {
            self.state.sessions.forget(id);
            self.hand_over(now, ctx);
        }
    }

    /// Whether this owner of a presence can be newer than the one that this node knows. It is older if the database has lost a resume: at
    /// the latest, the next reading shows that.
    fn can_have_resumed(&self, owner: &Presence) -> bool {
        let was_here = self.hubs.of(&owner.channel).is_some();
        !self.state.replica.is_rolled_back() && (!was_here || self.channels.is_in(&owner.channel, &self.name))
    }

    /// Notes the incarnation of this node under which the database has a presence.
    fn note_incarnation(&mut self, written: &Presence) {
        if let Some(local) = self.state.local_of(written.id, &written.channel)
            && local.presence.node != written.node
        {
            local.presence = local.presence.with_owner_of(written);
            self.state.replica.hand_over(written);
        }
    }

    /// A socket of this node has received the presence that belongs to its token.
    fn note_resumed_by(
        &mut self,
        requested: &Presence,
        resumed: &Resumed,
        session: Option<Session>,
        ctx: &mut Context<Self>,
    ) {
        let Resumed { presence, .. } = resumed;
        let (was, id) = (requested.id, presence.id);
        if was != id {
            self.move_updates(was, id, &requested.channel, ctx);
        }
        if let Some(leaving) = self.state.leaving.get(&was)
            && leaving.channel == requested.channel
            && was != id
        {
            self.left_before_resuming(was, presence, session, ctx);
        } else if was != id {
            let joining = self.state.joining.remove(&was).or_else(|| {
                // The presence that the socket resumed here has left since. The database gave it another one, which its client had on
                // another node.
                let local = self.state.local_of(was, &requested.channel)?;
                let presence = local.presence.clone();
                let touch = local.touch.clone();
                let hub = local.hub.clone();
                self.drop_local(was);
                Some(Joining::new(Entrant { presence, session: None, limit: None, hub, touch }, Vec::new()))
            });
            if let Some(mut joining) = joining.filter(|joining| joining.channel == requested.channel) {
                self.state.sessions.became(was, id);
                joining.entrant.presence = presence.clone();
                self.state.committed.extend(joining.committed.map(|_| id));
                self.state.joining.insert(id, joining);
            }
        }
        let ours = self.state.local_of(id, &requested.channel).is_some()
            || self.state.joining.get(&id).is_some_and(|joining| joining.channel == requested.channel);
        if ours {
            if let Some(local) = self.state.local_of(id, &requested.channel) {
                local.presence = presence.clone();
            }
            self.hand_over(presence, ctx);
            self.complete_join(id, ctx);
        }
    }

    /// A socket made updates before it was known that its join resumes a presence. They were queued for the id of the join, which no row
    /// of the database has, and are queued for the id of the presence now.
    fn move_updates(&mut self, was: PresenceId, id: PresenceId, of: &ChannelName, ctx: &mut Context<Self>) {
        let Entry::Occupied(mut updating) = self.state.updating.entry(was) else { return };
        let queued: Vec<_> = updating.get_mut().extract_if(.., |one| one.channel == *of).collect();
        if updating.get().is_empty() {
            updating.remove();
        }
        for Updating { channel, user, meta, reply, .. } in queued {
            self.submit_update(id, channel, (user, meta), reply, ctx);
        }
    }

    /// A socket was lost or left before it was known that its join resumes this presence.
    fn left_before_resuming(
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
                self.hold(presence, session.grace, ctx);
            }
            _ => self.submit_leaves(vec![(id, leaving)], ctx),
        }
    }

    /// Whether a presence with a socket here, which is not in the database any more, was resumed on another node and left there. Nothing
    /// else removes a presence with a token: those of a node that is considered dead are held, and the node begins a new incarnation.
    pub(super) fn was_resumed_and_left(&self, presence: &Presence, evidence: Evidence) -> bool {
        !evidence.went_back
            && self.state.sessions.session(presence.id).is_some()
            && self.state.sessions.is_confirmed_by(presence.id, evidence.reading)
            && self.node.id() == Some(presence.node)
    }

    /// A newer socket on another node has resumed a presence that has its socket here.
    pub(super) fn superseded(&mut self, id: PresenceId) {
        let Some(local) = self.state.locals.get(&id) else { return };
        let (presence, hub) = (local.presence.clone(), local.hub.clone());
        warn!(room = %self.name, channel = %presence.channel, "a presence was resumed on another node; its socket here is closed");
        self.notify_removed(vec![(presence, hub)], Some(&superseded_close()));
        self.drop_local(id);
    }

    /// The database was read. If it shows a presence of this node with another socket, the presence was resumed on another node, or a
    /// resume on this node was not written yet.
    pub(super) fn compare_owners(&mut self, evidence: Evidence, ctx: &mut Context<Self>) {
        for id in self.state.sessions.ids() {
            let Some(now) = self.state.replica.roster().get(id).cloned() else { continue };
            if let Some(joining) = self.state.joining.get(&id).filter(|joining| joining.channel != now.channel) {
                let joining = joining.presence().clone();
                let is_confirmed = self.state.sessions.is_confirmed_by(id, evidence.reading);
                if !(is_confirmed && self.resumes_again(&joining, &now, evidence, ctx)) {
                    self.compare_owner_of_joining(joining, evidence.reading);
                }
                continue;
            }
            let ours = self.state.locals.get(&id).map(|local| local.presence.clone());
            let lost = self.state.sessions.lost(id).map(|lost| lost.presence.clone());
            let Some(ours) = ours.or(lost) else { continue };
            if ours.channel != now.channel && self.state.sessions.is_confirmed_by(id, evidence.reading) {
                if self.resumes_again(&ours, &now, evidence, ctx) {
                    continue;
                }
                self.superseded(id);
                self.state.sessions.forget(id);
            } else if (&ours.channel, ours.held) != (&now.channel, now.held) {
                self.state.replica.hand_over(&ours);
            }
        }
    }

    /// If the database has lost the resume of a presence whose socket is here, it is written again, with the meta that the presence has
    /// here. Returns whether that was so.
    fn resumes_again(
        &mut self,
        ours: &Arc<Presence>,
        now: &Presence,
        evidence: Evidence,
        ctx: &mut Context<Self>,
    ) -> bool {
        let is_older = evidence.went_back || !self.can_have_resumed(now);
        // A restored backup may lack the incarnation of this node, too. It begins another one then.
        let is_own = evidence.went_back || self.node.id() == Some(ours.node);
        let is_here = is_own && !ours.held;
        let session = self.state.sessions.session(ours.id).filter(|_| is_older && is_here);
        let Some(session) = session else { return false };
        warn!(room = %self.name, channel = %ours.channel, "the database has lost the resume of a presence; it is resumed again");
        self.state.replica.hand_over(ours);
        self.state.sessions.claim_again(ours.id, ours.channel.clone());
        self.write_always(Write::Resume { presence: ours.clone(), session }, Tried::Yes, ctx);
        // A resume keeps the meta of the row. Updates that were made meanwhile have had no effect there.
        let pending = self.state.updating.get(&ours.id).into_iter().flatten();
        let meta = pending.filter_map(|one| one.meta.clone()).next_back().unwrap_or_else(|| ours.meta.clone());
        if meta != now.meta {
            let (id, channel) = (ours.id, ours.channel.clone());
            self.write_always(Write::Update { id, channel, user: None, meta: Some(meta) }, Tried::Yes, ctx);
        }
        true
    }

    /// A socket of this node joins with a token, and the reading shows its presence with another socket. That is right only if the
    /// reading began after the commit of the join.
    fn compare_owner_of_joining(&mut self, ours: Arc<Presence>, reading: u64) {
        let id = ours.id;
        if !self.state.sessions.is_confirmed_by(id, reading) {
            // It was resumed while the room was read. No later reading would correct the roster.
            self.state.replica.hand_over(&ours);
        } else if let Some(Joining { entrant, replies, .. }) = self.state.joining.remove(&id) {
            self.notify_removed(vec![(ours, entrant.hub)], Some(&superseded_close()));
            self.left_while_joining(replies);
            self.state.sessions.forget(id);
        }
    }

    /// Whether a presence that was to leave is still here: it was resumed on another node, and the roster does not show that yet.
    pub(super) fn stayed(&self, writes: &[Write], done: &Delta) -> bool {
        writes.iter().any(|write| {
            let Write::Leave { id, channel } = write else { return false };
            let here = self.state.replica.roster().get(*id).is_some_and(|presence| presence.channel == *channel);
            here && done.left.iter().all(|left| left.id != *id)
        })
    }
}
