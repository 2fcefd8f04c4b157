//! The senders that wait for one client, and the time that is charged to the client for that.
//!
//! A sender waits at most [`PATIENCE`] with each frame. The time for which others wait is charged to the client, but never more than the
//! time by which the client is behind a steady reader. So a flood is slowed, and cannot make its receivers be cut off. A client that
//! pauses, but on average reads more than the steady rate, is not cut off either.

use std::time::Duration;

use crate::{clock::Tick, delivery::message::Pressure};

use super::PATIENCE;

/// The time in which a client regains the whole patience. What it read before that time does not count.
const REGAINED: Duration = Duration::from_secs(60);

/// The settings: others wait `patience` in all for a client that reads less than `rate` bytes a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) patience: Duration,
    pub(super) rate: usize,
}

#[derive(Default)]
pub(super) struct Senders {
    waiting: Vec<WaitingSender>,
    /// An other sender has been seen to wait, and has not gone on since.
    is_waited_for: bool,
    account: Account,
}

/// A sender that waits until the outbox is below its bound.
struct WaitingSender {
    since: Tick,
    /// Whether it is another sender than this socket's own consumer or connection.
    is_other: bool,
    /// How many bytes its frame takes.
    bytes: usize,
    /// `None` if it need not wait, because the client pauses. The time is charged to the client all the same.
    pressure: Option<Pressure>,
}

/// What is charged to a client up to the time `at`.
#[derive(Debug, Default)]
struct Account {
    at: Tick,
    /// Whether frames are queued.
    is_filled: bool,
    /// Whether other senders wait.
    is_awaited: bool,
    /// How long other senders have waited, minus what the client has regained. At most `behind`.
    cost: Duration,
    /// The time by which the client is behind a steady reader. It starts when a frame is added to an empty queue. It does not restart while
    /// there is a cost, since a client that empties its queue now and then may still be slow.
    behind: Duration,
}

impl Account {
    /// Brings the account up to `now`.
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

    /// Records that the client took this many bytes.
    fn taken(&mut self, bytes: usize, terms: Terms) {
        #[expect(clippy::cast_precision_loss, reason = "nobody takes so many bytes")]
        let worth = bytes as f64 / terms.rate as f64;
        self.behind = self.behind.saturating_sub(Duration::from_secs_f64(worth));
        self.cost = self.cost.min(self.behind);
    }
}

impl Senders {
    /// Keeps the claim of a sender whose frame takes so many bytes. The sender goes on when the claim is dropped here. Without a claim it
    /// goes on at once, and only the client is charged. Returns whether it is the first other sender that has to wait.
    pub(super) fn wait(
        &mut self,
        pressure: Option<Pressure>,
        bytes: usize,
        is_other: bool,
        now: Tick,
        terms: Terms,
    ) -> bool {
        if is_other && !self.account.is_awaited {
            self.account.advance(now, terms);
            self.account.is_awaited = true;
        }
        let has_to_wait = pressure.is_some();
        // One stands for all that go on during a pause.
        let mut ones = self.waiting.iter_mut();
        let same =
            if has_to_wait { None } else { ones.rfind(|one| one.pressure.is_none() && one.is_other == is_other) };
        match same {
            Some(one) => one.since = now,
            None => self.waiting.push(WaitingSender { since: now, is_other, bytes, pressure }),
        }
        is_other && has_to_wait && !std::mem::replace(&mut self.is_waited_for, true)
    }

    /// Records that a frame was added to an empty queue.
    pub(super) fn filled(&mut self, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.account.is_filled = true;
    }

    /// Records that the client took this many bytes, and whether frames are left.
    pub(super) fn taken(&mut self, bytes: usize, left_any: bool, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.account.taken(bytes, terms);
        self.account.is_filled = left_any;
    }

    /// Lets all senders go on, since the outbox is below its bound.
    pub(super) fn relieve(&mut self, now: Tick, terms: Terms) {
        if self.waiting.is_empty() {
            return;
        }
        self.account.advance(now, terms);
        self.clear();
    }

    /// Lets senders go on that have waited for [`PATIENCE`], and charges the client.
    pub(super) fn look(&mut self, now: Tick, terms: Terms) {
        self.account.advance(now, terms);
        self.waiting.retain(|waiting| now.since(waiting.since) < PATIENCE);
        self.account.is_awaited = self.waiting.iter().any(|waiting| waiting.is_other);
        self.is_waited_for &= self.any_waits();
    }

    /// Lets other senders go on, those first that came first, for whose frames `take` grants the memory. `take` also receives how many bytes
    /// it has granted before. Returns for how many frames, and how many bytes, it granted.
    pub(super) fn let_go(&mut self, take: impl Fn(usize, usize) -> bool) -> (usize, usize) {
        let (mut count, mut granted) = (0, 0);
        for one in self.waiting.iter_mut().filter(|one| one.is_other && one.pressure.is_some()) {
            if !take(one.bytes, granted) {
                break;
            }
            count += 1;
            granted += one.bytes;
            one.pressure = None;
        }
        self.is_waited_for &= count == 0;
        (count, granted)
    }

    /// Whether any other sender waits.
    pub(super) fn any_waits(&self) -> bool {
        self.waiting.iter().any(|one| one.is_other && one.pressure.is_some())
    }

    /// Lets all senders go on.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.is_waited_for = false;
        self.account.is_awaited = false;
    }

    /// The time that is charged to the client, as of the last update.
    pub(super) const fn cost(&self) -> Duration {
        self.account.cost
    }
}
