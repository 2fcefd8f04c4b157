//! The registration of this node in the database that it shares with others.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::{
    clock::Tick,
    model::{
        cleaner::{Cleaners, PruneTurns},
        lease::Lease,
    },
    name::{NodeId, NodeName, RequestId},
};

use super::{comparisons::Comparisons, open_requests::OpenRequests};

/// The name of a node, its lease, and the requests between it and other nodes.
#[derive(Debug)]
pub(crate) struct Registration {
    name: NodeName,
    /// Set if another `Rooms` of this process has the name.
    in_use: OnceLock<()>,
    /// Whether another process has registered the name.
    pub(crate) superseded: watch::Sender<bool>,
    lease: Mutex<Lease>,
    comparisons: Mutex<Comparisons>,
    /// A room has noticed that the database has lost changes.
    pub(crate) set_back: Notify,
    /// Former incarnations of this node. Their presences still have to be marked as held.
    uncleared: Mutex<BTreeSet<NodeId>>,
    /// Which dead nodes this one leaves to others.
    cleaners: Mutex<Cleaners>,
    prune_turns: Mutex<PruneTurns>,
    /// Requests from other nodes, each until its answer is in the database.
    open_requests: Mutex<OpenRequests>,
    /// A sweep has found that the list of requests from other nodes has to be read.
    pub(crate) requested: Notify,
    /// Requests that this node has finished, but that may still be in the database.
    finished_requests: Mutex<BTreeSet<RequestId>>,
}

impl Registration {
    pub(crate) fn new(name: NodeName, lease: Duration) -> Self {
        Self {
            name,
            in_use: OnceLock::new(),
            superseded: watch::Sender::new(false),
            lease: Mutex::new(Lease::new(lease)),
            comparisons: Mutex::default(),
            set_back: Notify::new(),
            uncleared: Mutex::default(),
            cleaners: Mutex::default(),
            prune_turns: Mutex::default(),
            open_requests: Mutex::default(),
            requested: Notify::new(),
            finished_requests: Mutex::default(),
        }
    }

    pub(crate) const fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn is_name_in_use(&self) -> bool {
        self.in_use.get().is_some()
    }

    pub(crate) fn mark_name_in_use(&self) {
        let _ = self.in_use.set(());
    }

    pub(crate) fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock()
    }

    pub(crate) fn comparisons(&self) -> MutexGuard<'_, Comparisons> {
        self.comparisons.lock()
    }

    /// A room has noticed that the database has lost changes of it. All rooms of this node are compared at once.
    pub(crate) fn note_set_back(&self) {
        self.comparisons().note_set_back();
        self.set_back.notify_one();
    }

    pub(crate) fn uncleared(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.uncleared.lock()
    }

    pub(crate) fn cleaners(&self) -> MutexGuard<'_, Cleaners> {
        self.cleaners.lock()
    }

    pub(crate) fn prune_turns(&self) -> MutexGuard<'_, PruneTurns> {
        self.prune_turns.lock()
    }

    pub(crate) fn open_requests(&self) -> MutexGuard<'_, OpenRequests> {
        self.open_requests.lock()
    }

    /// A sweep has asked the database whether there are requests to this node. Their list is read at once if it has to be, and otherwise not
    /// before `at`.
    pub(crate) fn surveyed(&self, has_requests: bool, at: Tick) {
        if self.open_requests().surveyed(has_requests, at) {
            self.requested.notify_one();
        }
    }

    pub(crate) fn finished_requests(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.finished_requests.lock()
    }
}
