//! How a room that misses a few changes of other nodes reads these from the change log, and not the whole room.
//!
//! The changes are applied like those of this node, by their versions. What needs more than that is left to a reading of the whole room, which
//! also happens from time to time, since the log does not show who is held.

use std::{sync::Arc, time::Duration};

use actix::{AsyncContext, Context, WrapFuture};

use crate::{
    clock::Tick,
    model::{Delta, replica::Applied},
    name::{Epoch, Version},
    room::{loading::Missed, message::ToRoom},
    store::{RoomChange, RoomStore, StoreError},
};

use super::{RoomActor, resuming::Evidence};

/// After this time without a reading of the whole room, the next one is of the whole room.
const READ_ALL_EVERY: Duration = Duration::from_secs(30);

impl RoomActor {
    /// Reads what the room misses: the changes alone if that can do, or the whole room.
    pub(super) fn read_missing(&mut self, now: Tick, ctx: &mut Context<Self>) {
        let has_read_all = self.readings.all_read().is_some_and(|at| now.since(at) < READ_ALL_EVERY);
        match self.state.replica.position() {
            Some(from) if has_read_all && self.phase.is_live() && self.state.replica.misses_only_changes() => {
                self.read_changes(from, ctx);
            }
            _ => self.load(ctx),
        }
    }

    fn read_changes(&mut self, from: (Epoch, Version), ctx: &mut Context<Self>) {
        let Some(number) = self.readings.begin_changes(self.node.now()) else { return };
        let (node, room, timeout) = (self.node.clone(), ctx.address(), self.node.config.store_timeout());
        let read = async move {
            let changes = tokio::time::timeout(timeout, node.store.changes_after(from.0, from.1)).await;
            let changes = changes.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))));
            room.do_send(ToRoom::Missed(number, Missed { from, changes }));
        };
        ctx.spawn(read.into_actor(self));
    }

    pub(super) fn missed(&mut self, number: u64, Missed { from, changes }: Missed, ctx: &mut Context<Self>) {
        if number != self.readings.last() {
            // The room has failed since, and reads everything.
            return;
        }
        let now = self.node.now();
        let is_same = self.phase.is_live() && self.state.replica.has_reached(from);
        if let (true, Ok(Some(changes))) = (is_same, changes)
            && !self.concern_own(&changes)
            && self.catch_up(from.0, changes, now, ctx)
        {
            self.readings.succeed(now, self.node.config.hold_window());
            if self.expected.is_some() {
                self.readings.wait_for(self.expected, now.after(self.node.config.hold_window()));
            }
        } else {
            self.readings.give_up();
            self.load(ctx);
        }
    }

    /// Whether another node has changed presences of this one: it may have considered this node dead, or a socket there has resumed one.
    fn concern_own(&self, changes: &[RoomChange]) -> bool {
        let (here, state) = (self.node.id(), &self.state);
        let others = changes.iter().filter(|change| Some(change.by) != here);
        others.flat_map(|change| presences(&change.delta)).any(|one| {
            Some(one.node) == here
                || state.locals.contains_key(&one.id)
                || state.joining.contains_key(&one.id)
                || state.leaving.contains_key(&one.id)
                || state.sessions.lost(one.id).is_some()
        })
    }

    /// Applies the changes of others. Those of this node arrive by themselves, and what follows them waits until then. Returns whether the
    /// room has all that it missed, or may still receive it.
    fn catch_up(&mut self, epoch: Epoch, changes: Vec<RoomChange>, now: Tick, ctx: &mut Context<Self>) -> bool {
        let here = self.node.id();
        let until = now.after(self.node.config.hold_window());
        let mut expected = None;
        let (all, needs_all) = self.change_model(|state| {
            let (mut all, mut needs_all) = (Vec::new(), false);
            for RoomChange { version, by, delta } in changes {
                if Some(by) == here {
                    if !state.replica.knows((epoch, version)) {
                        expected.get_or_insert(version);
                    }
                    continue;
                }
                let since = if expected.is_some() { until } else { now };
                match state.replica.apply(since, epoch, version, delta) {
                    Applied::Changed(changes) => all.extend(changes),
                    Applied::Early => {}
                    Applied::Reload => needs_all = true,
                }
            }
            (all, needs_all)
        });
        self.note_position();
        self.changed(all, Evidence::CHANGE, ctx);
        self.complete_joins(self.state.joining.keys().copied().collect(), ctx);
        self.repeat_removed_joins(None, ctx);
        let expected = expected.map(|version| (epoch, version));
        // It has not arrived in time: its answer is lost.
        let is_lost = expected.is_some() && self.expected == expected;
        self.expected = expected;
        !needs_all && !is_lost
    }
}

fn presences(delta: &Delta) -> impl Iterator<Item = &crate::model::Presence> {
    let Delta { joined, left, updated, moved } = delta;
    joined.iter().chain(left).chain(updated).chain(moved).map(|one| &**one)
}
