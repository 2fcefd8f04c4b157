//! Runs a consumer: `connect`, then one job after the other, then `disconnect`.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix::Recipient;
use actix_web::http::{StatusCode, header::HeaderMap};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::{
    Close, CloseCode, Consumer, Error, Result, Socket,
    delivery::{Decision, ToConnection},
    rooms::{Channel, SocketEnd},
    telemetry::report,
};

use super::{
    control::close_frame,
    inbox::{Inbox, Job},
    patience::rest_within_apart_from,
    rates::Rates,
};

/// How the handshake of an accepted socket is answered.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// The socket is refused with a code: only a Close follows.
    pub(crate) refused: bool,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: HeaderMap,
}

/// How a method of a consumer ended.
enum MethodOutcome {
    Done,
    Failed(Error),
    Panicked,
    TooLong,
}

/// A method of a consumer. Whoever calls it pins it, because a future takes its size again at each call that it is passed to by value, and
/// a socket keeps the sum as long as it is open.
type Method<'a, F> = Pin<&'a mut Option<F>>;

/// Runs a method, limited to a time in which the waits of its joins for their rate do not count. Panics of the application's code are
/// caught.
async fn call(
    rates: &Rates,
    limit: Duration,
    mut method: Method<'_, impl Future<Output = Result<()>>>,
) -> MethodOutcome {
    let waited_before = rates.joins_waited();
    match poll_fn(|cx| Poll::Ready(poll_method(method.as_mut(), cx))).await {
        // Most methods are done at once, a heartbeat's always.
        Poll::Ready(MethodOutcome::Done) => MethodOutcome::Done,
        Poll::Ready(outcome) => drop_method(outcome, method),
        Poll::Pending => {
            let ended = poll_fn(|cx| poll_method(method.as_mut(), cx));
            let outcome = rest_within_apart_from(waited_before, || rates.joins_waited(), limit, ended).await;
            drop_method(outcome.unwrap_or(MethodOutcome::TooLong), method)
        }
    }
}

/// As [`call`], unless `given_up` resolves first.
async fn call_unless(
    given_up: impl Future<Output = Error>,
    rates: &Rates,
    limit: Duration,
    mut method: Method<'_, impl Future<Output = Result<()>>>,
) -> MethodOutcome {
    let outcome = tokio::select! {
        biased;
        error = given_up => MethodOutcome::Failed(error),
        outcome = call(rates, limit, method.as_mut()) => outcome,
    };
    drop_method(outcome, method)
}

/// Polls a method, and drops it if it is done. The application may panic in both.
fn poll_method(mut method: Method<'_, impl Future<Output = Result<()>>>, cx: &mut Context<'_>) -> Poll<MethodOutcome> {
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let polled = method.as_mut().as_pin_mut().expect("polled only until it has ended").poll(cx);
        if matches!(polled, Poll::Ready(Ok(()))) {
            method.set(None);
        }
        polled
    }));
    match polled {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(()))) => Poll::Ready(MethodOutcome::Done),
        Ok(Poll::Ready(Err(error))) => Poll::Ready(MethodOutcome::Failed(error)),
        Err(_) => Poll::Ready(MethodOutcome::Panicked),
    }
}

/// Drops the application's values. This may panic too.
fn drop_method(outcome: MethodOutcome, mut method: Method<'_, impl Future>) -> MethodOutcome {
    match catch_unwind(AssertUnwindSafe(|| method.set(None))) {
        Ok(()) => outcome,
        Err(_) => MethodOutcome::Panicked,
    }
}

/// Notifies the connection that its consumer is done, also when the task panics.
struct Done(Recipient<ToConnection>);

impl Drop for Done {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.do_send(ToConnection::ConsumerFailed);
        }
        self.0.do_send(ToConnection::ConsumerDone);
    }
}

/// Runs a consumer from the first moment of its socket to the last. `decided` receives whether the socket is accepted.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps its arguments twice, as long as the socket is open")]
pub(crate) fn run<C: Consumer>(
    mut consumer: C,
    mut socket: Socket,
    inbox: Rc<Inbox>,
    decided: oneshot::Sender<Result<Accepted>>,
) -> impl Future<Output = ()> {
    async move {
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
            log_outcome(outcome, "disconnect", &socket);
            depart(&socket).await;
        }
    }
}

async fn connect<C: Consumer>(
    consumer: &mut C,
    socket: &mut Socket,
    inbox: &Inbox,
    decided: oneshot::Sender<Result<Accepted>>,
) -> Decision {
    let (limit, rates) = (socket.rooms.config().handshake_timeout(), socket.rates.clone());
    let channel = socket.channel.clone();
    // The client has gone away, or this node is shutting down, so the result of `connect` is not needed.
    let given_up = async {
        match inbox.ended().await {
            CloseCode::RESTARTING => Error::ShuttingDown,
            CloseCode::TOO_SLOW => Error::deny(StatusCode::SERVICE_UNAVAILABLE, "too much waits for this socket"),
            CloseCode::PROTOCOL_ERROR => Error::deny(
                StatusCode::BAD_REQUEST,
                "before the response, a client may send nothing but frames, and no Close",
            ),
            CloseCode::LOST => {
                Error::deny(StatusCode::BAD_REQUEST, "the client ended the connection before the response")
            }
            // A page cannot see a status, but it can read the code, which says whether it may come back.
            CloseCode::TOO_FAST => Error::refuse(CloseCode::TOO_FAST, "too many joins"),
            code if code.is_sendable() => {
                let noted = channel.noted_close().filter(|close| close.code == code);
                Error::refuse(code, noted.map_or_else(String::new, |close| close.reason))
            }
            _ => Error::SocketClosed,
        }
    };
    let outcome = call_unless(given_up, &rates, limit, pin!(Some(async { consumer.connect(socket).await }))).await;
    let (decision, error) = match prefer_close(outcome, &channel) {
        MethodOutcome::Done => (Decision::Accepted, None),
        MethodOutcome::Failed(Error::Refused { code, reason }) if code.is_sendable() => {
            debug!(channel = %socket.channel(), %code, reason, "a socket is refused");
            (Decision::Refused { code, reason }, None)
        }
        MethodOutcome::Failed(error) => (Decision::Denied, Some(error)),
        MethodOutcome::Panicked => (Decision::Denied, Some(Error::other("the consumer panicked in `connect`"))),
        MethodOutcome::TooLong => {
            let error = Error::other("the consumer took longer than `handshake_timeout` to connect");
            (Decision::Denied, Some(error))
        }
    };
    if !matches!(decision, Decision::Accepted) {
        // It leaves its rooms before the client is notified, and from here on nothing can add it to a room.
        socket.channel.set_end(SocketEnd::Left);
        depart(socket).await;
    }
    if let Decision::Refused { code, reason } = &decision {
        // Before the response begins: the client receives only the Close, and nothing that the consumer or a room has sent.
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
    // The receiver may be gone. The socket is accepted all the same, and its `disconnect` will run.
    let _ = decided.send(answer);
    decision
}

/// If `connect` failed because the socket was removed from a room with a Close, the client receives that Close. Its message may arrive
/// later than the error, which has no code that a page can see.
fn prefer_close(outcome: MethodOutcome, channel: &Channel) -> MethodOutcome {
    match (outcome, channel.noted_close()) {
        (
            MethodOutcome::Failed(Error::LeftWhileJoining { .. } | Error::NotInRoom { .. }),
            Some(Close { code, reason }),
        ) => MethodOutcome::Failed(Error::refuse(code, reason)),
        (outcome, _) => outcome,
    }
}

async fn serve<C: Consumer>(
    consumer: &mut C,
    socket: &mut Socket,
    inbox: &Inbox,
    connection: &Recipient<ToConnection>,
) -> CloseCode {
    let (limit, rates) = (socket.rooms.config().handler_timeout(), socket.rates.clone());
    loop {
        let (outcome, method) = match inbox.next().await {
            Err(code) => return code,
            Ok(Job::Frame(frame, arrived)) => {
                socket.arrived = Some(arrived);
                let outcome = call(&rates, limit, pin!(Some(async { consumer.receive(socket, frame).await }))).await;
                socket.arrived = None;
                (outcome, "receive")
            }
            Ok(Job::Event(event)) => (
                call(&rates, limit, pin!(Some(async { consumer.event(socket, (*event).clone()).await }))).await,
                "event",
            ),
            // The socket has joined again in the meantime.
            Ok(Job::Removed(room)) if socket.is_in(&room) => continue,
            Ok(Job::Removed(room)) => {
                (call(&rates, limit, pin!(Some(async { consumer.removed(socket, room).await }))).await, "removed")
            }
        };
        if !matches!(outcome, MethodOutcome::Done) {
            log_outcome(outcome, method, socket);
            connection.do_send(ToConnection::ConsumerFailed);
            // If something else has ended the socket before, the code is of that.
            return inbox.ended().await;
        }
    }
}

/// Logs a method that did not end well.
fn log_outcome(outcome: MethodOutcome, method: &'static str, socket: &Socket) {
    // The application's error is formatted and dropped here, and this may panic too.
    if catch_unwind(AssertUnwindSafe(|| log_failure(outcome, method, socket))).is_err() {
        error!(channel = %socket.channel(), method, "a consumer panicked");
    }
}

fn log_failure(outcome: MethodOutcome, method: &'static str, socket: &Socket) {
    let channel = socket.channel();
    match outcome {
        MethodOutcome::Done => {}
        MethodOutcome::Failed(error) if is_caused_by_the_end(&error, socket) => {
            debug!(%channel, method, error = %report(&error), "a method of a consumer failed because its socket ended");
        }
        MethodOutcome::Failed(error) => warn!(%channel, method, error = %report(&error), "a consumer failed"),
        MethodOutcome::Panicked => error!(%channel, method, "a consumer panicked"),
        MethodOutcome::TooLong => warn!(%channel, method, "a consumer took longer than `handler_timeout`"),
    }
}

/// Whether a method failed only because its socket has ended, as often happens when a client closes while it is served.
fn is_caused_by_the_end(error: &Error, socket: &Socket) -> bool {
    let is_caused_by_the_end =
        matches!(error, Error::SocketClosed | Error::NotInRoom { .. } | Error::LeftWhileJoining { .. });
    is_caused_by_the_end && !socket.outbox.is_open()
}

async fn depart(socket: &Socket) {
    if let Err(error) = socket.depart().await {
        debug!(channel = %socket.channel(), error = %report(&error), "a leave is not durable yet");
    }
}
