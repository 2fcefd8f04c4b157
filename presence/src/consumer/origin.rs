//! Which pages may open a WebSocket.

use std::{convert::Infallible, fmt, str::FromStr};

use actix_web::{HttpRequest, http::Uri, http::header};

/// Where pages come from, as the header `Origin` of their requests tells it: scheme, host and port.
///
/// The port may be left out where the scheme has one of its own. What begins a page's address elsewhere than on the web is an
/// origin too: `tauri://localhost`, `chrome-extension://…`. `*` is every origin.
///
/// ```
/// use presence::Origin;
///
/// assert_eq!(Origin::new("https://app.example")?, Origin::new("HTTPS://APP.example:443/")?);
/// assert!(Origin::new("app.example").is_err());
/// # Ok::<(), presence::OriginError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(Which);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Which {
    Any,
    /// In lower case, and without the port that the scheme has anyway.
    One(String),
}

/// A text is not an [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no origin: it must be a scheme, a host and, if need be, a port, as browsers send them (`https://app.example`), or `*`"
)]
pub struct OriginError {
    text: String,
}

impl Origin {
    /// Checks `text` and makes it an origin.
    ///
    /// # Errors
    /// [`OriginError`] if there is no scheme or no host in it, or more than a port beside them, such as a path; for a name that
    /// is not in ASCII, which browsers send in Punycode; and for `null`, which any page can have itself called.
    pub fn new(text: impl AsRef<str>) -> Result<Self, OriginError> {
        let text = text.as_ref();
        if text == "*" {
            return Ok(Self(Which::Any));
        }
        let one = normal(text).map(|one| Self(Which::One(one)));
        one.ok_or_else(|| OriginError { text: text.to_owned() })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Which::Any => f.write_str("*"),
            Which::One(one) => f.write_str(one),
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

/// Decides by the `Origin` header, which browsers set and pages cannot. Without it the client is no browser.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    listed: Vec<Origin>,
}

impl Origins {
    pub(crate) fn allow(&mut self, origin: Origin) {
        self.listed.push(origin);
    }

    /// The request's own scheme, host and port, and those listed.
    pub(crate) fn admit(&self, req: &HttpRequest) -> bool {
        let Some(origin) = req.headers().get(header::ORIGIN) else { return true };
        if self.listed.contains(&Origin(Which::Any)) {
            return true;
        }
        let Some(origin) = origin.to_str().ok().and_then(normal) else { return false };
        let here = req.connection_info();
        let own = normal(&format!("{}://{}", here.scheme(), here.host()));
        own.as_ref() == Some(&origin) || self.listed.contains(&Origin(Which::One(origin)))
    }
}

/// `scheme://host:port` in lower case, without the port that the scheme has anyway.
fn normal(origin: &str) -> Option<String> {
    let uri: Uri = origin.strip_suffix('/').unwrap_or(origin).parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?);
    let host = authority.host();
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let port = match authority.as_str().strip_prefix(host)? {
        "" | ":" => None,
        _ => Some(authority.port_u16()?),
    };
    let usual = match &*scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    };
    let port = port.filter(|port| Some(*port) != usual).map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{}{port}", host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn admits_to(host: &str, allowed: &[&str], origin: &str) -> bool {
        let mut origins = Origins::default();
        allowed.iter().for_each(|allowed| origins.allow(Origin::new(allowed).unwrap()));
        let request = TestRequest::get().uri("/ws").insert_header((header::HOST, host));
        origins.admit(&request.insert_header((header::ORIGIN, origin)).to_http_request())
    }

    fn admits(allowed: &[&str], origin: &str) -> bool {
        admits_to("example.com:8080", allowed, origin)
    }

    #[test]
    fn only_the_requests_own_scheme_host_and_port_are_admitted() {
        assert!(admits(&[], "http://example.com:8080"));
        assert!(admits(&[], "http://EXAMPLE.com:8080"));
        for other in
            ["https://example.com:8080", "http://example.com", "http://evil.com:8080", "null", "", "http://a@b"]
        {
            assert!(!admits(&[], other), "{other}");
        }
    }

    #[test]
    fn the_port_of_the_scheme_need_not_be_there_and_no_other_is_taken_for_it() {
        for (host, origin) in [
            ("example.com", "http://example.com:80"),
            ("example.com:80", "http://example.com"),
            ("[::1]", "http://[::1]:80"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(admits_to(host, &[], origin), "{origin}");
        }
        for other in ["http://example.com:99999", "http://example.com:8o", "http://example.com:443"] {
            assert!(!admits_to("example.com", &[], other), "{other}");
        }
    }

    #[test]
    fn listed_origins_are_admitted_with_their_default_port() {
        assert!(admits(&["https://app.example"], "https://app.example"));
        assert!(admits(&["https://app.example"], "https://app.example:443"));
        assert!(!admits(&["https://app.example"], "https://app.example.evil.com"));
    }

    #[test]
    fn what_is_shown_in_no_browser_has_an_origin_too() {
        for app in ["tauri://localhost", "capacitor://localhost", "chrome-extension://abcdefgh", "app://shell:4000"] {
            assert!(admits(&["https://app.example", app], app), "{app}");
            assert!(!admits(&["https://app.example"], app), "{app}");
        }
        assert!(!admits(&["tauri://localhost"], "http://localhost"));
    }

    #[test]
    fn a_text_that_is_no_origin_is_refused_and_shown() {
        let bad = [
            "",
            "null",
            "app.example",
            "app.example:8080",
            "*.app.example",
            "https://",
            "file://",
            "https://app.example/path",
            "https://app.example?a",
            "https://me@app.example",
            "https://app.example:99999",
            "https://büro.example",
        ];
        for text in bad {
            let error = Origin::new(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is no origin")), "{error}");
        }
        for origin in ["*", "https://app.example", "http://app.example:8080", "tauri://localhost"] {
            assert_eq!(Origin::new(origin).unwrap().to_string(), origin);
        }
    }

    #[test]
    fn a_client_that_is_no_browser_is_admitted() {
        assert!(Origins::default().admit(&TestRequest::get().uri("/ws").to_http_request()));
    }
}
