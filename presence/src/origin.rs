//! Decides which pages may open a WebSocket.

use std::{convert::Infallible, fmt, str::FromStr};

use actix_web::{
    HttpRequest,
    http::{Uri, header, uri::Authority},
};

use self::own::Own;

mod own;

/// The origin of a page, as in the header `Origin` of its requests: scheme, host and port.
///
/// The default port of a scheme may be left out. Pages outside the web have origins too, such as `tauri://localhost` and
/// `chrome-extension://…`. `*` is every origin.
///
/// ```
/// use presence::Origin;
///
/// assert_eq!(Origin::new("https://app.example")?, Origin::new("HTTPS://APP.example:443/")?);
/// assert!(Origin::new("app.example").is_err());
/// # Ok::<(), presence::OriginError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Pattern);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Pattern {
    Any,
    One(Site),
}

/// A text is not an [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an origin: it must be a scheme, a host and, if needed, a port, as browsers send them (`https://app.example`), or `*`"
)]
pub struct OriginError {
    text: String,
}

impl Origin {
    /// Checks `text` and makes it an origin.
    ///
    /// # Errors
    /// [`OriginError`] if it has no scheme or no host, or if it has more than these and a port, such as a path. A host must be in ASCII,
    /// because browsers send it in Punycode. `null` is refused, because any page can make its browser send that.
    pub fn new(text: impl AsRef<str>) -> Result<Self, OriginError> {
        let text = text.as_ref();
        if text == "*" {
            return Ok(Self(Pattern::Any));
        }
        let one = Site::new(text).map(|site| Self(Pattern::One(site)));
        one.ok_or_else(|| OriginError { text: text.to_owned() })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Any => f.write_str("*"),
            Pattern::One(site) => site.fmt(f),
        }
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Origin {
    type Error = OriginError;

    fn try_from(text: &str) -> Result<Self, OriginError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        Self::new(text)
    }
}

impl TryFrom<&String> for Origin {
    type Error = OriginError;

    fn try_from(text: &String) -> Result<Self, OriginError> {
        Self::new(text)
    }
}

impl From<&Self> for Origin {
    fn from(origin: &Self) -> Self {
        origin.clone()
    }
}

impl From<Infallible> for OriginError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Decides by the header `Origin`. Browsers set it and pages cannot change it; a client without it is not a browser.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    listed: Vec<Origin>,
}

/// Why a page was refused: what its browser sent, and what would be accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusedOrigin {
    /// What the browser sent, cut to [`MAX_SHOWN`].
    pub(crate) seen: String,
    /// The server's own origin, read from the request.
    pub(crate) expected: String,
    /// The headers from which `expected` was read.
    pub(crate) source: String,
}

/// How many bytes of what a client sent are in a line of the log.
const MAX_SHOWN: usize = 200;

impl Origins {
    pub(crate) fn allow(&mut self, origin: Origin) {
        self.listed.push(origin);
    }

    /// Accepts the server's own origin, read from the request, and the listed ones.
    pub(crate) fn admit(&self, req: &HttpRequest) -> Result<(), RefusedOrigin> {
        let Some(origin) = req.headers().get(header::ORIGIN) else { return Ok(()) };
        if self.listed.contains(&Origin(Pattern::Any)) {
            return Ok(());
        }
        let own = Own::of(req);
        if let Some(site) = origin.to_str().ok().and_then(Site::new)
            && (own.is(&site) || self.listed.contains(&Origin(Pattern::One(site))))
        {
            return Ok(());
        }
        let seen = String::from_utf8_lossy(origin.as_bytes()).into_owned();
        Err(RefusedOrigin { seen: shown(seen), expected: shown(own.expected()), source: own.source })
    }
}

fn shown(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_SHOWN));
    text
}

/// Scheme, host and port, in a normal form: two spellings of the same origin are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Site {
    /// In lower case.
    scheme: String,
    /// In lower case; an IPv6 address with its brackets.
    host: String,
    /// `None`: the default port of the scheme.
    port: Option<u16>,
}

impl Site {
    fn new(origin: &str) -> Option<Self> {
        let uri: Uri = origin.strip_suffix('/').unwrap_or(origin).parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return None;
        }
        let (host, port) = host_and_port(authority)?;
        Some(Self::with(scheme.to_ascii_lowercase(), host, port))
    }

    fn with(scheme: String, host: String, port: Option<u16>) -> Self {
        let usual = match &*scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        Self { scheme, host, port: port.filter(|port| Some(*port) != usual) }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn host_and_port(authority: &Authority) -> Option<(String, Option<u16>)> {
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let port = match authority.as_str().strip_prefix(host)? {
        "" | ":" => None,
        _ => Some(authority.port_u16()?),
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests;
