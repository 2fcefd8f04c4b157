//! What a socket's request said.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use actix_web::{HttpRequest, http::header::HeaderMap};

/// The request by which a socket came: what `scope` is to a consumer of django-channels. The identity is
/// [`Socket::user`](crate::Socket::user).
///
/// Its `Debug` leaves out the query and the headers, which may hold secrets: a resume token, a cookie.
#[derive(Clone)]
#[non_exhaustive]
pub struct Handshake {
    /// The path as it was sent, not decoded.
    pub path: String,
    /// What stands behind the question mark, not decoded; empty if there is nothing.
    pub query: String,
    /// The dynamic parts of the route (`{room}`), decoded by actix-web.
    pub params: BTreeMap<String, String>,
    /// The headers. They are there in [`connect`](crate::Consumer::connect) only, and none afterwards: the socket keeps none. The HTTP
    /// server keeps the memory that it read them into, which is why they have at most `max_header_bytes`.
    pub headers: HeaderMap,
    /// The other end of the TCP connection: a proxy, if there is one.
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

    /// From here on the headers are gone.
    pub(crate) fn forget_headers(&mut self) {
        self.headers = HeaderMap::new();
    }

    /// The header, if it is there once or more and its first value is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
