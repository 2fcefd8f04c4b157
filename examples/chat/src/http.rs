//! The routes: the page, the socket, and what an operator asks.

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder,
    http::header::{self, HeaderValue},
    middleware::DefaultHeaders,
    web,
};
use presence::{CLIENT_JS, Origin, ResumeToken, RoomName, Rooms, Upgrade, UserId};
use serde_json::json;
use tracing::debug;

use crate::consumer::Chat;

/// Nothing is loaded from another host, and nothing in a page is run that is not in our files.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; worker-src blob: 'self'; connect-src 'self' ws: wss:; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) struct Settings {
    pub(crate) allow_origin: Vec<Origin>,
}

pub(crate) fn routes(app: &mut web::ServiceConfig) {
    let headers = DefaultHeaders::new()
        .add((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .add((header::CACHE_CONTROL, "no-cache"));
    let page = |path: &str, content_type: &'static str, body: &'static str| {
        readable(path, move || async move { asset(content_type, body) }).wrap(headers.clone())
    };
    app.service(web::resource("/ws/{room}").get(socket))
        .service(web::resource("/ws/").get(no_room))
        .service(readable("/healthz", healthz))
        .service(readable("/readyz", readyz))
        .service(readable("/config.json", config).wrap(headers.clone()))
        .service(page("/", "text/html; charset=utf-8", include_str!("../static/index.html")))
        .service(page("/app.js", "text/javascript", include_str!("../static/app.js")))
        .service(page("/tools.js", "text/javascript", include_str!("../static/tools.js")))
        .service(page("/style.css", "text/css", include_str!("../static/style.css")))
        .service(page("/favicon.svg", "image/svg+xml", include_str!("../static/favicon.svg")));
    for &(path, text) in CLIENT_JS {
        app.service(page(&format!("/{path}"), "text/javascript", text));
    }
}

/// What can be read by GET, and looked at by HEAD; other methods are answered 405.
fn readable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path).route(web::get().to(handler.clone())).route(web::head().to(handler))
}

fn asset(content_type: &'static str, body: &'static str) -> impl Responder {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, HeaderValue::from_static(content_type))).body(body)
}

/// What the page needs to know of the server.
async fn config(rooms: web::Data<Rooms>) -> impl Responder {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    HttpResponse::Ok().json(json!({
        "max_age_ms": millis(rooms.config().max_age()),
        "grace_ms": millis(rooms.config().grace()),
        "notify": rooms.config().notify(),
    }))
}

async fn no_room() -> impl Responder {
    HttpResponse::BadRequest().body("a room name must not be empty")
}

async fn socket(req: HttpRequest, upgrade: Upgrade, settings: web::Data<Settings>) -> HttpResponse {
    let names = room(&req).and_then(|room| Ok((room, user(&req)?, session(&req)?)));
    let (room, user, session) = match names {
        Ok(names) => names,
        Err(reason) => {
            debug!(reason, "a handshake is refused");
            return HttpResponse::BadRequest().body(reason);
        }
    };
    let upgrade = upgrade.user(user).resume_token(session);
    let upgrade = settings.allow_origin.iter().fold(upgrade, |upgrade, origin| upgrade.allow_origin(origin));
    upgrade.start(Chat { room }).await
}

/// The last segment of the path as it was sent, decoded once: an encoded slash is part of the name.
fn room(req: &HttpRequest) -> Result<RoomName, String> {
    let path = req.uri().path();
    let raw = path.rsplit_once('/').map_or(path, |(_, last)| last);
    RoomName::new(decode(raw.as_bytes())?).map_err(|error| error.to_string())
}

/// The parameter `user`, at most once.
fn user(req: &HttpRequest) -> Result<Option<UserId>, String> {
    let Some(user) = parameter(req, "user")? else { return Ok(None) };
    UserId::new(user).map(Some).map_err(|error| error.to_string())
}

/// The parameter `session`, at most once: by it a client resumes its presence.
fn session(req: &HttpRequest) -> Result<Option<ResumeToken>, String> {
    let Some(token) = parameter(req, "session")? else { return Ok(None) };
    ResumeToken::new(token).map(Some).map_err(|error| error.to_string())
}

/// A parameter of the query, decoded once.
fn parameter(req: &HttpRequest, wanted: &str) -> Result<Option<String>, String> {
    let mut values = req.query_string().split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == wanted).then_some(value)
    });
    let Some(raw) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("`{wanted}` is given more than once"));
    }
    // In a query a plus sign is a space.
    let spaced: Vec<u8> = raw.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
    decode(&spaced).map(Some)
}

fn decode(raw: &[u8]) -> Result<String, String> {
    let decoded = percent_encoding::percent_decode(raw).decode_utf8();
    decoded.map(Into::into).map_err(|_| "a name is UTF-8".into())
}

async fn healthz() -> impl Responder {
    "ok"
}

/// Whether new sockets can be served.
async fn readyz(rooms: web::Data<Rooms>) -> HttpResponse {
    match rooms.not_ready() {
        None => HttpResponse::Ok().body("ready"),
        Some(reason) => HttpResponse::ServiceUnavailable().body(reason.to_string()),
    }
}
