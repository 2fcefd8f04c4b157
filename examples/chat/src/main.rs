//! A chat that shows who is here: the main example of the `presence` crate.

mod args;
mod consumer;
mod http;
mod log;

use std::{io::Write as _, net::SocketAddr, process::ExitCode, time::Duration};

use actix_web::{App, HttpServer, web};
use clap::Parser;
use mimalloc::MiMalloc;
use presence::{HttpServerExt as _, PruningSupervisor, Rooms, SqlStore};
use tokio::net::TcpSocket;
use tracing::{error, info, warn};

use args::Args;

/// What a socket allocates on one thread is freed on another. With the system's allocator, the removal of many presences takes up to 50 %
/// more processor time. The feature `no_thp` switches huge pages off, because they would make the mostly empty buffers of idle sockets
/// resident.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// How many connections may wait to be accepted, as by actix-web's default.
const BACKLOG: u32 = 1024;

/// How long the start waits for the database before it continues without it.
const STARTUP: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let args = Args::parse();
    log::begin();
    match actix_web::rt::System::new().block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The reason must be printed also if the filter hides errors.
            if tracing::enabled!(tracing::Level::ERROR) {
                error!("{}", reasons(&*error));
            } else {
                eprintln!("{}", reasons(&*error));
            }
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes on one line. A cause that the text of its error ends with is not repeated.
fn reasons(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string);
    causes.fold(error.to_string(), |text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
}

/// Listens on the addresses of the host, at least on one. This happens before the rooms are started, because the name of the node contains
/// the port.
async fn listen(host: &str, port: u16) -> std::io::Result<Vec<std::net::TcpListener>> {
    let open = |address: SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    let (mut listeners, mut failure) = (Vec::new(), None);
    for address in tokio::net::lookup_host((host, port)).await? {
        match open(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => failure = Some(error),
        }
    }
    failure.filter(|_| listeners.is_empty()).map_or(Ok(listeners), Err)
}

/// Serves until the process is stopped or superseded.
async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    // Before the settings are built, because the default of `max_sockets` depends on it.
    let open_files = presence::raise_open_files();
    let config = args.config()?;
    match open_files {
        Ok(limit) => info!(open_files = limit, max_sockets = config.max_sockets(), "the limit of open files"),
        Err(error) => warn!(%error, max_sockets = config.max_sockets(), "the limit of open files could not be raised"),
    }
    let store = SqlStore::connect(&args.database_url)
        // The URL is not printed, because it may contain a password.
        .map_err(|error| format!("--database-url: {}", reasons(&error)))?;
    let listeners = listen(&args.bind, args.port)
        .await
        .map_err(|error| format!("cannot listen on --bind {} --port {}: {error}", args.bind, args.port))?;
    let address = listeners.first().ok_or("there is no address to listen on")?.local_addr()?;
    let rooms = Rooms::start(config, store, args.node_name(address)?);
    PruningSupervisor::spawn(&rooms);
    let settings = web::Data::new(http::SocketSettings { allow_origin: args.allow_origin() });

    let shared = rooms.clone();
    let mut server = HttpServer::new(move || {
        App::new().app_data(web::Data::new(shared.clone())).app_data(settings.clone()).configure(http::routes)
    })
    .with_presence(&rooms)
    .shutdown_timeout(1);
    if let Some(workers) = args.workers {
        server = server.workers(workers.get());
    }
    let server = listeners.into_iter().try_fold(server, HttpServer::listen)?;
    // The server also starts without its database. If the database is available, the first visitor finds the rooms ready.
    let _ = tokio::time::timeout(STARTUP, rooms.ready()).await;

    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{address}")?;
    out.flush()?;

    server.run().await?;
    info!("stopped");
    rooms.check_not_superseded()?;
    Ok(())
}
