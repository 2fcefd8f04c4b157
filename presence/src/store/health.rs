//! Whether the database takes what is written to it, as those see it who write.
//!
//! The writer and the renewals of the lease each learn of an outage at a time of their own, and of its end; an outage is one
//! nevertheless. It begins when either fails, and is over when neither has reason to think that it lasts. Each of the two
//! moments is logged, once.

use std::{
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::{info, warn};

use super::writer::report;

/// Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    away: bool,
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

    /// The writer could not write.
    pub(crate) fn cannot_write(&self, error: &dyn Error) {
        let mut state = self.state();
        state.stuck = true;
        state.goes_away(error);
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

    /// The lease could not be renewed, or the life not begun.
    pub(crate) fn cannot_renew(&self, error: &dyn Error) {
        self.state().goes_away(error);
    }
}

impl State {
    fn goes_away(&mut self, error: &dyn Error) {
        if !std::mem::replace(&mut self.away, true) {
            warn!(error = %report(error), "the presence store is away; joins fail, leaves wait for it");
        }
    }

    fn is_back(&mut self) {
        if std::mem::take(&mut self.away) {
            info!("the presence store is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn away() -> std::io::Error {
        std::io::Error::other("away")
    }

    #[test]
    fn an_outage_is_over_when_the_writer_writes() {
        let health = Health::default();
        assert!(!health.is_away());
        health.cannot_write(&away());
        assert!(health.is_away());
        health.writes();
        assert!(!health.is_away());
        health.cannot_renew(&away());
        health.writes();
        assert!(!health.is_away());
    }

    #[test]
    fn a_renewal_does_not_end_it_while_something_cannot_be_written() {
        let health = Health::default();
        health.cannot_write(&away());
        health.renews();
        assert!(health.is_away());
        health.has_nothing_to_write();
        assert!(health.is_away(), "that proves nothing");
        health.renews();
        assert!(!health.is_away());
    }
}
