//! The routes: the page, the socket, and the checks for operators.

use actix_web::{
    FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
    middleware::DefaultHeaders,
    web,
};
use percent_encoding::percent_decode_str;
use presence::{CLIENT_JS, Error, Origin, ResumeToken, RoomName, Rooms, Upgrade, UserId};
use serde::Deserialize;
use serde_json::json;
use tracing::debug;

use crate::consumer::Chat;

/// A page loads nothing from other hosts, and runs only scripts that are files of this server.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; worker-src blob: 'self'; connect-src 'self' ws: wss:; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) struct SocketSettings {
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

/// A route for GET and HEAD. The response to other methods is 405.
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

/// The settings of the server that the page needs.
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

/// The parameters of a handshake.
#[derive(Deserialize)]
struct Parameters {
    user: Option<String>,
    /// The resume token.
    session: Option<String>,
}

/// Answers 400 for a bad name, as [`Error`] does. `web::Path<RoomName>` would answer 404.
async fn socket(
    req: HttpRequest,
    upgrade: Upgrade,
    room: web::Path<String>,
    parameters: web::Query<Parameters>,
    settings: web::Data<SocketSettings>,
) -> presence::Result<HttpResponse> {
    let (room, user, session) = check(&req, room.into_inner(), parameters.into_inner())
        .inspect_err(|error| debug!(%error, "a handshake is refused"))?;
    let upgrade = upgrade.user(user).resume_token(session);
    let upgrade = settings.allow_origin.iter().fold(upgrade, |upgrade, origin| upgrade.allow_origin(origin));
    Ok(upgrade.start(Chat { room }).await)
}

/// The room, the user and the resume token of a handshake.
fn check(
    req: &HttpRequest,
    room: String,
    Parameters { user, session }: Parameters,
) -> presence::Result<(RoomName, Option<UserId>, Option<ResumeToken>)> {
    check_utf_8(req)?;
    let user = user.map(UserId::new).transpose()?;
    let session = session.map(ResumeToken::new).transpose()?;
    Ok((RoomName::new(room)?, user, session))
}

/// The extractors replace each byte that is not UTF-8 by the same character, so that several names would become one.
fn check_utf_8(req: &HttpRequest) -> presence::Result<()> {
    let target = req.uri().path_and_query().map_or("", |target| target.as_str());
    match percent_decode_str(target).decode_utf8() {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::deny(StatusCode::BAD_REQUEST, "a name must be UTF-8")),
    }
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
