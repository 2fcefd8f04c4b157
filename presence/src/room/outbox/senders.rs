//! Those who wait until less is queued for one client, and what the client has cost them.
//!
//! A sender waits at most [`PATIENCE`] with each frame. The time in which others waited is charged to the client, less what a client
//! of a steady rate would have needed for what this one took meanwhile, so that a flood is slowed and cuts nobody off.

use std::time::Duration;

use crate::{clock::Tick, room::message::Pressure};

use super::PATIENCE;

/// After this time a client has regained all of the patience of those who send to it.
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
    /// Since when others wait, and how many bytes were taken since.
    awaited: Option<(Tick, usize)>,
    cost: Cost,
}

/// A sender that waits until less is in the queue.
struct Waiting {
    since: Tick,
    /// It is not this socket's own consumer or connection.
    is_other: bool,
    _pressure: Pressure,
}

/// How long others have waited for this client, and not regained yet.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    time: Duration,
    at: Tick,
}

impl Cost {
    /// What is left of it now, of which `patience` is regained within [`REGAINED`].
    fn now(self, now: Tick, patience: Duration) -> Duration {
        let part = now.since(self.at).div_duration_f64(REGAINED).min(1.0);
        self.time.saturating_sub(patience.mul_f64(part))
    }
}

impl Senders {
    /// Has a sender wait. It goes on when its pressure is dropped here. Returns whether it is the first of others that waits.
    pub(super) fn wait(&mut self, pressure: Pressure, is_other: bool, now: Tick) -> bool {
        self.waiting.push(Waiting { since: now, is_other, _pressure: pressure });
        let is_first = is_other && self.awaited.is_none();
        if is_first {
            self.awaited = Some((now, 0));
        }
        is_first
    }

    /// The client took this much.
    pub(super) const fn taken(&mut self, bytes: usize) {
        if let Some((_, taken)) = &mut self.awaited {
            *taken += bytes;
        }
    }

    /// There is room again: nobody has to wait any longer.
    pub(super) fn relieve(&mut self, now: Tick, terms: Terms) {
        if !self.waiting.is_empty() {
            self.waiting.clear();
            self.charge(now, terms);
        }
    }

    /// Lets those go on who have waited long enough, and charges the client.
    pub(super) fn look(&mut self, now: Tick, terms: Terms) {
        self.waiting.retain(|waiting| now.since(waiting.since) < PATIENCE);
        if self.awaited.is_some_and(|(since, _)| now.since(since) >= PATIENCE) || self.waiting.is_empty() {
            self.charge(now, terms);
        }
    }

    /// Nothing more is sent to this client, so nobody waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// How long others have waited for this client in all, less what it has regained, and less than one would need for what it took
    /// that is no slow reader.
    pub(super) fn cost(&self, now: Tick, terms: Terms) -> Duration {
        let waited = self.awaited.map_or(Duration::ZERO, |(since, taken)| {
            #[expect(clippy::cast_precision_loss, reason = "nobody waits for so many bytes")]
            let worth = taken as f64 / terms.rate as f64;
            now.since(since).saturating_sub(Duration::from_secs_f64(worth))
        });
        self.cost.now(now, terms.patience).saturating_add(waited)
    }

    /// Charges the client with the time that others have waited. They may go on waiting.
    fn charge(&mut self, now: Tick, terms: Terms) {
        self.cost = Cost { time: self.cost(now, terms), at: now };
        self.awaited = self.waiting.iter().any(|waiting| waiting.is_other).then_some((now, 0));
    }
}
