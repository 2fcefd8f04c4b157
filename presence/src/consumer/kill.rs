//! How a connection is really closed whose client does not read.
//!
//! Ending the response does not close it: the server waits for what it has written to be taken, without limit. So the
//! socket is duplicated when it is accepted, and the duplicate can reset it.

use std::{
    any::Any,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::dev::Extensions;
use socket2::SockRef;
use tracing::debug;

/// How much may be written to a socket that the kernel has not sent yet: what waits here cannot be dropped any more.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// Prepares an accepted connection. Give it to [`HttpServer::on_connect`](actix_web::HttpServer::on_connect): without it,
/// small frames wait for one another (no `TCP_NODELAY`), and a client that does not read keeps its TCP connection.
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// # #[actix_web::main]
/// # async fn main() -> std::io::Result<()> {
/// HttpServer::new(App::new).on_connect(presence::on_connect).bind("127.0.0.1:8080")?.run().await
/// # }
/// ```
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else { return };
    let duplicate = prepare(&SockRef::from(stream)).and_then(|()| stream.as_fd().try_clone_to_owned());
    match duplicate {
        Ok(duplicate) => {
            extensions.insert(KillSwitch(Arc::new(Mutex::new(Some(TcpStream::from(duplicate))))));
        }
        Err(error) => debug!(%error, "a connection could not be prepared; it is served all the same"),
    }
}

fn prepare(socket: &SockRef<'_>) -> std::io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    Ok(())
}

/// A second handle on a connection's socket. It is let go of at the end of the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct KillSwitch(Arc<Mutex<Option<TcpStream>>>);

impl KillSwitch {
    /// Has the kernel give up on the client if nothing that was sent is acknowledged, or taken, for so long.
    pub(crate) fn limit_writes(&self, write_timeout: Duration) {
        self.with(|socket| {
            #[cfg(target_os = "linux")]
            if let Err(error) = SockRef::from(socket).set_tcp_user_timeout(Some(write_timeout)) {
                debug!(%error, "TCP_USER_TIMEOUT could not be set");
            }
            #[cfg(not(target_os = "linux"))]
            let _ = (socket, write_timeout);
        });
    }

    /// Says that nothing more will be sent, so that the client sees the end at once.
    pub(crate) fn finish(&self) {
        self.with(|socket| drop(socket.shutdown(Shutdown::Write)));
    }

    /// Resets the connection; what was not sent is dropped.
    pub(crate) fn reset(&self) {
        self.with(|socket| {
            // Either fails only if the connection is gone.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        });
        self.release();
    }

    /// Whether there is a handle.
    pub(crate) fn is_armed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Lets go of the socket.
    pub(crate) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with(&self, act: impl FnOnce(&TcpStream)) {
        if let Some(socket) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            act(socket);
        }
    }
}
