//! Which pages may open a WebSocket.

use std::{convert::Infallible, fmt, str::FromStr};

use actix_web::{
    HttpRequest,
    http::{Uri, header, uri::Authority},
};

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
    One(Site),
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
        let one = Site::new(text).map(|site| Self(Which::One(site)));
        one.ok_or_else(|| OriginError { text: text.to_owned() })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Which::Any => f.write_str("*"),
            Which::One(site) => site.fmt(f),
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

/// A page may not open a socket: what its browser sent, and what would have been right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusedOrigin {
    /// As it was sent, but cut to a bounded length.
    pub(crate) seen: String,
    /// The server's own origin, as the request shows it.
    pub(crate) expected: String,
    /// The headers that `expected` was read from.
    pub(crate) source: String,
}

/// The most that a log line shows of what a client sent, in bytes.
const MAX_SHOWN: usize = 200;

impl Origins {
    pub(crate) fn allow(&mut self, origin: Origin) {
        self.listed.push(origin);
    }

    /// Admits the server's own origin, as the request shows it, and those listed.
    pub(crate) fn admit(&self, req: &HttpRequest) -> Result<(), RefusedOrigin> {
        let Some(origin) = req.headers().get(header::ORIGIN) else { return Ok(()) };
        if self.listed.contains(&Origin(Which::Any)) {
            return Ok(());
        }
        let own = Own::of(req);
        if let Some(site) = origin.to_str().ok().and_then(Site::new)
            && (own.is(&site) || self.listed.contains(&Origin(Which::One(site))))
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

/// Scheme, host and port, in the form in which two that mean the same are equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Site {
    /// In lower case.
    scheme: String,
    /// In lower case; an IPv6 address with its brackets.
    host: String,
    /// `None`: the port that the scheme has anyway.
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

/// The origin of the server's own pages, as a request shows it that may have come through proxies.
///
/// A page can set none of these headers, so a proxy that passes on what a client sent does not open the door to other pages.
#[derive(Debug)]
struct Own {
    scheme: String,
    /// As it was sent.
    host: String,
    /// Read from `host`; `None` if that is no host.
    parts: Option<(String, Option<u16>)>,
    /// What a proxy says about the port, if the host does not name one.
    forwarded_port: Option<u16>,
    /// The headers that all this was read from.
    source: String,
}

impl Own {
    fn of(req: &HttpRequest) -> Self {
        let (host, host_source) = forwarded(req, "host")
            .map(|host| (host, "Forwarded"))
            .or_else(|| Some((first(req, "x-forwarded-host")?.to_owned(), "X-Forwarded-Host")))
            .or_else(|| Some((req.headers().get(header::HOST)?.to_str().ok()?.to_owned(), "Host")))
            .or_else(|| Some((req.uri().authority()?.to_string(), "the request's target")))
            .unwrap_or_else(|| (req.app_config().host().to_owned(), "the server's settings"));
        let (scheme, scheme_source) = forwarded(req, "proto")
            .map(|scheme| (scheme, "Forwarded"))
            .or_else(|| Some((first(req, "x-forwarded-proto")?.to_owned(), "X-Forwarded-Proto")))
            .or_else(|| Some((req.uri().scheme_str()?.to_owned(), "the request's target")))
            .or_else(|| req.app_config().secure().then(|| ("https".to_owned(), "TLS")))
            .unwrap_or_else(|| ("http".to_owned(), "no X-Forwarded-Proto"));
        // A proxy may name the scheme of the WebSocket, a browser names that of the page.
        let scheme = match scheme.to_ascii_lowercase() {
            scheme if scheme == "ws" => "http".to_owned(),
            scheme if scheme == "wss" => "https".to_owned(),
            scheme => scheme,
        };
        let parts = host.parse().ok().as_ref().and_then(host_and_port);
        let forwarded_port = match parts {
            Some((_, None)) => first(req, "x-forwarded-port").and_then(|port| port.parse().ok()),
            _ => None,
        };
        let mut sources = vec![host_source];
        sources.extend((scheme_source != host_source).then_some(scheme_source));
        sources.extend(forwarded_port.map(|_| "X-Forwarded-Port"));
        Self { scheme, host, parts, forwarded_port, source: sources.join(", ") }
    }

    /// Whether pages of `site` are the server's own.
    ///
    /// A page of `https` is, even if the request looks like one of `http`: its TLS ended in a proxy that does not say so. Never
    /// the other way round: whoever can change a page of `http` on its way would get into what TLS protects.
    ///
    /// A proxy that leaves the port out of the host may say it in a header of its own. One that counts several proxies may name
    /// an inner port there, so that the host's own word holds as well.
    fn is(&self, site: &Site) -> bool {
        let Some((host, port)) = &self.parts else { return false };
        let scheme = site.scheme == self.scheme || site.scheme == "https" && self.scheme == "http";
        let is = |port| Site::with(site.scheme.clone(), host.clone(), port) == *site;
        scheme && (is(*port) || self.forwarded_port.is_some() && is(self.forwarded_port))
    }

    /// For people: the origins that would have been admitted.
    fn expected(&self) -> String {
        let Some((host, port)) = &self.parts else { return format!("none, for `{}` is no host", self.host) };
        let port = self.forwarded_port.or(*port);
        let site = |scheme: &str| Site::with(scheme.to_owned(), host.clone(), port).to_string();
        if self.scheme == "http" { format!("{} or {}", site("http"), site("https")) } else { site(&self.scheme) }
    }
}

/// The first value of a header that lists one for each proxy: that of the proxy which is next to the client.
fn first<'a>(req: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let value = req.headers().get(name)?.to_str().ok()?.split(',').next()?.trim();
    Some(value).filter(|value| !value.is_empty())
}

/// The first value of this parameter in `Forwarded` (RFC 7239): that of the proxy which is next to the client.
fn forwarded(req: &HttpRequest, name: &str) -> Option<String> {
    let headers = req.headers().get_all(header::FORWARDED).filter_map(|value| value.to_str().ok());
    headers.flat_map(parameters).find(|(parameter, _)| parameter.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The parameters of a header `Forwarded`, in order. A quoted value may hold what else would end it.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let (mut name, mut value, mut in_value, mut in_quotes) = (String::new(), String::new(), false, false);
    // The last parameter ends as the others do.
    let mut characters = header.chars().chain([',']);
    while let Some(character) = characters.next() {
        match character {
            '"' => in_quotes = !in_quotes,
            '\\' if in_quotes => value.extend(characters.next()),
            ',' | ';' if !in_quotes => {
                let (name, value) = (std::mem::take(&mut name), std::mem::take(&mut value));
                parameters.push((name.trim().to_owned(), value.trim().to_owned()));
                in_value = false;
            }
            '=' if !in_value => in_value = true,
            other if in_value => value.push(other),
            other => name.push(other),
        }
    }
    parameters.retain(|(_, value)| !value.is_empty());
    parameters
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    /// What becomes of `origin` in a request with these headers.
    fn asked(headers: &[(&str, &str)], allowed: &[&str], origin: &str) -> Result<(), RefusedOrigin> {
        let mut origins = Origins::default();
        allowed.iter().for_each(|allowed| origins.allow(Origin::new(allowed).unwrap()));
        let request = TestRequest::get().uri("/ws").insert_header((header::ORIGIN, origin));
        let request = headers.iter().fold(request, |request, header| request.append_header(*header));
        origins.admit(&request.to_http_request())
    }

    fn admits_to(host: &str, allowed: &[&str], origin: &str) -> bool {
        asked(&[("host", host)], allowed, origin).is_ok()
    }

    fn admits(allowed: &[&str], origin: &str) -> bool {
        admits_to("example.com:8080", allowed, origin)
    }

    #[test]
    fn only_the_requests_own_host_and_port_are_admitted() {
        assert!(admits(&[], "http://example.com:8080"));
        assert!(admits(&[], "http://EXAMPLE.com:8080"));
        let others = ["http://example.com", "http://evil.com:8080", "null", "", "http://a@b", "ws://example.com:8080"];
        for other in others {
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
    fn a_page_of_https_is_admitted_by_a_proxy_that_ends_tls_and_does_not_say_so() {
        for (host, origin) in [
            ("chat.example", "https://chat.example"),
            ("chat.example:443", "https://chat.example"),
            ("chat.example:8443", "https://chat.example:8443"),
        ] {
            assert!(admits_to(host, &[], origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("chat.example:8443", "https://chat.example"),
            ("chat.example", "https://chat.example:8443"),
            ("chat.example:80", "https://chat.example"),
            ("10.0.0.1:8080", "https://chat.example"),
        ] {
            assert!(!admits_to(host, &[], origin), "{host} {origin}");
        }
    }

    #[test]
    fn a_page_of_http_is_never_admitted_where_the_request_came_by_tls() {
        for proto in ["https", "wss", "HTTPS", "https, http"] {
            let headers = [("host", "chat.example"), ("x-forwarded-proto", proto)];
            assert!(asked(&headers, &[], "https://chat.example").is_ok(), "{proto}");
            assert!(asked(&headers, &[], "http://chat.example").is_err(), "{proto}");
        }
        let headers = [("host", "chat.example"), ("forwarded", "proto=https")];
        assert!(asked(&headers, &[], "http://chat.example").is_err());
    }

    #[test]
    fn what_proxies_forward_is_understood() {
        let outer = "https://chat.example";
        for (headers, origin) in [
            (&[("host", "chat.example"), ("x-forwarded-proto", "wss")][..], outer),
            (&[("host", "chat.example"), ("x-forwarded-proto", "ws")], "http://chat.example"),
            (&[("host", "10.0.0.1:8080"), ("x-forwarded-host", "chat.example")], outer),
            (&[("host", "inner:80"), ("x-forwarded-host", "chat.example, inner")], outer),
            (&[("host", "inner"), ("x-forwarded-host", "chat.example:8443")], "https://chat.example:8443"),
            (&[("host", "chat.example"), ("x-forwarded-port", "8443")], "https://chat.example:8443"),
            (&[("host", "inner"), ("forwarded", "for=192.0.2.1;host=chat.example;proto=https")], outer),
            (
                &[
                    ("host", "inner"),
                    ("forwarded", "For=\"[::1]:4711\"; Host=\"chat.example:8443\";Proto=HTTPS, host=b"),
                ],
                "https://chat.example:8443",
            ),
            (&[("host", "inner"), ("forwarded", "for=a"), ("forwarded", "host=chat.example")], outer),
            // An inner proxy names its own port, which is not the one that browsers see.
            (&[("host", "chat.example"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "8080")], outer),
            (&[("host", "chat.example"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "80")], outer),
        ] {
            assert_eq!(asked(headers, &[], origin), Ok(()), "{headers:?}");
            assert!(asked(headers, &[], "https://evil.example").is_err(), "{headers:?}");
        }
    }

    #[test]
    fn an_inner_name_or_port_is_not_admitted_beside_the_one_that_browsers_see() {
        let inner = [("host", "localhost:8080"), ("x-forwarded-host", "chat.example")];
        assert!(asked(&inner, &[], "http://localhost:8080").is_err());
        let port = [("host", "chat.example:8443"), ("x-forwarded-port", "9000")];
        assert!(asked(&port, &[], "https://chat.example:9000").is_err());
    }

    #[test]
    fn a_quoted_value_ends_at_its_quote_and_nowhere_else() {
        let parsed = |header| parameters(header).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cases: [(&str, &[&str]); 5] = [
            ("for=a;host=b, proto=c", &["for=a", "host=b", "proto=c"]),
            (r#"for="a;host=x,y=z" ; host="b\"c=d""#, &["for=a;host=x,y=z", r#"host=b"c=d"#]),
            ("host=, =, ;;, for", &[]),
            (r#"host="never closed, host=b"#, &[]),
            ("host = b ", &["host=b"]),
        ];
        for (header, expected) in cases {
            let parsed: Vec<String> = parsed(header);
            assert_eq!(parsed, expected, "{header}");
        }
    }

    #[test]
    fn a_refusal_names_what_was_seen_what_would_have_been_right_and_where_that_came_from() {
        let told = |headers: &[(&str, &str)], origin: &str| {
            let RefusedOrigin { seen, expected, source } = asked(headers, &[], origin).unwrap_err();
            (seen, expected, source)
        };
        let outer = "https://chat.example";
        for (headers, expected, source) in [
            (
                &[("host", "127.0.0.1:3000")][..],
                "http://127.0.0.1:3000 or https://127.0.0.1:3000",
                "Host, no X-Forwarded-Proto",
            ),
            (&[("host", "b"), ("x-forwarded-proto", "https")], "https://b", "Host, X-Forwarded-Proto"),
            (
                &[("host", "b"), ("x-forwarded-host", "c:8443"), ("x-forwarded-proto", "wss")],
                "https://c:8443",
                "X-Forwarded-Host, X-Forwarded-Proto",
            ),
            (&[("host", "b"), ("forwarded", "host=c;proto=https")], "https://c", "Forwarded"),
            (
                &[("host", "b"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "8443")],
                "https://b:8443",
                "Host, X-Forwarded-Proto, X-Forwarded-Port",
            ),
            (&[("host", "b c")], "none, for `b c` is no host", "Host, no X-Forwarded-Proto"),
        ] {
            assert_eq!(told(headers, outer), (outer.to_owned(), expected.to_owned(), source.to_owned()));
        }
        let long = format!("https://{}.example", "a".repeat(1000));
        assert_eq!(told(&[("host", &long)], &long).0.len(), MAX_SHOWN);
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
        assert_eq!(Origins::default().admit(&TestRequest::get().uri("/ws").to_http_request()), Ok(()));
    }
}
