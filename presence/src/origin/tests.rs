//! Which origins are admitted, by the headers of the request and by the list.

use actix_web::test::TestRequest;

use super::{own::parameters, *};

/// The decision about `origin` in a request with these headers.
fn decision(headers: &[(&str, &str)], allowed: &[&str], origin: &str) -> Result<(), RefusedOrigin> {
    let mut origins = Origins::default();
    allowed.iter().for_each(|allowed| origins.allow(Origin::new(allowed).unwrap()));
    let request = TestRequest::get().uri("/ws").insert_header((header::ORIGIN, origin));
    let request = headers.iter().fold(request, |request, header| request.append_header(*header));
    origins.admit(&request.to_http_request())
}

fn accepts_at(host: &str, allowed: &[&str], origin: &str) -> bool {
    decision(&[("host", host)], allowed, origin).is_ok()
}

fn accepts(allowed: &[&str], origin: &str) -> bool {
    accepts_at("example.com:8080", allowed, origin)
}

#[test]
fn only_the_host_and_port_of_the_request_are_accepted() {
    assert!(accepts(&[], "http://example.com:8080"));
    assert!(accepts(&[], "http://EXAMPLE.com:8080"));
    let others = ["http://example.com", "http://evil.com:8080", "null", "", "http://a@b", "ws://example.com:8080"];
    for other in others {
        assert!(!accepts(&[], other), "{other}");
    }
}

#[test]
fn only_the_default_port_of_a_scheme_may_be_left_out() {
    for (host, origin) in [
        ("example.com", "http://example.com:80"),
        ("example.com:80", "http://example.com"),
        ("[::1]", "http://[::1]:80"),
        ("[::1]:8080", "http://[::1]:8080"),
    ] {
        assert!(accepts_at(host, &[], origin), "{origin}");
    }
    for other in ["http://example.com:99999", "http://example.com:8o", "http://example.com:443"] {
        assert!(!accepts_at("example.com", &[], other), "{other}");
    }
}

#[test]
fn a_page_of_https_is_accepted_behind_a_proxy_that_ends_tls_without_a_header_for_it() {
    for (host, origin) in [
        ("chat.example", "https://chat.example"),
        ("chat.example:443", "https://chat.example"),
        ("chat.example:8443", "https://chat.example:8443"),
    ] {
        assert!(accepts_at(host, &[], origin), "{host} {origin}");
    }
    for (host, origin) in [
        ("chat.example:8443", "https://chat.example"),
        ("chat.example", "https://chat.example:8443"),
        ("chat.example:80", "https://chat.example"),
        ("10.0.0.1:8080", "https://chat.example"),
    ] {
        assert!(!accepts_at(host, &[], origin), "{host} {origin}");
    }
}

#[test]
fn a_page_of_http_is_never_accepted_if_the_request_arrived_over_tls() {
    for proto in ["https", "wss", "HTTPS", "https, http"] {
        let headers = [("host", "chat.example"), ("x-forwarded-proto", proto)];
        assert!(decision(&headers, &[], "https://chat.example").is_ok(), "{proto}");
        assert!(decision(&headers, &[], "http://chat.example").is_err(), "{proto}");
    }
    let headers = [("host", "chat.example"), ("forwarded", "proto=https")];
    assert!(decision(&headers, &[], "http://chat.example").is_err());
}

#[test]
fn the_headers_of_proxies_are_understood() {
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
            &[("host", "inner"), ("forwarded", "For=\"[::1]:4711\"; Host=\"chat.example:8443\";Proto=HTTPS, host=b")],
            "https://chat.example:8443",
        ),
        (&[("host", "inner"), ("forwarded", "for=a"), ("forwarded", "host=chat.example")], outer),
        // An inner proxy sends its own port, which is not the one that browsers see.
        (&[("host", "chat.example"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "8080")], outer),
        (&[("host", "chat.example"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "80")], outer),
    ] {
        assert_eq!(decision(headers, &[], origin), Ok(()), "{headers:?}");
        assert!(decision(headers, &[], "https://evil.example").is_err(), "{headers:?}");
    }
}

#[test]
fn an_inner_host_or_port_is_not_accepted_besides_the_one_that_browsers_see() {
    let inner = [("host", "localhost:8080"), ("x-forwarded-host", "chat.example")];
    assert!(decision(&inner, &[], "http://localhost:8080").is_err());
    let port = [("host", "chat.example:8443"), ("x-forwarded-port", "9000")];
    assert!(decision(&port, &[], "https://chat.example:9000").is_err());
}

#[test]
fn a_quoted_value_ends_only_at_its_quote() {
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
fn a_refusal_names_the_origin_the_accepted_ones_and_the_headers_they_were_read_from() {
    let refusal = |headers: &[(&str, &str)], origin: &str| {
        let RefusedOrigin { seen, expected, source } = decision(headers, &[], origin).unwrap_err();
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
        (&[("host", "b c")], "none, because `b c` is not a host", "Host, no X-Forwarded-Proto"),
    ] {
        assert_eq!(refusal(headers, outer), (outer.to_owned(), expected.to_owned(), source.to_owned()));
    }
    let long = format!("https://{}.example", "a".repeat(1000));
    assert_eq!(refusal(&[("host", &long)], &long).0.len(), MAX_SHOWN);
}

#[test]
fn listed_origins_are_accepted_with_or_without_their_default_port() {
    assert!(accepts(&["https://app.example"], "https://app.example"));
    assert!(accepts(&["https://app.example"], "https://app.example:443"));
    assert!(!accepts(&["https://app.example"], "https://app.example.evil.com"));
}

#[test]
fn pages_outside_the_web_have_origins_too() {
    for app in ["tauri://localhost", "capacitor://localhost", "chrome-extension://abcdefgh", "app://shell:4000"] {
        assert!(accepts(&["https://app.example", app], app), "{app}");
        assert!(!accepts(&["https://app.example"], app), "{app}");
    }
    assert!(!accepts(&["tauri://localhost"], "http://localhost"));
}

#[test]
fn a_text_that_is_not_an_origin_is_refused_and_named() {
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
        assert!(error.starts_with(&format!("`{text}` is not an origin")), "{error}");
    }
    for origin in ["*", "https://app.example", "http://app.example:8080", "tauri://localhost"] {
        assert_eq!(Origin::new(origin).unwrap().to_string(), origin);
    }
}

#[test]
fn a_client_that_is_not_a_browser_is_accepted() {
    assert_eq!(Origins::default().admit(&TestRequest::get().uri("/ws").to_http_request()), Ok(()));
}
