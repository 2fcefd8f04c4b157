//! Closes a socket, or cuts it off, and logs why.

use std::time::Duration;

use actix::{ActorContext, AsyncContext, Context};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::{
    CloseCode,
    consumer::{
        control::close_frame,
        patience::{UNBLOCKED, again},
    },
    name::RoomName,
    rooms::SocketEnd,
    telemetry::Cutoff,
};

use super::{Connection, Phase};

/// How many rooms of a socket are named in a line of the log.
const NAMED_ROOMS: usize = 3;

impl Connection {
    /// Closes the socket. Frames of the client that the consumer has not handled are dropped, and so are first frames that are not sent yet.
    /// A socket that is still connecting is refused.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str, ctx: &mut Context<Self>) {
        self.outbox.drop_first_frames();
        if self.begin_close(code, reason, ctx) {
            self.inbox.cut(code);
        }
    }

    /// Sends a Close, at once or after the 101, unless the socket is closing already.
    pub(super) fn begin_close(&mut self, code: CloseCode, reason: &str, ctx: &mut Context<Self>) -> bool {
        if matches!(self.phase, Phase::Connecting | Phase::Open) {
            // After these codes the client is expected to return: a newer socket resumes the presences of a superseded one, and a
            // client that is too slow did not decide to leave.
            let lost = matches!(code, CloseCode::RESTARTING | CloseCode::SUPERSEDED | CloseCode::TOO_SLOW);
            self.channel.set_end(if lost { SocketEnd::Lost } else { SocketEnd::Left });
        }
        match self.phase {
            Phase::Connecting => {
                self.early_close.get_or_insert((code, reason.to_owned()));
            }
            Phase::GaveUp | Phase::Closing | Phase::Over => return false,
            Phase::Open => {
                debug!(channel = %self.channel.name(), %code, reason, "closing a socket");
                self.phase = Phase::Closing;
                self.outbox.push_close(close_frame(Some((code, reason.to_owned()))));
                self.watch_close(ctx);
            }
        }
        true
    }

    /// Resets the connection if the client does not answer the Close within `close_timeout` after it was written. The time in which the
    /// client still reads the frames before the Close does not count, but the socket leaves its rooms after `close_timeout` in any case.
    pub(super) fn watch_close(&mut self, ctx: &mut Context<Self>) {
        later(ctx, self.rooms.config().close_timeout(), |connection, ctx| {
            connection.leave_rooms();
            connection.cut_when_still(ctx);
        });
    }

    fn cut_when_still(&mut self, ctx: &mut Context<Self>) {
        let (limit, still) = (self.rooms.config().close_timeout(), self.outbox.still_for());
        if still < limit && !self.is_reset && !self.body_gone {
            later(ctx, limit.saturating_sub(still), Self::cut_when_still);
            return;
        }
        self.cut_unanswered();
        self.stop_when_over(ctx);
    }

    pub(super) fn cut_after(&mut self, patience: Duration, ctx: &mut Context<Self>) {
        later(ctx, patience, |connection, ctx| {
            connection.leave_rooms();
            connection.cut_unanswered();
            connection.stop_when_over(ctx);
        });
    }

    /// Resets the connection of a client that did not read or answer a Close in time.
    fn cut_unanswered(&mut self) {
        if !self.is_reset && !self.body_gone {
            debug!(channel = %self.channel.name(), "a Close is not answered in time; the connection is reset");
        }
        self.cut();
    }

    pub(super) fn too_slow(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Connecting | Phase::Open) {
            self.log_cutoff(Cutoff::TooSlow, None);
        }
        match self.phase {
            Phase::Open => {
                if self.outbox.clear_but_begun() {
                    self.close(CloseCode::TOO_SLOW, "too slow", ctx);
                } else {
                    // A Close cannot follow a frame that is half sent.
                    self.channel.set_end(SocketEnd::Lost);
                    self.phase = Phase::Over;
                    self.cut();
                    self.inbox.cut(CloseCode::TOO_SLOW);
                    self.watch_close(ctx);
                }
            }
            Phase::Connecting => self.close(CloseCode::TOO_SLOW, "too slow", ctx),
            // The timer of the closing handshake is running already.
            Phase::GaveUp | Phase::Closing | Phase::Over => {}
        }
    }

    /// The first frames that wait for this socket keep other sockets from joining.
    pub(super) fn make_room(&mut self, ctx: &mut Context<Self>) {
        match self.phase {
            Phase::Connecting | Phase::Open => self.too_slow(ctx),
            // A Close would not help: it waits after those frames.
            Phase::GaveUp | Phase::Closing | Phase::Over => {
                debug!(channel = %self.channel.name(), "a closing socket keeps others from joining; the connection is reset");
                self.cut();
                self.stop_when_over(ctx);
            }
        }
    }

    /// The client gave up before the response. It receives a status, or a Close if its consumer has just accepted it.
    pub(super) fn give_up(&mut self, code: CloseCode, ctx: &mut Context<Self>) {
        debug!(channel = %self.channel.name(), %code, "a client gave up, or broke the protocol, before it was answered");
        self.channel.set_end(SocketEnd::Lost);
        self.phase = Phase::GaveUp;
        self.outbox.drop_first_frames();
        if code != CloseCode::LOST {
            self.outbox.push_close(close_frame(Some((code, String::new()))));
        }
        self.outbox.end();
        self.inbox.cut(code);
        self.watch_close(ctx);
    }

    /// The connection is lost, or must be treated as lost.
    pub(super) fn lost(&mut self, ctx: &mut Context<Self>) {
        match self.phase {
            // Perhaps the client ended only its half of the connection, and still reads the response.
            Phase::Connecting => return self.give_up(CloseCode::LOST, ctx),
            Phase::GaveUp => return self.stop_when_over(ctx),
            Phase::Open | Phase::Closing | Phase::Over => {}
        }
        let closing = matches!(self.phase, Phase::Closing | Phase::Over);
        self.channel.set_end(SocketEnd::Lost);
        self.phase = Phase::Over;
        self.cut();
        self.inbox.cut(CloseCode::LOST);
        if !closing {
            self.watch_close(ctx);
        }
        self.stop_when_over(ctx);
    }

    /// Closes the TCP connection. What was not sent is dropped.
    fn cut(&mut self) {
        self.phase = Phase::Over;
        self.outbox.clear();
        if self.is_reset || self.kill.is_armed() {
            self.outbox.end();
            self.kill.reset();
            self.is_reset = true;
        } else {
            // Without a handle on the socket, the HTTP server drops the connection only when the body fails.
            self.outbox.abort();
        }
    }

    /// The client has closed. The response ends when the frames that still wait are written.
    pub(super) fn over(&mut self) {
        self.phase = Phase::Over;
        self.outbox.drop_first_frames();
        self.outbox.end();
    }

    /// Logs that this socket is cut off and why. `left` is a room that it was just removed from.
    pub(super) fn log_cutoff(&self, cause: Cutoff, left: Option<&RoomName>) {
        let channel = self.channel.name();
        let admitted = self.rooms.hubs().cutoffs.of(cause).admit(self.rooms.this_node().now());
        if admitted.is_none() && !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let user = self.client.user.as_ref().map(tracing::field::display);
        let peer = self.client.peer.map(tracing::field::display);
        let rooms = listed(left.cloned().into_iter().chain(self.channel.rooms()).collect());
        let Some(left_out) = admitted else {
            debug!(user, rooms, %channel, peer, %cause, "a socket is cut off");
            return;
        };
        let left_out = left_out.field();
        if cause.is_fault() {
            warn!(user, rooms, %channel, peer, %cause, left_out, "a socket is cut off");
        } else {
            info!(user, rooms, %channel, peer, %cause, left_out, "a socket is cut off");
        }
    }

    pub(super) fn leave_rooms(&self) {
        self.channel.depart_at_once(&self.rooms);
    }

    pub(super) fn stop_when_over(&mut self, ctx: &mut Context<Self>) {
        if self.consumer_done && self.body_gone {
            ctx.stop();
        }
    }
}

/// Calls `act` after `limit`. If the thread stood still at that moment, it is called a little later, because the event that would have
/// prevented it may have arrived and not been read.
pub(super) fn later(
    ctx: &mut Context<Connection>,
    limit: Duration,
    act: fn(&mut Connection, &mut Context<Connection>),
) {
    let due = Instant::now() + limit;
    ctx.run_later(limit, move |connection, ctx| match again(due, limit) {
        Some(_) => drop(ctx.run_later(limit.min(UNBLOCKED), act)),
        None => act(connection, ctx),
    });
}

/// The names of the first rooms, and how many more there are.
fn listed(mut rooms: Vec<RoomName>) -> String {
    rooms.sort_unstable();
    let more = rooms.len().saturating_sub(NAMED_ROOMS);
    let names: Vec<_> = rooms.iter().take(NAMED_ROOMS).map(RoomName::as_str).collect();
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}
