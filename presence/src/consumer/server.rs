//! Prepares an actix-web server for WebSockets, in one line.

use std::{fmt::Debug, future::pending, io};

use actix_http::{Request, Response};
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::{Error, HttpServer, body::MessageBody, dev::AppConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing::error;

use crate::Rooms;

use super::kill::{WRITE_BUFFER_BYTES, on_connect};

/// Extends [`HttpServer`] for WebSockets.
pub trait HttpServerExt: Sized {
    /// Prepares the server for the sockets of these rooms. Call it before `bind`, because `bind` fixes the settings of connections.
    ///
    /// - It sets [`on_connect`] and [`WRITE_BUFFER_BYTES`] for each connection.
    /// - Ctrl-C and SIGTERM end the server in order: [`Rooms::shutdown`] closes all sockets and ends their presences, and then the server
    ///   stops as actix-web does (`shutdown_timeout`). The signal handling of actix-web itself is replaced.
    /// - When a newer process has the name of this node, the server ends in the same way. Then [`Rooms::is_superseded`] is true, and the
    ///   process should end with an error, so that it is started again.
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
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok::<_, io::Error>(())
    };
    if let Err(error) = received.await {
        error!(%error, "Ctrl-C and SIGTERM cannot be handled, and end the process at once");
        pending::<()>().await;
    }
}
