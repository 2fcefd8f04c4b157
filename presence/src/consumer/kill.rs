//! How a connection is really closed whose client does not read.
//!
//! Ending the response does not close it: the server waits for what it has written to be taken, without limit. So the
//! socket is duplicated when it is accepted, and the duplicate can reset it.

use std::{
    any::Any,
    io::ErrorKind,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use actix_web::dev::Extensions;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tracing::debug;

/// How much may be written to a socket that the kernel has not sent yet: what waits here cannot be dropped any more.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// For [`HttpServer::h1_write_buffer_size`](actix_web::HttpServer::h1_write_buffer_size): the server writes what it has before it asks a
/// socket for more. What a socket gives it at once fits into the write buffer of 8 KiB that each connection has. By default it gathers
/// 32 KiB first, so the buffer of each socket that was sent that much takes 64 KiB or 128, to the end of the connection.
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// # #[actix_web::main]
/// # async fn main() -> std::io::Result<()> {
/// let server = HttpServer::new(App::new).on_connect(presence::on_connect);
/// server.h1_write_buffer_size(presence::WRITE_BUFFER_BYTES).bind("127.0.0.1:8080")?.run().await
/// # }
/// ```
pub const WRITE_BUFFER_BYTES: usize = 1;

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
    let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else {
        // TLS, or a Unix socket. That this was asked is remembered all the same, or the log would say that it is missing.
        extensions.insert(KillSwitch::default());
        return;
    };
    let duplicate = prepare(&SockRef::from(stream)).and_then(|()| stream.as_fd().try_clone_to_owned());
    match duplicate {
        Ok(duplicate) => {
            extensions.insert(KillSwitch(Arc::new(Mutex::new(Some(TcpStream::from(duplicate))))));
        }
        Err(error) => {
            debug!(%error, "a connection could not be prepared; it is served all the same");
            extensions.insert(KillSwitch::default());
        }
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
    /// Has the kernel give up on a client that does not take the end of what was sent for so long. Not before the end: the kernel
    /// counts from when the client's window was last large enough for the next packet, so that it gives up on one with a small
    /// window that goes on reading.
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
        self.0.lock().is_some()
    }

    /// Whether something has come that was not read: bytes, the end, or an error. Without a handle nobody knows.
    pub(crate) fn has_unread(&self) -> bool {
        let handle = self.0.lock();
        // The socket does not block: nothing to be read is an error of its own.
        handle.as_ref().is_some_and(|socket| match socket.peek(&mut [0]) {
            Err(error) => error.kind() != ErrorKind::WouldBlock,
            Ok(_) => true,
        })
    }

    /// Whether the kernel takes anything to be sent. Without a handle nobody knows, and it is believed to.
    pub(crate) fn is_writable(&self) -> bool {
        let handle = self.0.lock();
        handle.as_ref().is_none_or(|socket| {
            let mut asked = [PollFd::new(socket, PollFlags::OUT)];
            // An error of the connection counts too: there is nothing left to wait for.
            poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        })
    }

    /// Lets go of the socket.
    pub(crate) fn release(&self) {
        self.0.lock().take();
    }

    fn with(&self, act: impl FnOnce(&TcpStream)) {
        if let Some(socket) = &*self.0.lock() {
            act(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_no_tcp_socket_of_our_own_is_marked_as_prepared() {
        // Over TLS and over a Unix socket the log said that `on_connect` was missing.
        let mut extensions = Extensions::new();
        on_connect(&"no TCP stream", &mut extensions);
        assert!(extensions.get::<KillSwitch>().is_some_and(|kill| !kill.is_armed() && !kill.has_unread()));
    }
}
