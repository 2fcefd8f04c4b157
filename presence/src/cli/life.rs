//! Being a node for as long as a command takes.

use std::time::Duration;

use crate::{
    name::{NodeId, NodeName},
    rooms::upkeep::CLI,
    store::{NodeStore, SqlStore, StoreError},
};

use super::{Failure, signals::Signals};

/// For how long a command that was killed looks alive.
const LEASE: Duration = Duration::from_secs(10);

/// Runs `work` as a node of its own: a store is written to by none but live nodes. The life is retired when the work is done,
/// fails or is stopped. Of a process that is killed, a dead node without presences remains, which running nodes forget.
pub(super) async fn with_life<T>(
    store: &SqlStore,
    work: impl AsyncFnOnce(NodeId) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let node = NodeId::random();
    // From here on, a signal waits until there is something to stop.
    let mut stop = Signals::listen()?;
    store.register(node, name(node), LEASE).await?;
    let outcome = tokio::select! {
        outcome = work(node) => outcome,
        failure = keep_alive(store, node) => Err(failure.into()),
        signal = stop.next() => Err(Failure::Stopped(signal)),
    };
    // A life that cannot be retired ends with its lease.
    let _ = store.retire(node, Duration::ZERO).await;
    outcome
}

/// Renews the lease until somebody else ended the life, as may happen to a process that was suspended.
async fn keep_alive(store: &SqlStore, node: NodeId) -> StoreError {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        if let Err(fenced @ StoreError::Fenced { .. }) = store.renew(node, LEASE).await {
            return fenced;
        }
    }
}

/// Nobody else's, so that two commands at once never take each other's place.
fn name(node: NodeId) -> NodeName {
    let host = gethostname::gethostname();
    let named = |host: &str| NodeName::new(format!("{CLI}{host}:{}", node.as_uuid().simple()));
    named(&host.to_string_lossy()).or_else(|_| named("-")).expect("short, and without control characters")
}
