//! How fast one client may go: it is slowed down first, and closed only if it goes on.
//!
//! Who sends more than its rate is not read for a while, so that the kernel's buffers slow it down. When that begins, it is sent an
//! error once; one that has been slowed for `rate_patience` in all, without a second of rest, is closed with 1008.

use std::{cell::Cell, rc::Rc, time::Duration};

use actix::Addr;
use serde::Serialize;
use tracing::debug;

use crate::{
    Config, Outgoing,
    clock::Clock,
    model::rate::{Bucket, Rate},
    room::{message::ToConnection, outbox::Outbox},
};

use super::{connection::Connection, inbox::Inbox};

/// Who has left so much of its rate unused was not slowed without a rest.
const REST: Duration = Duration::from_secs(1);

/// The rates of one socket.
pub(crate) struct Rates {
    messages: Limit,
    joins: Limit,
    patience: Duration,
    clock: Clock,
    outbox: Rc<Outbox>,
    connection: Addr<Connection>,
}

/// A rate, and what one socket has left of it.
struct Limit {
    what: &'static str,
    per_second: usize,
    rate: Rate,
    bucket: Cell<Bucket>,
    /// For how long the client was slowed down since its last rest; `None` if it was not.
    slowed: Cell<Option<Duration>>,
}

impl Limit {
    fn new(what: &'static str, per_second: usize, rate: Rate) -> Self {
        Self { what, per_second, rate, bucket: Cell::default(), slowed: Cell::new(None) }
    }
}

/// What a client is sent that is slowed down.
#[derive(Serialize)]
struct TooFast<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'a str,
}

impl Rates {
    pub(crate) fn new(config: &Config, clock: Clock, outbox: Rc<Outbox>, connection: Addr<Connection>) -> Self {
        Self {
            messages: Limit::new("messages", config.messages_per_second(), config.message_rate()),
            joins: Limit::new("joins", config.joins_per_second(), config.join_rate()),
            patience: config.rate_patience(),
            clock,
            outbox,
            connection,
        }
    }

    /// Resolves when the client may send another message. Until then `inbox` knows that one is held back.
    pub(crate) async fn message(&self, inbox: &Inbox) {
        while !inbox.is_ended() {
            let Some(wait) = self.take(&self.messages) else { break };
            inbox.hold_back(true);
            tokio::time::sleep(wait).await;
        }
        inbox.hold_back(false);
    }

    /// Resolves when the socket may join another room.
    pub(crate) async fn join(&self) {
        while self.outbox.is_open()
            && let Some(wait) = self.take(&self.joins)
        {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes one, or says how long to wait for it.
    fn take(&self, limit: &Limit) -> Option<Duration> {
        let (now, mut bucket) = (self.clock.now(), limit.bucket.get());
        if limit.slowed.get().is_some() && bucket.has_rested(limit.rate, now, REST) {
            limit.slowed.set(None);
        }
        let taken = bucket.take(limit.rate, now);
        limit.bucket.set(bucket);
        let wait = taken.err()?;
        match limit.slowed.get() {
            None => self.warn(limit),
            Some(slowed) if slowed >= self.patience => self.connection.do_send(ToConnection::TooFast(limit.what)),
            Some(_) => {}
        }
        limit.slowed.set(Some(limit.slowed.get().unwrap_or_default() + wait));
        Some(wait)
    }

    /// Sends the client an error, so that whoever wrote it finds out why it is slow.
    fn warn(&self, limit: &Limit) {
        let Limit { what, per_second, .. } = limit;
        debug!(what, per_second, "a client is slowed down");
        let patience = humantime::format_duration(self.patience);
        let message = format!(
            "more than {per_second} {what} a second: you are slowed down, and closed with 1008 after {patience} of that"
        );
        if let Ok(error) = Outgoing::json(&TooFast { r#type: "error", code: "too_fast", message: &message }) {
            self.outbox.push(error.frames(), None);
        }
    }
}
