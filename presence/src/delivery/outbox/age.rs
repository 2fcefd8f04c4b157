//! When a connection is taken over from the HTTP server: not at its handshake, but when it is [`SETTLED`].
//!
//! Taking a connection over costs processor time, and saves memory and time only afterwards. In a rush of joins each would delay those
//! behind it, and a client that leaves soon would cost it for nothing.

use std::time::Duration;

use crate::{clock::Tick, delivery::message::ToHub};

use super::{Filling, Outbox, ServerTrust};

/// The age at which a connection is taken over.
const SETTLED: Duration = Duration::from_secs(1);
/// The shortest time between two looks of the hub at the ages of connections.
const AGE_INTERVAL: Duration = Duration::from_millis(50);
/// At most so many are taken over in one turn of the thread, and the next ones after [`NEXT_TURN`]: all would be lost if the server does not drop
/// them, as behind a middleware that changes the bodies of one route.
const AT_ONCE: usize = 16;
const NEXT_TURN: Duration = Duration::from_millis(1);

impl Outbox {
    /// Has the response polled when the connection is old enough to be taken over.
    pub(super) fn have_age_watched(&self) {
        let mut young = self.filling.young.borrow_mut();
        if young.is_empty() {
            self.hub.addr.do_send(ToHub::WatchAge);
        }
        young.push_back((self.clock.now().after(SETTLED), self.itself.clone()));
    }

    fn settle(&self) {
        let state = &mut *self.state.borrow_mut();
        state.is_settled = true;
        state.wake();
    }
}

impl Filling {
    /// Has the responses of all connections polled that are old enough. Returns when to look again, if there are others.
    pub(crate) fn settle(&self, now: Tick) -> Option<Duration> {
        for _ in 0..AT_ONCE {
            if self.server.get() == ServerTrust::Trying {
                return Some(AGE_INTERVAL);
            }
            let (due, outbox) = {
                let mut young = self.young.borrow_mut();
                let due = young.front().map(|(due, _)| *due)?;
                let outbox = if due > now { None } else { young.pop_front() };
                (due, outbox)
            };
            let Some((_, outbox)) = outbox else { return Some(due.since(now).max(AGE_INTERVAL)) };
            let Some(outbox) = outbox.upgrade() else { continue };
            outbox.settle();
            if self.server.get() == ServerTrust::Unknown {
                return (!self.young.borrow().is_empty()).then_some(AGE_INTERVAL);
            }
        }
        Some(NEXT_TURN)
    }
}
