//! Reads from a client: its messages are for its consumer, and its pings are answered.

use std::{cell::Cell, rc::Rc};

use actix::Recipient;
use actix_http::ws;

use crate::delivery::{Outbox, ToConnection};

use super::{
    control::control,
    decoder::Sent,
    inbox::Inbox,
    rates::Rates,
    transport::{Inbound, Incoming},
};

/// How the reading ended, for the connection. It stays empty after a panic.
pub(crate) type ReadingEnd = Rc<Cell<Option<Box<(Incoming, Inbound)>>>>;

/// What is needed to read from a client.
pub(crate) struct Reading {
    pub(crate) inbound: Inbound,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) rates: Rc<Rates>,
    pub(crate) connection: Recipient<ToConnection>,
    pub(crate) end: ReadingEnd,
}

/// Notifies the connection that the reading has ended, also by a panic.
struct Ended(Recipient<ToConnection>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.do_send(ToConnection::ReadingEnded);
    }
}

impl Reading {
    /// Reads until the client closes, breaks the protocol, or is lost.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its argument twice, as long as the socket is open")]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let _ended = Ended(self.connection);
            let end = loop {
                match self.inbound.next().await {
                    Incoming::Sent(Sent::Data(frame)) => {
                        let arrived = self.inbound.now();
                        if self.rates.message(&self.inbox, arrived).await {
                            self.inbound.has_waited();
                        }
                        if self.inbox.is_full() {
                            self.inbox.space().await;
                            self.inbound.has_waited();
                        }
                        // After the end of the socket only the client's Close matters.
                        // If the rate of messages is limited, each message counts for itself.
                        let space = if self.rates.limits_messages() { 0 } else { self.inbox.space_after_one() };
                        let repetitions = self.inbound.repetitions(space);
                        if repetitions > 0 {
                            self.inbox.push(frame.clone(), 1, arrived);
                            self.inbox.push(frame, repetitions, self.inbound.now());
                        } else {
                            self.inbox.push(frame, 1, arrived);
                        }
                    }
                    // While the outbox is full, this waits, and nothing more is read from a client that sends pings.
                    Incoming::Sent(Sent::Ping(payload)) => {
                        self.outbox.send_pong(&control(ws::Message::Pong(payload))).await;
                        self.inbound.has_waited();
                    }
                    Incoming::Sent(Sent::Pong) => {}
                    end => break end,
                }
            };
            self.end.set(Some(Box::new((end, self.inbound))));
        }
    }
}
