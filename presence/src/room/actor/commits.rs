//! What the store says: commits of our own, changes by other hands, and readings of the room.

use std::{
    collections::{HashSet, hash_map::Entry},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use actix::{AsyncContext, Context, WrapFuture};
use tracing::debug;

use crate::{
    clock::Tick,
    model::{Delta, Presence, Snapshot, Turns, replica::Applied},
    name::{ChannelName, Epoch, PresenceId, Version},
    room::{
        message::ToRoom,
        state::{Cause, Leaving, Updating},
    },
    store::{
        RoomCommit, Store, StoreError, Write,
        writer::{Committed, report},
    },
};

use super::{RELOAD_PAUSE, RoomActor};

/// A write that adds a presence, with or without a token.
macro_rules! join {
    ($presence:ident) => {
        Write::Join($presence) | Write::Restore { presence: $presence, .. } | Write::Resume { presence: $presence, .. }
    };
}

/// Whether the write is the last of what the socket of `channel` asked for by then: what it asked may have been merged into
/// its join or its leave. A hold or a resume is always followed by what comes after it.
fn ends(write: &Write, of: &ChannelName) -> bool {
    match write {
        Write::Join(presence) | Write::Restore { presence, .. } => presence.channel == *of,
        Write::Leave { channel, .. } | Write::Update { channel, .. } => channel == of,
        Write::Resume { .. } | Write::Hold { .. } => false,
    }
}

impl RoomActor {
    pub(super) fn committed(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        let Committed { batch, writes, result, .. } = committed;
        #[cfg(test)]
        self.fail_if(super::Point::Answer);
        match result {
            Ok(commit) => {
                self.resumed(&writes, &commit, ctx);
                self.answer(batch, &writes, None);
                #[cfg(test)]
                self.fail_if(super::Point::Apply);
                let stayed = self.stayed(&writes, &commit.delta);
                self.apply(commit, ctx);
                if stayed {
                    self.load(ctx);
                }
            }
            Err(error) => {
                self.answer(batch, &writes, Some(&error));
                // One whose leave the store refuses is still there, and has to be looked after.
                self.adopt(ctx);
            }
        }
    }

    /// Fires the events of a commit, apart from all else that it leads to: a panic there loses none of them. Returns whether
    /// that went well; if not, the delta itself was told all the same.
    pub(super) fn announce(&mut self, Committed { batch, writes, retried, result }: &Committed) -> bool {
        let Ok(commit) = result else { return true };
        let unsaid = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            self.fail_if(super::Point::Announce);
            self.unsaid(*batch, writes, retried, commit)
        }));
        let well = unsaid.is_ok();
        let leaving = &self.state.leaving;
        let together = |presence: &Presence| match leaving.get(&presence.id) {
            Some(Leaving { cause: Cause::Removed(together), .. }) => Some(together),
            _ => None,
        };
        // What was first or last at an earlier attempt is known no more.
        self.rooms.signals().announce(&self.name, &unsaid.unwrap_or_default(), &Turns::default(), together);
        self.rooms.signals().announce(&self.name, &commit.delta, &commit.turns, together);
        well
    }

    /// What an earlier attempt did whose answer was lost: this one found it done, so its delta does not hold it, but nobody
    /// has been told.
    fn unsaid(&mut self, batch: u64, writes: &[Write], retried: &HashSet<PresenceId>, commit: &RoomCommit) -> Delta {
        let done = &commit.delta;
        for presence in &done.joined {
            if let Some(joining) = self.state.joining.get_mut(&presence.id) {
                joining.said = Some(presence.clone());
            } else if let Some(leaving) = self.state.leaving.get_mut(&presence.id) {
                leaving.said = Some(presence.clone());
            } else if let Some(local) = self.state.locals.get_mut(&presence.id) {
                local.unsaid = false;
            }
        }
        let mut unsaid = Delta::default();
        let among = |presences: &[Arc<Presence>], id| presences.iter().find(|one| one.id == id).cloned();
        for write in writes.iter().filter(|write| retried.contains(&write.id())) {
            let id = write.id();
            // One that came with a token may have resumed another, of which all have heard.
            if commit.taken.iter().any(|taken| taken.asked == id && taken.presence.id != id) {
                continue;
            }
            match (write, self.state.leaving.get_mut(&id)) {
                (join!(presence), Some(leaving)) if leaving.said.is_none() && !leaving.forgotten => {
                    leaving.said = Some(presence.clone());
                    unsaid.joined.push(presence.clone());
                }
                (Write::Leave { .. }, Some(leaving)) if leaving.after < batch => {
                    match (leaving.said.take(), among(&done.left, id)) {
                        (None, Some(left)) if !leaving.forgotten => unsaid.joined.push(left),
                        (Some(was), None) => unsaid.left.push(was),
                        _ => {}
                    }
                }
                (Write::Update { user, meta, .. }, None) if among(&done.updated, id).is_none() => {
                    if let Some(local) = self.state.locals.get(&id) {
                        unsaid.updated.push(Arc::new(local.presence.changed(user.clone(), meta.clone())));
                    }
                }
                (join!(presence), None) => {
                    let local = self.state.locals.get_mut(&id).map(|local| &mut local.unsaid);
                    let joining = self.state.joining.get_mut(&id);
                    if local.is_some_and(std::mem::take) {
                        unsaid.joined.push(presence.clone());
                    } else if let Some(joining) = joining.filter(|joining| joining.said.is_none()) {
                        joining.said = Some(presence.clone());
                        unsaid.joined.push(presence.clone());
                    }
                }
                _ => {}
            }
        }
        unsaid
    }

    /// The supervisor removed these, and told so: a leave of ours that is tried again and finds them gone has nothing to tell.
    /// That holds also if we are behind and cannot place the change yet.
    pub(super) fn told_by_others(&mut self, delta: &Delta) {
        for presence in &delta.left {
            if self.state.sessions.lost(presence.id).is_some() {
                self.state.sessions.forget(presence.id);
            }
            if let Some(leaving) = self.state.leaving.get_mut(&presence.id) {
                leaving.said = None;
            }
        }
    }

    /// Tells those who wait for these changes what became of them.
    fn answer(&mut self, batch: u64, writes: &[Write], failure: Option<&StoreError>) {
        let outcome = || failure.map_or(Ok(()), |failure| Err(failure.clone().into()));
        for write in writes {
            let id = write.id();
            if let (join!(presence), Some(_)) = (write, failure)
                && let Entry::Occupied(joining) = self.state.joining.entry(id)
                && joining.get().channel == presence.channel
            {
                self.state.sessions.forget(id);
                let joining = joining.remove();
                joining.replies.into_iter().for_each(|reply| drop(reply.send(outcome())));
            }
            if let Entry::Occupied(leaving) = self.state.leaving.entry(id)
                && leaving.get().after < batch
                && ends(write, &leaving.get().channel)
            {
                let Leaving { cause, replies, .. } = leaving.remove();
                // Who waits for the last of many finds the event fired.
                drop(cause);
                replies.into_iter().for_each(|reply| drop(reply.send(outcome())));
            }
            if let (Write::Update { user, meta, .. }, None, Some(local)) =
                (write, failure, self.state.locals.get_mut(&id))
            {
                // Also if it was not there to be updated: then it joins again, as it is now.
                let now = local.presence.changed(user.clone(), meta.clone());
                if !local.presence.looks_like(&now) {
                    local.presence = Arc::new(now);
                }
            }
            if let Entry::Occupied(mut updating) = self.state.updating.entry(id) {
                let done = |updating: &mut Updating| updating.after < batch && ends(write, &updating.channel);
                let done = updating.get_mut().extract_if(.., done);
                done.filter_map(|one| one.reply).for_each(|reply| drop(reply.send(outcome())));
                if updating.get().is_empty() {
                    updating.remove();
                }
            }
        }
    }

    /// Takes in a change, our own or another's.
    pub(super) fn apply(&mut self, commit: RoomCommit, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
        let moved = commit.taken.iter().filter(|taken| taken.moved).map(|taken| taken.presence.clone());
        let moved: Vec<_> = moved.collect();
        let RoomCommit { epoch, version, mut delta, .. } = commit;
        delta.updated.extend(moved);
        if delta.is_empty() {
            // Not the change that led to this version, which was another's, or our own whose answer was lost.
            let at_rest = self.state.joining.is_empty() && !self.state.known;
            if !at_rest {
                self.compare(Some((epoch, version)), now);
            }
            self.joined_without_a_change(ctx);
            return;
        }
        self.in_model = true;
        let applied = self.state.replica.apply(now, epoch, version, delta);
        self.in_model = false;
        match applied {
            Applied::Changed(changes) => {
                self.state.known = true;
                self.changed(changes, ctx);
            }
            Applied::Early => {}
            Applied::Reload => self.load(ctx),
        }
    }

    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        if self.loading {
            return;
        }
        self.loading = true;
        self.reading += 1;
        self.behind = None;
        self.state.replica.reloading();
        let (store, name) = (self.rooms.store().clone(), self.name.clone());
        let (room, timeout, number) = (ctx.address(), self.rooms.config().store_timeout(), self.reading);
        let load = async move {
            let loaded = tokio::time::timeout(timeout, store.load(&name)).await;
            let loaded = loaded.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))));
            room.do_send(ToRoom::Loaded(number, loaded));
        };
        ctx.spawn(load.into_actor(self));
    }

    pub(super) fn loaded(
        &mut self,
        number: u64,
        result: Result<Option<Snapshot>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        if number != self.reading {
            // Asked for before the room failed. Only the last reading holds all that was heard of before it.
            return;
        }
        self.loading = false;
        match result {
            Ok(snapshot) => {
                self.in_model = true;
                let changes = self.state.replica.reload(snapshot);
                self.in_model = false;
                self.state.known = true;
                self.compare_owners(number);
                self.changed(changes, ctx);
                if self.reports.is_none() {
                    self.look_after_all(ctx);
                }
            }
            Err(error) => {
                debug!(room = %self.name, error = %report(&error), "a room could not be read; it will be tried again");
                self.loading = true;
                ctx.run_later(RELOAD_PAUSE, move |room, ctx| {
                    if number == room.reading {
                        room.loading = false;
                        room.load(ctx);
                    }
                });
            }
        }
    }

    /// The database says that the room stands at `position`. If that is ahead of us, what is missing may be on its way;
    /// `until` then we wait for it.
    pub(super) fn compare(&mut self, position: Option<(Epoch, Version)>, until: Tick) {
        let behind = match (position, self.state.replica.position()) {
            (Some((epoch, version)), Some((known, at))) => epoch != known || version > at,
            (Some(_), None) => self.state.known || !self.state.joining.is_empty(),
            (None, Some(_)) => !self.state.replica.roster().is_empty(),
            (None, None) => false,
        };
        if behind {
            let until = self.behind.map_or(until, |(_, other)| other.min(until));
            self.behind = Some((position, until));
        }
    }

    /// Whether what the database was ahead of us has come in by now.
    pub(super) fn has_caught_up(&self) -> bool {
        match (self.behind, self.state.replica.position()) {
            (Some((Some((epoch, version)), _)), Some((known, at))) => epoch == known && version <= at,
            _ => false,
        }
    }
}
