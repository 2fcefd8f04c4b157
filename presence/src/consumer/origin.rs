//! Which pages may open a WebSocket.

use actix_web::{HttpRequest, http::Uri, http::header};

/// Decides by the `Origin` header, which browsers set and pages cannot. Without it the client is no browser.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    listed: Vec<String>,
    any: bool,
}

impl Origins {
    pub(crate) fn allow(&mut self, origin: &str) {
        if origin == "*" {
            self.any = true;
        } else {
            self.listed.extend(normal(origin));
        }
    }

    /// The request's own scheme, host and port, and those listed.
    pub(crate) fn admit(&self, req: &HttpRequest) -> bool {
        let Some(origin) = req.headers().get(header::ORIGIN) else { return true };
        if self.any {
            return true;
        }
        let Some(origin) = origin.to_str().ok().and_then(normal) else { return false };
        let here = req.connection_info();
        let own = normal(&format!("{}://{}", here.scheme(), here.host()));
        own.as_ref() == Some(&origin) || self.listed.contains(&origin)
    }
}

/// `scheme://host:port` in lower case, the port written out.
fn normal(origin: &str) -> Option<String> {
    let uri: Uri = origin.trim_end_matches('/').parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?);
    if uri.path() != "/" && !uri.path().is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let port = authority.port_u16().or(match &*scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    })?;
    Some(format!("{scheme}://{}:{port}", authority.host().to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn admits(allowed: &[&str], origin: &str) -> bool {
        let mut origins = Origins::default();
        allowed.iter().for_each(|allowed| origins.allow(allowed));
        let request = TestRequest::get().uri("/ws").insert_header((header::HOST, "example.com:8080"));
        origins.admit(&request.insert_header((header::ORIGIN, origin)).to_http_request())
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
    fn listed_origins_are_admitted_with_their_default_port() {
        assert!(admits(&["https://app.example"], "https://app.example"));
        assert!(admits(&["https://app.example"], "https://app.example:443"));
        assert!(!admits(&["https://app.example"], "https://app.example.evil.com"));
    }

    #[test]
    fn a_client_that_is_no_browser_is_admitted() {
        assert!(Origins::default().admit(&TestRequest::get().uri("/ws").to_http_request()));
    }
}
