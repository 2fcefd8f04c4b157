//! The life of a consumer: connect, then one job after the other, then disconnect.

use std::{
    future::{pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use actix::Addr;
use actix_web::http::StatusCode;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::{
    CloseCode, Consumer, Error, Result, Socket,
    delivery::message::{Decision, ToConnection},
    rooms::channel::End,
    telemetry::report,
};

use super::{
    connection::Connection,
    control::close_frame,
    endpoint::Accepted,
    inbox::{Inbox, Job},
    patience::within_apart_from,
    rates::Rates,
};

/// How a method of a consumer ended.
enum Outcome {
    Done,
    Failed(Error),
    Panicked,
    TooLong,
}

/// Runs a method, at most so long, apart from what its joins wait for their rate. Whatever the application's code does, the task
/// goes on. The caller pins the method, since a future that is passed on by value takes its size at each step, and a socket keeps
/// the sum for as long as it lives.
async fn call(rates: &Rates, limit: Duration, method: Pin<&mut Option<impl Future<Output = Result<()>>>>) -> Outcome {
    call_unless(pending(), rates, limit, method).await
}

/// As [`call`], unless `given_up` resolves first.
async fn call_unless(
    given_up: impl Future<Output = Error>,
    rates: &Rates,
    limit: Duration,
    mut method: Pin<&mut Option<impl Future<Output = Result<()>>>>,
) -> Outcome {
    let polled = poll_fn(|cx| method.as_mut().as_pin_mut().expect("dropped only below").poll(cx));
    let outcome = tokio::select! {
        biased;
        error = given_up => Outcome::Failed(error),
        ended = within_apart_from(|| rates.joins_waited(), limit, AssertUnwindSafe(polled).catch_unwind()) => match ended {
            Some(Ok(Ok(()))) => Outcome::Done,
            Some(Ok(Err(error))) => Outcome::Failed(error),
            Some(Err(_)) => Outcome::Panicked,
            None => Outcome::TooLong,
        },
    };
    // What it holds is dropped here, which is the application's code as well.
    match catch_unwind(AssertUnwindSafe(|| method.set(None))) {
        Ok(()) => outcome,
        Err(_) => Outcome::Panicked,
    }
}

/// Tells the connection that its consumer is done, even if that is because the task died.
struct Done(Addr<Connection>);

impl Drop for Done {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.do_send(ToConnection::ConsumerFailed);
        }
        self.0.do_send(ToConnection::ConsumerDone);
    }
}

/// Hosts a consumer from its socket's first moment to its last. `decided` hears whether the socket is accepted.
pub(crate) async fn run<C: Consumer>(
    mut consumer: C,
    mut socket: Socket,
    inbox: Rc<Inbox>,
    decided: oneshot::Sender<Result<Accepted>>,
) {
    let connection = socket.connection.clone();
    let _done = Done(connection.clone());
    let decision = connect(&mut consumer, &mut socket, &inbox, decided).await;
    let accepted = matches!(decision, Decision::Accepted);
    connection.do_send(ToConnection::Decided(decision));
    if accepted {
        socket.handshake.forget_headers();
        let code = serve(&mut consumer, &mut socket, &inbox, &connection).await;
        let (limit, rates) = (socket.rooms.config().handler_timeout(), socket.rates.clone());
        let outcome = call(&rates, limit, pin!(Some(async { consumer.disconnect(&mut socket, code).await }))).await;
        tell(outcome, "disconnect", &socket);
        depart(&socket).await;
    }
}

async fn connect<C: Consumer>(
    consumer: &mut C,
    socket: &mut Socket,
    inbox: &Inbox,
    decided: oneshot::Sender<Result<Accepted>>,
) -> Decision {
    let (limit, rates) = (socket.rooms.config().handshake_timeout(), socket.rates.clone());
    // The client is gone, or this node ends: nobody waits for what `connect` will say.
    let given_up = async {
        match inbox.ended().await {
            CloseCode::RESTARTING => Error::ShuttingDown,
            CloseCode::TOO_SLOW => Error::deny(StatusCode::SERVICE_UNAVAILABLE, "too much waits for this socket"),
            CloseCode::PROTOCOL_ERROR => Error::deny(
                StatusCode::BAD_REQUEST,
                "a client waits for the answer before it closes or sends anything but frames",
            ),
            CloseCode::LOST => {
                Error::deny(StatusCode::BAD_REQUEST, "the client ended the connection before the answer")
            }
            // A page could not see a status, and the code says whether it is to come back.
            CloseCode::TOO_FAST => Error::refuse(CloseCode::TOO_FAST, "too many joins"),
            code if code.is_sendable() => Error::refuse(code, ""),
            _ => Error::SocketClosed,
        }
    };
    let outcome = call_unless(given_up, &rates, limit, pin!(Some(async { consumer.connect(socket).await }))).await;
    let (decision, error) = match outcome {
        Outcome::Done => (Decision::Accepted, None),
        Outcome::Failed(Error::Refused { code, reason }) if code.is_sendable() => {
            debug!(channel = %socket.channel(), %code, reason, "a socket is refused");
            (Decision::Refused { code, reason }, None)
        }
        Outcome::Failed(error) => (Decision::Denied, Some(error)),
        Outcome::Panicked => (Decision::Denied, Some(Error::other("the consumer panicked in `connect`"))),
        Outcome::TooLong => {
            let error = Error::other("the consumer took longer than `handshake_timeout` to connect");
            (Decision::Denied, Some(error))
        }
    };
    if !matches!(decision, Decision::Accepted) {
        // What it joined it leaves before anybody is told that it was turned away, and nobody adds it any more.
        socket.channel.ends(End::Left);
        depart(socket).await;
    }
    if let Decision::Refused { code, reason } = &decision {
        // Before the response is there to fetch it: the Close is all that its client gets, whatever the consumer or a room sent.
        socket.outbox.clear();
        socket.outbox.push_close(close_frame(Some((*code, reason.clone()))));
    }
    let answer = match error {
        Some(error) => Err(error),
        None => Ok(Accepted {
            subprotocol: socket.subprotocol.take(),
            headers: std::mem::take(&mut socket.headers),
            refused: matches!(decision, Decision::Refused { .. }),
        }),
    };
    // If nobody hears that it was accepted, it was all the same: its `disconnect` will run.
    let _ = decided.send(answer);
    decision
}

async fn serve<C: Consumer>(
    consumer: &mut C,
    socket: &mut Socket,
    inbox: &Inbox,
    connection: &Addr<Connection>,
) -> CloseCode {
    let (limit, rates) = (socket.rooms.config().handler_timeout(), socket.rates.clone());
    loop {
        let (outcome, method) = match inbox.next().await {
            Err(code) => return code,
            Ok(Job::Frame(frame, arrived)) => {
                socket.arrived.set(Some(arrived));
                let outcome = call(&rates, limit, pin!(Some(async { consumer.receive(socket, frame).await }))).await;
                socket.arrived.set(None);
                (outcome, "receive")
            }
            Ok(Job::Event(event)) => (
                call(&rates, limit, pin!(Some(async { consumer.event(socket, (*event).clone()).await }))).await,
                "event",
            ),
            // It has joined again before it heard of this.
            Ok(Job::Removed(room)) if socket.is_in(&room) => continue,
            Ok(Job::Removed(room)) => {
                (call(&rates, limit, pin!(Some(async { consumer.removed(socket, room).await }))).await, "removed")
            }
        };
        if !tell(outcome, method, socket) {
            connection.do_send(ToConnection::ConsumerFailed);
            // Its code tells why it ended, if something else ended it first.
            return inbox.ended().await;
        }
    }
}

/// Says in the log how a method ended, if not well. Returns whether it did well.
fn tell(outcome: Outcome, method: &'static str, socket: &Socket) -> bool {
    let channel = socket.channel();
    match outcome {
        Outcome::Done => return true,
        Outcome::Failed(error) if is_of_the_end(&error, socket) => {
            debug!(%channel, method, error = %report(&error), "a consumer was at work when its socket ended");
        }
        Outcome::Failed(error) => warn!(%channel, method, error = %report(&error), "a consumer failed"),
        Outcome::Panicked => error!(%channel, method, "a consumer panicked"),
        Outcome::TooLong => warn!(%channel, method, "a consumer took longer than `handler_timeout`"),
    }
    false
}

/// Whether a method failed only because its socket is over, as it often does when a client goes while it is answered.
fn is_of_the_end(error: &Error, socket: &Socket) -> bool {
    let is_of_the_end = matches!(error, Error::SocketClosed | Error::NotInRoom { .. } | Error::LeftWhileJoining { .. });
    is_of_the_end && !socket.outbox.is_open()
}

async fn depart(socket: &Socket) {
    if let Err(error) = socket.depart().await {
        debug!(channel = %socket.channel(), error = %report(&error), "a leave waits for the store");
    }
}
