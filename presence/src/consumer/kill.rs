//! The TCP socket of a client, through a handle of its own.
//!
//! The end of a response does not close a connection: the HTTP server waits without limit until the client has read what was written. So
//! the TCP socket is duplicated when it is accepted, and the connection can be reset through the duplicate. A second after its handshake a
//! connection is taken over from the HTTP server (`line.rs`), which drops its own handle. Then this handle is the connection.

use std::{
    any::Any,
    cell::RefCell,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::dev::Extensions;
use bytes::Bytes;
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{SendAncillaryBuffer, SendFlags, sendmsg},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, Interest, ReadBuf},
    net::TcpStream,
    runtime::Handle as Runtime,
};
use tracing::debug;

/// How many bytes of a socket the kernel accepts before it has sent them. It is low, because such bytes cannot be dropped any more.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// A write to a connection that the client has reset must not raise SIGPIPE: it would end a process that does not ignore the signal.
/// `write_vectored` of the standard library would raise it.
#[cfg(target_os = "linux")]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const SEND_FLAGS: SendFlags = SendFlags::empty();

/// How many bytes are read at once.
const MOST_READ: usize = 16 * 1024;

/// For how long after the end of a connection what its client still sends is read, as the HTTP server does by default. If something was
/// unread when the socket is closed, the kernel would reset the connection, and the client could lose the last frames.
const LINGER: Duration = Duration::from_secs(1);

thread_local! {
    /// What is read goes here first, so that a socket has no buffer of its own.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST_READ].into_boxed_slice());
}

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
            let handle = Handle::Duplicate { stream: duplicate.into(), is_last: false };
            let socket = Arc::new(Mutex::new(Some(handle)));
            extensions.insert(KillSwitch { socket, is_unbuffered });
        }
        Err(error) => {
            debug!(%error, "a connection could not be prepared; it is served without it");
            extensions.insert(KillSwitch::default());
        }
    }
}

fn prepare(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    Ok(())
}

#[derive(Debug)]
enum Handle {
    /// A second handle, while the HTTP server has the connection. `is_last`: the server drops the connection without ending it when the response
    /// ends.
    Duplicate { stream: std::net::TcpStream, is_last: bool },
    /// The connection, which was taken over from the HTTP server.
    Own(TcpStream),
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Duplicate { stream, .. } => stream.as_fd(),
            Self::Own(stream) => stream.as_fd(),
        }
    }
}

/// A handle on a connection's socket. It is released at the end of the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct KillSwitch {
    socket: Arc<Mutex<Option<Handle>>>,
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
            if let Err(error) = socket.set_tcp_user_timeout(Some(write_timeout)) {
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
            let _ = socket.set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        });
        drop(self.socket.lock().take());
    }

    /// Whether there is a handle.
    pub(crate) fn is_armed(&self) -> bool {
        self.socket.lock().is_some()
    }

    /// Whether something has arrived that was not read: bytes, the end, or an error. Without a handle this is not known, and `false`.
    pub(crate) fn has_unread(&self) -> bool {
        let handle = self.socket.lock();
        // The socket is non-blocking: if there is nothing to read, the error is `WouldBlock`.
        handle.as_ref().is_some_and(|handle| match SockRef::from(handle).peek(&mut [MaybeUninit::uninit()]) {
            Err(error) => error.kind() != ErrorKind::WouldBlock,
            Ok(_) => true,
        })
    }

    /// Releases the handle. If it is the connection, or will be when the response has ended, this ends the connection.
    pub(crate) fn release(&self) {
        let Some(handle) = self.socket.lock().take() else { return };
        // There is no runtime if the thread is about to end.
        if Runtime::try_current().is_err() {
            return;
        }
        match handle {
            Handle::Own(stream) => linger(stream),
            Handle::Duplicate { stream, is_last: true } => {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    linger(stream);
                }
            }
            Handle::Duplicate { .. } => {}
        }
    }

    /// The HTTP server will drop the connection without ending it when the response ends.
    pub(super) fn announce_take_over(&self) {
        if let Some(Handle::Duplicate { is_last, .. }) = &mut *self.socket.lock() {
            *is_last = true;
        }
    }

    /// Whether the sending half of the connection has ended: on this side, or because the client has reset the connection.
    pub(super) fn has_ended(&self) -> bool {
        // Nothing is sent, but the kernel checks whether something could be.
        self.socket.lock().as_ref().is_some_and(|handle| send(handle.as_fd(), &[]).is_err())
    }

    fn with(&self, act: impl FnOnce(&SockRef<'_>)) {
        if let Some(handle) = &*self.socket.lock() {
            act(&SockRef::from(handle));
        }
    }

    /// Whether the connection can be taken over from the HTTP server.
    pub(super) fn can_be_taken_over(&self) -> bool {
        self.is_unbuffered && matches!(*self.socket.lock(), Some(Handle::Duplicate { .. }))
    }

    /// Makes the handle the connection, which is read and written on this thread from here on. The HTTP server must have written everything,
    /// and must drop its handle without ending the connection. After a failure there is no handle any more.
    pub(super) fn take_over(&self) -> bool {
        let handle = &mut *self.socket.lock();
        let Some(Handle::Duplicate { stream, .. }) = handle.take() else { return false };
        match TcpStream::from_std(stream) {
            Ok(stream) => *handle = Some(Handle::Own(stream)),
            Err(error) => debug!(%error, "a connection could not be taken over from the HTTP server"),
        }
        handle.is_some()
    }

    /// Whether [`write`](Self::write) is allowed: there is a handle, and the HTTP server polls a response only when it has written everything
    /// before.
    pub(super) fn can_write(&self) -> bool {
        self.is_unbuffered && self.is_armed()
    }

    /// Reads from a connection that was taken over; `None` at its end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match &mut *self.socket.lock() {
            Some(Handle::Own(stream)) => poll_read(stream, cx, Bytes::copy_from_slice),
            _ => Poll::Ready(None),
        }
    }

    /// Writes to a connection that was taken over, as soon as the kernel accepts bytes. Returns how many; `None` if the connection is lost.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Option<usize>> {
        let handle = self.socket.lock();
        let Some(Handle::Own(stream)) = &*handle else { return Poll::Ready(None) };
        loop {
            if ready!(stream.poll_write_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            match stream.try_io(Interest::WRITABLE, || send(stream.as_fd(), slices)) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                written => return Poll::Ready(written.ok()),
            }
        }
    }

    /// Writes, and returns how many bytes the kernel accepted. After an error this is 0.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> usize {
        // The socket is non-blocking: if the kernel accepts nothing, the error is `WouldBlock`.
        self.socket.lock().as_ref().map_or(0, |handle| send(handle.as_fd(), slices).unwrap_or(0))
    }

    /// Whether the kernel accepts bytes. True without a handle.
    pub(super) fn is_writable(&self) -> bool {
        let handle = self.socket.lock();
        handle.as_ref().is_none_or(|handle| {
            let mut polled = [PollFd::new(handle, PollFlags::OUT)];
            // An error of the connection counts too, because waiting would not help.
            poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
        })
    }
}

fn send(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SEND_FLAGS)?)
}

/// Reads, and passes on what was read; `None` at the end of the connection, and after an error.
fn poll_read<T>(stream: &mut TcpStream, cx: &mut Context<'_>, pass_on: impl FnOnce(&[u8]) -> T) -> Poll<Option<T>> {
    READ.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(Pin::new(stream).poll_read(cx, &mut buffer));
        Poll::Ready((read.is_ok() && !buffer.filled().is_empty()).then(|| pass_on(buffer.filled())))
    })
}

/// Ends the sending half of a connection, and closes it when the client has ended its own half, or after [`LINGER`].
fn linger(mut stream: TcpStream) {
    let _ = SockRef::from(&stream).shutdown(Shutdown::Write);
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        while poll_fn(|cx| poll_read(&mut stream, cx, |_| ())).await.is_some() {}
    }));
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
