//! What the store says: commits of our own, changes by other hands, and readings of the room.

use std::{collections::hash_map::Entry, sync::Arc};

use actix::{AsyncContext, Context, WrapFuture};
use tracing::debug;

use crate::{
    model::{Presence, Snapshot, replica::Applied},
    name::{Epoch, PresenceId, Version},
    room::{message::ToRoom, state::Cause},
    store::{RoomCommit, StoreError, writer::report},
};

use super::{RELOAD_PAUSE, RoomActor};

impl RoomActor {
    pub(super) fn committed(
        &mut self,
        batch: u64,
        ids: Vec<PresenceId>,
        result: Result<RoomCommit, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        let failure = match result {
            Ok(commit) => {
                let leaving = &self.state.leaving;
                let pruned = |presence: &Presence| {
                    leaving.get(&presence.id).is_some_and(|leaving| leaving.cause == Cause::Pruned)
                };
                self.rooms.signals().announce(&self.name, &commit.delta, pruned);
                for id in &ids {
                    if let Entry::Occupied(leaving) = self.state.leaving.entry(*id)
                        && leaving.get().after < batch
                    {
                        leaving.remove().replies.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
                    }
                }
                self.apply(commit, ctx);
                None
            }
            Err(error) => Some(error),
        };
        for id in ids {
            if let Some(failure) = &failure {
                let joining = self.state.joining.remove(&id).map(|joining| joining.replies).unwrap_or_default();
                let leaving = self.state.leaving.remove(&id).map(|leaving| leaving.replies).unwrap_or_default();
                for reply in joining.into_iter().chain(leaving) {
                    let _ = reply.send(Err(failure.clone().into()));
                }
            }
            let Some(updating) = self.state.updating.remove(&id) else { continue };
            let (done, waiting): (Vec<_>, Vec<_>) = updating.into_iter().partition(|(after, _)| *after < batch);
            for (_, reply) in done {
                let _ = reply.send(failure.clone().map_or(Ok(()), |failure| Err(failure.into())));
            }
            if !waiting.is_empty() {
                self.state.updating.insert(id, waiting);
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
