//! Prepares an actix-web server for WebSockets, in one line.

use std::{fmt::Debug, future::pending, process};

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::{Error, HttpServer, body::MessageBody, dev::AppConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::Rooms;

use super::kill::{WRITE_BUFFER_BYTES, on_connect_unbuffered};

/// Extends [`HttpServer`] for WebSockets.
pub trait HttpServerExt: Sized {
    /// Prepares the server for the sockets of these rooms. Call it before `bind`, because `bind` fixes the settings of connections: after
    /// `bind` it has no effect on them.
    ///
    /// - It sets [`on_connect`](crate::on_connect) and [`WRITE_BUFFER_BYTES`] for each connection. An `on_connect` that was set before is
    ///   replaced. The size of the write buffer must not be changed afterwards, also not after `bind`: because of it the server holds nothing
    ///   back.
    /// - Over plain TCP it takes each connection over from the server a second after the handshake, and a socket then needs half the memory.
    ///   For the server, the response with the status 101 ends at that moment: `middleware::Logger` logs it then and counts few of its bytes,
    ///   `max_connections` does not count the socket (`max_sockets` does), and a stop of the server by its `ServerHandle` does not wait for
    ///   sockets but drops them, unless [`Rooms::shutdown`] has closed them before. A middleware must not hold back or change the body of a
    ///   response with the status 101. If one does, a connection is lost (or some, if it does so for one route of several), a warning says so, and later
    ///   connections stay with the server. A
    ///   server with such a middleware uses the parts below.
    /// - It sets [`Rooms::shutdown_on_signal`] as the `shutdown_signal` of the server: on Ctrl-C or SIGTERM all sockets are closed and their
    ///   presences end, and then the server stops as actix-web does (`shutdown_timeout`). The signal handling of actix-web itself is
    ///   replaced.
    /// - When a newer process has the name of this node, the server ends in the same way. Then [`Rooms::check_not_superseded`] returns
    ///   an error for `main` to return, so that the process is started again.
    ///
    /// A server with its own `on_connect` or its own signal handling uses these parts instead of this method.
    ///
    /// ```no_run
    /// use actix_web::{App, HttpServer};
    /// use presence::{Config, HttpServerExt as _, MemoryStore, NodeName, PruningSupervisor, Rooms};
    ///
    /// #[actix_web::main]
    /// async fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::of_host(8080)?);
    ///     PruningSupervisor::spawn(&rooms);
    ///     HttpServer::new(App::new).with_presence(&rooms).bind(("127.0.0.1", 8080))?.run().await?;
    ///     Ok(rooms.check_not_superseded()?)
    /// }
    /// ```
    #[must_use]
    fn with_presence(self, rooms: &Rooms) -> Self;
}

impl<F, I, S, B> HttpServerExt for HttpServer<F, I, S, B>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    fn with_presence(self, rooms: &Rooms) -> Self {
        let server = self.on_connect(on_connect_unbuffered).h1_write_buffer_size(WRITE_BUFFER_BYTES);
        server.shutdown_signal(rooms.shutdown_on_signal())
    }
}

impl Rooms {
    /// Waits for Ctrl-C, for SIGTERM, or until this node [was superseded](Self::superseded), and then [shuts down](Self::shutdown).
    /// [`with_presence`](HttpServerExt::with_presence) gives it to `HttpServer::shutdown_signal`; a server that has an `on_connect` of its
    /// own does the same.
    ///
    /// A shutdown takes up to 9 s, and the server then waits up to `shutdown_timeout` (30 s) for requests in progress. A second signal ends
    /// the process at once, with the status 130 (Ctrl-C) or 143 (SIGTERM): what it leaves counts as crashed. Also while a superseded node
    /// shuts down, the first signal changes nothing, and the second ends the process.
    ///
    /// ```no_run
    /// # use actix_web::{App, HttpServer};
    /// # async fn serve(rooms: presence::Rooms) -> std::io::Result<()> {
    /// HttpServer::new(App::new).shutdown_signal(rooms.shutdown_on_signal()).bind(("127.0.0.1", 8080))?.run().await
    /// # }
    /// ```
    pub fn shutdown_on_signal(&self) -> impl Future<Output = ()> + Send + use<> {
        let rooms = self.clone();
        async move {
            let mut stop = StopSignals::listen();
            let first = tokio::select! {
                signal = stop.received() => Some(signal),
                () = rooms.superseded() => None,
            };
            // A signal that was once listened to does not end the process by itself any more.
            tokio::spawn(async move {
                let kind = stop.second_received(first).await;
                warn!(
                    "a second signal ends this process at once; what it leaves is dealt with when it starts again, or by another"
                );
                process::exit(128 + kind.as_raw_value());
            });
            rooms.shutdown().await;
        }
    }
}

/// The signals that stop a server. `None` where one cannot be listened to.
struct StopSignals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl StopSignals {
    fn listen() -> Self {
        Self {
            interrupt: listen(SignalKind::interrupt(), "Ctrl-C"),
            terminate: listen(SignalKind::terminate(), "SIGTERM"),
        }
    }

    async fn received(&mut self) -> SignalKind {
        tokio::select! {
            () = next(&mut self.interrupt) => SignalKind::interrupt(),
            () = next(&mut self.terminate) => SignalKind::terminate(),
        }
    }

    /// Waits for the second signal. `first` is the one that was received already.
    async fn second_received(&mut self, first: Option<SignalKind>) -> SignalKind {
        if first.is_none() {
            self.received().await;
            info!("this process is shutting down already; a second signal ends it at once");
        }
        self.received().await
    }
}

fn listen(kind: SignalKind, name: &str) -> Option<Signal> {
    signal(kind).inspect_err(|error| error!(%error, "{name} cannot be handled, and ends the process at once")).ok()
}

async fn next(signal: &mut Option<Signal>) {
    let received = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if received.is_none() {
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use rustix::process::{Signal as Raised, getpid, kill_process};
    use tokio::task::yield_now;

    use super::*;

    /// Sends itself a signal, and waits until tokio has received it.
    async fn raise(raised: Raised, kind: SignalKind) {
        let mut received = signal(kind).unwrap();
        kill_process(getpid(), raised).unwrap();
        received.recv().await;
        yield_now().await;
    }

    #[tokio::test]
    async fn a_process_that_was_not_signalled_before_ends_with_the_second_signal() {
        // A superseded node shut down, and the first Ctrl-C ended it at once.
        for first in [None, Some(SignalKind::interrupt())] {
            let mut stop = StopSignals {
                interrupt: Some(signal(SignalKind::user_defined1()).unwrap()),
                terminate: Some(signal(SignalKind::user_defined2()).unwrap()),
            };
            let mut second = Box::pin(stop.second_received(first));
            if first.is_none() {
                raise(Raised::USR1, SignalKind::user_defined1()).await;
                assert_eq!(second.as_mut().now_or_never(), None);
            }
            raise(Raised::USR2, SignalKind::user_defined2()).await;
            assert_eq!(second.await, SignalKind::terminate());
        }
    }
}
