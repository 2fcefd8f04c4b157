//! Whether the database takes what is written to it, as those see it who write.
//!
//! The writer and the renewals of the lease each learn of an outage at a time of their own, and of its end; an outage is one
//! nevertheless. It begins when either fails, and is over when neither has reason to think that it lasts. Each of the two
//! moments is logged, once, the first with its reason.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{error, info, warn};

use super::{Store, StoreError, writer::report};

/// How long the log waits for a new connection, to say why there is none.
const LOOK: Duration = Duration::from_secs(1);

/// Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    away: bool,
    /// The log has said so.
    told: bool,
    /// The writer has something that it could not write when it last tried.
    stuck: bool,
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an outage is known and not known to be over.
    pub(crate) fn is_away(&self) -> bool {
        self.state().away
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
        if std::mem::replace(&mut self.state().away, true) {
            return;
        }
        let (health, store, error) = (self.clone(), store.clone(), Reason::of(error));
        // Whoever found out goes on meanwhile.
        tokio::spawn(async move {
            // That its time is up is all that many a call knows.
            let why = match tokio::time::timeout(LOOK, store.reach()).await {
                Ok(Err(why)) => Reason::of(&why),
                Ok(Ok(())) | Err(_) => error,
            };
            health.tell(&why);
        });
    }

    fn tell(&self, why: &Reason) {
        let mut state = self.state();
        // It may be back by now, and then nobody is told of either.
        if state.away && !std::mem::replace(&mut state.told, true) {
            if why.needs_operator {
                error!(error = %why.text, "the presence store is away until somebody acts; joins fail, leaves wait for it");
            } else {
                warn!(error = %why.text, "the presence store is away; joins fail, leaves wait for it");
            }
        }
    }
}

/// Why the database is away.
struct Reason {
    text: String,
    /// It does not come back by itself.
    needs_operator: bool,
}

impl Reason {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let mut causes = std::iter::successors(Some(error), |cause: &&(dyn Error + 'static)| (*cause).source());
        let needs_operator = causes.any(|cause| cause.downcast_ref().is_some_and(StoreError::needs_operator));
        Self { text: report(error), needs_operator }
    }
}

impl State {
    fn is_back(&mut self) {
        self.away = false;
        if std::mem::take(&mut self.told) {
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
        assert!(!health.is_away());
        health.cannot_write(&store, &away());
        assert!(health.is_away());
        health.writes();
        assert!(!health.is_away());
        health.cannot_renew(&store, &away());
        health.writes();
        assert!(!health.is_away());
    }

    #[tokio::test]
    async fn a_renewal_does_not_end_it_while_something_cannot_be_written() {
        let (health, store) = (Health::default(), Arc::new(MemoryStore::default()) as Arc<dyn Store>);
        health.cannot_write(&store, &away());
        health.renews();
        assert!(health.is_away());
        health.has_nothing_to_write();
        assert!(health.is_away(), "that proves nothing");
        health.renews();
        assert!(!health.is_away());
    }
}
