//! How many sockets the limit of open files allows.
//!
//! A socket takes two descriptors: that of the HTTP server, and a second handle with which it can be cut off. With `with_presence` and without
//! TLS, the first is closed a second after the handshake; but all sockets of a node may be younger than that, after a restart for instance.
//! A server at its limit cannot even refuse a client: it does not accept the connection, and the client hangs. So sockets are counted, and
//! those beyond `max_sockets` receive a response while there is still a descriptor for it.

use std::io;

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// How many descriptors each socket takes at most.
const DESCRIPTORS_PER_SOCKET: u64 = 2;
/// How many descriptors are kept for everything else: the database, listeners, and sockets that are refused. If the limit is low, a
/// quarter of it is kept instead.
const RESERVED: u64 = 128;

/// Raises the soft limit of open files of this process to the hard limit, and returns it. `None` if there is no limit. The usual soft limit
/// of 1,024 allows about 450 sockets.
///
/// Call it before [`Config`](crate::Config) is built: the default of `max_sockets` depends on it.
///
/// ```
/// let limit = presence::raise_open_files()?;
/// assert!(limit.is_none_or(|limit| limit > 0));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// If the system refuses it. The limit stays as it was.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let mut limits = getrlimit(Resource::Nofile);
    if limits.current != limits.maximum {
        limits.current = limits.maximum;
        setrlimit(Resource::Nofile, limits)?;
    }
    Ok(limits.current)
}

/// The default of `max_sockets`.
pub(crate) fn sockets_within_limit() -> usize {
    sockets_within(getrlimit(Resource::Nofile).current)
}

/// Logs a warning if the limit of open files is too low for `max_sockets`.
pub(crate) fn warn_if_limit_is_too_low(max_sockets: usize) {
    let limit = getrlimit(Resource::Nofile).current;
    let allowed = sockets_within(limit);
    if max_sockets > allowed {
        warn!(max_sockets, open_files = limit, allowed, "the limit of open files is too low for `max_sockets`");
    }
}

/// How many sockets a limit of open files allows.
fn sockets_within(limit: Option<u64>) -> usize {
    let sockets = limit.map_or(u64::MAX, |limit| (limit - RESERVED.min(limit / 4)) / DESCRIPTORS_PER_SOCKET);
    usize::try_from(sockets).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_allows_two_descriptors_for_each_socket_and_a_reserve() {
        assert_eq!(sockets_within(Some(1024)), 448);
        assert_eq!(sockets_within(Some(256)), 96);
        assert_eq!(sockets_within(Some(1 << 20)), 524_224);
        assert_eq!((sockets_within(Some(0)), sockets_within(None)), (1, usize::MAX));
    }
}
