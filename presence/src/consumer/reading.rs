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
    pub(crate) async fn run(mut self) {
        let _ended = Ended(self.connection.clone());
        let Self { inbound, inbox, outbox, rates, .. } = &mut self;
        let end = loop {
            match inbound.next().await {
                Incoming::Sent(Sent::Data(frame)) => {
                    let arrived = inbound.now();
                    if rates.message(inbox, arrived).await {
                        inbound.has_waited();
                    }
                    if inbox.is_full() {
                        inbox.space().await;
                        inbound.has_waited();
                    }
                    // After the end of the socket only the client's Close matters.
                    inbox.push(frame, arrived);
                }
                // While the outbox is full, this waits, and nothing more is read from a client that sends pings.
                Incoming::Sent(Sent::Ping(payload)) => {
                    outbox.send_pong(&control(ws::Message::Pong(payload))).await;
                    inbound.has_waited();
                }
                Incoming::Sent(Sent::Pong) => {}
                end => break end,
            }
        };
        self.end.set(Some(Box::new((end, self.inbound))));
    }
}
