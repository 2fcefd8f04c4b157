//! The JavaScript client in a browser: its own unit tests, and before a consumer with several rooms.

mod rooms;

use crate::support::webdriver::{Browser, Timers};
use crate::support::{Duration, eventually, secs};
use actix_web::{App, HttpResponse, HttpServer, web};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folder that ships with the crate.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../presence/client")
}

async fn file(name: web::Path<String>) -> HttpResponse {
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js" | "mjs")) => "text/javascript; charset=utf-8",
        _ => "application/octet-stream",
    };
    // Names come from our own test page alone; still, nothing above the folder is given away.
    if name.contains("..") {
        return HttpResponse::NotFound().finish();
    }
    match std::fs::read(folder().join(name.as_str())) {
        Ok(bytes) => HttpResponse::Ok().content_type(kind).body(bytes),
        Err(_) => HttpResponse::NotFound().finish(),
    }
}

#[actix_web::test]
async fn the_javascript_client_passes_its_own_tests_in_a_browser() {
    assert!(folder().join("test.html").exists(), "the client's test page is in {}", folder().display());
    let Some(browser) = Browser::start(Timers::Free).await else { return };
    // A browser may open a connection long before it sends a request: one that is answered with 408 by then lacks a module.
    let server = HttpServer::new(|| App::new().route("/{name:.*}", web::get().to(file)))
        .client_request_timeout(Duration::ZERO)
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
    let address = server.addrs()[0];
    let server = server.run();
    let handle = server.handle();
    actix_web::rt::spawn(server);

    let window = browser.first(&format!("http://{address}/test.html")).await;
    let script = "return document.querySelector('#result')?.textContent ?? ''";
    let result: Value = eventually(secs(120), "the result of the client's tests", async || {
        let text = browser.run(&window, script, vec![]).await;
        let text = text.as_str().unwrap_or_default().to_owned();
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text:?}"))
    })
    .await;
    handle.stop(false).await;
    let failed = result["failed"].as_array().expect("a list of what failed");
    assert!(failed.is_empty() && result["passed"].as_u64() > Some(0), "{result:#}");
}
