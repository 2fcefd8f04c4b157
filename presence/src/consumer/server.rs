//! Prepares an actix-web server for WebSockets, in one line.

use std::{fmt::Debug, future::pending, io};

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::{Error, HttpServer, body::MessageBody, dev::AppConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use crate::Rooms;

use super::kill::{WRITE_BUFFER_BYTES, on_connect};

/// What [`HttpServer`] needs for WebSockets.
pub trait HttpServerExt: Sized {
    /// Prepares the server for the sockets of these rooms. Call it before `bind`, since what it sets for connections is fixed there:
    ///
    /// - [`on_connect`] for each connection, and [`WRITE_BUFFER_BYTES`];
    /// - Ctrl-C and SIGTERM end the server in order: [`Rooms::shutdown`] closes all sockets and lets everyone leave, then the server
    ///   stops as actix-web does (`shutdown_timeout`). They take the place of the signals that actix-web awaits by itself;
    /// - so does [`Rooms::superseded`]: if [`Rooms::is_superseded`] when the server has ended, the process should end with an error, so
    ///   that it is started again.
    ///
    /// A server that has an `on_connect` or signals of its own uses the parts instead of this.
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
    ///     Ok(())
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
        let rooms = rooms.clone();
        self.on_connect(on_connect).h1_write_buffer_size(WRITE_BUFFER_BYTES).shutdown_signal(async move {
            tokio::select! {
                () = stopped() => {}
                () = rooms.superseded() => {}
            }
            rooms.shutdown().await;
        })
    }
}

/// Resolves on Ctrl-C or SIGTERM.
async fn stopped() {
    let received = async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok::<_, io::Error>(())
    };
    if let Err(error) = received.await {
        error!(%error, "Ctrl-C and SIGTERM cannot be awaited: either ends the process at once");
        pending::<()>().await;
    }
}
