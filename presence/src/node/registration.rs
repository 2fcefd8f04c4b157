//! What a node knows of itself as one of those that share the database.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::{
    model::lease::Lease,
    name::{NodeId, NodeName, RequestId},
};

use super::open_requests::OpenRequests;

/// The name of a node, its lease, and what is under way between it and other nodes.
#[derive(Debug)]
pub(crate) struct Registration {
    name: NodeName,
    /// Other rooms of this process have the name.
    in_use: OnceLock<()>,
    /// Whether another process has taken the name.
    pub(crate) superseded: watch::Sender<bool>,
    lease: Mutex<Lease>,
    /// Former incarnations of this very node, whose presences are still to be held.
    former: Mutex<BTreeSet<NodeId>>,
    /// What other nodes request of this one, until they have the answer.
    open_requests: Mutex<OpenRequests>,
    /// Requests of this node that are over, but that the database may still have.
    over: Mutex<BTreeSet<RequestId>>,
}

impl Registration {
    pub(crate) fn new(name: NodeName, lease: Duration) -> Self {
        Self {
            name,
            in_use: OnceLock::new(),
            superseded: watch::Sender::new(false),
            lease: Mutex::new(Lease::new(lease)),
            former: Mutex::default(),
            open_requests: Mutex::default(),
            over: Mutex::default(),
        }
    }

    pub(crate) const fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn is_name_in_use(&self) -> bool {
        self.in_use.get().is_some()
    }

    pub(crate) fn name_is_in_use(&self) {
        let _ = self.in_use.set(());
    }

    pub(crate) fn lease(&self) -> MutexGuard<'_, Lease> {
        self.lease.lock()
    }

    pub(crate) fn former(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.former.lock()
    }

    pub(crate) fn open_requests(&self) -> MutexGuard<'_, OpenRequests> {
        self.open_requests.lock()
    }

    pub(crate) fn over(&self) -> MutexGuard<'_, BTreeSet<RequestId>> {
        self.over.lock()
    }
}
