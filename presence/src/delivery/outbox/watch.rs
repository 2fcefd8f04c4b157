//! Looking whether clients take what waits for them, and what is done about one that does not.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use crate::{
    clock::Tick,
    delivery::message::{ToConnection, ToHub},
};

use super::{Mark, Outbox, PATIENCE, Phase, State};

/// Before the handshake is answered nothing can be taken, and behind a first frame nothing else, so nobody waits for that; but no
/// more than so many times the bound may be left waiting.
const EARLY: usize = 8;

/// How often outboxes that hold something are looked at.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// A timer may be so late though the thread was not held up.
const LATE: Duration = Duration::from_millis(10);

/// What the outboxes of one thread share with its hub.
#[derive(Default)]
pub(crate) struct Filling {
    /// Those that hold something, or did when last looked at.
    pub(crate) outboxes: RefCell<Vec<Rc<Outbox>>>,
    /// When they are looked at next, if any hold something.
    due: Cell<Option<Tick>>,
    /// For how long the thread was held up before the last look.
    blocked: Cell<Duration>,
}

impl Filling {
    /// The outboxes are looked at now, and if `again`, once more after [`WATCH_INTERVAL`].
    pub(crate) fn looks(&self, now: Tick, again: bool) {
        self.blocked.set(self.blocked(now));
        self.due.set(again.then(|| now.after(WATCH_INTERVAL)));
    }

    /// For how long the thread was held up in all: from when a look was due until it happened, or until now. Nobody's frames were
    /// written then, which is not their clients' fault. When the thread goes on, the server may ask for frames before the look comes.
    pub(super) fn blocked(&self, now: Tick) -> Duration {
        self.blocked.get() + self.due.get().map_or(Duration::ZERO, |due| now.since(due).saturating_sub(LATE))
    }
}

impl Outbox {
    /// Has the hub look at this outbox from now on, until [`watch`](Self::watch) finds nothing to look at.
    pub(super) fn have_watched(&self, state: &mut State) {
        if state.watched {
            return;
        }
        state.watched = true;
        if let Some(itself) = self.itself.upgrade() {
            let mut filling = self.filling.outboxes.borrow_mut();
            if filling.is_empty() {
                self.filling.looks(self.clock.now(), true);
                self.hub.addr.do_send(ToHub::Watch);
            }
            filling.push(itself);
        }
    }

    /// Looks whether the client takes what there is. Returns whether there is still something to look at.
    pub(crate) fn watch(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        state.senders.look(now, self.terms);
        if let (Some(first), Some(attached)) = (&mut state.first, state.attached) {
            first.look(now, attached);
        }
        let is_ending = state.is_ending() && state.attached.is_some();
        let is_taken = matches!(state.mark, Mark::Taken(_));
        let is_over = state.gone || state.phase == Phase::Broken;
        if is_over || state.queue.is_empty() && !is_taken && !is_ending {
            state.watched = false;
            return false;
        }
        let is_writable = (is_taken || is_ending) && self.is_writable();
        if let Mark::Taken(at) = state.mark
            // Also if the kernel never says so, because more has come since.
            && (is_writable || now.since(at) > self.write_timeout)
        {
            state.mark = Mark::Written(self.clock.now());
            state.progress = now;
        }
        if is_ending && is_writable && state.queue.is_empty() && state.flushes.is_none() {
            state.flushes = Some(0);
            state.wake();
        }
        if !state.queue.is_empty() && self.is_too_slow(state, now) {
            self.cut_off();
        }
        true
    }

    /// Has the connection closed, since the client reads too slowly.
    pub(crate) fn cut_off(&self) {
        self.tell(ToConnection::TooSlow);
    }

    fn is_too_slow(&self, state: &State, now: Tick) -> bool {
        // Before the handshake is answered the client can take nothing; that time has a limit of its own.
        let still = state.attached.map(|attached| now.since(state.progress.max(attached)));
        let is_still_for = |limit| still.is_some_and(|still| still > limit);
        let too_much = if state.is_early() {
            state.queue.frames() / EARLY > self.max_frames || state.queue.bytes() / EARLY > self.max_bytes
        } else {
            is_still_for(PATIENCE) && self.is_over(state)
        };
        too_much || is_still_for(self.write_timeout) || state.senders.cost() > self.terms.patience
    }
}
