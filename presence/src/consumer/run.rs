//! The life of a consumer: connect, then one job after the other, then disconnect.

use std::{panic::AssertUnwindSafe, rc::Rc, time::Duration};

use actix::Addr;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::{
    CloseCode, Consumer, Error, Result, Socket,
    room::{close_code, message::ToConnection},
    store::writer::report,
};

use super::{
    connection::Connection,
    inbox::{Inbox, Job},
};

/// How a method of a consumer ended.
enum Outcome {
    Done,
    Failed(Error),
    Panicked,
    TooLong,
}

/// Runs a method. Whatever the application's code does, the task goes on.
async fn call(limit: Duration, method: impl Future<Output = Result<()>>) -> Outcome {
    match tokio::time::timeout(limit, AssertUnwindSafe(method).catch_unwind()).await {
        Ok(Ok(Ok(()))) => Outcome::Done,
        Ok(Ok(Err(error))) => Outcome::Failed(error),
        Ok(Err(_)) => Outcome::Panicked,
        Err(_) => Outcome::TooLong,
    }
}

/// Hosts a consumer from its socket's first moment to its last. `decided` hears whether the socket is accepted.
pub(crate) async fn run<C: Consumer>(
    mut consumer: C,
    mut socket: Socket,
    inbox: Rc<Inbox>,
    decided: oneshot::Sender<Result<Option<String>>>,
) {
    let connection = socket.connection.clone();
    let accepted = connect(&mut consumer, &mut socket, &inbox, decided).await;
    connection.do_send(ToConnection::Decided { accepted });
    if accepted {
        let code = serve(&mut consumer, &mut socket, &inbox, &connection).await;
        let limit = socket.rooms.config().handler_timeout();
        tell(call(limit, consumer.disconnect(&mut socket, CloseCode(code))).await, "disconnect", &socket);
        leave_all(&socket).await;
    }
    connection.do_send(ToConnection::ConsumerDone);
}

async fn connect<C: Consumer>(
    consumer: &mut C,
    socket: &mut Socket,
    inbox: &Inbox,
    decided: oneshot::Sender<Result<Option<String>>>,
) -> bool {
    let limit = socket.rooms.config().handshake_timeout();
    let outcome = tokio::select! {
        biased;
        // The client is gone, or this node ends: nobody waits for what `connect` will say.
        code = inbox.ended() => Outcome::Failed(match code {
            close_code::RESTARTING => Error::ShuttingDown,
            _ => Error::SocketClosed,
        }),
        outcome = call(limit, consumer.connect(socket)) => outcome,
    };
    let answer = match outcome {
        Outcome::Done => Ok(socket.subprotocol.take()),
        Outcome::Failed(error) => Err(error),
        Outcome::Panicked => Err(Error::other("the consumer panicked in `connect`")),
        Outcome::TooLong => Err(Error::other("the consumer took longer than `handshake_timeout` to connect")),
    };
    if answer.is_err() {
        // What it joined it leaves before anybody is told that it was turned away.
        leave_all(socket).await;
    }
    let accepted = answer.is_ok();
    // If nobody hears that it was accepted, it was all the same: its `disconnect` will run.
    let _ = decided.send(answer);
    accepted
}

async fn serve<C: Consumer>(
    consumer: &mut C,
    socket: &mut Socket,
    inbox: &Inbox,
    connection: &Addr<Connection>,
) -> u16 {
    let limit = socket.rooms.config().handler_timeout();
    loop {
        let (outcome, method) = match inbox.next().await {
            Err(code) => return code,
            Ok(Job::Frame(frame, arrived)) => {
                socket.arrived.set(Some(arrived));
                let outcome = call(limit, consumer.receive(socket, frame)).await;
                socket.arrived.set(None);
                (outcome, "receive")
            }
            Ok(Job::Event(event)) => (call(limit, consumer.event(socket, (*event).clone())).await, "event"),
            Ok(Job::Pruned(room)) => (call(limit, consumer.pruned(socket, room)).await, "pruned"),
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
        Outcome::Failed(error) => warn!(%channel, method, error = %report(&error), "a consumer failed"),
        Outcome::Panicked => error!(%channel, method, "a consumer panicked"),
        Outcome::TooLong => warn!(%channel, method, "a consumer took longer than `handler_timeout`"),
    }
    false
}

async fn leave_all(socket: &Socket) {
    if let Err(error) = socket.leave_all().await {
        debug!(channel = %socket.channel(), error = %report(&error), "a leave waits for the store");
    }
}
