//! Checks the handshake, and reads WebSocket frames from the connection. The only file that uses `actix-web-actors`.
//!
//! The actor of `actix-web-actors` itself is not used: it is polled as the body of the response, so a client that stops reading
//! stops the whole actor.

use std::{cell::Cell, future::poll_fn, rc::Rc};

use actix_http::ws::verify_handshake;
use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder,
    body::BoxBody,
    http::{
        StatusCode, Version,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};
use actix_web_actors::ws;

use crate::clock::{Clock, Tick};

use super::{
    decoder::{Decoder, Sent, Violation},
    line::Line,
};

/// Checks the client's handshake, and begins the response that accepts it. `Err` has the response that refuses it.
///
/// `actix_http` checks the method, the version, the key and `Connection`. `actix-web-actors` would accept the drafts 7 and 8 and any key,
/// but it computes the 101. Neither checks the rest of RFC 6455, 4.2.1.
pub(crate) fn handshake(req: &HttpRequest) -> Result<HttpResponseBuilder, Box<HttpResponse>> {
    verify(req)?;
    ws::handshake(req).map_err(|error| Box::new(HttpResponse::from_error(error)))
}

/// Headers that a handshake must not repeat: a proxy might use the first one, and the server the second.
const ONCE: [(HeaderName, &str); 3] = [
    (header::SEC_WEBSOCKET_KEY, "a handshake has one `Sec-WebSocket-Key`"),
    (header::SEC_WEBSOCKET_VERSION, "a handshake has one `Sec-WebSocket-Version`"),
    (header::ORIGIN, "a handshake has one `Origin`"),
];

fn verify(req: &HttpRequest) -> Result<(), Box<HttpResponse>> {
    verify_handshake(req.head()).map_err(|error| {
        let mut refused = HttpResponse::from_error(error).set_body(BoxBody::new(error.to_string()));
        if refused.status() == StatusCode::BAD_REQUEST {
            name_version(refused.headers_mut());
        }
        Box::new(refused)
    })?;
    if req.version() != Version::HTTP_11 {
        return Err(bad_handshake("a handshake needs HTTP/1.1"));
    }
    // If the list has other protocols too, `actix_http` does not treat the request as an upgrade, and reads no frames.
    let upgrades = req.headers().get_all(header::UPGRADE);
    if !upgrades.filter_map(|value| value.to_str().ok()).any(|value| value.trim().eq_ignore_ascii_case("websocket")) {
        return Err(bad_handshake("`Upgrade` must be `websocket` and nothing else"));
    }
    match ONCE.iter().find(|(name, _)| req.headers().get_all(name).count() > 1) {
        Some((_, reason)) => Err(bad_handshake(reason)),
        None => Ok(()),
    }
}

fn bad_handshake(reason: &'static str) -> Box<HttpResponse> {
    let mut refused = HttpResponse::BadRequest().body(reason);
    name_version(refused.headers_mut());
    Box::new(refused)
}

/// Names the supported version, for a client that uses another one (RFC 6455, 4.4).
fn name_version(headers: &mut HeaderMap) {
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
}

/// What the client did next.
#[derive(Debug)]
pub(crate) enum Incoming {
    Sent(Sent),
    /// The client broke the protocol or a limit.
    Violation(Violation),
    /// The connection has ended.
    Lost,
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.line.end_reading();
    }
}

/// Reads a client's frames.
pub(crate) struct Inbound {
    line: Rc<Line>,
    decoder: Decoder,
    clock: Clock,
    /// When bytes last arrived.
    seen: Rc<Cell<Tick>>,
    /// Whether the reader has waited since then.
    waited: bool,
}

impl Inbound {
    pub(crate) fn new(
        line: Rc<Line>,
        (max_frame, max_message): (usize, usize),
        clock: Clock,
        seen: Rc<Cell<Tick>>,
    ) -> Self {
        Self { line, decoder: Decoder::new(max_frame, max_message), clock, seen, waited: false }
    }

    /// The next message or control frame. Must not be called again after a violation, a Close or a loss.
    pub(crate) async fn next(&mut self) -> Incoming {
        loop {
            match self.decoder.next() {
                Ok(Some(sent)) => return Incoming::Sent(sent),
                Ok(None) => {}
                Err(violation) => return Incoming::Violation(violation),
            }
            let Some(bytes) = poll_fn(|cx| self.line.poll_read(cx)).await else { return Incoming::Lost };
            self.seen.set(self.clock.now());
            self.waited = false;
            self.decoder.feed(bytes);
        }
    }

    /// The time now. The clock is not read again for each of many frames that arrived together.
    pub(crate) fn now(&self) -> Tick {
        if self.waited { self.clock.now() } else { self.seen.get() }
    }

    /// Reads the next messages that have arrived and are the same heartbeat as the one before, but `most` of them at the most. Returns how
    /// many.
    pub(crate) fn repetitions(&mut self, most: usize) -> usize {
        self.decoder.repetitions(most)
    }

    /// The reader has waited for something else than bytes, so time has passed since they arrived.
    pub(crate) fn has_waited(&mut self) {
        self.waited = true;
    }

    /// Reads to the end of the connection, and drops everything.
    pub(crate) async fn drain(&mut self) {
        self.decoder.forget();
        while poll_fn(|cx| self.line.poll_read(cx)).await.is_some() {}
    }
}
