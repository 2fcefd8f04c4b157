//! What the store says: commits of our own, changes by other hands, and readings of the room.

use std::{collections::hash_map::Entry, sync::Arc};

use actix::{AsyncContext, Context, WrapFuture};
use tracing::debug;

use crate::{
    clock::Tick,
    model::{
        Presence,
        replica::{Applied, Reading},
    },
    name::{ChannelName, Epoch, Version},
    room::{
        leaving::{Cause, Leaving},
        message::ToRoom,
        state::Updating,
    },
    store::{
        RoomCommit, StoreError, Write,
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
        let Committed { batch, writes, result } = committed;
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

    /// Fires the events of a commit, apart from all else that it leads to: a panic there loses none of them.
    pub(super) fn announce(&self, Committed { result, .. }: &Committed) {
        let Ok(commit) = result else { return };
        let leaving = &self.state.leaving;
        let together = |presence: &Presence| match leaving.get(&presence.id) {
            Some(Leaving { cause: Cause::Removed(all), .. }) => Some(all.together()),
            _ => None,
        };
        self.rooms.signals().announce(&self.name, &commit.delta, &commit.turns, together);
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
            // Not the change that led to this version, which was another's.
            let at_rest = self.state.joining.is_empty() && !self.state.known;
            if !at_rest {
                self.compare(Some((epoch, version)), now);
            }
            self.let_in(ctx);
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
        let (rooms, name) = (self.rooms.clone(), self.name.clone());
        let (room, timeout, number) = (ctx.address(), self.rooms.config().store_timeout(), self.reading);
        let load = async move {
            let loaded = tokio::time::timeout(timeout, rooms.look_up(&name)).await;
            let loaded = loaded.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))));
            room.do_send(ToRoom::Loaded(number, loaded));
        };
        ctx.spawn(load.into_actor(self));
    }

    pub(super) fn loaded(&mut self, number: u64, result: Result<Option<Reading>, StoreError>, ctx: &mut Context<Self>) {
        if number != self.reading {
            // Asked for before the room failed. Only the last reading holds all that was heard of before it.
            return;
        }
        self.loading = false;
        match result {
            Ok(found) => {
                self.in_model = true;
                let changes = self.state.reload(found);
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
