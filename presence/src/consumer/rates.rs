//! Limits the rates of one client. A client that exceeds them is slowed down first, and closed only if it continues.
//!
//! For a while the server does not read from a client that exceeds its rate, so that the kernel's buffers slow it down. When this begins,
//! the client receives one error. A client that has been slowed down for `rate_patience` in all, without a second of rest, is closed with
//! 1008. The part of its rate that it left unused before extends this time, and messages that arrived while this node stood still are not
//! slowed down: see [`RateLimiter`].

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::Recipient;
use serde::Serialize;
use tracing::debug;

use crate::{
    Outgoing, Rooms,
    clock::Tick,
    delivery::{Outbox, ToConnection},
    model::rate::{Rate, RateLimiter, SlowStage, Slowed},
};

use super::inbox::Inbox;

/// The rates of one socket.
pub(crate) struct Rates {
    messages: Limit,
    joins: Limit,
    /// For how long joins have waited in all, for their rate and for a notice of their room.
    joins_waited: Cell<Duration>,
    /// When the rooms of all joins so far will have sent a notice.
    notices_until: Cell<Tick>,
    rooms: Rooms,
    outbox: Rc<Outbox>,
    connection: Recipient<ToConnection>,
}

/// A rate, and how much of it one socket has left.
struct Limit {
    what: &'static str,
    per_second: usize,
    rate: Rate,
    pace: Cell<RateLimiter>,
    /// The time of standstills up to here is given back already.
    listened: Cell<Tick>,
}

impl Limit {
    fn new(what: &'static str, per_second: usize, rate: Rate, now: Tick) -> Self {
        Self { what, per_second, rate, pace: Cell::new(RateLimiter::new(now)), listened: Cell::new(now) }
    }
}

/// The error that a client receives when it is slowed down.
#[derive(Serialize)]
struct TooFast<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
}

impl Rates {
    pub(crate) fn new(rooms: Rooms, outbox: Rc<Outbox>, connection: Recipient<ToConnection>) -> Self {
        let (config, now) = (rooms.config(), rooms.this_node().now());
        Self {
            messages: Limit::new("messages", config.messages_per_second(), config.message_rate(), now),
            joins: Limit::new("joins", config.joins_per_second(), config.join_rate(), now),
            joins_waited: Cell::default(),
            notices_until: Cell::new(now),
            rooms,
            outbox,
            connection,
        }
    }

    /// Whether the rate of messages is limited.
    pub(crate) fn limits_messages(&self) -> bool {
        self.messages.per_second != 0
    }

    /// Resolves when the client may send another message, with whether it had to wait. While it waits, `inbox` is marked as holding a frame
    /// back. The message arrived at `now`.
    pub(crate) async fn message(&self, inbox: &Inbox, mut now: Tick) -> bool {
        let mut waited = false;
        while !inbox.is_ended()
            && let Some(slowed) = self.take(&self.messages, now)
        {
            waited = true;
            inbox.hold_back(true);
            tokio::time::sleep(slowed.wait).await;
            now = self.rooms.this_node().now();
        }
        inbox.hold_back(false);
        waited
    }

    /// Resolves when the socket may join another room.
    pub(crate) async fn join(&self) {
        while self.outbox.is_open()
            && let Some(slowed) = self.take(&self.joins, self.rooms.this_node().now())
        {
            self.joins_waited.set(self.joins_waited.get().saturating_add(slowed.more));
            tokio::time::sleep(slowed.wait).await;
        }
        self.count_notice();
    }

    /// A join of a busy room resolves with the next notice of the room. That wait must not count as time of the consumer, so it is added
    /// here. Waits at the same time count once.
    fn count_notice(&self) {
        let now = self.rooms.this_node().now();
        let until = now.after(self.rooms.config().notify_interval());
        let more = until.since(self.notices_until.get().max(now));
        self.notices_until.set(until);
        self.joins_waited.set(self.joins_waited.get().saturating_add(more));
    }

    /// For how long joins of this socket have waited in all, including the waits that have just begun. Waits at the same time count once.
    pub(crate) fn joins_waited(&self) -> Duration {
        self.joins_waited.get()
    }

    /// Uses one unit of the rate, or returns how long to wait for it.
    fn take(&self, limit: &Limit, now: Tick) -> Option<Slowed> {
        if limit.per_second == 0 {
            return None;
        }
        let (patience, mut pace) = (self.rooms.config().rate_patience(), limit.pace.get());
        if !pace.has_one(limit.rate, now)
            && let Some((stood, from)) = self.rooms.this_node().standstills.just_ended_since(limit.listened.get(), now)
        {
            limit.listened.set(from);
            pace.give_back(stood, now);
        }
        let taken = pace.take(limit.rate, patience, now);
        limit.pace.set(pace);
        let slowed = taken.err()?;
        match slowed.stage {
            SlowStage::Begins => self.warn(limit),
            SlowStage::TooLong => self.connection.do_send(ToConnection::TooFast(limit.what)),
            SlowStage::GoesOn => {}
        }
        Some(slowed)
    }

    /// Sends the client an error, so that its developer can find out why it is slow.
    fn warn(&self, limit: &Limit) {
        let Limit { what, per_second, .. } = limit;
        debug!(what, per_second, "a client is slowed down");
        let patience = humantime::format_duration(self.rooms.config().rate_patience());
        let message = format!(
            "more than {per_second} {what} a second: you are slowed down, and closed with 1008 after {patience} of that"
        );
        if let Ok(error) = Outgoing::json(&TooFast { r#type: "error", code: "too_fast", message: &message }) {
            self.outbox.push(error.frames(), None);
        }
    }
}
