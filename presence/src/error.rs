//! The errors of the public API.

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

/// How long a client should wait before it repeats a request when presence is unavailable, in seconds.
pub(crate) const RETRY_AFTER: &str = "5";

/// Why a call failed.
///
/// An HTTP handler may return it: it is a [`ResponseError`] with the statuses that `docs/wire.md` lists for handshakes. Internal errors are
/// answered 500 without details.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Other rooms of this process are running under this node name on the same database, so these rooms serve nothing. Most often, the
    /// rooms were started once for each worker. Nothing happened.
    #[error(
        "the node name `{name}` is in use by other rooms of this process: call `Rooms::start` once, before `HttpServer::new`, \
         and clone the handle into its closure"
    )]
    NameInUse {
        /// The name.
        name: NodeName,
    },
    /// The database did not answer within `store_timeout`. A join did not happen or is undone. An update may or may not have happened. A
    /// leave will happen when the database is back. After a removal of others, the sockets of
    /// this node are notified or closed already, and other nodes may not have received the request. It is safe to repeat the call.
    #[error("the presence store is unavailable")]
    StoreUnavailable(#[source] Option<StoreError>),
    /// Too many changes wait for the database, because it is away or too slow. Nothing happened, and it is safe to repeat the call later.
    /// Leaves never fail with this error.
    #[error("more than {limit} changes wait for the presence store")]
    Overloaded {
        /// The setting `max_pending_writes`.
        limit: usize,
    },
    /// The database refused this request. Nothing happened, and repeating the call does not help.
    #[error("the presence store refused the request")]
    StoreRefused(#[source] StoreError),
    /// The socket is not in that room. Nothing happened.
    #[error("the socket is not in room `{room}`")]
    NotInRoom {
        /// The room.
        room: RoomName,
    },
    /// The socket left the room, or was removed from it, while it was joining. It is not in the room.
    #[error("the socket left room `{room}` before it was in")]
    LeftWhileJoining {
        /// The room.
        room: RoomName,
    },
    /// The room's actor failed repeatedly and stopped. The next call starts it again. A join did not happen or is undone. An update may or
    /// may not have happened. A leave will happen. It is safe to repeat the call.
    #[error("room `{room}` failed")]
    RoomFailed {
        /// The room.
        room: RoomName,
    },
    /// The socket is in the maximum number of rooms or groups. Nothing happened.
    #[error("a socket may be in at most {limit} rooms, and as many groups")]
    TooManyRooms {
        /// The setting `max_rooms_per_socket`.
        limit: usize,
    },
    /// The room already has as many presences as this join allows ([`JoinOptions::limit`](crate::JoinOptions::limit)), including held ones.
    /// Nothing happened. The call may be repeated when a presence has left. If `connect` returns it, the handshake is answered 403;
    /// [`refuse`](Self::refuse) answers with a close code instead.
    #[error("room `{room}` is full: it has {limit} places")]
    RoomFull {
        /// The room.
        room: RoomName,
        /// How many presences the join allowed.
        limit: usize,
    },
    /// Too many bytes of first frames wait for clients that do not read, in the room or in all rooms of this process. Nothing happened, and
    /// it is safe to repeat the call later. If `connect` returns it, the handshake is answered 503 with `Retry-After`. A socket that is
    /// already in the room never gets this error.
    #[error(
        "{bytes} bytes of first frames wait for clients that do not read, in or beside room `{room}`; {limit} is the most"
    )]
    FirstFramesUnread {
        /// The room.
        room: RoomName,
        /// How many bytes wait: in the room, or in all.
        bytes: usize,
        /// `first_frames_room_bytes` and the size of one first frame of the room, or `first_frames_bytes`. Twice either for a join that
        /// resumes a presence of this node, and twice the latter for small rooms.
        limit: usize,
    },
    /// The frame of a message would be larger than `max_frame_sent`. Nothing happened.
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
    /// The channel belongs to a socket of another process. Nothing happened. Only the process of a socket can add it to a room.
    #[error("channel `{channel}` belongs to a socket of another process")]
    SocketElsewhere {
        /// The channel.
        channel: ChannelName,
    },
    /// A channel without a socket is already in the room: another process added it, or this one did before a restart. Nothing happened. The
    /// channel can be added when it has left: when its process removes it, or when it becomes stale or its grace expires.
    #[error("channel `{channel}` is in room `{room}` already, by another process")]
    ChannelTaken {
        /// The room.
        room: RoomName,
        /// The channel.
        channel: ChannelName,
    },
    /// The header is invalid, or an application may not add it to the answer to a handshake. Nothing happened.
    #[error("`{name}` cannot be added to the headers of a handshake's answer")]
    Header {
        /// The header.
        name: String,
    },
    /// A Close with this code may not be sent. Nothing happened.
    #[error("{code} is not a close code that may be sent")]
    CloseCode {
        /// The code.
        code: CloseCode,
    },
    /// These live nodes did not answer a request to remove their presences in time. They may have removed them, or may be doing it, but will
    /// not begin it any more. All other nodes have removed theirs. Repeat the call.
    #[error("{} did not answer in time", names(.nodes))]
    Unanswered {
        /// The names of the nodes that did not answer.
        nodes: Vec<NodeName>,
        /// How many presences the other nodes removed.
        removed: usize,
    },
    /// This node is shutting down or has shut down. Another node will serve, or this one after its restart. A join did not happen. An update,
    /// a leave or a removal that was called during the shutdown may have happened.
    #[error("this node is shutting down")]
    ShuttingDown,
    /// The consumer denied the socket: the client receives this HTTP status instead of a WebSocket.
    #[error("denied with status {status}: {reason}")]
    Denied {
        /// The status of the answer, 4xx or 5xx.
        status: StatusCode,
        /// The body of the answer, plain text.
        reason: String,
    },
    /// The consumer refused the socket: it is accepted, and then closed with this code and reason. A page can read them, unlike the status
    /// of [`Denied`](Self::Denied).
    #[error("refused with {code}: {reason}")]
    Refused {
        /// The code of the Close. Whether the client should reconnect depends on it: see [`CloseCode`].
        code: CloseCode,
        /// The reason of the Close, cut to 123 bytes.
        reason: String,
    },
    /// The grace is longer than `max_age`. Nothing happened.
    #[error("a grace of {grace:?} is longer than `max_age`, which is {max_age:?}")]
    GraceTooLong {
        /// The requested grace.
        grace: Duration,
        /// The setting `max_age`.
        max_age: Duration,
    },
    /// A text is not a resume token. If `connect` returns it, the handshake is answered 400.
    #[error(transparent)]
    ResumeToken(#[from] TokenError),
    /// A text is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A text is not a meta.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// An origin that an upgrade should allow is invalid.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// A failure of the consumer.
    #[error("the consumer failed")]
    Consumer(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// A failure of the consumer.
    ///
    /// ```
    /// # use presence::Error;
    /// async fn load_profile(path: &str) -> presence::Result<String> {
    ///     std::fs::read_to_string(path).map_err(Error::other)
    /// }
    /// ```
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Consumer(error.into())
    }

    /// Denies a socket with an HTTP status: return it from [`Consumer::connect`](crate::Consumer::connect). A page cannot see the status, so
    /// its client tries again. With [`refuse`](Self::refuse) it does not.
    ///
    /// ```
    /// use actix_web::http::StatusCode;
    /// use presence::{Consumer, Error, Frame, Socket};
    ///
    /// struct Members;
    ///
    /// impl Consumer for Members {
    ///     async fn connect(&mut self, socket: &mut Socket) -> presence::Result<()> {
    ///         match socket.user() {
    ///             Some(_) => Ok(()),
    ///             None => Err(Error::deny(StatusCode::UNAUTHORIZED, "log in first")),
    ///         }
    ///     }
    ///
    ///     async fn receive(&mut self, _: &mut Socket, _: Frame) -> presence::Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn deny(status: StatusCode, reason: impl Into<String>) -> Self {
        Self::Denied { status, reason: reason.into() }
    }

    /// Refuses a socket with a close code, from which its client knows whether to reconnect. Return it from
    /// [`Consumer::connect`](crate::Consumer::connect), or from the future for [`Upgrade::authenticate`](crate::Upgrade::authenticate).
    ///
    /// The handshake is answered 101, and the only frame is a Close with this code and reason. Before it, the socket leaves the rooms that
    /// it joined, and frames that were sent to it are dropped. `disconnect` does not run. With a code that may not be sent, the handshake is
    /// answered 500 instead.
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
    ///
    /// ```
    /// # use presence::{RoomName, Rooms};
    /// async fn count(rooms: &Rooms, room: &RoomName) -> presence::Result<Option<usize>> {
    ///     match rooms.count(room).await {
    ///         Ok(counts) => Ok(Some(counts.users)),
    ///         Err(error) if error.is_retryable() => Ok(None), // shown as "?" until the next attempt
    ///         Err(error) => Err(error),
    ///     }
    /// }
    /// ```
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
    /// The code of the error frame, if the socket can go on: the client made a mistake, was removed, or can repeat the request later.
    pub(crate) const fn client_code(&self) -> Option<&'static str> {
        match self {
            Self::Meta(_) => Some("bad_meta"),
            Self::Name(_) => Some("bad_name"),
            Self::NotInRoom { .. } => Some("not_joined"),
            Self::TooManyRooms { .. } => Some("too_many_rooms"),
            Self::RoomFull { .. } => Some("room_full"),
            Self::TooLarge { .. } => Some("too_large"),
            Self::LeftWhileJoining { .. } => Some("removed"),
            error if error.is_retryable() => Some("unavailable"),
            _ => None,
        }
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Denied { status, .. } if status.is_client_error() || status.is_server_error() => *status,
            Self::Refused { code, .. } if code.is_sendable() => StatusCode::FORBIDDEN,
            Self::StoreUnavailable(_)
            | Self::Overloaded { .. }
            | Self::FirstFramesUnread { .. }
            | Self::RoomFailed { .. }
            | Self::Unanswered { .. }
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Name(_) | Self::Meta(_) | Self::ResumeToken(_) | Self::GraceTooLong { .. } => StatusCode::BAD_REQUEST,
            Self::RoomFull { .. } => StatusCode::FORBIDDEN,
            Self::NotInRoom { .. } => StatusCode::NOT_FOUND,
            Self::TooManyRooms { .. }
            | Self::SocketClosed
            | Self::SocketElsewhere { .. }
            | Self::ChannelTaken { .. }
            | Self::LeftWhileJoining { .. } => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let mut response = HttpResponse::build(status);
        match self {
            Self::Denied { status: denied, reason } if *denied == status => response.body(reason.clone()),
            Self::Refused { reason, .. } if status.is_client_error() => response.body(reason.clone()),
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
            StoreError::Unavailable(_) | StoreError::Fenced { .. } | StoreError::Busy { .. } => {
                Self::StoreUnavailable(Some(error))
            }
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
    async fn errors_of_handlers_are_answered_like_those_of_handshakes() {
        let bad = RoomName::new("").unwrap_err();
        let lobby = || RoomName::new("lobby").unwrap();
        let channel = || ChannelName::new("bot").unwrap();
        let second = Duration::from_secs(1);
        let later = "presence is unavailable; come back later";
        let meta = MetaError::TooLarge { bytes: 5000 };
        for (error, status, retry, text) in [
            (Error::deny(StatusCode::UNAUTHORIZED, "log in"), 401, None, "log in"),
            (Error::deny(StatusCode::BAD_GATEWAY, "no login"), 502, None, "no login"),
            (Error::deny(StatusCode::OK, "a secret"), 500, None, "the server failed"),
            (Error::refuse(CloseCode(4003), "banned"), 403, None, "banned"),
            (Error::refuse(CloseCode(1005), "a secret"), 500, None, "the server failed"),
            (Error::StoreUnavailable(None), 503, Some("5"), later),
            (Error::ShuttingDown, 503, Some("5"), later),
            (Error::Unanswered { nodes: Vec::new(), removed: 0 }, 503, Some("5"), later),
            (Error::RoomFull { room: lobby(), limit: 2 }, 403, None, "room `lobby` is full: it has 2 places"),
            (Error::NotInRoom { room: lobby() }, 404, None, "the socket is not in room `lobby`"),
            (Error::SocketClosed, 409, None, "the socket is closed"),
            (
                Error::SocketElsewhere { channel: channel() },
                409,
                None,
                "channel `bot` belongs to a socket of another process",
            ),
            (
                Error::ChannelTaken { room: lobby(), channel: channel() },
                409,
                None,
                "channel `bot` is in room `lobby` already, by another process",
            ),
            (Error::LeftWhileJoining { room: lobby() }, 409, None, "the socket left room `lobby` before it was in"),
            (Error::TooManyRooms { limit: 3 }, 409, None, "a socket may be in at most 3 rooms, and as many groups"),
            (Error::TooLarge { bytes: 5, limit: 4 }, 413, None, "a frame of 5 bytes is larger than 4"),
            (
                Error::GraceTooLong { grace: second * 2, max_age: second },
                400,
                None,
                "a grace of 2s is longer than `max_age`, which is 1s",
            ),
            (Error::from(meta), 400, None, "a meta has at most 4096 bytes of JSON, not 5000"),
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
