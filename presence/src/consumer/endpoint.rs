//! Checks a request and answers it: with a WebSocket, or with the reason why not.

use std::{
    future::{Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    body::SizedStream,
    dev,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web::{Data, Payload},
};
use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::sync::oneshot;
use tracing::{debug, error, warn};

use crate::{
    CloseCode, Consumer, Error, Frame, Result, ResumeToken, Rooms, Socket,
    error::RETRY_AFTER,
    name::UserId,
    origin::{Origin, OriginError, Origins, RefusedOrigin},
    telemetry::report,
};

use super::{connection::start, patience::within, run::Accepted, transport::handshake};

/// The longest path of a handshake, its query included, in bytes. A socket keeps its path, so it has its own limit.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Turns a request into a WebSocket with a [`Consumer`].
///
/// It is an extractor of actix-web, and a handler may have others besides it. It finds the rooms in the data of the application
/// (`App::app_data(web::Data::new(rooms))`). A handler that has the rooms from elsewhere calls [`new`](Self::new).
///
/// ```
/// use actix_web::{HttpResponse, web};
/// # use presence::{Consumer, Frame, RoomName, Socket, Upgrade};
/// # struct Chat(RoomName);
/// # impl Consumer for Chat {
/// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
/// # }
/// async fn ws(upgrade: Upgrade, room: web::Path<String>) -> presence::Result<HttpResponse> {
///     let room = RoomName::new(room.into_inner())?; // a bad name: 400. A `web::Path<RoomName>` would answer 404
///     Ok(upgrade.start(Chat(room)).await)
/// }
/// ```
#[must_use]
pub struct Upgrade {
    rooms: Rooms,
    pub(crate) req: HttpRequest,
    pub(crate) payload: Payload,
    user: Option<UserId>,
    resume: Option<ResumeToken>,
    authenticate: Option<Authenticate>,
    origins: Origins,
    /// The first text that was passed to `allow_origin` and is not an origin.
    mistake: Option<OriginError>,
}

impl FromRequest for Upgrade {
    type Error = actix_web::Error;
    type Future = Ready<actix_web::Result<Self>>;

    fn from_request(req: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        // Both extractors are ready at once.
        let rooms = Data::<Rooms>::from_request(req, payload).into_inner();
        let payload = Payload::from_request(req, payload).into_inner();
        ready(rooms.and_then(|rooms| Ok(Self::new(&rooms, req, payload?))))
    }
}

/// Determines the user of a request.
type Authenticate = Rc<dyn Fn(HttpRequest) -> LocalBoxFuture<'static, Result<Option<UserId>>>>;

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrade").field("user", &self.user).field("origins", &self.origins).finish_non_exhaustive()
    }
}

impl Upgrade {
    /// Prepares an upgrade of this request, as the extractor does: for an anonymous user, and only for pages of the server's own origin.
    ///
    /// ```
    /// # use actix_web::{HttpRequest, HttpResponse, web};
    /// # use presence::{Consumer, Frame, Rooms, Socket, Upgrade};
    /// # struct Chat;
    /// # impl Consumer for Chat {
    /// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
    /// # }
    /// async fn ws(req: HttpRequest, payload: web::Payload, tenants: web::Data<Vec<Rooms>>) -> HttpResponse {
    ///     Upgrade::new(&tenants[0], &req, payload).start(Chat).await
    /// }
    /// ```
    pub fn new(rooms: &Rooms, req: &HttpRequest, payload: Payload) -> Self {
        Self {
            rooms: rooms.clone(),
            req: req.clone(),
            payload,
            user: None,
            resume: None,
            authenticate: None,
            origins: Origins::default(),
            mistake: None,
        }
    }

    /// Sets the user of the socket. The application must have verified it. `None`: anonymous.
    pub fn user(mut self, user: Option<UserId>) -> Self {
        self.user = user;
        self
    }

    /// Sets the resume token that the client sent, if it sent one. When the socket is lost, its presences are held for their grace, and a
    /// socket of the same user with the same token resumes them. The same as [`Socket::set_resume_token`].
    ///
    /// ```
    /// use actix_web::{HttpResponse, web};
    /// use presence::{ResumeToken, Upgrade};
    /// # use presence::{Consumer, Frame, Socket};
    /// # struct Chat;
    /// # impl Consumer for Chat {
    /// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
    /// # }
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Query {
    ///     session: Option<String>,
    /// }
    ///
    /// async fn ws(upgrade: Upgrade, query: web::Query<Query>) -> presence::Result<HttpResponse> {
    ///     let token = query.into_inner().session.map(ResumeToken::try_from).transpose()?; // a bad one: 400
    ///     Ok(upgrade.resume_token(token).start(Chat).await)
    /// }
    /// ```
    pub fn resume_token(mut self, token: Option<ResumeToken>) -> Self {
        self.resume = token;
        self
    }

    /// Determines the user by `authenticate`, before the response to the handshake and before the consumer runs. It returns a user, or
    /// `None` for an anonymous visitor. An error refuses the socket: [`Error::refuse`] with a close code, [`Error::deny`] with a status,
    /// and any other error with 500. It replaces [`user`](Self::user), and is limited by `handshake_timeout`.
    ///
    /// ```
    /// # use actix_web::{HttpRequest, HttpResponse, ResponseError, http::StatusCode, web};
    /// # use presence::{Consumer, Error, Frame, Rooms, Socket, Upgrade, UserId};
    /// # struct Chat;
    /// # impl Consumer for Chat {
    /// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
    /// # }
    /// async fn who(req: HttpRequest) -> presence::Result<Option<UserId>> {
    ///     match req.headers().get("authorization").map(|token| token.as_bytes()) {
    ///         None => Ok(None),
    ///         Some(b"Bearer secret") => Ok(Some(UserId::new("ann")?)),
    ///         Some(_) => Err(Error::deny(StatusCode::UNAUTHORIZED, "this session is over")),
    ///     }
    /// }
    ///
    /// async fn ws(upgrade: Upgrade) -> HttpResponse {
    ///     upgrade.authenticate(who).start(Chat).await
    /// }
    /// ```
    pub fn authenticate<F>(mut self, authenticate: impl Fn(HttpRequest) -> F + 'static) -> Self
    where
        F: Future<Output = Result<Option<UserId>>> + 'static,
    {
        self.authenticate = Some(Rc::new(move |req| Box::pin(authenticate(req))));
        self
    }

    /// Allows pages of this [`Origin`] (`https://app.example`), too; `*` allows all. If the text is not an origin,
    /// [`start`](Self::start) answers every request with 500. Check a text from a file or an argument with [`Origin::new`] when you
    /// read it.
    ///
    /// ```
    /// # use actix_web::HttpResponse;
    /// # use presence::{Consumer, Frame, Socket, Upgrade};
    /// # struct Chat;
    /// # impl Consumer for Chat {
    /// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
    /// # }
    /// async fn ws(upgrade: Upgrade) -> HttpResponse {
    ///     upgrade.allow_origin("https://app.example").start(Chat).await
    /// }
    /// ```
    pub fn allow_origin<O>(mut self, origin: O) -> Self
    where
        O: TryInto<Origin>,
        O::Error: Into<OriginError>,
    {
        match origin.try_into() {
            Ok(origin) => self.origins.allow(origin),
            Err(error) => self.mistake = self.mistake.or(Some(error.into())),
        }
        self
    }

    /// Checks the handshake and the origin, calls `connect` of the consumer, and returns the response:
    ///
    /// | status | reason |
    /// | --- | --- |
    /// | 101 | the socket is accepted; or [`Error::Refused`](crate::Error::Refused), or another close while it connects, and then a Close with the code follows |
    /// | 400 | [`Error::Name`](crate::Error::Name), [`Error::Meta`](crate::Error::Meta), [`Error::GraceTooLong`](crate::Error::GraceTooLong) or [`Error::ResumeToken`](crate::Error::ResumeToken) |
    /// | 400, 405, 426 | it is not a handshake of RFC 6455, or the client sent something else than frames before the response |
    /// | 403 | a page of another origin, or [`Error::RoomFull`](crate::Error::RoomFull) |
    /// | 404, 409, 413 | another error that is answered so in any handler of actix-web, such as [`Error::TooManyRooms`](crate::Error::TooManyRooms) |
    /// | 414 | the path, its query included, has more than 8 KiB |
    /// | 431 | the headers have more than `max_header_bytes` |
    /// | 503 with `Retry-After` | the database is unavailable, too much is pending or unread, the room failed, there are `max_sockets` already, or the node is shutting down |
    /// | 4xx, 5xx | the status of [`Error::Denied`](crate::Error::Denied) |
    /// | 500 | any other error, a panic, or more than `handshake_timeout` |
    pub async fn start<C: Consumer>(mut self, consumer: C) -> HttpResponse {
        let req = &self.req.clone();
        let response = match handshake(req) {
            Ok(response) => response,
            Err(refused) => return *refused,
        };
        let bytes = req.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if bytes > MAX_TARGET_BYTES {
            debug!(bytes, limit = MAX_TARGET_BYTES, "a handshake is refused: its path is too long");
            return HttpResponse::UriTooLong()
                .body(format!("a path has at most {MAX_TARGET_BYTES} bytes, its query included"));
        }
        let most = self.rooms.config().max_header_bytes();
        let bytes = header_bytes(req.headers());
        if bytes > most {
            debug!(bytes, limit = most, "a handshake is refused: its headers are too large");
            return HttpResponse::RequestHeaderFieldsTooLarge()
                .body(format!("the headers of a handshake have at most {most} bytes in all"));
        }
        if has_body(req) {
            return HttpResponse::BadRequest().body("a handshake has no body");
        }
        if let Some(mistake) = self.mistake.take() {
            return refuse(mistake.into());
        }
        if let Err(refused) = self.origins.admit(req) {
            self.log_origin(&refused, req);
            return HttpResponse::Forbidden().body("this origin is not allowed");
        }
        if let Err(error) = self.rooms.check_open() {
            return refuse(error);
        }
        if let Some(authenticate) = self.authenticate.take() {
            let limit = self.rooms.config().handshake_timeout();
            let authenticated = AssertUnwindSafe(async { authenticate(req.clone()).await }).catch_unwind();
            match within(limit, authenticated).await {
                Some(Ok(Ok(user))) => self.user = user,
                Some(Ok(Err(Error::Refused { code, reason }))) => {
                    return self.answer(Refusing { code, reason }, response).await;
                }
                Some(Ok(Err(error))) => return refuse(error),
                Some(Err(_)) => return refuse(Error::other("`authenticate` panicked")),
                None => return refuse(Error::other("`authenticate` took longer than `handshake_timeout`")),
            }
        }
        self.answer(consumer, response).await
    }

    /// Logs a refused origin, because a page cannot see the reason. Behind a proxy that hides the host, every page is refused.
    fn log_origin(&self, refused: &RefusedOrigin, req: &HttpRequest) {
        let RefusedOrigin { seen, expected, source } = refused;
        let (path, peer) = (req.path(), req.peer_addr().map(tracing::field::display));
        let Some(left_out) = self.rooms.hubs().cutoffs.refused_origin.admit(self.rooms.this_node().now()) else {
            debug!(origin = ?seen, ?expected, source, path, peer, "a page of another origin was refused");
            return;
        };
        warn!(
            origin = ?seen, ?expected, source, path, peer, left_out = left_out.field(),
            "a page of another origin was refused; if it is your own page, your proxy changes the host or port, otherwise list it with `allow_origin`"
        );
    }

    /// Calls `connect` of the consumer, and returns the response to the handshake. `response` is the one that accepts it.
    async fn answer<C: Consumer>(self, consumer: C, mut response: HttpResponseBuilder) -> HttpResponse {
        let req = &self.req.clone();
        if let Some(full) = self.rooms.response_if_full() {
            return full;
        }
        let (decided, decision) = oneshot::channel();
        let Self { rooms, payload, user, resume, .. } = self;
        // If the client goes away meanwhile, this future is dropped, and with the body the connection is notified that there is no response.
        let body = start(&rooms, req, payload, user, resume, consumer, decided);
        let accepted = decision.await.unwrap_or_else(|_| Err(Error::other("the task of the consumer has ended")));
        let Accepted { refused, subprotocol, headers } = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return refuse(error),
        };
        for header in headers {
            response.append_header(header);
        }
        // If a browser offers subprotocols and the server chooses none, the handshake fails, and the page cannot read the code.
        let subprotocol = subprotocol.or_else(|| offers(req).next().filter(|_| refused).map(str::to_owned));
        if let Some(subprotocol) = subprotocol {
            if offers(req).any(|offer| offer == subprotocol) {
                response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, subprotocol));
            } else {
                // The client would have to fail the handshake (RFC 6455, 4.1).
                warn!(%subprotocol, "a consumer chose a subprotocol that its client did not offer");
            }
        }
        if body.announce_take_over() {
            // If the body ends before its length, the server drops the connection without ending it. A 101 has no length for the client.
            return response.body(SizedStream::new(u64::MAX, body));
        }
        response.streaming(body)
    }
}

impl Rooms {
    /// The response to a further socket, if there are `max_sockets` already.
    fn response_if_full(&self) -> Option<HttpResponse> {
        let max_sockets = self.config().max_sockets();
        if self.sockets() < max_sockets {
            return None;
        }
        if let Some(left_out) = self.hubs().full.admit(self.this_node().now()) {
            let left_out = left_out.field();
            warn!(max_sockets, left_out, "a socket is refused with 503: there are `max_sockets` already");
        }
        let mut full = HttpResponse::ServiceUnavailable();
        Some(full.insert_header((header::RETRY_AFTER, RETRY_AFTER)).body("the server is full; try again later"))
    }
}

/// The bytes of the headers as they are sent: each has a colon, a space and the end of its line.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Whether the request announces a body. Its bytes would be read as frames, and the server would wait for its end for ever.
fn has_body(req: &HttpRequest) -> bool {
    let length = req.headers().get(header::CONTENT_LENGTH);
    req.headers().contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// The subprotocols that the client offered.
fn offers(req: &HttpRequest) -> impl Iterator<Item = &str> {
    let offers = req.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|offer| offer.to_str().ok());
    offers.flat_map(|offer| offer.split(',')).map(str::trim).filter(|offer| !offer.is_empty())
}

/// The consumer of a socket that `authenticate` refused.
struct Refusing {
    code: CloseCode,
    reason: String,
}

impl Consumer for Refusing {
    async fn connect(&mut self, _: &mut Socket) -> Result<()> {
        Err(Error::refuse(self.code, &*self.reason))
    }

    async fn receive(&mut self, _: &mut Socket, _: Frame) -> Result<()> {
        Ok(())
    }
}

/// The response to a refused socket. An error of the application may panic when it is formatted or dropped.
fn refuse(error: Error) -> HttpResponse {
    let response = catch_unwind(AssertUnwindSafe(|| log_and_answer(&error)));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(error)));
    if response.is_err() || dropped.is_err() {
        error!("the error with which a socket was refused panicked");
    }
    response.unwrap_or_else(|_| Error::other("").error_response())
}

fn log_and_answer(error: &Error) -> HttpResponse {
    debug!(error = %report(error), "a handshake is refused");
    let response = error.error_response();
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR
        && !matches!(error, Error::Denied { status, .. } if status.is_server_error())
    {
        warn!(error = %report(error), "a socket is refused because of an error");
    }
    response
}
