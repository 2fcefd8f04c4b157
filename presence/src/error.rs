//! What the public API answers when it does not do what it was asked.

use std::{error::Error as StdError, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};

use crate::{
    CloseCode, OriginError,
    model::MetaError,
    name::{ChannelName, NameError, NodeName, RoomName},
    session::TokenError,
    store::StoreError,
};

/// The result of most calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How long a client should wait before it comes again when presence is unavailable, in seconds.
pub(crate) const RETRY_AFTER: &str = "5";

/// Why a call failed.
///
/// An HTTP handler may return it: it is a [`ResponseError`], answered as a handshake is, with the statuses of `docs/wire.md`. What is
/// the server's own fault is answered 500 and a text that says no more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Other rooms of this process have this node name on the same database, and still run, so these do not serve: most often they were
    /// started once for each worker. Nothing happened.
    #[error(
        "the node name `{name}` is in use by other rooms of this process: call `Rooms::start` once, before `HttpServer::new`, \
         and clone the handle into its closure"
    )]
    NameInUse {
        /// The name.
        name: NodeName,
    },
    /// The database did not answer within `store_timeout`. A join did not happen, or is taken back; an update may or may not
    /// have happened; a leave will happen as soon as the database is back. It is safe to repeat.
    #[error("the presence store is unavailable")]
    StoreUnavailable(#[source] Option<StoreError>),
    /// More changes wait for the database than may, because it is away or too slow for what is asked of it. Nothing happened,
    /// and it is safe to repeat, later. Leaves are never refused so.
    #[error("more than {limit} changes wait for the presence store")]
    Overloaded {
        /// The setting `max_pending_writes`.
        limit: usize,
    },
    /// The database refuses this very request. Nothing happened, and repeating it will not help.
    #[error("the presence store refused the request")]
    StoreRefused(#[source] StoreError),
    /// The socket is not in that room. Nothing happened.
    #[error("the socket is not in room `{room}`")]
    NotInRoom {
        /// The room.
        room: RoomName,
    },
    /// The socket left the room, or was pruned from it, while it was joining. It is not in the room.
    #[error("the socket left room `{room}` before it was in")]
    LeftWhileJoining {
        /// The room.
        room: RoomName,
    },
    /// The room's actor failed again and again and gave up. It starts anew when it is next asked.
    #[error("room `{room}` failed")]
    RoomFailed {
        /// The room.
        room: RoomName,
    },
    /// The socket is in as many rooms, or groups, as it may be. Nothing happened.
    #[error("a socket may be in at most {limit} rooms, and as many groups")]
    TooManyRooms {
        /// The setting `max_rooms_per_socket`.
        limit: usize,
    },
    /// The room has as many presences as this join allowed ([`Socket::join_within`](crate::Socket::join_within)), those that are
    /// held included. Nothing happened. It may be repeated when somebody has left. From `connect` it turns the socket away
    /// with 403, unless the consumer makes a [`refuse`](Self::refuse) of it.
    #[error("room `{room}` is full: it has {limit} places")]
    RoomFull {
        /// The room.
        room: RoomName,
        /// How many presences the join allowed.
        limit: usize,
    },
    /// Too many bytes of first frames wait for clients that do not read, in the room or in all rooms of this process. Nothing
    /// happened; it is safe to repeat, later. From `connect` it turns the socket away with 503 and `Retry-After`. One that is in the
    /// room already is never refused so.
    #[error(
        "{bytes} bytes of first frames wait for clients that do not read, in or beside room `{room}`; {limit} is the most"
    )]
    FirstFramesUnread {
        /// The room.
        room: RoomName,
        /// How many bytes wait: in the room, or in all.
        bytes: usize,
        /// `first_frames_room_bytes` and the size of one first frame of the room, or `first_frames_bytes`; twice either for who comes
        /// back with the token of a presence that is here, and twice the latter for small rooms.
        limit: usize,
    },
    /// A message is larger, as it would be sent, than the largest frame that clients are promised. Nothing happened.
    #[error("a frame of {bytes} bytes is larger than {limit}")]
    TooLarge {
        /// The size of the message as a frame, in bytes of payload.
        bytes: usize,
        /// The setting `max_frame_sent`.
        limit: usize,
    },
    /// The socket is closed or closing. Nothing happened.
    #[error("the socket is closed")]
    SocketClosed,
    /// The channel is that of a socket which this process does not have: another process has it, or had it. Nothing happened;
    /// only the process that holds a socket can put it into a room.
    #[error("channel `{channel}` is that of a socket of another process")]
    SocketElsewhere {
        /// The channel.
        channel: ChannelName,
    },
    /// A channel without a socket is in the room already: another process put it there, or this one did before it was
    /// started again. Nothing happened. It can be added when it has left: a live process removes it, or its deadline or its
    /// grace does.
    #[error("channel `{channel}` is in room `{room}` already, by another process")]
    ChannelTaken {
        /// The room.
        room: RoomName,
        /// The channel.
        channel: ChannelName,
    },
    /// This is no header, or not one that an application may add to the answer to a handshake. Nothing happened.
    #[error("`{name}` cannot be added to the headers of a handshake's answer")]
    Header {
        /// The header.
        name: String,
    },
    /// No endpoint may send a Close with this code. Nothing happened.
    #[error("{code} is not a close code that may be sent")]
    CloseCode {
        /// The code.
        code: CloseCode,
    },
    /// Other nodes were asked to remove what is theirs, and these, which live, did not answer in time: they may have done it,
    /// or be at it, and will not begin it any more. All others have. Repeat it.
    #[error("{} did not answer in time", names(.nodes))]
    Unanswered {
        /// Who did not answer, by name.
        nodes: Vec<NodeName>,
        /// How many presences were removed by all others.
        removed: usize,
    },
    /// This node is shutting down. Nothing happened; another node, or this one when it is back, will serve.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// The consumer turns the socket away: the client gets this HTTP status instead of a WebSocket.
    #[error("denied with status {status}: {reason}")]
    Denied {
        /// The answer's status, 4xx or 5xx.
        status: StatusCode,
        /// The answer's body, plain text.
        reason: String,
    },
    /// The consumer refuses the socket: it is accepted, and then closed with this code and reason, which a page can read, unlike the
    /// status of [`Denied`](Self::Denied).
    #[error("refused with {code}: {reason}")]
    Refused {
        /// The code of the Close, which says whether the client is to come back: see [`CloseCode`].
        code: CloseCode,
        /// The reason of the Close, cut to 123 bytes.
        reason: String,
    },
    /// A presence is not held for longer than `max_age`. Nothing happened.
    #[error("a grace of {grace:?} is longer than `max_age`, which is {max_age:?}")]
    GraceTooLong {
        /// The grace that was asked for.
        grace: Duration,
        /// The setting `max_age`.
        max_age: Duration,
    },
    /// A text is not a resume token. From `connect` it turns the socket away with 400.
    #[error(transparent)]
    ResumeToken(#[from] TokenError),
    /// A text is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A text is not a meta.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// What an upgrade was to allow is no origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A consumer's own failure.
    #[error("the consumer failed")]
    Consumer(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// A failure of the consumer's own.
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Consumer(error.into())
    }

    /// Turns a socket away with an HTTP status: return it from [`Consumer::connect`](crate::Consumer::connect). A page cannot see the
    /// status, so its client comes again; [`refuse`](Self::refuse) tells it not to.
    pub fn deny(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::Denied { status, reason: reason.into() }
    }

    /// Refuses a socket with a close code, by which its client knows whether to come back: return it from
    /// [`Consumer::connect`](crate::Consumer::connect), or from what [`Upgrade::authenticate`](crate::Upgrade::authenticate) is given. The
    /// handshake is answered 101, and the next and only frame is a Close with this code and reason. Rooms that the socket joined are
    /// left before that, what it was sent is dropped, and `disconnect` does not run. A code that no endpoint may send is answered with
    /// the status 500 instead.
    ///
    /// ```
    /// use presence::{CloseCode, Consumer, Error, Frame, Socket};
    ///
    /// struct Members;
    ///
    /// impl Consumer for Members {
    ///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
    ///         if socket.user().is_none() {
    ///             return Err(Error::refuse(CloseCode::REFUSED, "members only")); // do not come back
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn refuse(code: CloseCode, reason: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into() }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::StoreUnavailable(_)
                | Self::Overloaded { .. }
                | Self::RoomFailed { .. }
                | Self::ShuttingDown
                | Self::ChannelTaken { .. }
                | Self::RoomFull { .. }
                | Self::FirstFramesUnread { .. }
                | Self::Unanswered { .. }
        )
    }
}

impl Error {
    /// The code by which a client learns that this is its mistake, if it is one.
    pub(crate) const fn client_code(&self) -> Option<&'static str> {
        match self {
            Self::Meta(_) => Some("bad_meta"),
            Self::Name(_) => Some("bad_name"),
            Self::NotInRoom { .. } => Some("not_joined"),
            Self::TooManyRooms { .. } => Some("too_many_rooms"),
            Self::RoomFull { .. } => Some("room_full"),
            Self::TooLarge { .. } => Some("too_large"),
            _ => None,
        }
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Denied { status, .. } if status.is_client_error() || status.is_server_error() => *status,
            Self::StoreUnavailable(_)
            | Self::Overloaded { .. }
            | Self::FirstFramesUnread { .. }
            | Self::RoomFailed { .. }
            | Self::ShuttingDown
            | Self::SocketClosed => StatusCode::SERVICE_UNAVAILABLE,
            Self::Name(_) | Self::ResumeToken(_) => StatusCode::BAD_REQUEST,
            Self::RoomFull { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Denied { status: denied, reason } if *denied == status => response.body(reason.clone()),
            // Nobody waits for this answer.
            Self::SocketClosed => response.body("the client has gone"),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => response
                .insert_header((header::RETRY_AFTER, RETRY_AFTER))
                .body("presence is unavailable; come back later"),
            _ if status.is_client_error() => response.body(self.to_string()),
            _ => response.body("the server failed"),
        }
    }
}

fn names(nodes: &[NodeName]) -> String {
    nodes.iter().map(|node| format!("node `{node}`")).collect::<Vec<_>>().join(", ")
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(_) => Self::StoreRefused(error),
            StoreError::Unavailable(_) | StoreError::Fenced { .. } => Self::StoreUnavailable(Some(error)),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn an_error_that_a_handler_returns_is_answered_as_a_handshake_is() {
        let (bad, full) = (RoomName::new("").unwrap_err(), RoomName::new("lobby").unwrap());
        for (error, status, retry, text) in [
            (Error::deny(StatusCode::UNAUTHORIZED, "log in"), 401, None, "log in"),
            (Error::deny(StatusCode::BAD_GATEWAY, "no login"), 502, None, "no login"),
            (Error::deny(StatusCode::OK, "a secret"), 500, None, "the server failed"),
            (Error::StoreUnavailable(None), 503, Some("5"), "presence is unavailable; come back later"),
            (Error::ShuttingDown, 503, Some("5"), "presence is unavailable; come back later"),
            (Error::SocketClosed, 503, None, "the client has gone"),
            (Error::RoomFull { room: full, limit: 2 }, 403, None, "room `lobby` is full: it has 2 places"),
            (Error::other("a secret"), 500, None, "the server failed"),
            (Error::from(bad.clone()), 400, None, &bad.to_string()),
        ] {
            let response = error.error_response();
            let waits = response.headers().get(header::RETRY_AFTER).map(|seconds| seconds.to_str().unwrap());
            assert_eq!((response.status().as_u16(), waits), (status, retry), "{error}");
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            assert_eq!(std::str::from_utf8(&body).unwrap(), text, "{error}");
        }
    }
}
