//! What the store sends: commits of this node, changes by others, and readings of the room.

use std::{collections::hash_map::Entry, sync::Arc};

use actix::{AsyncContext, Context, WrapFuture};
use tracing::debug;

use crate::{
    Error,
    clock::Tick,
    model::{
        Presence,
        replica::{Applied, LoadedRoom},
    },
    name::{ChannelName, Epoch, PresenceId, Version},
    node::Committed,
    room::{
        following::Follower,
        leaving::{Cause, Leaving},
        loading,
        message::ToRoom,
        state::{RoomState, Updating},
    },
    store::{RoomCommit, StoreError, Write},
    telemetry::report,
};

#[cfg(test)]
use crate::room::message::FaultPoint;

use super::{RELOAD_PAUSE, RoomActor, answer_all, resuming::Evidence};

/// A write that adds a presence, with or without a token.
macro_rules! join {
    ($presence:ident) => {
        Write::Join($presence)
            | Write::Restore { presence: $presence, .. }
            | Write::Resume { presence: $presence, .. }
            | Write::JoinWithin { presence: $presence, .. }
    };
}

/// Whether the write completes the requests that the socket of the channel `of` has made so far. An update may have been merged into the
/// join or the leave of its socket, but not into a hold or a resume.
fn ends(write: &Write, of: &ChannelName) -> bool {
    match write {
        Write::Join(presence) | Write::Restore { presence, .. } | Write::JoinWithin { presence, session: None, .. } => {
            presence.channel == *of
        }
        Write::Leave { channel, .. } | Write::Update { channel, .. } => channel == of,
        Write::Resume { .. } | Write::JoinWithin { session: Some(_), .. } | Write::Hold { .. } => false,
    }
}

impl RoomActor {
    pub(super) fn committed(&mut self, committed: Committed, ctx: &mut Context<Self>) {
        let Committed { batch, mut writes, result } = committed;
        #[cfg(test)]
        self.fail_if(FaultPoint::Answer);
        match result {
            Ok(commit) => {
                if self.high_water.contradicts_commit(batch, (commit.epoch, commit.version), commit.is_new_version()) {
                    self.database_went_back();
                    self.node.registration.note_set_back();
                }
                self.refuse_joins(&writes, &commit.refused);
                self.resumed(&writes, &commit, ctx);
                self.answer(batch, &writes, None);
                #[cfg(test)]
                self.fail_if(FaultPoint::Apply);
                let stayed = self.stayed(&writes, &commit.delta);
                let at = (commit.epoch, commit.version);
                writes.retain(|write| !commit.refused.contains(&write.id()));
                let resumed = commit.resumed.iter().map(|resumed| resumed.presence.id);
                let ids: Vec<_> = writes.iter().map(Write::id).chain(resumed).collect();
                self.apply(commit, ctx);
                self.complete_joins(ids, ctx);
                self.note_results(writes, at);
                self.repeat_removed_joins(None, ctx);
                if stayed {
                    self.load(ctx);
                }
                self.note_position();
            }
            Err(error) => {
                self.answer(batch, &writes, Some(&error));
                self.keep_refused(&writes, ctx);
            }
        }
    }

    /// The database may have lost changes that this room knows. The room is read again, and members are sent the whole list.
    fn database_went_back(&mut self) {
        debug!(room = %self.name, "the database may have lost changes of a room; it is read again");
        let now = self.node.now();
        self.change_model(|state| state.replica.distrust(now));
    }

    /// Notes the position that the database is known to have reached.
    pub(super) fn note_position(&mut self) {
        let now = self.node.now();
        self.high_water.note(now, self.state.replica.position(), || self.node.writer.last_batch());
    }

    /// Fires the events of a commit before anything else is done with it, so that a panic does not lose them.
    pub(super) fn announce(&self, Committed { result, .. }: &Committed) {
        let Ok(commit) = result else { return };
        let leaving = &self.state.leaving;
        let together = |presence: &Presence| match leaving.get(&presence.id) {
            Some(Leaving { cause: Cause::Removed(all), .. }) => Some(all.together()),
            _ => None,
        };
        self.node.signals.announce(&self.name, &commit.delta, &commit.online_changes, together);
    }

    /// Refuses the joins for which the room has no place.
    fn refuse_joins(&mut self, writes: &[Write], refused: &[PresenceId]) {
        for write in writes {
            let Write::JoinWithin { presence, limit, .. } = write else { continue };
            if !refused.contains(&presence.id) {
                continue;
            }
            if let Entry::Occupied(joining) = self.state.joining.entry(presence.id)
                && joining.get().channel == presence.channel
            {
                self.state.sessions.forget(presence.id);
                let full = || Err(Error::RoomFull { room: self.name.clone(), limit: *limit });
                answer_all(joining.remove().replies, full);
            }
            // There is no presence that their updates could change.
            if let Entry::Occupied(mut updating) = self.state.updating.entry(presence.id) {
                let theirs = updating.get_mut().extract_if(.., |one| one.channel == presence.channel);
                answer_all(theirs.filter_map(|one| one.reply), || Err(Error::NotInRoom { room: self.name.clone() }));
                if updating.get().is_empty() {
                    updating.remove();
                }
            }
        }
    }

    /// Answers the callers that wait for these changes.
    fn answer(&mut self, batch: u64, writes: &[Write], failure: Option<&StoreError>) {
        let outcome = || failure.map_or(Ok(()), |failure| Err(failure.clone().into()));
        for write in writes {
            let id = write.id();
            if let (join!(presence), Some(_)) = (write, failure)
                && let Entry::Occupied(joining) = self.state.joining.entry(id)
                && joining.get().channel == presence.channel
            {
                self.state.sessions.forget(id);
                answer_all(joining.remove().replies, outcome);
            }
            if let Entry::Occupied(leaving) = self.state.leaving.entry(id)
                && leaving.get().after < batch
                && ends(write, &leaving.get().channel)
            {
                let Leaving { cause, replies, .. } = leaving.remove();
                // If the presence is the last of several that leave together, this fires their event, which has to precede the reply.
                drop(cause);
                answer_all(replies, outcome);
            }
            if let (Write::Update { user, meta, .. }, None, Some(local)) =
                (write, failure, self.state.locals.get_mut(&id))
            {
                // This is done even if the database had no such presence to update: then it joins again, with these values.
                let now = local.presence.changed(user.clone(), meta.clone());
                if !local.presence.looks_like(&now) {
                    local.presence = Arc::new(now);
                }
            }
            if let Entry::Occupied(mut updating) = self.state.updating.entry(id) {
                let done = |updating: &mut Updating| updating.after < batch && ends(write, &updating.channel);
                let done = updating.get_mut().extract_if(.., done);
                answer_all(done.filter_map(|one| one.reply), outcome);
                if updating.get().is_empty() {
                    updating.remove();
                }
            }
        }
    }

    /// Notes the results of these writes, so that an older roster or reading does not undo them. A leave is noted even if it changed
    /// nothing because the presence had left before. A presence that joined is there, or was removed since.
    fn note_results(&mut self, writes: Vec<Write>, at: (Epoch, Version)) {
        for write in writes {
            match write {
                Write::Leave { id, channel } => self.state.replica.departs(id, channel, at),
                join!(presence) => {
                    self.state.replica.returns(presence.id);
                    let joining = self.state.joining.get_mut(&presence.id);
                    if let Some(joining) = joining.filter(|joining| joining.channel == presence.channel) {
                        joining.committed = Some((at, self.readings.last()));
                        self.state.committed.insert(presence.id);
                    }
                }
                Write::Update { id, channel, .. } => {
                    if let Some(local) = self.state.local_of(id, &channel) {
                        local.updated = Some(at);
                    }
                }
                Write::Hold { .. } => {}
            }
        }
    }

    /// Applies a change, by this node or by another.
    pub(super) fn apply(&mut self, commit: RoomCommit, ctx: &mut Context<Self>) {
        let now = self.node.now();
        let RoomCommit { epoch, version, delta, .. } = commit;
        if delta.is_empty() {
            // This commit changed nothing, so another change led to this version.
            let at_rest = self.state.joining.is_empty() && !self.phase.is_known();
            if !at_rest {
                self.compare(Some((epoch, version)), now);
            }
            return;
        }
        let node = self.node.id();
        let left: Vec<_> = delta.left.iter().filter(|left| Some(left.node) == node).cloned().collect();
        let moved: Vec<_> = delta.moved.iter().map(|moved| moved.id).collect();
        match self.change_model(|state| state.replica.apply(now, epoch, version, delta)) {
            Applied::Changed(changes) => {
                self.phase.roster_is_known();
                self.changed(changes, Evidence::CHANGE, ctx);
                // Later changes that had arrived before may have moved them on, to another node. Only a reading shows that.
                if !moved.is_empty() && self.state.replica.position() != Some((epoch, version)) {
                    self.load(ctx);
                }
                moved.into_iter().for_each(|id| self.keep_own_owner(id));
                return;
            }
            Applied::Early => {}
            Applied::Reload => self.load(ctx),
        }
        for left in left {
            self.state.replica.departs(left.id, left.channel.clone(), (epoch, version));
        }
    }

    pub(super) fn load(&mut self, ctx: &mut Context<Self>) {
        let Some(number) = self.readings.begin(self.node.now()) else { return };
        self.phase.reading_begins();
        self.state.replica.reloading();
        let (node, name) = (self.node.clone(), self.name.clone());
        let (room, timeout) = (ctx.address(), self.node.config.store_timeout());
        let load = async move {
            let loaded = tokio::time::timeout(timeout, loading::load(&node, &name)).await;
            let loaded = loaded.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed))));
            room.do_send(ToRoom::Loaded(number, loaded));
        };
        ctx.spawn(load.into_actor(self));
    }

    pub(super) fn loaded(
        &mut self,
        number: u64,
        result: Result<Option<LoadedRoom>, StoreError>,
        ctx: &mut Context<Self>,
    ) {
        if number != self.readings.last() {
            // This reading began before the room failed, so it may lack changes that the room knew. The last one does not.
            return;
        }
        match result {
            Ok(found) => {
                let now = self.node.now();
                self.readings.succeed(now, self.node.config.hold_window());
                let known = self.state.replica.position();
                let (changes, lost_changes) = self.change_model(|state| {
                    let changes = state.reload(found);
                    let lost_changes = state.replica.take_rolled_back();
                    if lost_changes {
                        state.notices.restart(now);
                    }
                    (changes, lost_changes)
                });
                let is_other =
                    known.is_some_and(|(epoch, _)| self.state.replica.position().is_none_or(|(now, _)| now != epoch));
                // A room does not end while it has presences of this incarnation, unless the database has lost them.
                let node = self.node.id();
                let has_ended = is_other && self.state.locals.values().any(|local| Some(local.presence.node) == node);
                self.state.followers.iter_mut().for_each(Follower::invalidate);
                self.note_position();
                self.phase.roster_is_known();
                let evidence = Evidence { reading: number, went_back: lost_changes || has_ended };
                self.compare_owners(evidence, ctx);
                self.changed(changes, evidence, ctx);
                // No change shows those who were in the roster while nobody had been sent it.
                self.complete_joins(self.state.joining.keys().copied().collect(), ctx);
                if !self.phase.is_recovering() {
                    self.reconcile_own(evidence, ctx);
                    self.repeat_removed_joins(Some(number), ctx);
                }
            }
            Err(error) => {
                debug!(room = %self.name, error = %report(&error), "a room could not be read; it will be tried again");
                ctx.run_later(RELOAD_PAUSE, move |room, ctx| {
                    if number == room.readings.last() {
                        room.readings.give_up();
                        room.state.readers.retain(|reader| reader.is_waiting());
                        // By now the room may be empty, with no reader that waits.
                        if room.retire_if_idle(room.node.now(), ctx).is_continue() {
                            room.load(ctx);
                        }
                    }
                });
            }
        }
    }

    /// Repeats joins that were committed, and whose presences are not in a roster that has reached their commit. Such a presence was
    /// removed because another node considered an incarnation of this node dead, or because the database has lost the commit. `read` is
    /// the number of the reading that has just arrived.
    pub(super) fn repeat_removed_joins(&mut self, read: Option<u64>, ctx: &mut Context<Self>) {
        let RoomState { replica, joining, committed, .. } = &mut self.state;
        let mut removed = Vec::new();
        committed.retain(|id| {
            let Some(joining) = joining.get_mut(id) else { return false };
            let is_gone = |(at, before): &mut ((Epoch, Version), u64)| {
                replica.has_reached(*at) || read.is_some_and(|read| *before < read)
            };
            if replica.roster().get(*id).is_none() && joining.committed.take_if(is_gone).is_some() {
                removed.push(joining.presence().clone());
            }
            joining.committed.is_some()
        });
        removed.into_iter().for_each(|presence| self.join_again(presence, ctx));
    }

    /// The database had the room at `position`, by a query that was sent at `queried` or later.
    pub(super) fn position_read(&mut self, position: Option<(Epoch, Version)>, queried: Tick, ctx: &mut Context<Self>) {
        if position.is_some_and(|position| self.high_water.contradicts(queried, position)) {
            self.node.registration.note_set_back();
            self.database_went_back();
            self.note_position();
            self.load(ctx);
            return;
        }
        let until = self.wait_for_own();
        self.compare(position, until);
    }

    /// The database has lost changes, and had this room at `position` afterwards. The room is read again, unless it is just as it was.
    pub(super) fn went_back(&mut self, position: Option<(Epoch, Version)>, may_differ: bool, ctx: &mut Context<Self>) {
        if may_differ || position != self.state.replica.position() {
            self.database_went_back();
            self.note_position();
            self.load(ctx);
        }
    }

    /// The database has the room at `position`. If this room is not that far, what is missing may still arrive by itself, and the room
    /// waits for it until `until`.
    pub(super) fn compare(&mut self, position: Option<(Epoch, Version)>, until: Tick) {
        let is_ahead = match (position, self.state.replica.position()) {
            (Some((epoch, version)), Some((known, at))) => epoch != known || version > at,
            (Some(_), None) => self.phase.is_known() || !self.state.joining.is_empty(),
            (None, Some(_)) => !self.state.replica.roster().is_empty(),
            (None, None) => false,
        };
        if is_ahead {
            self.readings.wait_for(position, until);
        }
    }
}
