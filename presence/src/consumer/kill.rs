//! Closes the connection of a client that does not read.
//!
//! The end of the response does not close it: the HTTP server waits without limit until the client has read what was written. So the
//! TCP socket is duplicated when it is accepted, and the connection can be reset through the duplicate.

use std::{
    any::Any,
    io::{ErrorKind, IoSlice},
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use actix_web::dev::Extensions;
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};
use socket2::SockRef;
use tracing::debug;

use crate::delivery::KernelSocket;

/// How many bytes of a socket the kernel accepts before it has sent them. It is low, because such bytes cannot be dropped any more.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// A write to a connection that the client has reset must not raise SIGPIPE: it would end a process that does not ignore the signal.
/// `write_vectored` of the standard library would raise it.
#[cfg(target_os = "linux")]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: SendFlags = SendFlags::empty();

/// For [`HttpServer::h1_write_buffer_size`](actix_web::HttpServer::h1_write_buffer_size): with it, the server writes each piece of a
/// response before it requests the next one. A piece fits into the write buffer of 8 KiB that each connection has. By default the server
/// gathers 32 KiB first, so the buffer grows to 64 KiB or 128 KiB, and stays so until the end of the connection.
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

/// Prepares an accepted connection. Pass it to [`HttpServer::on_connect`](actix_web::HttpServer::on_connect). Without it,
/// small frames are delayed (no `TCP_NODELAY`), and the server cannot close the TCP connection of a client that does not read.
///
/// ```no_run
/// # use actix_web::{App, HttpServer};
/// # #[actix_web::main]
/// # async fn main() -> std::io::Result<()> {
/// HttpServer::new(App::new).on_connect(presence::on_connect).bind("127.0.0.1:8080")?.run().await
/// # }
/// ```
pub fn on_connect(connection: &dyn Any, extensions: &mut Extensions) {
    accept(connection, extensions, false);
}

/// As [`on_connect`], for a server that certainly has [`WRITE_BUFFER_BYTES`].
pub(super) fn on_connect_unbuffered(connection: &dyn Any, extensions: &mut Extensions) {
    accept(connection, extensions, true);
}

fn accept(connection: &dyn Any, extensions: &mut Extensions, is_unbuffered: bool) {
    let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() else {
        // TLS, or a Unix socket. Without this mark the log would say that `on_connect` is missing.
        extensions.insert(KillSwitch::default());
        return;
    };
    let duplicate = prepare(&SockRef::from(stream)).and_then(|()| stream.as_fd().try_clone_to_owned());
    match duplicate {
        Ok(duplicate) => {
            let socket = Arc::new(Mutex::new(Some(TcpStream::from(duplicate))));
            extensions.insert(KillSwitch { socket, is_unbuffered });
        }
        Err(error) => {
            debug!(%error, "a connection could not be prepared; it is served without it");
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

/// A second handle on a connection's socket. It is released at the end of the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct KillSwitch {
    socket: Arc<Mutex<Option<TcpStream>>>,
    /// The HTTP server polls a response only when it has written everything before.
    is_unbuffered: bool,
}

impl KillSwitch {
    /// Makes the kernel end the connection if the client does not acknowledge the last bytes for so long. Must be called only when
    /// everything is written: the kernel counts from when the client's window was last large enough for the next packet, so it would also
    /// end the connection of a client that continues to read with a small window.
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

    /// Ends the sending half of the connection, so that the client sees the end at once.
    pub(crate) fn finish(&self) {
        self.with(|socket| drop(socket.shutdown(Shutdown::Write)));
    }

    /// Resets the connection; what was not sent is dropped.
    pub(crate) fn reset(&self) {
        self.with(|socket| {
            // These calls fail only if the connection has ended already.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        });
        self.release();
    }

    /// Whether there is a handle.
    pub(crate) fn is_armed(&self) -> bool {
        self.socket.lock().is_some()
    }

    /// Whether something has arrived that was not read: bytes, the end, or an error. Without a handle this is not known, and `false`.
    pub(crate) fn has_unread(&self) -> bool {
        let handle = self.socket.lock();
        // The socket is non-blocking: if there is nothing to read, the error is `WouldBlock`.
        handle.as_ref().is_some_and(|socket| match socket.peek(&mut [0]) {
            Err(error) => error.kind() != ErrorKind::WouldBlock,
            Ok(_) => true,
        })
    }

    /// Releases the handle.
    pub(crate) fn release(&self) {
        self.socket.lock().take();
    }

    fn with(&self, act: impl FnOnce(&TcpStream)) {
        if let Some(socket) = &*self.socket.lock() {
            act(socket);
        }
    }
}

impl KernelSocket for KillSwitch {
    fn is_writable(&self) -> bool {
        let handle = self.socket.lock();
        handle.as_ref().is_none_or(|socket| {
            let mut polled = [PollFd::new(socket, PollFlags::OUT)];
            // An error of the connection counts too, because waiting would not help.
            poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        })
    }

    fn can_write(&self) -> bool {
        self.is_unbuffered && self.is_armed()
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> usize {
        let handle = self.socket.lock();
        // The socket is non-blocking: if the kernel accepts nothing, the error is `WouldBlock`.
        handle
            .as_ref()
            .map_or(0, |socket| sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SEND_FLAGS).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_without_a_tcp_socket_is_marked_as_prepared() {
        // Over TLS and over a Unix socket the log said that `on_connect` was missing.
        let mut extensions = Extensions::new();
        on_connect(&"no TCP stream", &mut extensions);
        assert!(extensions.get::<KillSwitch>().is_some_and(|kill| !kill.is_armed() && !kill.has_unread()));
    }
}
