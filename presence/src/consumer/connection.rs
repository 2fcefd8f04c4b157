//! One socket: reads it, keeps its deadlines, closes it.
//!
//! An ordinary actor on the thread that accepted the socket. The consumer runs in a task of its own, so that nothing it does
//! delays pings, deadlines or outgoing frames. When the socket is over, from whatever cause, the actor makes sure of three
//! things: the consumer hears of it once, every room is left, and the TCP connection is closed.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix::{Actor, AsyncContext, Context, Handler, WrapFuture};
use actix_http::ws;
use bytes::Bytes;

use crate::{
    CloseCode, Rooms,
    clock::Tick,
    delivery::{
        hubs::LocalHub,
        inquiry::AskedSilent,
        message::{Decision, ToConnection},
        outbox::Outbox,
    },
    name::UserId,
    rooms::channel::{Channel, End},
    telemetry::Cutoff,
};

use self::closing::later;

use super::{
    control::{close_frame, control},
    decoder::{Sent, Violation},
    inbox::{Inbox, Job},
    kill::KillSwitch,
    patience::{READING_TURNS, UNBLOCKED, turns},
    rates::Rates,
    transport::{Inbound, Incoming},
};

mod closing;

/// A timer that is later than this says that the thread was held up.
const BLOCKED: Duration = Duration::from_millis(100);
/// How many sockets a thread learns of in one turn that have something to be read.
const SOCKETS_PER_TURN: usize = 1024;

/// How long a client has to answer the Close of a node that is about to end. All the others wait for the slowest: the next
/// process starts when this one has ended.
const RESTART_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The consumer has not decided yet.
    Connecting,
    /// As before, but the client gave up or broke the protocol: it still gets an answer.
    TurnedAway,
    Open,
    /// A Close of ours is out, and that of the client is awaited.
    Closing,
    /// The client's Close is answered, or the connection is lost: only the end of the response is awaited.
    Over,
}

/// The actor of one socket.
pub(crate) struct Connection {
    pub(crate) rooms: Rooms,
    pub(crate) hub: LocalHub,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) rates: Rc<Rates>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) kill: KillSwitch,
    /// When anything last came in.
    pub(crate) seen: Rc<Cell<Tick>>,
    pub(crate) inbound: Option<Inbound>,
    /// Whose it is, and where it comes from, for the log.
    client: Client,
    phase: Phase,
    /// A Close that was asked for while the consumer connects: it follows the 101.
    early_close: Option<(CloseCode, String)>,
    ping: Option<Tick>,
    consumer_done: bool,
    body_gone: bool,
    /// The TCP connection was reset, so the server drops it by itself.
    is_reset: bool,
}

/// Who a socket was of at its handshake.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) user: Option<UserId>,
    /// The other end of the TCP connection: a proxy, if there is one.
    pub(crate) peer: Option<SocketAddr>,
}

/// What a connection is made of.
pub(crate) struct Parts {
    pub(crate) rooms: Rooms,
    pub(crate) hub: LocalHub,
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) inbox: Rc<Inbox>,
    pub(crate) rates: Rc<Rates>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) kill: KillSwitch,
    pub(crate) seen: Rc<Cell<Tick>>,
    pub(crate) inbound: Inbound,
    pub(crate) client: Client,
}

impl Connection {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { rooms, hub, channel, outbox, inbox, rates, kill, seen, inbound, client } = parts;
        rooms.hubs().sockets.send_modify(|open| *open += 1);
        Self {
            rooms,
            hub,
            channel,
            outbox,
            inbox,
            rates,
            kill,
            seen,
            inbound: Some(inbound),
            client,
            phase: Phase::Connecting,
            early_close: None,
            ping: None,
            consumer_done: false,
            body_gone: false,
            is_reset: false,
        }
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        use actix::ActorFutureExt;
        let Some(mut inbound) = self.inbound.take() else { return };
        let (inbox, outbox, rooms) = (self.inbox.clone(), self.outbox.clone(), self.rooms.clone());
        let rates = self.rates.clone();
        let read = async move {
            loop {
                match inbound.next().await {
                    Incoming::Sent(Sent::Data(frame)) => {
                        let arrived = rooms.this_node().now();
                        rates.message(&inbox).await;
                        if !inbox.push(frame, arrived).await {
                            // Only the client's Close still matters.
                            continue;
                        }
                    }
                    // Nothing more is read of a client that pings while more waits for it than may.
                    Incoming::Sent(Sent::Ping(payload)) => outbox.send_pong(&control(ws::Message::Pong(payload))).await,
                    Incoming::Sent(Sent::Pong) => {}
                    end => return (end, inbound),
                }
            }
        };
        ctx.spawn(read.into_actor(self).map(|(end, inbound), connection, ctx| match end {
            Incoming::Violation(violation) => connection.violated(violation, inbound, ctx),
            end => connection.read_to_its_end(end, ctx),
        }));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Also if this actor panicked, or its thread ends.
        self.channel.ends(End::Lost);
        self.inbox.cut(CloseCode::LOST);
        self.leave_rooms();
        if !self.is_reset {
            // The server logs an error for each body that fails.
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
                // It has joined again before it heard of this.
                _ if self.channel.is_in(&room) => {}
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
                    // What its client sent before is handled before `disconnect`.
                    self.inbox.end(code);
                }
            }
            ToConnection::ConsumerFailed => self.close(CloseCode::INTERNAL_ERROR, "the consumer failed", ctx),
            ToConnection::ConsumerDone => {
                self.consumer_done = true;
                self.stop_when_over(ctx);
            }
            ToConnection::AskSilent(asked) => self.ask_silent(asked, ctx),
            ToConnection::Flushed => {
                // Else the client would see the end only when the server's own patience ends.
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
        if self.phase == Phase::TurnedAway {
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
        self.look(self.rooms.this_node().now(), ctx);
    }

    /// Pings a silent client, and gives up on one that does not answer. It should have been done at `due`.
    fn look(&mut self, due: Tick, ctx: &mut Context<Self>) {
        if self.phase != Phase::Open {
            return;
        }
        let (now, seen) = (self.rooms.this_node().now(), self.seen.get());
        // The thread was held up, so nothing was read.
        let blocked = now.since(due) > BLOCKED;
        let (interval, timeout) = (self.rooms.config().ping_interval(), self.rooms.config().pong_timeout());
        if self.ping.is_some_and(|sent| seen >= sent) {
            self.ping = None;
        }
        // A pong cannot come before the ping was written, which may wait behind what a slow line still takes.
        let ping = self.ping.map(|queued| self.outbox.written().map(|written| written.max(queued)));
        let next = match ping {
            // It has a limit of its own: `write_timeout`.
            Some(None) => now.after(timeout.min(UNBLOCKED)),
            Some(Some(sent)) if now < sent.after(timeout) => sent.after(timeout),
            // What came to a machine that stood still comes again only some time later.
            Some(Some(sent)) if now < self.rooms.this_node().listening.silent_since(sent, now).after(timeout) => {
                self.rooms.this_node().listening.silent_since(sent, now).after(timeout)
            }
            // It is not read while its consumer is behind, so its pong cannot have come in.
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
        ctx.run_later(next.since(now), move |connection, ctx| connection.look(next, ctx));
    }

    /// Answers if nothing has come by now but what its consumer has handled, or is about to. What waits for the consumer the room
    /// sees for itself.
    fn ask_silent(&self, asked: AskedSilent, ctx: &mut Context<Self>) {
        if self.kill.has_unread() {
            return;
        }
        // Without a handle on the socket, the thread has to learn of all its sockets first.
        let unknown = if self.kill.is_armed() { 0 } else { self.hub.sockets.borrow().count() / SOCKETS_PER_TURN };
        let answer = async move {
            turns(READING_TURNS + unknown).await;
            asked.agree();
        };
        ctx.spawn(answer.into_actor(self));
    }

    /// The client broke the protocol or a limit. From here on it is not understood any more.
    fn violated(&mut self, violation: Violation, mut inbound: Inbound, ctx: &mut Context<Self>) {
        use actix::ActorFutureExt;
        let Violation { code, reason, in_close } = violation;
        match self.phase {
            Phase::Connecting => self.turn_away(CloseCode::PROTOCOL_ERROR, ctx),
            Phase::Open => {
                // In a Close its connection is ended, and often not by itself, as when a proxy closes it and does not know how: it
                // may come back. Anything else it would do again.
                self.channel.ends(if in_close { End::Lost } else { End::Left });
                let is_limit = code == CloseCode::TOO_LARGE;
                self.log_cutoff(if is_limit { Cutoff::TooLarge(reason) } else { Cutoff::Protocol(reason) }, None);
                self.outbox.drop_first_frames();
                if self.begin_close(code, reason, ctx) {
                    self.inbox.end(code);
                    // Its answer would not be understood, so it is not waited for.
                    self.outbox.finish();
                }
            }
            Phase::TurnedAway | Phase::Closing | Phase::Over => {}
        }
        // Else its client, which may have much more to send, would not come to read why.
        let rest = async move { inbound.drain().await };
        ctx.spawn(rest.into_actor(self).map(|(), connection, ctx| connection.lost(ctx)));
    }

    /// The client said something after which nothing more is read.
    fn read_to_its_end(&mut self, end: Incoming, ctx: &mut Context<Self>) {
        match end {
            Incoming::Sent(Sent::Close(_)) if self.phase == Phase::Closing => self.over(),
            Incoming::Sent(Sent::Close(sent)) => {
                match self.phase {
                    Phase::Connecting => return self.turn_away(CloseCode::PROTOCOL_ERROR, ctx),
                    Phase::TurnedAway | Phase::Over => return self.lost(ctx),
                    Phase::Open | Phase::Closing => {}
                }
                let code = sent.unwrap_or(CloseCode::NONE);
                self.channel.ends(if code.is_about_to_return() { End::Lost } else { End::Left });
                self.outbox.push_close(close_frame(sent.map(|code| (code, String::new()))));
                self.over();
                self.inbox.end(code);
                self.watch_close(ctx);
            }
            _ => self.lost(ctx),
        }
    }
}
