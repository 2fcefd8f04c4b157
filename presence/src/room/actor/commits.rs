//! What the store says: commits of our own, changes by other hands, and readings of the room.

use std::{
    collections::{HashSet, hash_map::Entry},
    sync::Arc,
};

use actix::{AsyncContext, Context, WrapFuture};
use tracing::debug;

use crate::{
    clock::Tick,
    model::{Delta, Presence, Snapshot, replica::Applied},
    name::{Epoch, PresenceId, Version},
    room::{message::ToRoom, state::Cause},
    store::{
        RoomCommit, Store, StoreError, Write,
        writer::{Committed, report},
    },
};

use super::{RELOAD_PAUSE, RoomActor};

impl RoomActor {
    pub(super) fn committed(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        let Committed { batch, writes, retried, result } = committed;
        match result {
            Ok(commit) => {
                let unsaid = self.unsaid(batch, &writes, &retried, &commit.delta);
                let leaving = &self.state.leaving;
                let pruned = |presence: &Presence| {
                    leaving.get(&presence.id).is_some_and(|leaving| leaving.cause == Cause::Removed)
                };
                self.rooms.signals().announce(&self.name, &unsaid, pruned);
                self.rooms.signals().announce(&self.name, &commit.delta, pruned);
                self.answer(batch, &writes, None);
                self.apply(commit, ctx);
            }
            Err(error) => {
                self.answer(batch, &writes, Some(&error));
                // One whose leave the store refuses is still there, and has to be looked after.
                self.adopt(ctx);
            }
        }
    }

    /// What an earlier attempt did whose answer was lost: this one found it done, so its delta does not hold it, but nobody
    /// has been told.
    fn unsaid(&mut self, batch: u64, writes: &[Write], retried: &HashSet<PresenceId>, done: &Delta) -> Delta {
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
            match (write, self.state.leaving.get_mut(&id)) {
                (Write::Join(presence), Some(leaving)) if leaving.said.is_none() => {
                    leaving.said = Some(presence.clone());
                    unsaid.joined.push(presence.clone());
                }
                (Write::Leave { .. }, Some(leaving)) if leaving.after < batch => {
                    match (leaving.said.take(), among(&done.left, id)) {
                        (None, Some(left)) => unsaid.joined.push(left),
                        (Some(was), None) => unsaid.left.push(was),
                        _ => {}
                    }
                }
                (Write::Update { user, meta, .. }, None) if among(&done.updated, id).is_none() => {
                    if let Some(local) = self.state.locals.get(&id) {
                        unsaid.updated.push(Arc::new(local.presence.changed(user.clone(), meta.clone())));
                    }
                }
                (Write::Join(presence), None) => {
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

    /// Tells those who wait for these changes what became of them.
    fn answer(&mut self, batch: u64, writes: &[Write], failure: Option<&StoreError>) {
        let outcome = || failure.map_or(Ok(()), |failure| Err(failure.clone().into()));
        for write in writes {
            let id = write.id();
            if let (Write::Join(_), Some(_)) = (write, failure)
                && let Some(joining) = self.state.joining.remove(&id)
            {
                joining.replies.into_iter().for_each(|reply| drop(reply.send(outcome())));
            }
            if let Entry::Occupied(leaving) = self.state.leaving.entry(id)
                && leaving.get().after < batch
            {
                leaving.remove().replies.into_iter().for_each(|reply| drop(reply.send(outcome())));
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
                let done = updating.get_mut().extract_if(.., |updating| updating.after < batch);
                done.filter_map(|one| one.reply).for_each(|reply| drop(reply.send(outcome())));
                if updating.get().is_empty() {
                    updating.remove();
                }
            }
        }
    }

    /// Takes in a change, our own or another's.
    pub(super) fn apply(&mut self, RoomCommit { epoch, version, delta, .. }: RoomCommit, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
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
