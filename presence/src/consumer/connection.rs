//! The actor of one socket: it watches the deadlines, and closes the connection.
//!
//! It runs on the thread that accepted the socket. The client is read and the consumer runs in another task, so that it cannot delay
//! pings, deadlines or outgoing frames. However the socket ends, the actor ensures three things: `disconnect` of the consumer runs once, the socket
//! leaves every room, and the TCP connection is closed.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use actix_http::ws;
use bytes::Bytes;

use crate::{
    CloseCode, Rooms,
    clock::Tick,
    delivery::{Decision, LocalHub, Outbox, SilenceQuestion, ToConnection},
    name::UserId,
    rooms::{Channel, SocketEnd},
    telemetry::Cutoff,
};

use self::closing::later;

use super::{
    control::{close_frame, control},
    decoder::{Sent, Violation},
    inbox::{Inbox, Job},
    kill::KillSwitch,
    patience::{READING_TURNS, UNBLOCKED, turns},
    reading::ReadingEnd,
    transport::{Inbound, Incoming},
};

mod closing;
mod start;

pub(crate) use self::start::start;

/// A timer that fires later than this shows that the thread was blocked.
const BLOCKED: Duration = Duration::from_millis(100);
/// How many sockets with something to read a thread learns of each time it polls the kernel.
const SOCKETS_PER_TURN: usize = 1024;

/// How long a client may take to answer the Close of a node that restarts. It is short, because the next process starts only when this
/// one has ended, so all clients wait for the slowest.
const RESTART_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The consumer has not decided yet.
    Connecting,
    /// The consumer has not decided, but the client gave up or broke the protocol. It still receives a response.
    GaveUp,
    Open,
    /// The server has sent a Close, and waits for that of the client.
    Closing,
    /// The client's Close is answered, or the connection is lost. The actor waits only for the end of the response.
    Over,
}

/// The actor of one socket.
pub(crate) struct Connection {
    rooms: Rooms,
    hub: LocalHub,
    outbox: Rc<Outbox>,
    inbox: Rc<Inbox>,
    channel: Arc<Channel>,
    kill: KillSwitch,
    /// When bytes last arrived.
    seen: Rc<Cell<Tick>>,
    reading_end: ReadingEnd,
    /// For the log.
    client: Client,
    phase: Phase,
    /// A Close that the consumer requested in `connect`. It follows the 101.
    early_close: Option<(CloseCode, String)>,
    ping: Option<Tick>,
    consumer_done: bool,
    body_gone: bool,
    /// The TCP connection was reset, so the HTTP server drops it by itself.
    is_reset: bool,
}

/// The client, as the handshake shows it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) user: Option<UserId>,
    /// The other end of the TCP connection. It may be a proxy.
    pub(crate) peer: Option<SocketAddr>,
}

impl Actor for Connection {
    type Context = Context<Self>;
}

impl Drop for Connection {
    fn drop(&mut self) {
        // This must happen also when the actor panics, or when its thread ends.
        self.channel.set_end(SocketEnd::Lost);
        self.inbox.cut(CloseCode::LOST);
        self.inbox.abandon();
        self.leave_rooms();
        if !self.is_reset {
            // After a reset this is not needed, and the HTTP server would log an error for the body that fails.
            self.outbox.abort();
        }
        self.kill.release();
        self.hub.sockets.borrow_mut().leave(self.channel.name());
        self.rooms.channels().close(self.channel.name());
        self.rooms.hubs().sockets.send_modify(|open| *open -= 1);
    }
}

impl Handler<ToConnection> for Connection {
    type Result = ();

    fn handle(&mut self, message: ToConnection, ctx: &mut Self::Context) {
        match message {
            ToConnection::Close { code, reason } => self.close(code, reason, ctx),
            ToConnection::Restart { within, part } => {
                let spread = self.channel.shortest_grace().map_or(Duration::ZERO, |grace| within.min(grace / 3));
                ctx.run_later(spread.mul_f64(part), |connection, ctx| {
                    connection.close(CloseCode::RESTARTING, "the node is restarting", ctx);
                    let patience = RESTART_PATIENCE.min(connection.rooms.config().close_timeout());
                    connection.cut_after(patience, ctx);
                });
            }
            ToConnection::Removed { room, close } => match close {
                // The socket has joined again before this message arrived. That does not keep a client from being closed.
                None if self.channel.is_in(&room) => {}
                Some(close) if !close.is_for_client() && self.channel.is_in(&room) => {}
                Some(close) => {
                    if close.code == CloseCode::STALE {
                        self.log_cutoff(Cutoff::Stale, Some(&room));
                    }
                    self.close(close.code, &close.reason, ctx);
                }
                None => self.inbox.push_event(Job::Removed(room)),
            },
            ToConnection::TooSlow => self.too_slow(ctx),
            ToConnection::MakeRoom => self.make_room(ctx),
            ToConnection::TooFast(what) => {
                if matches!(self.phase, Phase::Connecting | Phase::Open) {
                    self.log_cutoff(Cutoff::TooFast(what), None);
                }
                self.close(CloseCode::TOO_FAST, &format!("too many {what}"), ctx);
            }
            ToConnection::Event(event) => self.inbox.push_event(Job::Event(event)),
            ToConnection::Decided(decision) => self.decided(decision, ctx),
            ToConnection::CloseByConsumer { code, reason } => {
                if self.phase == Phase::Connecting {
                    self.early_close.get_or_insert((code, reason));
                } else if self.begin_close(code, &reason, ctx) {
                    // The consumer handles what the client sent before, and then `disconnect` runs.
                    self.inbox.end(code);
                }
            }
            ToConnection::ReadingEnded => match self.reading_end.take().map(|end| *end) {
                Some((Incoming::Violation(violation), inbound)) => self.violated(violation, inbound, ctx),
                Some((end, _)) => self.read_to_the_end(end, ctx),
                None => self.lost(ctx),
            },
            ToConnection::ConsumerFailed => self.close(CloseCode::INTERNAL_ERROR, "the consumer failed", ctx),
            ToConnection::ConsumerDone => {
                self.consumer_done = true;
                self.stop_when_over(ctx);
            }
            ToConnection::CheckSilence(asked) => self.ask_silent(asked, ctx),
            ToConnection::Flushed => {
                // Otherwise the client would see the end only after the timeout of the HTTP server.
                self.kill.limit_writes(self.rooms.config().write_timeout());
                self.kill.finish();
                if self.phase == Phase::Over {
                    self.kill.release();
                }
            }
            ToConnection::BodyGone => {
                self.body_gone = true;
                self.kill.release();
                if self.phase != Phase::Over {
                    self.lost(ctx);
                }
                self.stop_when_over(ctx);
            }
        }
    }
}

impl Connection {
    fn decided(&mut self, decision: Decision, ctx: &mut Context<Self>) {
        if self.phase == Phase::GaveUp {
            self.phase = Phase::Over;
        }
        if self.phase != Phase::Connecting {
            return;
        }
        match decision {
            Decision::Accepted => {}
            Decision::Refused { code, reason } => {
                self.phase = Phase::Open;
                self.close(code, &reason, ctx);
                return;
            }
            Decision::Denied => {
                self.phase = Phase::Over;
                return;
            }
        }
        self.phase = Phase::Open;
        self.seen.set(self.rooms.this_node().now());
        if let Some((code, reason)) = self.early_close.take()
            && self.begin_close(code, &reason, ctx)
        {
            self.inbox.end(code);
        }
        later(ctx, self.rooms.config().handshake_timeout(), |connection, ctx| {
            if !connection.outbox.is_attached() {
                connection.log_cutoff(Cutoff::NotFetched, None);
                connection.lost(ctx);
            }
        });
        self.check_liveness(self.rooms.this_node().now(), ctx);
    }

    /// Sends a ping to a silent client, and cuts off one that does not answer. `due` is the time for which this call was scheduled.
    fn check_liveness(&mut self, due: Tick, ctx: &mut Context<Self>) {
        if self.phase != Phase::Open {
            return;
        }
        let (now, seen) = (self.rooms.this_node().now(), self.seen.get());
        // While the thread was blocked, it could read nothing.
        let blocked = now.since(due) > BLOCKED;
        let (interval, timeout) = (self.rooms.config().ping_interval(), self.rooms.config().pong_timeout());
        if self.ping.is_some_and(|sent| seen >= sent) {
            self.ping = None;
        }
        // A pong cannot arrive before the ping is written, and on a slow line the ping waits for the frames before it.
        let ping = self.ping.map(|queued| self.outbox.written().map(|written| written.max(queued)));
        let next = match ping {
            // The ping is not written yet. `write_timeout` limits that.
            Some(None) => now.after(timeout.min(UNBLOCKED)),
            Some(Some(sent)) if now < sent.after(timeout) => sent.after(timeout),
            // If the machine stood still, the client's packets are repeated only some time later.
            Some(Some(sent)) if now < self.rooms.this_node().standstills.silent_since(sent, now).after(timeout) => {
                self.rooms.this_node().standstills.silent_since(sent, now).after(timeout)
            }
            // While the inbox is full, nothing is read, so the pong cannot have arrived.
            Some(_) if self.inbox.has_backlog() => now.after(timeout),
            Some(_) if blocked || self.kill.has_unread() => now.after(timeout.min(UNBLOCKED)),
            Some(_) => {
                self.log_cutoff(Cutoff::NoPong, None);
                self.lost(ctx);
                return;
            }
            None if now >= seen.after(interval) => {
                self.outbox.push_ping(&control(ws::Message::Ping(Bytes::new())));
                self.ping = Some(now);
                now.after(timeout)
            }
            None => seen.after(interval),
        };
        ctx.run_later(next.since(now), move |connection, ctx| connection.check_liveness(next, ctx));
    }

    /// Agrees that the socket is silent, if nothing has arrived that was not read. The room itself sees whether frames wait for the
    /// consumer.
    fn ask_silent(&self, asked: SilenceQuestion, ctx: &mut Context<Self>) {
        if self.kill.has_unread() {
            return;
        }
        // Without a handle on the socket, the thread must first poll the kernel often enough to learn of all its sockets.
        let unknown = if self.kill.is_armed() { 0 } else { self.hub.sockets.borrow().count() / SOCKETS_PER_TURN };
        let answer = async move {
            turns(READING_TURNS + unknown).await;
            asked.agree();
        };
        ctx.spawn(answer.into_actor(self));
    }

    /// The client broke the protocol or a limit. What it sends from here on cannot be decoded.
    fn violated(&mut self, violation: Violation, mut inbound: Inbound, ctx: &mut Context<Self>) {
        use actix::ActorFutureExt;
        let Violation { code, reason, in_close } = violation;
        match self.phase {
            Phase::Connecting => self.give_up(CloseCode::PROTOCOL_ERROR, ctx),
            Phase::Open => {
                // A Close ends the connection in any case, and often a proxy sent it and not the client, so the client may return.
                // A client that broke the protocol otherwise would do it again.
                self.channel.set_end(if in_close { SocketEnd::Lost } else { SocketEnd::Left });
                let is_limit = code == CloseCode::TOO_LARGE;
                self.log_cutoff(if is_limit { Cutoff::TooLarge(reason) } else { Cutoff::Protocol(reason) }, None);
                self.outbox.drop_first_frames();
                if self.begin_close(code, reason, ctx) {
                    self.inbox.end(code);
                    // The client's answer could not be decoded, so the server does not wait for it.
                    self.outbox.finish();
                }
            }
            Phase::GaveUp | Phase::Closing | Phase::Over => {}
        }
        // Otherwise a client that has much more to send would not read the reason before the connection ends.
        let rest = async move { inbound.drain().await };
        ctx.spawn(rest.into_actor(self).map(|(), connection, ctx| connection.lost(ctx)));
    }

    /// The client sent a Close, or the connection is lost. Nothing more is read.
    fn read_to_the_end(&mut self, end: Incoming, ctx: &mut Context<Self>) {
        match end {
            Incoming::Sent(Sent::Close(_)) if self.phase == Phase::Closing => self.over(),
            Incoming::Sent(Sent::Close(sent)) => {
                match self.phase {
                    Phase::Connecting => return self.give_up(CloseCode::PROTOCOL_ERROR, ctx),
                    Phase::GaveUp | Phase::Over => return self.lost(ctx),
                    Phase::Open | Phase::Closing => {}
                }
                let code = sent.unwrap_or(CloseCode::NONE);
                self.channel.set_end(if code.is_about_to_return() { SocketEnd::Lost } else { SocketEnd::Left });
                self.outbox.push_close(close_frame(sent.map(|code| (code, String::new()))));
                self.over();
                self.inbox.end(code);
                self.watch_close(ctx);
            }
            _ => self.lost(ctx),
        }
    }
}
