//! Those who wait until less is queued for one client, and what the client has cost them.
//!
//! A sender waits at most [`PATIENCE`] with each frame. The time in which others wait is charged to the client, but never more than the
//! time by which it is behind a client of a steady rate. So a flood is slowed and cuts nobody off, and neither do the pauses of a client
//! that takes more than that rate in the end, whether somebody waits just then or not.

use std::time::Duration;

use crate::{clock::Tick, delivery::message::Pressure};

use super::PATIENCE;

/// After this time a client has regained all of the patience of those who send to it, and what it took or did not is forgotten.
const REGAINED: Duration = Duration::from_secs(60);

/// How long others wait in all for a client that takes less than `rate` bytes a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) patience: Duration,
    pub(super) rate: usize,
}

#[derive(Default)]
pub(super) struct Senders {
    waiting: Vec<Waiting>,
    account: Account,
}

/// A sender that waits until less is in the queue.
struct Waiting {
    since: Tick,
    /// It is not this socket's own consumer or connection.
    is_other: bool,
    _pressure: Pressure,
}

/// What a client has cost others, up to a moment.
#[derive(Debug, Default)]
struct Account {
    at: Tick,
    /// Something is in the queue.
    is_filled: bool,
    /// Others wait.
    is_awaited: bool,
    /// How long others have waited, less what the client has regained since. At most `behind`.
    cost: Duration,
    /// By how much the client is behind one of the steady rate. It counts from when something came into an empty queue, and further
    /// while others have waited: a client that empties its queue now and then may still be slower than that.
    behind: Duration,
}

impl Account {
    /// Time has passed.
    fn advance(&mut self, now: Tick, terms: Terms) {
        let time = now.since(self.at);
        self.at = now;
        if self.is_awaited {
            self.cost += time;
        }
        let part = time.div_duration_f64(REGAINED).min(1.0);
        self.cost = self.cost.saturating_sub(terms.patience.mul_f64(part));
        let counts = self.is_filled || !self.cost.is_zero();
        self.behind = if counts { (self.behind + time).min(REGAINED) } else { Duration::ZERO };
    }

    /// The client took this much, now.
    fn taken(&mut self, bytes: usize, terms: Terms) {
        #[expect(clippy::cast_precision_loss, reason = "nobody takes so many bytes")]
        let worth = bytes as f64 / terms.rate as f64;
        self.behind = self.behind.saturating_sub(Duration::from_secs_f64(worth));
        self.cost = self.cost.min(self.behind);
    }
}

impl Senders {
    /// Has a sender wait. It goes on when its pressure is dropped here. Returns whether it is the first of others that waits.
    pub(super) fn wait(&mut self, pressure: Pressure, is_other: bool, now: Tick, terms: Terms) -> bool {
        self.waiting.push(Waiting { since: now, is_other, _pressure: pressure });
        let is_first = is_other && !self.account.is_awaited;
        if is_first {
            self.account.advance(now, terms);
            self.account.is_awaited = true;
        }
        is_first
    }

    /// Something is in the queue that the client can take, where there was nothing.
    pub(super) fn filled(&mut self, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.account.is_filled = true;
    }

    /// The client took this much, and left something or nothing.
    pub(super) fn taken(&mut self, bytes: usize, left_any: bool, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.account.taken(bytes, terms);
        self.account.is_filled = left_any;
    }

    /// There is room again: nobody has to wait any longer.
    pub(super) fn relieve(&mut self, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.clear();
    }

    /// Lets those go on who have waited long enough, and charges the client.
    pub(super) fn look(&mut self, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.waiting.retain(|waiting| now.since(waiting.since) < PATIENCE);
        self.account.is_awaited = self.waiting.iter().any(|waiting| waiting.is_other);
    }

    /// Nobody waits any longer.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.account.is_awaited = false;
    }

    /// How long others had waited for this client when it was last looked at, less what it has regained, but no longer than it is
    /// behind one that is no slow reader.
    pub(super) const fn cost(&self) -> Duration {
        self.account.cost
    }
}
