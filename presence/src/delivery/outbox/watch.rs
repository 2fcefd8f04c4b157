//! The watch over outboxes that are not empty, which finds clients that read too slowly.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use crate::{
    clock::Tick,
    delivery::message::{ToConnection, ToHub},
};

use super::{Mark, Outbox, OutboxPhase, OutboxState, PATIENCE, pauses::Reserve};

/// How many times the bound an outbox may hold before the handshake is answered, or while a first frame is queued. The client cannot read
/// the other frames then, so no sender waits for it.
const EARLY: usize = 8;

/// The time between two looks at the outboxes that are not empty.
pub(crate) const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// How late a timer may be on a thread that is not blocked.
const LATE: Duration = Duration::from_millis(10);

/// Whether the HTTP server drops a connection that is taken over from it, without ending it. If it does not, no other is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum ServerTrust {
    #[default]
    Unknown,
    /// The first one is taken over, and it is not known yet what the server did.
    Trying,
    LetsGo,
    Keeps,
}

/// What the outboxes of one thread share with its hub.
pub(crate) struct Filling {
    /// What the outboxes of the process share.
    pub(super) reserve: Arc<Reserve>,
    /// The outboxes for which senders wait.
    pub(crate) awaited: RefCell<Vec<Rc<Outbox>>>,
    /// The outboxes that are not empty, or were not at the last look.
    pub(crate) outboxes: RefCell<Vec<Rc<Outbox>>>,
    /// The hub has received [`ToHub::Write`], or will receive it.
    pub(crate) is_writing: Cell<bool>,
    /// The outboxes to which the hub writes next.
    pub(crate) unwritten: RefCell<VecDeque<Rc<Outbox>>>,
    /// The outboxes of connections that are too young to be taken over from the HTTP server, and when each will be old enough. The oldest is
    /// first.
    pub(super) young: RefCell<VecDeque<(Tick, Weak<Outbox>)>>,
    pub(crate) server: Cell<ServerTrust>,
    /// When the next look is due, if there are any.
    due: Cell<Option<Tick>>,
    /// For how long the thread was blocked up to the last look.
    blocked: Cell<Duration>,
}

impl Filling {
    pub(crate) fn new(reserve: Arc<Reserve>) -> Self {
        Self {
            reserve,
            awaited: RefCell::default(),
            outboxes: RefCell::default(),
            is_writing: Cell::default(),
            unwritten: RefCell::default(),
            young: RefCell::default(),
            server: Cell::default(),
            due: Cell::default(),
            blocked: Cell::default(),
        }
    }

    /// Records a look at the outboxes, and with `again` that the next is due after [`WATCH_INTERVAL`].
    pub(crate) fn looks(&self, now: Tick, again: bool) {
        self.blocked.set(self.blocked(now));
        self.due.set(again.then(|| now.after(WATCH_INTERVAL)));
    }

    /// For how long the thread was blocked in all: from the time at which a look was due until it happened, or until now. No frames were
    /// written meanwhile, and that is not the fault of the clients. After a block the server may poll before the look happens.
    pub(super) fn blocked(&self, now: Tick) -> Duration {
        self.blocked.get() + self.due.get().map_or(Duration::ZERO, |due| now.since(due).saturating_sub(LATE))
    }
}

impl Outbox {
    /// Registers this outbox for the looks of the hub, until [`watch`](Self::watch) returns false.
    pub(super) fn have_watched(&self, state: &mut OutboxState) {
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

    /// Checks whether the client reads fast enough. Returns whether the outbox must be watched further.
    pub(crate) fn watch(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let now = self.now();
        state.senders.look(now, self.terms);
        if let (Some(first), Some(attached)) = (&mut state.first, state.attached) {
            first.look(now, attached);
        }
        let is_ending = state.is_ending() && state.attached.is_some();
        let is_taken = matches!(state.mark, Mark::Taken(_));
        let is_over = state.gone || state.phase == OutboxPhase::Broken;
        if is_over || state.queue.is_empty() && !is_taken && !is_ending {
            state.watched = false;
            return false;
        }
        let is_writable = (is_taken || is_ending) && self.is_writable();
        if let Mark::Taken(at) = state.mark
            // After a time-out this holds also if the kernel never accepts all, because more frames were added.
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

    /// Requests that the connection is closed, since the client reads too slowly.
    pub(crate) fn cut_off(&self) {
        self.notify_connection(ToConnection::TooSlow);
    }

    fn is_too_slow(&self, state: &OutboxState, now: Tick) -> bool {
        // Before the handshake is answered the client can read nothing. The handshake has a time limit of its own.
        let still = state.attached.map(|attached| now.since(state.progress.max(attached)));
        let is_still_for = |limit| still.is_some_and(|still| still > limit);
        let too_much = if state.is_early() {
            // What was lent before a first frame came is no reason to cut the client off.
            let frames = state.queue.frames().saturating_sub(state.loan.pieces);
            let bytes = state.queue.bytes().saturating_sub(state.loan.frame_bytes());
            frames / EARLY > self.max_frames || bytes / EARLY > self.max_bytes
        } else {
            is_still_for(PATIENCE) && self.is_over(state)
        };
        too_much || is_still_for(self.write_timeout) || state.senders.cost() > self.terms.patience
    }
}
