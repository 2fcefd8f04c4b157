//! Whether the database accepts writes.
//!
//! The writer and the lease renewal notice an outage, and its end, at different times. For the log and for `/readyz` it is
//! one outage: it begins when either fails, and ends when the last failed write and the last failed renewal have succeeded.
//! The log has one line for the beginning, with the reason, and one for the end.

use std::{error::Error, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tracing::{error, info, warn};

use crate::{
    store::{Store, StoreError},
    telemetry::report,
};

/// How long the log line waits for the error of a new connection, which has the best reason.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the node cannot write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The database is away. It may come back by itself.
    Away,
    /// The database is away until an operator acts.
    NeedsOperator,
    /// The database answers, but its user lacks a right that a node needs.
    LacksRight,
}

/// Clones share one state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<HealthState>>);

#[derive(Debug, Default)]
struct HealthState {
    outage: Option<Outage>,
    /// The outage for which the log has a line.
    logged: Option<Outage>,
    /// The writer has changes that it could not write at the last attempt.
    write_failed: bool,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.0.lock()
    }

    /// The current outage.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.state().outage
    }

    /// The writer received an answer from the database.
    pub(crate) fn write_succeeded(&self) {
        let mut state = self.state();
        state.write_failed = false;
        state.end_outage();
    }

    /// The writer received no answer from the database.
    pub(crate) fn write_failed(&self, store: &Arc<dyn Store>, error: &(dyn Error + 'static)) {
        self.state().write_failed = true;
        self.begin_outage(store, error);
    }

    /// The writer has nothing left to write, because the failed changes were cancelled. The next renewal decides whether the
    /// outage is over.
    pub(crate) fn queue_is_empty(&self) {
        self.state().write_failed = false;
    }

    /// The node registered, or renewed its lease.
    pub(crate) fn renewal_succeeded(&self) {
        let mut state = self.state();
        if !state.write_failed {
            state.end_outage();
        }
    }

    /// The node could not register, or could not renew its lease.
    pub(crate) fn renewal_failed(&self, store: &Arc<dyn Store>, error: &(dyn Error + 'static)) {
        self.begin_outage(store, error);
    }

    fn begin_outage(&self, store: &Arc<dyn Store>, error: &(dyn Error + 'static)) {
        let (health, store, error) = (self.clone(), store.clone(), Reason::of(error));
        {
            let mut state = self.state();
            // If a right turns out to be missing when the database is back, that is another outage.
            if state.outage.is_some() && (error.outage != Outage::LacksRight || state.outage == Some(error.outage)) {
                return;
            }
            state.outage = Some(error.outage);
        }
        // The caller does not wait for the reason.
        tokio::spawn(async move {
            // Many errors only report a time-out. A new connection shows the reason.
            let why = match tokio::time::timeout(REASON_TIMEOUT, store.check_connection()).await {
                Ok(Err(why)) => Reason::of(&why),
                Ok(Ok(())) | Err(_) => error,
            };
            health.log(&why);
        });
    }

    fn log(&self, Reason { text: error, outage }: &Reason) {
        let mut state = self.state();
        // The database may be back by now. Then neither line is logged.
        if state.outage.is_none() || state.logged == Some(*outage) {
            return;
        }
        state.outage = Some(*outage);
        state.logged = Some(*outage);
        match outage {
            Outage::Away => warn!(%error, "the presence store is away; joins fail, leaves wait for it"),
            Outage::NeedsOperator => {
                error!(%error, "the presence store is away until somebody acts; joins fail, leaves wait for it");
            }
            Outage::LacksRight => {
                error!(%error, "the user of the presence store lacks a right; joins fail, leaves wait until it has it");
            }
        }
    }
}

/// The reason for an outage.
struct Reason {
    text: String,
    outage: Outage,
}

impl Reason {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut causes = std::iter::successors(Some(error), |cause: &&(dyn Error + 'static)| (*cause).source());
        let outage = match causes.find_map(|cause| cause.downcast_ref::<StoreError>()) {
            Some(error) if error.lacks_right() => Outage::LacksRight,
            Some(error) if error.needs_operator() => Outage::NeedsOperator,
            _ => Outage::Away,
        };
        Self { text: report(error), outage }
    }
}

impl HealthState {
    fn end_outage(&mut self) {
        self.outage = None;
        if self.logged.take().is_some() {
            info!("the presence store is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn away() -> std::io::Error {
        std::io::Error::other("away")
    }

    #[tokio::test]
    async fn an_outage_ends_when_a_write_succeeds() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        assert!(health.outage().is_none());
        health.write_failed(&store, &away());
        assert!(health.outage().is_some());
        health.write_succeeded();
        assert!(health.outage().is_none());
        health.renewal_failed(&store, &away());
        health.write_succeeded();
        assert!(health.outage().is_none());
    }

    #[cfg(feature = "sql")]
    #[tokio::test]
    async fn a_missing_right_is_another_outage() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        health.renewal_failed(&store, &away());
        assert_eq!(health.outage(), Some(Outage::Away));
        let refused = StoreError::Unavailable(Arc::new(crate::store::NeedsOperator {
            what: "no INSERT ON nodes".into(),
            lacks_right: true,
            source: None,
        }));
        health.renewal_failed(&store, &refused);
        assert_eq!(health.outage(), Some(Outage::LacksRight));
        health.renewal_succeeded();
        assert_eq!(health.outage(), None);
    }

    #[tokio::test]
    async fn a_renewal_does_not_end_an_outage_while_changes_cannot_be_written() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        health.write_failed(&store, &away());
        health.renewal_succeeded();
        assert!(health.outage().is_some());
        health.queue_is_empty();
        assert!(health.outage().is_some(), "an empty queue proves nothing");
        health.renewal_succeeded();
        assert!(health.outage().is_none());
    }
}
