//! Runs a command as a node of its own.

use std::time::Duration;

use crate::{
    name::{NodeId, NodeName},
    rooms::CLI,
    store::{NodeStore, SqlStore, StoreError},
};

use super::{failure::Failure, signals::Signals};

/// How long the node of a killed command looks alive.
const LEASE: Duration = Duration::from_secs(10);

/// Runs `work` as a node of its own, because only live nodes may write to a store. The node is retired when the work is done, fails or is
/// stopped. If the process is killed, a dead node without presences remains, and running nodes remove it.
pub(super) async fn as_node<T>(
    store: &SqlStore,
    work: impl AsyncFnOnce(NodeId) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let node = NodeId::random();
    // From here on, a signal does not end the process before the node can be retired.
    let mut stop = Signals::listen()?;
    store.register(node, name(node), LEASE).await?;
    let outcome = tokio::select! {
        outcome = work(node) => outcome,
        failure = keep_alive(store, node) => Err(failure.into()),
        signal = stop.next() => Err(Failure::Stopped(signal)),
    };
    // A node that cannot be retired ends with its lease.
    let _ = store.retire(node, Duration::ZERO).await;
    outcome
}

/// Renews the lease until another node has fenced this one, as may happen when the process was suspended.
async fn keep_alive(store: &SqlStore, node: NodeId) -> StoreError {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        if let Err(fenced @ StoreError::Fenced { .. }) = store.renew(node, LEASE).await {
            return fenced;
        }
    }
}

/// A unique name, so that two commands at the same time do not supersede each other.
fn name(node: NodeId) -> NodeName {
    let host = gethostname::gethostname();
    let named = |host: &str| NodeName::new(format!("{CLI}{host}:{}", node.as_uuid().simple()));
    named(&host.to_string_lossy()).or_else(|_| named("-")).expect("short, and without control characters")
}
