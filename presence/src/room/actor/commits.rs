//! What the store says: commits of our own, changes by other hands, and readings of the room.

use std::{
    collections::{HashSet, hash_map::Entry},
    sync::Arc,
};

use actix::{AsyncContext, Context, WrapFuture};
use tracing::debug;

use crate::{
    model::{Delta, Presence, Snapshot, replica::Applied},
    name::{Epoch, PresenceId, Version},
    room::{
        message::{Committed, ToRoom},
        state::Cause,
    },
    store::{RoomCommit, StoreError, Write, writer::report},
};

use super::{RELOAD_PAUSE, RoomActor};

impl RoomActor {
    pub(super) fn committed(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        let Committed { batch, writes, retried, result } = committed;
        match result {
            Ok(commit) => {
                let unsaid = self.unsaid(&writes, &retried, &commit.delta);
                let leaving = &self.state.leaving;
                let pruned = |presence: &Presence| {
                    leaving.get(&presence.id).is_some_and(|leaving| leaving.cause == Cause::Pruned)
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

    /// What earlier attempts did whose answers were lost, so that nobody was told.
    fn unsaid(&self, writes: &[Write], retried: &HashSet<PresenceId>, done: &Delta) -> Delta {
        let mut unsaid = Delta::default();
        if !self.state.known {
            return unsaid;
        }
        let among = |presences: &[Arc<Presence>], id| presences.iter().find(|one| one.id == id).cloned();
        for write in writes.iter().filter(|write| retried.contains(&write.id())) {
            let id = write.id();
            match (write, self.state.replica.roster().get(id)) {
                (Write::Join(presence), None) if among(&done.joined, id).is_none() => {
                    unsaid.joined.push(presence.clone());
                }
                (Write::Leave { .. }, Some(was)) if among(&done.left, id).is_none() => unsaid.left.push(was.clone()),
                // It came by an attempt to join that was then taken back.
                (Write::Leave { .. }, None) => unsaid.joined.extend(among(&done.left, id)),
                (Write::Update { user, meta, .. }, Some(was)) if among(&done.updated, id).is_none() => {
                    let user = user.as_ref().unwrap_or(&was.user).clone();
                    let meta = meta.as_ref().unwrap_or(&was.meta).clone();
                    let now = Presence { user, meta, ..Presence::clone(was) };
                    unsaid.updated.extend((!was.looks_like(&now)).then(|| Arc::new(now)));
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
            if let Entry::Occupied(mut updating) = self.state.updating.entry(id) {
                let done = updating.get_mut().extract_if(.., |(after, _)| *after < batch);
                done.filter_map(|(_, reply)| reply).for_each(|reply| drop(reply.send(outcome())));
                if updating.get().is_empty() {
                    updating.remove();
                }
            }
        }
    }

    /// Takes in a change, our own or another's.
    pub(super) fn apply(&mut self, RoomCommit { epoch, version, delta, .. }: RoomCommit, ctx: &mut Context<Self>) {
        let now = self.rooms.now();
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
        self.behind = None;
        self.state.replica.reloading();
        let (store, name) = (self.rooms.store().clone(), self.name.clone());
        let (room, timeout) = (ctx.address(), self.rooms.config().store_timeout());
        let load = async move {
            let loaded = tokio::time::timeout(timeout, store.load(&name)).await;
            let loaded = loaded.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))));
            room.do_send(ToRoom::Loaded(loaded));
        };
        ctx.spawn(load.into_actor(self));
    }

    pub(super) fn loaded(&mut self, result: Result<Option<Snapshot>, StoreError>, ctx: &mut Context<Self>) {
        self.loading = false;
        match result {
            Ok(snapshot) => {
                self.in_model = true;
                let changes = self.state.replica.reload(snapshot);
                self.in_model = false;
                self.state.known = true;
                self.changed(changes, ctx);
                self.adopt(ctx);
            }
            Err(error) => {
                debug!(room = %self.name, error = %report(&error), "a room could not be read; it will be tried again");
                self.loading = true;
                ctx.run_later(RELOAD_PAUSE, |room, ctx| {
                    room.loading = false;
                    room.load(ctx);
                });
            }
        }
    }

    /// The database says that the room stands at `position`. If that is ahead of us, what is missing may be on its way.
    pub(super) fn compare(&mut self, position: Option<(Epoch, Version)>) {
        let ours = self.state.replica.position();
        let behind = match (position, ours) {
            (Some((epoch, version)), Some((known, at))) => epoch != known || version > at,
            (Some(_), None) => self.state.known,
            (None, Some(_)) => !self.state.replica.roster().is_empty(),
            (None, None) => false,
        };
        if !behind {
            self.behind = None;
        } else if self.behind.is_none() {
            let until = self.rooms.now().after(self.rooms.config().hold_window());
            self.behind = Some((position.or(ours).unwrap_or_else(|| unreachable!("one of them is ahead")), until));
        }
    }
}
