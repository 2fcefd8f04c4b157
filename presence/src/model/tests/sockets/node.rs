//! A node of the simulation, and its room.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use proptest::prelude::*;
use uuid::Uuid;

use super::database::{ModelDatabase, SocketCommit, SocketWrite};
use crate::{
    clock::Tick,
    model::{
        Delta, Presence, Snapshot,
        delta::RosterChange,
        high_water::HighWaterMark,
        own::{OwnPresences, Repair, after_changes, after_load},
        replica::{Applied, LoadedRoom, Replica},
    },
    name::{ChannelName, Epoch, NodeId, PresenceId, Version},
};

/// A message to the room of a node.
#[derive(Debug, Clone)]
pub(super) enum ToModelRoom {
    Join(Arc<Presence>),
    Leave(Arc<Presence>),
    Lose(Arc<Presence>),
    Committed(SocketCommit),
    /// A removal by this node.
    Changed(SocketCommit),
    /// The node has begun a new incarnation.
    Rejoin,
}

/// A load in progress, with the answer of the database if there is one.
pub(super) type PendingLoad = Option<Option<Snapshot>>;

#[derive(Debug)]
pub(super) struct ModelNode {
    pub(super) node: NodeId,
    /// The presences of the open sockets.
    pub(super) open: BTreeMap<PresenceId, Arc<Presence>>,
    pub(super) mailbox: VecDeque<ToModelRoom>,
    /// Writes that were submitted to the writer.
    pub(super) pending: VecDeque<SocketWrite>,
    pub(super) load: Option<PendingLoad>,
    /// The number of the latest batch of the writer.
    pub(super) begun: u64,
    pub(super) now: Tick,
    pub(super) reached: HighWaterMark,
    pub(super) replica: Replica,
    pub(super) here: BTreeMap<PresenceId, Arc<Presence>>,
    pub(super) joining: BTreeMap<PresenceId, Arc<Presence>>,
    /// For joining presences, the position after their commit, and how many loads had begun by then.
    pub(super) committed: BTreeMap<PresenceId, ((Epoch, Version), u64)>,
    pub(super) loads: u64,
    pub(super) leaving: BTreeMap<PresenceId, Arc<Presence>>,
    pub(super) lost: BTreeMap<PresenceId, Arc<Presence>>,
}

impl OwnPresences for ModelNode {
    fn supervised(&self, id: PresenceId) -> Option<&Arc<Presence>> {
        self.here.get(&id)
    }

    fn all_supervised(&self) -> impl Iterator<Item = &Arc<Presence>> {
        self.here.values()
    }

    fn is_in_progress(&self, Presence { id, .. }: &Presence) -> bool {
        self.joining.contains_key(id) || self.leaving.contains_key(id) || self.lost.contains_key(id)
    }

    fn is_alive(&self, presence: &Presence) -> bool {
        self.open.get(&presence.id).is_some_and(|open| open.channel == presence.channel)
    }
}

/// Any of the presences, or `None` if there are none.
fn choose<'a>(which: &prop::sample::Index, all: &'a BTreeMap<PresenceId, Arc<Presence>>) -> Option<&'a Arc<Presence>> {
    (!all.is_empty()).then(|| all.values().nth(which.index(all.len()))).flatten()
}

impl ModelNode {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            open: BTreeMap::new(),
            mailbox: VecDeque::new(),
            pending: VecDeque::new(),
            load: None,
            begun: 0,
            now: Tick(0),
            reached: HighWaterMark::default(),
            replica: Replica::default(),
            here: BTreeMap::new(),
            joining: BTreeMap::new(),
            committed: BTreeMap::new(),
            loads: 0,
            leaving: BTreeMap::new(),
            lost: BTreeMap::new(),
        }
    }

    pub(super) fn join(&mut self, database: &mut ModelDatabase) {
        database.sockets += 1;
        let (id, name) = (database.sockets, format!("socket {}", database.sockets));
        let id = PresenceId::from_uuid(Uuid::from_u128(id));
        let one = Arc::new(Presence::new(id, ChannelName::new(name).unwrap(), None, self.node));
        self.open.insert(id, one.clone());
        self.mailbox.push_back(ToModelRoom::Join(one));
    }

    pub(super) fn close_any(&mut self, which: &prop::sample::Index, message: fn(Arc<Presence>) -> ToModelRoom) {
        if let Some(one) = choose(which, &self.open).cloned() {
            self.open.remove(&one.id);
            self.mailbox.push_back(message(one));
        }
    }

    pub(super) fn submit_leave(&mut self, one: Arc<Presence>) {
        self.pending.push_back(SocketWrite::Leave(one.clone()));
        self.leaving.insert(one.id, one);
    }

    pub(super) fn hold(&mut self, one: &Presence) {
        let held = one.as_held();
        self.replica.hand_over(&held);
        self.pending.push_back(SocketWrite::Hold(held.clone()));
        self.lost.insert(held.id, held);
    }

    pub(super) fn grace_over(&mut self, which: &prop::sample::Index) {
        if let Some(one) = choose(which, &self.lost).cloned() {
            self.lost.remove(&one.id);
            self.submit_leave(one);
        }
    }

    /// Like the writer, commits each presence once in a transaction.
    pub(super) fn commit(&mut self, database: &mut ModelDatabase) {
        let (mut ids, mut writes) = (BTreeSet::new(), Vec::new());
        while let Some(write) = self.pending.pop_front_if(|write| ids.insert(write.id())) {
            writes.push(write);
        }
        if !writes.is_empty() {
            self.begun += 1;
            let commit = database.commit(self.node, self.begun, writes);
            self.mailbox.push_back(ToModelRoom::Committed(commit));
        }
    }

    pub(super) fn handle(&mut self) {
        let Some(message) = self.mailbox.pop_front() else { return };
        match message {
            ToModelRoom::Join(one) => {
                self.pending.push_back(SocketWrite::Join(one.clone()));
                self.joining.insert(one.id, one);
            }
            ToModelRoom::Leave(one) => {
                self.joining.remove(&one.id);
                self.here.remove(&one.id);
                if !self.leaving.contains_key(&one.id) {
                    self.submit_leave(one);
                }
            }
            ToModelRoom::Lose(one) => {
                if let Some(here) = self.here.remove(&one.id) {
                    self.hold(&here);
                } else if self.joining.remove(&one.id).is_some() {
                    self.submit_leave(one);
                }
            }
            ToModelRoom::Committed(SocketCommit { batch, writes, at, delta }) => {
                if self.reached.contradicts_commit(batch, at, !delta.is_empty()) {
                    self.replica.distrust(self.now);
                }
                for write in &writes {
                    if let SocketWrite::Leave(one) = write {
                        self.leaving.remove(&one.id);
                    }
                }
                self.apply(at, delta);
                for write in writes {
                    match write {
                        SocketWrite::Leave(one) => self.replica.departs(one.id, one.channel.clone(), at),
                        SocketWrite::Join(one) => {
                            self.replica.returns(one.id);
                            if self.joining.contains_key(&one.id) {
                                self.committed.insert(one.id, (at, self.loads));
                            }
                        }
                        SocketWrite::Hold(_) => {}
                    }
                }
                self.repeat_removed_joins(0);
            }
            ToModelRoom::Changed(SocketCommit { at, delta, .. }) => self.apply(at, delta),
            ToModelRoom::Rejoin => {
                self.pending.extend(self.here.values().cloned().map(SocketWrite::Join));
            }
        }
        self.note_position();
        self.load_if_needed();
    }

    pub(super) fn apply(&mut self, at: (Epoch, Version), delta: Delta) {
        let (epoch, version) = at;
        if delta.is_empty() {
            // A change of another node led to that version.
            if !self.replica.has_reached(at) {
                self.begin();
            }
            self.complete_joins();
            return;
        }
        let left: Vec<_> = delta.left.iter().filter(|left| left.node == self.node).cloned().collect();
        match self.replica.apply(Tick(0), epoch, version, delta) {
            Applied::Changed(changes) => self.changed(&changes),
            Applied::Early | Applied::Reload => {
                left.iter().for_each(|left| self.replica.departs(left.id, left.channel.clone(), at));
            }
        }
    }

    pub(super) fn changed(&mut self, changes: &[RosterChange]) {
        for gone in changes.iter().filter(|change| change.now.is_none()).filter_map(|change| change.was.as_ref()) {
            self.lost.remove(&gone.id);
        }
        self.repair(after_changes(changes, &self.replica, Some(self.node), self));
        self.complete_joins();
    }

    pub(super) fn complete_joins(&mut self) {
        let roster = self.replica.roster();
        let here = self.joining.extract_if(.., |id, _| roster.get(*id).is_some());
        self.here.extend(here);
    }

    pub(super) fn repair(&mut self, repairs: Vec<Repair>) {
        for repair in repairs {
            match repair {
                Repair::Supervise(one) => drop(self.here.insert(one.id, one)),
                Repair::Remove(one) => self.submit_leave(one),
                Repair::Restore(one) => self.pending.push_back(SocketWrite::Join(one)),
                Repair::Forget(one) => {
                    self.here.remove(&one.id);
                    self.submit_leave(one);
                }
            }
        }
    }

    /// The room fails while it handles a message. The message is lost, and so is what hubs and writer do not know.
    pub(super) fn fail(&mut self) {
        if self.mailbox.pop_front_if(|one| matches!(one, ToModelRoom::Leave(_) | ToModelRoom::Lose(_))).is_none() {
            return;
        }
        // Hubs know their presences, and channels know whether they are joining.
        self.here.retain(|id, _| self.open.contains_key(id));
        let gone: Vec<_> = self.joining.extract_if(.., |id, _| !self.open.contains_key(id)).collect();
        gone.into_iter().for_each(|(_, one)| self.submit_leave(one));
        self.pending.extend(self.joining.values().cloned().map(SocketWrite::Join));
        self.pending.extend(self.leaving.values().cloned().map(SocketWrite::Leave));
        self.begin();
    }

    pub(super) fn begin(&mut self) {
        self.load = Some(None);
        self.loads += 1;
        self.replica.reloading();
    }

    pub(super) fn answer(&mut self, database: &ModelDatabase) {
        if let Some(answer) = &mut self.load {
            answer.get_or_insert_with(|| database.snapshot());
        }
    }

    pub(super) fn finish(&mut self, database: &ModelDatabase) {
        self.answer(database);
        if let Some(found) = self.load.take().flatten() {
            if let Some(before) = self.replica.reload(found.map(LoadedRoom::from)) {
                let changes = self.replica.roster().changes_since(&before);
                self.changed(&changes);
            }
            for lost in self.lost.values() {
                self.replica.hand_over(lost);
            }
            self.repair(after_load(&self.replica, Some(self.node), self));
            self.repeat_removed_joins(self.loads);
            self.complete_joins();
            self.note_position();
            self.load_if_needed();
        }
    }

    /// `loaded` is the number of the last load that has ended.
    pub(super) fn repeat_removed_joins(&mut self, loaded: u64) {
        let replica = &self.replica;
        let removed = |id: &PresenceId, (at, before): &mut ((Epoch, Version), u64)| {
            replica.roster().get(*id).is_none() && (replica.has_reached(*at) || *before < loaded)
        };
        for (id, _) in self.committed.extract_if(.., removed) {
            self.pending.extend(self.joining.get(&id).cloned().map(SocketWrite::Join));
        }
    }

    pub(super) fn note_position(&mut self) {
        self.reached.note(self.now, self.replica.position(), || self.begun);
    }

    pub(super) fn load_if_needed(&mut self) {
        if self.load.is_none() && self.replica.reload_at(Duration::ZERO).is_some() {
            self.begin();
        }
    }

    pub(super) fn compare(&mut self, database: &ModelDatabase) {
        if database.room.at.is_some_and(|at| self.reached.contradicts(self.now, at)) {
            self.replica.distrust(self.now);
            self.note_position();
        }
        if self.load.is_none() && self.replica.position() != database.room.at {
            self.begin();
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.mailbox.is_empty() && self.pending.is_empty() && self.load.is_none()
    }

    pub(super) fn ids(all: &BTreeMap<PresenceId, Arc<Presence>>) -> Vec<PresenceId> {
        all.keys().copied().collect()
    }
}
