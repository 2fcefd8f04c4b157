//! The database of the simulation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use crate::{
    model::{Delta, Presence, Snapshot},
    name::{Epoch, NodeId, PresenceId, Version},
};

#[derive(Debug, Clone)]
pub(super) enum SocketWrite {
    Join(Arc<Presence>),
    Leave(Arc<Presence>),
    Hold(Arc<Presence>),
}

impl SocketWrite {
    pub(super) fn id(&self) -> PresenceId {
        let (Self::Join(one) | Self::Leave(one) | Self::Hold(one)) = self;
        one.id
    }
}

/// The result of a transaction.
#[derive(Debug, Clone)]
pub(super) struct SocketCommit {
    pub(super) batch: u64,
    pub(super) writes: Vec<SocketWrite>,
    pub(super) at: (Epoch, Version),
    pub(super) delta: Delta,
}

/// The room in the database.
#[derive(Debug, Clone, Default)]
pub(super) struct SavedRoom {
    pub(super) at: Option<(Epoch, Version)>,
    pub(super) presences: BTreeMap<PresenceId, Arc<Presence>>,
    /// Presences that left through their own node. They must never be added again.
    pub(super) left: BTreeSet<PresenceId>,
}

#[derive(Debug, Default)]
pub(super) struct ModelDatabase {
    pub(super) room: SavedRoom,
    /// The room before each change.
    pub(super) history: Vec<SavedRoom>,
    pub(super) epochs: u128,
    pub(super) nodes: u128,
    pub(super) sockets: u128,
}

impl ModelDatabase {
    pub(super) fn commit(&mut self, node: NodeId, batch: u64, writes: Vec<SocketWrite>) -> SocketCommit {
        let before = self.room.clone();
        let mut delta = Delta::default();
        for write in &writes {
            let there = self.room.presences.get(&write.id()).cloned();
            match (write, there) {
                (SocketWrite::Join(one), there) => {
                    let now = Arc::new(Presence { node, held: false, ..Presence::clone(one) });
                    if there.is_none() {
                        assert!(!self.room.left.contains(&one.id), "a presence is added after it left");
                        delta.joined.push(now.clone());
                    }
                    self.room.presences.insert(one.id, now);
                }
                (SocketWrite::Leave(_), Some(there)) => {
                    self.room.presences.remove(&there.id);
                    self.room.left.insert(there.id);
                    delta.left.push(there);
                }
                (SocketWrite::Hold(_), Some(there)) => {
                    self.room.presences.insert(there.id, there.as_held());
                }
                (SocketWrite::Leave(_) | SocketWrite::Hold(_), None) => {}
            }
        }
        let at = self.advance(&delta);
        if !delta.is_empty() {
            self.history.push(before);
        }
        SocketCommit { batch, writes, at, delta }
    }

    pub(super) fn advance(&mut self, delta: &Delta) -> (Epoch, Version) {
        let (epoch, version) = self.room.at.unwrap_or_else(|| {
            self.epochs += 1;
            (Epoch::from_uuid(Uuid::from_u128(self.epochs)), Version(0))
        });
        let at = (epoch, if delta.is_empty() { version } else { version.next() });
        self.room.at = Some(at);
        at
    }

    /// Removes presences without their node.
    pub(super) fn remove(&mut self, matches: impl Fn(&Presence) -> bool) -> SocketCommit {
        let before = self.room.clone();
        let left: Vec<_> = self.room.presences.extract_if(.., |_, one| matches(one)).map(|(_, one)| one).collect();
        let delta = Delta { left, ..Delta::default() };
        let at = self.advance(&delta);
        if !delta.is_empty() {
            self.history.push(before);
        }
        SocketCommit { batch: 0, writes: Vec::new(), at, delta }
    }

    pub(super) fn crash(&mut self, changes: usize) {
        let kept = self.history.len().saturating_sub(changes);
        if let Some(room) = self.history.drain(kept..).next() {
            self.room = room;
        }
    }

    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        let (epoch, version) = self.room.at?;
        Some(Snapshot { epoch, version, presences: self.room.presences.values().cloned().collect() })
    }

    pub(super) fn new_node(&mut self) -> NodeId {
        self.nodes += 1;
        NodeId::from_uuid(Uuid::from_u128(self.nodes))
    }
}
