//! When each client sends its heartbeats: evenly in time, however many clients joined at once.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use crate::load::Index;

/// The heartbeats of all clients of a process. Their clock can be stopped, so that none is overdue afterwards.
#[derive(Debug)]
pub(super) struct Heartbeats {
    /// The time between two of a client.
    interval: Duration,
    /// What the clock showed when it was last started or stopped.
    shown: Duration,
    /// Since when the clock runs.
    since: Option<Instant>,
    due: BinaryHeap<Reverse<(Duration, Index)>>,
    added: u32,
}

impl Heartbeats {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, shown: Duration::ZERO, since: Some(Instant::now()), due: BinaryHeap::new(), added: 0 }
    }

    fn now(&self) -> Duration {
        self.shown + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub(super) fn run(&mut self, runs: bool) {
        self.shown = self.now();
        self.since = runs.then(Instant::now);
    }

    /// Adds a client, which sends its first heartbeat within the interval.
    pub(super) fn add(&mut self, client: Index) {
        // Multiples of the golden ratio are spread evenly, whatever their number is.
        self.added = self.added.wrapping_add(0x9e37_79b9);
        let share = f64::from(self.added) / (f64::from(u32::MAX) + 1.0);
        self.due.push(Reverse((self.now() + self.interval.mul_f64(share), client)));
    }

    /// The client whose heartbeat is due. Its next one is due after the interval.
    pub(super) fn next(&mut self) -> Option<Index> {
        let &Reverse((due, client)) = self.due.peek().filter(|due| due.0.0 <= self.now())?;
        self.due.pop();
        self.due.push(Reverse((due + self.interval, client)));
        Some(client)
    }

    /// When the next heartbeat is due, if the clock runs.
    pub(super) fn wake(&self) -> Option<Instant> {
        let Reverse((due, _)) = self.due.peek()?;
        Some(self.since? + due.saturating_sub(self.shown))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(Index) -> bool) {
        self.due.retain(|&Reverse((_, client))| keep(client));
    }
}
