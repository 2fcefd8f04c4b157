//! The request of a handshake, as its consumer sees it.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use actix_web::{HttpRequest, http::header::HeaderMap};

/// The request of a socket's handshake, as `scope` in django-channels. The user is [`Socket::user`](crate::Socket::user).
///
/// Its `Debug` leaves out the query and the headers, because they may contain secrets, such as a resume token or a cookie.
///
/// ```
/// # use presence::Socket;
/// fn greeting(socket: &Socket) -> String {
///     let handshake = socket.handshake();
///     let language = handshake.header("accept-language").unwrap_or("en");
///     format!("{} in {language}, from {:?}", handshake.path, handshake.peer)
/// }
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Handshake {
    /// The path as the client sent it, not decoded.
    pub path: String,
    /// The query without the question mark, not decoded; empty if there is none.
    pub query: String,
    /// The dynamic segments of the route (`{room}`), decoded by actix-web.
    pub params: BTreeMap<String, String>,
    /// The headers. They are available in [`connect`](crate::Consumer::connect) only, and empty afterwards. They have at most
    /// `max_header_bytes`, because the HTTP server keeps the memory that it read them into.
    pub headers: HeaderMap,
    /// The other end of the TCP connection. It may be a proxy.
    pub peer: Option<SocketAddr>,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, params, peer, .. } = self;
        f.debug_struct("Handshake")
            .field("path", path)
            .field("params", params)
            .field("peer", peer)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    pub(crate) fn of(req: &HttpRequest) -> Self {
        let params = req.match_info().iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            path: req.uri().path().to_owned(),
            query: req.query_string().to_owned(),
            params: params.collect(),
            headers: req.headers().clone(),
            peer: req.peer_addr(),
        }
    }

    /// Releases the headers.
    pub(crate) fn forget_headers(&mut self) {
        self.headers = HeaderMap::new();
    }

    /// The first value of this header, if there is one and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
