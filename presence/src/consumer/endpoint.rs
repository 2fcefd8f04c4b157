//! From an HTTP request to a socket.

use std::{
    cell::Cell,
    future::{Ready, ready},
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::atomic::AtomicBool,
    sync::atomic::Ordering,
};

use actix::{Actor, Addr, AsyncContext, Context};
use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError, dev,
    http::{
        StatusCode,
        header::{self, HeaderMap},
    },
    web::{Data, Payload},
};
use futures_util::{FutureExt, future::LocalBoxFuture};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::{
    CloseCode, Consumer, Error, Frame, Result, ResumeToken, Rooms, Socket,
    delivery::{
        hub::HubSocket,
        message::ToConnection,
        outbox::{Bounds, Outbound, Outbox, Owner},
        touch::Touch,
    },
    error::RETRY_AFTER,
    name::UserId,
    origin::{Origin, OriginError, Origins, RefusedOrigin},
    rooms::sending::as_consumer_of,
    telemetry::report,
};

use super::{
    connection::{Client, Connection, Parts},
    handshake::Handshake,
    inbox::Inbox,
    kill::KillSwitch,
    patience::within,
    rates::Rates,
    run::run,
    transport::{Inbound, handshake},
};

/// The longest path of a handshake, its query included, in bytes. A socket keeps it, so it is bounded apart from the headers.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Turns a request into a WebSocket with a [`Consumer`].
///
/// It is an extractor of actix-web, beside which a handler may have others. The application's data hold the rooms
/// (`App::app_data(web::Data::new(rooms))`); a handler that has them from elsewhere makes an upgrade with [`new`](Self::new).
///
/// ```
/// use actix_web::{HttpResponse, web};
/// # use presence::{Consumer, Frame, RoomName, Socket, Upgrade};
/// # struct Chat;
/// # impl Consumer for Chat {
/// #     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> { Ok(()) }
/// # }
/// async fn ws(upgrade: Upgrade, room: web::Path<RoomName>) -> HttpResponse {
///     tracing::debug!(%room, "somebody comes");
///     upgrade.start(Chat).await
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
    /// What was to be allowed and is no origin.
    mistake: Option<OriginError>,
}

impl FromRequest for Upgrade {
    type Error = actix_web::Error;
    type Future = Ready<actix_web::Result<Self>>;

    fn from_request(req: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        // Both are there at once: neither waits for anything.
        let rooms = Data::<Rooms>::from_request(req, payload).into_inner();
        let payload = Payload::from_request(req, payload).into_inner();
        ready(rooms.and_then(|rooms| Ok(Self::new(&rooms, req, payload?))))
    }
}

/// What a handshake is answered with.
#[derive(Debug, Default)]
pub(crate) struct Accepted {
    /// Only a Close follows.
    pub(crate) refused: bool,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: HeaderMap,
}

/// Finds out who a request is from.
type Authenticate = Rc<dyn Fn(HttpRequest) -> LocalBoxFuture<'static, Result<Option<UserId>>>>;

impl std::fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgrade").field("user", &self.user).field("origins", &self.origins).finish_non_exhaustive()
    }
}

impl Upgrade {
    /// Prepares an upgrade of this request, as the extractor does: anonymous, and only for pages of the request's own origin.
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

    /// Who the socket belongs to, as the application has made sure. `None`: anonymous.
    pub fn user(mut self, user: Option<UserId>) -> Self {
        self.user = user;
        self
    }

    /// The resume token that the client brought, if it brought one: its presences outlive the socket for their grace, and a
    /// socket of the same user with the same token takes them over. As [`Socket::set_resume_token`].
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

    /// Has `authenticate` find out who the request is from, before the consumer sees the socket and before the handshake is
    /// answered: a user, or `None` for an anonymous visitor; an error turns the socket away
    /// ([`Error::refuse`] with a close code, [`Error::deny`] with a status, anything else 500). It takes the place of [`user`](Self::user), and is bounded by
    /// `handshake_timeout`.
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

    /// Admits pages of this [`Origin`] (`https://app.example`) too; `*` admits all. A text that is no origin is a mistake of
    /// the application's, which [`start`](Self::start) answers with 500, whoever comes; one from a file or an argument
    /// is best checked when it is read, by [`Origin::new`].
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

    /// Checks the handshake and the origin, lets the consumer connect, and answers: with 101 and the socket, or with the
    /// status that says why not.
    ///
    /// A path of more than 8 KiB, its query included: 414. Headers of more than `max_header_bytes`: 431. Not a handshake of RFC 6455, or bytes that are no frame before it is answered: 400, 405 or 426. Another origin: 403. The
    /// database away, the room failing, or the node shutting down: 503 with `Retry-After`.
    /// [`Error::Refused`](crate::Error::Refused), or a socket that is to be closed with a code while it connects: 101, and then a Close with that code. [`Error::Denied`](crate::Error::Denied): its
    /// status, 4xx or 5xx. [`Error::Name`](crate::Error::Name) and
    /// [`Error::ResumeToken`](crate::Error::ResumeToken): 400. Any
    /// other error, a panic, or more than `handshake_timeout`: 500.
    pub async fn start<C: Consumer>(mut self, consumer: C) -> HttpResponse {
        let req = &self.req.clone();
        if let Err(refused) = handshake(req) {
            return *refused;
        }
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
            return refuse(&mistake.into());
        }
        if let Err(refused) = self.origins.admit(req) {
            self.log_origin(&refused, req);
            return HttpResponse::Forbidden().body("this origin is not allowed");
        }
        if let Err(error) = self.rooms.check_open() {
            return refuse(&error);
        }
        if let Some(authenticate) = self.authenticate.take() {
            let limit = self.rooms.config().handshake_timeout();
            let authenticated = AssertUnwindSafe(async { authenticate(req.clone()).await }).catch_unwind();
            match within(limit, authenticated).await {
                Some(Ok(Ok(user))) => self.user = user,
                Some(Ok(Err(Error::Refused { code, reason }))) => {
                    return self.answer(Refusing { code, reason }).await;
                }
                Some(Ok(Err(error))) => return refuse(&error),
                Some(Err(_)) => return refuse(&Error::other("`authenticate` panicked")),
                None => return refuse(&Error::other("to authenticate took longer than `handshake_timeout`")),
            }
        }
        self.answer(consumer).await
    }

    /// Logs a refused origin, since a page cannot see why it is refused: behind a proxy that hides the host it is every page.
    fn log_origin(&self, refused: &RefusedOrigin, req: &HttpRequest) {
        let RefusedOrigin { seen, expected, source } = refused;
        let (path, peer) = (req.path(), req.peer_addr().map(tracing::field::display));
        let Some(left_out) = self.rooms.hubs().cutoffs.refused_origin.admit(self.rooms.this_node().now()) else {
            debug!(origin = ?seen, ?expected, source, path, peer, "a page of another origin was refused");
            return;
        };
        warn!(
            origin = ?seen, ?expected, source, path, peer, left_out = left_out.field(),
            "a page of another origin was refused; if it is your own, your proxy changes the host or port, else list it with `allow_origin`"
        );
    }

    /// Has the consumer decide, and answers the handshake.
    async fn answer<C: Consumer>(self, consumer: C) -> HttpResponse {
        let req = &self.req.clone();
        if let Some(full) = self.rooms.answer_if_full() {
            return full;
        }
        let (decided, decision) = oneshot::channel();
        let (connection, outbox) = self.connect(consumer, decided);
        // If the client goes while it waits, this future is dropped, and the connection learns that there is no response.
        let body = Outbound { outbox, connection: connection.recipient() };
        let accepted = decision.await.unwrap_or_else(|_| Err(Error::other("the consumer's task is gone")));
        let Accepted { refused, subprotocol, headers } = match accepted {
            Ok(accepted) => accepted,
            Err(error) => return refuse(&error),
        };
        match handshake(req) {
            Ok(mut response) => {
                for header in headers {
                    response.append_header(header);
                }
                // A browser that offered some and is answered none fails the handshake, and its page could not read the code.
                let subprotocol = subprotocol.or_else(|| offers(req).next().filter(|_| refused).map(str::to_owned));
                if let Some(subprotocol) = subprotocol {
                    if offers(req).any(|offer| offer == subprotocol) {
                        response.insert_header((header::SEC_WEBSOCKET_PROTOCOL, subprotocol));
                    } else {
                        // The client would have to fail the handshake (RFC 6455, 4.1).
                        warn!(%subprotocol, "a consumer accepts a subprotocol that its client did not offer");
                    }
                }
                response.streaming(body)
            }
            Err(refused) => *refused,
        }
    }

    /// Starts the socket's actor and its consumer.
    fn connect<C: Consumer>(
        self,
        consumer: C,
        decided: oneshot::Sender<Result<Accepted>>,
    ) -> (Addr<Connection>, Rc<Outbox>) {
        let Self { rooms, user, resume, req, payload, .. } = self;
        let config = rooms.config();
        let kill = req.conn_data::<KillSwitch>().cloned().unwrap_or_else(without_kill_switch);
        let kernel = kill.clone();
        let hub = rooms.hubs().here();
        let touch = Touch::new(rooms.this_node().now());
        let channel = rooms.channels().open(rooms.hubs().new_channel(&hub.hub), touch.clone(), hub.hub.clone());
        channel.set_resume_token(resume);
        let seen = Rc::new(Cell::new(rooms.this_node().now()));
        let inbox = Rc::new(Inbox::new(config.inbox_frames(), touch));
        let bounds = Bounds {
            frames: config.outbox_frames(),
            bytes: config.outbox_bytes(),
            write_timeout: config.write_timeout(),
            patience: config.send_patience(),
            rate: config.steady_rate(),
        };
        let outbox = Outbox::new(bounds, rooms.this_node().clock.clone(), hub.filling.clone(), hub.hub.clone());
        let limits = (config.max_frame_bytes(), config.max_message_bytes());
        let inbound = Inbound::new(payload, limits, rooms.this_node().clock.clone(), Rc::clone(&seen));
        let client = Client { user: user.clone(), peer: req.peer_addr() };
        let owner = user.clone();
        let mut socket = None;
        let addr = Connection::create(|ctx: &mut Context<Connection>| {
            let rates = Rates::new(rooms.clone(), outbox.clone(), ctx.address());
            let rates = Rc::new(rates);
            socket = Some(Socket {
                rooms: rooms.clone(),
                rates: rates.clone(),
                channel: channel.clone(),
                user,
                handshake: Handshake::of(&req),
                outbox: outbox.clone(),
                sockets: hub.sockets.clone(),
                connection: ctx.address(),
                arrived: Cell::new(None),
                subprotocol: None,
                headers: HeaderMap::new(),
            });
            Connection::new(Parts {
                rooms: rooms.clone(),
                hub: hub.clone(),
                channel: channel.clone(),
                outbox: outbox.clone(),
                inbox: inbox.clone(),
                rates,
                kill,
                seen,
                inbound,
                client,
            })
        });
        let connection = addr.clone().recipient();
        let is_writable = Box::new(move || kernel.is_writable());
        outbox.belongs_to(Owner { channel: channel.name().clone(), connection: connection.clone(), is_writable });
        hub.sockets
            .borrow_mut()
            .enter(channel.name().clone(), HubSocket { outbox: outbox.clone(), connection, user: owner });
        if rooms.is_shutting_down() {
            // It began after this one was let in, and may have closed all there were before this one was there.
            addr.do_send(ToConnection::Close { code: CloseCode::RESTARTING, reason: "the node is restarting" });
        }
        if let Some(socket) = socket {
            let name = channel.name().clone();
            actix_web::rt::spawn(as_consumer_of(name, run(consumer, socket, inbox, decided)));
        }
        (addr, outbox)
    }
}

fn without_kill_switch() -> KillSwitch {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        warn!(
            "`HttpServer::with_presence(&rooms)`, or `on_connect(presence::on_connect)`, is missing: small frames wait for one another, and a client that does not read may keep its TCP connection"
        );
    }
    KillSwitch::default()
}

impl Rooms {
    /// The answer to another socket, if there are as many as may be.
    fn answer_if_full(&self) -> Option<HttpResponse> {
        let max_sockets = self.config().max_sockets();
        if self.sockets() < max_sockets {
            return None;
        }
        if let Some(left_out) = self.hubs().full.admit(self.this_node().now()) {
            let left_out = left_out.field();
            warn!(max_sockets, left_out, "a socket is turned away with 503: there are `max_sockets` already");
        }
        let mut full = HttpResponse::ServiceUnavailable();
        Some(full.insert_header((header::RETRY_AFTER, RETRY_AFTER)).body("the server is full; come back later"))
    }
}

/// How many bytes the headers take as they are sent, each with a colon, a space and the end of its line.
fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// Whether a body is announced. Frames would be read from within it, and the server would wait for its end for ever.
fn has_body(req: &HttpRequest) -> bool {
    let length = req.headers().get(header::CONTENT_LENGTH);
    req.headers().contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// The subprotocols that the client offered.
fn offers(req: &HttpRequest) -> impl Iterator<Item = &str> {
    let offers = req.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|offer| offer.to_str().ok());
    offers.flat_map(|offer| offer.split(',')).map(str::trim).filter(|offer| !offer.is_empty())
}

/// In the place of a consumer whose socket was refused before it could see it.
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

/// The answer to a socket that is turned away.
fn refuse(error: &Error) -> HttpResponse {
    debug!(error = %report(error), "a socket is turned away");
    let response = error.error_response();
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR
        && !matches!(error, Error::Denied { status, .. } if status.is_server_error())
    {
        warn!(error = %report(error), "a socket could not be served");
    }
    response
}
