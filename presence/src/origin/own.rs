//! The server's own origin, read from a request that may have come through proxies.

use actix_web::{HttpRequest, http::header};

use super::{Site, host_and_port};

/// The origin of the server's own pages.
///
/// Pages cannot set any of the headers that this is read from. So a proxy that forwards them unchanged from a client does not help a page
/// of another origin.
#[derive(Debug)]
pub(super) struct Own {
    scheme: String,
    /// As the client or the proxy sent it.
    host: String,
    /// Read from `host`; `None` if that is not a host.
    parts: Option<(String, Option<u16>)>,
    /// The port that a proxy forwards, if the host has none.
    forwarded_port: Option<u16>,
    /// The headers from which all this was read.
    pub(super) source: String,
}

impl Own {
    pub(super) fn of(req: &HttpRequest) -> Self {
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
        // A proxy may forward the scheme of the WebSocket, but a browser sends the scheme of the page.
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
    /// A page of `https` is accepted if the request seems to be one of `http`, because a proxy may end TLS without a header for it. The
    /// reverse is never accepted: an attacker can change a page of `http` on its way, and must not reach what TLS protects.
    ///
    /// A proxy may send the port in `X-Forwarded-Port` and leave it out of the host. But behind several proxies this may be an inner
    /// port, so the port of the host is accepted as well.
    pub(super) fn is(&self, site: &Site) -> bool {
        let Some((host, port)) = &self.parts else { return false };
        let scheme = site.scheme == self.scheme || site.scheme == "https" && self.scheme == "http";
        let is = |port| Site::with(site.scheme.clone(), host.clone(), port) == *site;
        scheme && (is(*port) || self.forwarded_port.is_some() && is(self.forwarded_port))
    }

    /// The origins that would be accepted, for the log.
    pub(super) fn expected(&self) -> String {
        let Some((host, port)) = &self.parts else { return format!("none, because `{}` is not a host", self.host) };
        let port = self.forwarded_port.or(*port);
        let site = |scheme: &str| Site::with(scheme.to_owned(), host.clone(), port).to_string();
        if self.scheme == "http" { format!("{} or {}", site("http"), site("https")) } else { site(&self.scheme) }
    }
}

/// The first value of a header that lists one for each proxy. It is that of the proxy nearest to the client.
fn first<'a>(req: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let value = req.headers().get(name)?.to_str().ok()?.split(',').next()?.trim();
    Some(value).filter(|value| !value.is_empty())
}

/// The first value of this parameter in `Forwarded` (RFC 7239). It is that of the proxy nearest to the client.
fn forwarded(req: &HttpRequest, name: &str) -> Option<String> {
    let headers = req.headers().get_all(header::FORWARDED).filter_map(|value| value.to_str().ok());
    headers.flat_map(parameters).find(|(parameter, _)| parameter.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The parameters of a header `Forwarded`, in order. A quoted value may contain characters that otherwise end a value.
pub(super) fn parameters(header: &str) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    let mut name = String::new();
    let mut value = String::new();
    let mut in_value = false;
    let mut in_quotes = false;
    // The comma ends the last parameter.
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
