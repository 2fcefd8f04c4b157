//! What sockets request from a room.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context};
use tracing::warn;

use crate::{
    Error,
    clock::Tick,
    delivery::{Reply, ToHub},
    model::{Meta, Presence},
    name::{ChannelName, PresenceId, UserId},
    node::{Full, Submitted, Tried},
    room::{
        leaving::{Cause, Leaving},
        message::Entrant,
        state::{Joining, Updating},
    },
    session::Session,
    store::Write,
};

use super::{RoomActor, answer_all, answer_now_if};

/// A room is small while its unread first frames are at most this fraction of `first_frames_bytes`. When all rooms together have reached
/// that limit, small rooms may still add first frames, up to the same amount again.
const SMALL_ROOM: usize = 1024;

/// The pause between two times at which slow readers are cut off to make room for others. Within it, the memory of the first ones is freed.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(250);

/// The write of a join, for a presence that is not here yet.
pub(super) fn join(presence: Arc<Presence>, session: Option<Session>, limit: Option<usize>) -> Write {
    match (session, limit) {
        (session, Some(limit)) => Write::JoinWithin { presence, session, limit },
        (Some(session), None) => Write::Resume { presence, session },
        (None, None) => Write::Join(presence),
    }
}

/// Whether slow readers may be cut off now: not within [`CUT_OFF_PAUSE`] after the last time.
fn may_cut_off(last_cut_off: &mut Option<Tick>, now: Tick) -> bool {
    let may = last_cut_off.is_none_or(|last| now.since(last) >= CUT_OFF_PAUSE);
    if may {
        *last_cut_off = Some(now);
    }
    may
}

impl RoomActor {
    /// Joins, unless too many bytes of first frames wait for clients that do not read.
    pub(super) fn join_if_read(&mut self, entrant: Entrant, reply: Reply<()>, ctx: &mut Context<Self>) {
        match self.check_unread(&entrant) {
            Ok(()) => self.join(entrant, reply, ctx),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub(super) fn join(&mut self, mut entrant: Entrant, reply: Reply<()>, ctx: &mut Context<Self>) {
        let id = self.state.sessions.canonical_id(entrant.presence.id);
        if self.state.locals.contains_key(&id) {
            self.join_as_local(id, entrant, reply, ctx);
        } else if self.state.joining.contains_key(&id) {
            self.join_as_joining(id, &entrant, reply, ctx);
        } else if let Some(session) = entrant.session.take() {
            self.join_with_token(entrant, session, reply, ctx);
        } else {
            // A socket repeats its join after the room has failed. Then the presence may be in the database already.
            let may_be_there = self.has_failed || self.state.replica.roster().get(id).is_some();
            let write = join(entrant.presence.clone(), None, entrant.limit);
            let (writer, room) = (&self.node.writer, ctx.address().recipient());
            let tried = if may_be_there { Tried::Yes } else { Tried::No };
            match writer.submit(&self.name, &room, write, tried) {
                Ok(_) => self.await_commit(id, entrant, reply),
                Err(full) => drop(reply.send(Err(self.overloaded(full)))),
            }
        }
    }

    /// A channel that is in the room as this presence joins again.
    fn join_as_local(&mut self, id: PresenceId, entrant: Entrant, reply: Reply<()>, ctx: &mut Context<Self>) {
        let Some(local) = self.state.locals.get(&id) else { return };
        entrant.touch.mark(self.node.now());
        if entrant.hub.is_some() && local.hub.is_none() {
            self.claim(id, entrant, vec![reply], ctx);
        } else if local.presence.user == entrant.presence.user && !self.state.user_changes(id) {
            let _ = reply.send(Ok(()));
        } else {
            // If a pending update changes the user, this join is the later change.
            self.change_user(id, &entrant.presence, reply, ctx);
        }
    }

    /// A channel that is joining as this presence joins again.
    fn join_as_joining(&mut self, id: PresenceId, entrant: &Entrant, reply: Reply<()>, ctx: &mut Context<Self>) {
        let answers_now = self.answers_before_commit(entrant);
        let Some(joining) = self.state.joining.get_mut(&id) else { return };
        let user = &entrant.presence.user;
        if joining.presence().user == *user {
            joining.replies.extend(answer_now_if(answers_now, reply));
        } else {
            joining.entrant.presence = Arc::new(joining.presence().changed(Some(user.clone()), None));
            self.change_user(id, &entrant.presence, reply, ctx);
        }
    }

    /// The presence becomes that of another user. The hash of its client's token includes the user, so it can no longer be resumed with
    /// that token.
    fn change_user(&mut self, id: PresenceId, to: &Presence, reply: Reply<()>, ctx: &mut Context<Self>) {
        self.state.sessions.drop_token(id);
        self.submit_update(id, to.channel.clone(), (Some(to.user.clone()), None), Some(reply), ctx);
    }

    /// Whether a join is answered before it is written. With a limit it is not, because only the commit shows whether there is a place.
    fn answers_before_commit(&self, entrant: &Entrant) -> bool {
        self.is_relaxed() && entrant.limit.is_none()
    }

    /// A join was submitted to the writer.
    pub(super) fn await_commit(&mut self, id: PresenceId, entrant: Entrant, reply: Reply<()>) {
        let replies = answer_now_if(self.answers_before_commit(&entrant), reply).into_iter().collect();
        self.state.joining.insert(id, Joining::new(entrant, replies));
    }

    /// The answer to a change that cannot be written, since too many wait for the database.
    pub(super) fn overloaded(&self, Full { limit }: Full) -> Error {
        if let Some(left_out) = self.node.overloaded.admit(self.node.now()) {
            let (room, left_out) = (&self.name, left_out.field());
            warn!(%room, limit, left_out, "a change is refused: too many wait for the database");
        }
        Error::Overloaded { limit }
    }

    /// Fails if too many bytes of first frames wait for clients that do not read. Then the slowest readers are cut off, so that a later
    /// join succeeds. A presence without a socket needs no first frame. If a client returns with the token of a presence that is here, twice
    /// as many bytes may wait.
    fn check_unread(&mut self, Entrant { presence, session, hub, .. }: &Entrant) -> Result<(), Error> {
        let id = self.state.sessions.canonical_id(presence.id);
        let is_back = session.is_some_and(|session| self.state.sessions.owner(&session.hash).is_some());
        if hub.is_none() || self.state.locals.contains_key(&id) || self.state.joining.contains_key(&id) {
            return Ok(());
        }
        let (pages, config) = (&self.state.pages, &self.node.config);
        let (here, size) = (pages.held().bytes(), pages.size());
        let bound = |bytes: usize, is_twice: bool| bytes.saturating_mul(if is_twice { 2 } else { 1 });
        // All who join now share one first frame, so one copy of it is always allowed.
        let limit = bound(config.first_frames_room_bytes(), is_back).saturating_add(size);
        let in_room = (here, limit, Some(&self.name));
        // Otherwise clients that do not read in a few large rooms would prevent joins in all the small ones.
        let is_small = here.saturating_add(size) <= config.first_frames_bytes() / SMALL_ROOM;
        let everywhere = (pages.held().everywhere(), bound(config.first_frames_bytes(), is_small || is_back), None);
        let Some((bytes, limit, room)) = [in_room, everywhere].into_iter().find(|(bytes, limit, _)| bytes >= limit)
        else {
            return Ok(());
        };
        let now = self.node.now();
        let may_cut = if room.is_some() {
            may_cut_off(&mut self.state.last_cut_off, now)
        } else {
            may_cut_off(&mut self.hubs.last_cut_off.lock(), now)
        };
        if may_cut {
            self.hubs.all().iter().for_each(|hub| hub.addr.do_send(ToHub::CutSlowest { room: room.cloned() }));
        }
        if let Some(left_out) = self.hubs.unread.admit(self.node.now()) {
            let (room, left_out) = (&self.name, left_out.field());
            warn!(%room, bytes, limit, left_out, "a join is refused: too many bytes of first frames wait for clients that do not read");
        }
        Err(Error::FirstFramesUnread { room: self.name.clone(), bytes, limit })
    }

    /// Whether a presence that joins again was removed since: its channel is not in the room any more, or is in it as another presence.
    /// That other presence would be in conflict with this one.
    pub(super) fn was_removed(&self, presence: &Presence) -> bool {
        let id = self.state.sessions.canonical_id(presence.id);
        let is_known = self.state.locals.contains_key(&id) || self.state.joining.contains_key(&id);
        !is_known && !self.channels.has(&presence.channel, &self.name, presence.id)
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
        self.leave_for_good(id, channel, reply, ctx);
    }

    /// Like [`leave`](Self::leave), but always answered when the leave is durable.
    pub(super) fn leave_for_good(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        reply: Option<Reply<()>>,
        ctx: &mut Context<Self>,
    ) {
        if self.has_other_socket(id, &channel) {
            // The presence was resumed, so a late request of its former socket has no effect.
            answer_all(reply, || Ok(()));
            return;
        }
        self.forget_token_waiter(id);
        // The channel may have joined again under the same id, if it had given up its first join.
        let joined_again = self.state.locals.contains_key(&id) || self.state.joining.contains_key(&id);
        if let Some(leaving) = self.state.leaving.get_mut(&id)
            && !joined_again
        {
            leaving.replies.extend(reply);
            return;
        }
        if let Some(joining) = self.state.joining.remove(&id) {
            self.left_while_joining(joining.replies);
        }
        self.drop_local(id);
        self.state.sessions.forget(id);
        let replies = reply.into_iter().collect();
        self.submit_leaves(vec![(id, Leaving { channel, cause: Cause::Left, after: 0, replies })], ctx);
    }

    pub(super) fn update(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        (meta, fallback): (Meta, Option<Meta>),
        reply: Option<Reply<()>>,
        ctx: &mut Context<Self>,
    ) {
        match self.state.locals.get(&id) {
            _ if self.has_other_socket(id, &channel) => {
                answer_all(reply, || Err(self.not_in_room()));
            }
            Some(local) if local.presence.meta == meta && !self.state.updating.contains_key(&id) => {
                answer_all(reply, || Ok(()));
            }
            None if !self.state.joining.contains_key(&id) => {
                answer_all(reply, || Err(self.not_in_room()));
            }
            _ => {
                let former = channel.clone();
                let is_refused = !self.submit_update(id, channel, (None, Some(meta)), reply, ctx);
                if let Some(fallback) = fallback.filter(|_| is_refused) {
                    self.update(id, former, (fallback, None), None, ctx);
                }
            }
        }
    }

    /// Returns whether the update is queued. If it has a reply and too many changes wait, it is refused.
    pub(super) fn submit_update(
        &mut self,
        id: PresenceId,
        channel: ChannelName,
        (user, meta): (Option<Option<UserId>>, Option<Meta>),
        reply: Option<Reply<()>>,
        ctx: &mut Context<Self>,
    ) -> bool {
        let write = Write::Update { id, channel: channel.clone(), user: user.clone(), meta: meta.clone() };
        let (writer, actor) = (&self.node.writer, ctx.address().recipient());
        let submitted = if reply.is_some() {
            writer.submit(&self.name, &actor, write, Tried::No)
        } else {
            writer.submit_last(&self.name, &actor, write)
        };
        match submitted {
            Ok(Submitted::Queued(after)) => {
                let reply = reply.and_then(|reply| answer_now_if(self.is_relaxed(), reply));
                self.state.add_update(id, Updating { channel, after, user, meta, reply });
            }
            Ok(Submitted::CancelledOut) => answer_all(reply, || Ok(())),
            Err(full) => {
                if let Some(reply) = reply {
                    let _ = reply.send(Err(self.overloaded(full)));
                }
                return false;
            }
        }
        true
    }

    pub(super) fn not_in_room(&self) -> Error {
        Error::NotInRoom { room: self.name.clone() }
    }

    pub(super) fn left_while_joining(&self, replies: Vec<Reply<()>>) {
        answer_all(replies, || Err(Error::LeftWhileJoining { room: self.name.clone() }));
    }
}
