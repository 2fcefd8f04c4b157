//! How much of its thread's time a room may spend on notices.
//!
//! Notices are merged because of what they cost, not because of the time that has passed: in a small room each change is sent at once,
//! also if many follow, and in a large one the changes of a tenth of a second are one frame. The budget is an account in microseconds of
//! a thread. It fills with a share of the time that passes, and each flush takes from it what the flush costs. The costs are
//! estimates, so that it does not depend on the load of the machine what members receive.

use std::time::Duration;

use crate::clock::Tick;

/// The budget fills by this many microseconds in a millisecond: the room may use a tenth of a thread.
const SHARE: i64 = 100;

/// The most that is saved for a burst, in microseconds.
const MAX_SAVED: i64 = 20_000;

/// What a flush costs in any case, in microseconds: it is encoded, and given to the threads of the members. This also bounds what one
/// client that joins and leaves as fast as it can costs the others in a small room: 250 notices a second.
const FLUSH: i64 = 400;

/// What a notice costs for each member that receives it, in microseconds: it is queued and written to a socket.
const RECEIVER: i64 = 5;

/// What first frames cost for each presence in the room, in microseconds.
const LISTED: i64 = 1;

/// What it costs that the room grows by one member, in microseconds: all later notices have one receiver more. With this, a room that
/// grows by more than 40 members a second is merged from its first members on, so that a storm of joins
/// costs them a bounded number of frames. A member that leaves gives it back.
const GROWTH: i64 = 2_000;

/// What decides the costs of a flush.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FlushSize {
    /// How many members receive the notice.
    pub(crate) receivers: usize,
    /// How many presences each first frame lists. Zero without first frames.
    pub(crate) listed: usize,
    /// How many members the room has more than before.
    pub(crate) growth: i64,
}

#[derive(Debug)]
pub(crate) struct NoticeBudget {
    /// What may be spent, in microseconds. Below zero, the room has spent more than its share.
    balance: i64,
    /// When the balance was right.
    at: Tick,
    /// As far below zero as the balance may be.
    max_debt: i64,
}

impl NoticeBudget {
    /// A full budget. The time to the next flush is never longer than `max_pause`.
    pub(crate) fn new(max_pause: Duration) -> Self {
        Self { balance: MAX_SAVED, at: Tick::default(), max_debt: micros(max_pause.as_millis()).saturating_mul(SHARE) }
    }

    /// From when on the room may flush.
    pub(crate) fn allows_at(&self) -> Tick {
        let pause = u64::try_from(-self.balance).map_or(0, |debt| debt.div_ceil(SHARE.unsigned_abs()));
        self.at.after(Duration::from_millis(pause))
    }

    /// A flush at `now` has this size.
    pub(crate) fn spend(&mut self, now: Tick, size: FlushSize) {
        let FlushSize { receivers, listed, growth } = size;
        let cost = micros(receivers)
            .saturating_mul(RECEIVER)
            .saturating_add(micros(listed).saturating_mul(LISTED))
            .saturating_add(growth.saturating_mul(GROWTH))
            .saturating_add(FLUSH);
        let income = micros(now.since(self.at).as_millis()).saturating_mul(SHARE);
        let saved = self.balance.saturating_add(income).min(MAX_SAVED);
        self.balance = saved.saturating_sub(cost).clamp(-self.max_debt, MAX_SAVED);
        self.at = self.at.max(now);
    }
}

fn micros(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
