//! Whether the database takes what is written to it, as those see it who write.
//!
//! The writer and the renewals of the lease each learn of an outage at a time of their own, and of its end; an outage is one
//! nevertheless. It begins when either fails, and is over when neither has reason to think that it lasts. Each of the two
//! moments is logged, once, the first with its reason.

use std::{error::Error, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use tracing::{error, info, warn};

use crate::store::{Store, StoreError};

use super::writer::report;

/// How long the log waits for a new connection, to say why there is none.
const LOOK: Duration = Duration::from_secs(1);

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The database is away. It may come back by itself.
    Away,
    /// The database is away, and stays so until somebody acts.
    NeedsOperator,
    /// The database answers, but its user lacks a right that a node needs.
    LacksRight,
}

/// Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    /// What the log has said of it.
    logged: Option<Outage>,
    /// The writer has something that it could not write when it last tried.
    stuck: bool,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// The outage that is known and not known to be over.
    pub(crate) fn outage(&self) -> Option<Outage> {
        self.state().outage
    }

    /// The writer wrote, or was given an answer that only a database gives.
    pub(crate) fn writes(&self) {
        let mut state = self.state();
        state.stuck = false;
        state.is_back();
    }

    /// The writer could not write to the store.
    pub(crate) fn cannot_write(&self, store: &Arc<dyn Store>, error: &(dyn Error + 'static)) {
        self.state().stuck = true;
        self.goes_away(store, error);
    }

    /// The writer has nothing to write any more: what it could not write was taken back. Whether the database is there the
    /// next renewal will tell.
    pub(crate) fn has_nothing_to_write(&self) {
        self.state().stuck = false;
    }

    /// The lease of this node was renewed, or its life begun.
    pub(crate) fn renews(&self) {
        let mut state = self.state();
        if !state.stuck {
            state.is_back();
        }
    }

    /// The lease could not be renewed in the store, or the life not begun.
    pub(crate) fn cannot_renew(&self, store: &Arc<dyn Store>, error: &(dyn Error + 'static)) {
        self.goes_away(store, error);
    }

    fn goes_away(&self, store: &Arc<dyn Store>, error: &(dyn Error + 'static)) {
        let (health, store, error) = (self.clone(), store.clone(), Reason::of(error));
        {
            let mut state = self.state();
            // A right that turns out to be missing when the database is back is another outage.
            if state.outage.is_some() && (error.outage != Outage::LacksRight || state.outage == Some(error.outage)) {
                return;
            }
            state.outage = Some(error.outage);
        }
        // Whoever found out goes on meanwhile.
        tokio::spawn(async move {
            // That its time is up is all that many a call knows.
            let why = match tokio::time::timeout(LOOK, store.reach()).await {
                Ok(Err(why)) => Reason::of(&why),
                Ok(Ok(())) | Err(_) => error,
            };
            health.log(&why);
        });
    }

    fn log(&self, Reason { text: error, outage }: &Reason) {
        let mut state = self.state();
        // It may be back by now, and then the log says nothing of either.
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

/// Why the database is away.
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

impl State {
    fn is_back(&mut self) {
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
    async fn an_outage_is_over_when_the_writer_writes() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        assert!(health.outage().is_none());
        health.cannot_write(&store, &away());
        assert!(health.outage().is_some());
        health.writes();
        assert!(health.outage().is_none());
        health.cannot_renew(&store, &away());
        health.writes();
        assert!(health.outage().is_none());
    }

    #[cfg(feature = "sql")]
    #[tokio::test]
    async fn a_right_that_turns_out_to_be_missing_is_another_outage() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        health.cannot_renew(&store, &away());
        assert_eq!(health.outage(), Some(Outage::Away));
        let refused = StoreError::Unavailable(Arc::new(crate::store::NeedsOperator {
            what: "no INSERT ON nodes".into(),
            lacks_right: true,
            source: None,
        }));
        health.cannot_renew(&store, &refused);
        assert_eq!(health.outage(), Some(Outage::LacksRight));
        health.renews();
        assert_eq!(health.outage(), None);
    }

    #[tokio::test]
    async fn a_renewal_does_not_end_it_while_something_cannot_be_written() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        health.cannot_write(&store, &away());
        health.renews();
        assert!(health.outage().is_some());
        health.has_nothing_to_write();
        assert!(health.outage().is_some(), "that proves nothing");
        health.renews();
        assert!(health.outage().is_none());
    }
}
