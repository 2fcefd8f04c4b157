//! How a socket is closed.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

/// The code of a WebSocket Close: why a socket ended, and whether its client should reconnect. `docs/wire.md` lists all codes.
///
/// ```
/// # use presence::CloseCode;
/// const BANNED: CloseCode = CloseCode(4003);
/// assert!(CloseCode::STAY_AWAY.contains(&BANNED));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The connection is complete. The client does not reconnect.
    pub const NORMAL: Self = Self(1000);
    /// The client leaves the page, or the server stops.
    pub const AWAY: Self = Self(1001);
    /// The client broke the WebSocket protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Stands for a Close without a code. It is never sent.
    pub const NONE: Self = Self(1005);
    /// Stands for a lost connection. It is never sent.
    pub const LOST: Self = Self(1006);
    /// A text was not UTF-8.
    pub const INVALID_TEXT: Self = Self(1007);
    /// The client exceeded a rate for longer than `rate_patience`. It does not reconnect.
    pub const TOO_FAST: Self = Self(1008);
    /// A frame or message was larger than `max_frame_bytes` or `max_message_bytes`.
    pub const TOO_LARGE: Self = Self(1009);
    /// The consumer failed, panicked, or took longer than `handler_timeout`.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The node restarts. The client reconnects after a random delay.
    pub const RESTARTING: Self = Self(1012);
    /// The client did not read, or read so slowly that others had to wait for it. Presences that can be resumed are held.
    pub const TOO_SLOW: Self = Self(1013);
    /// The consumer refused the socket in `connect`. The client does not reconnect.
    pub const REFUSED: Self = Self(4000);
    /// Only a client sends it, when its page goes into the back/forward cache of the browser. Its presences are held as after
    /// [`AWAY`](Self::AWAY), which a page cannot send.
    pub const ASIDE: Self = Self(4300);
    /// The socket was not seen for `max_age`.
    pub const STALE: Self = Self(4408);
    /// A newer socket resumed the presence with the same resume token.
    pub const SUPERSEDED: Self = Self(4409);

    /// After these codes a client does not reconnect by itself, as after 1000 and 1008. Except for [`REFUSED`](Self::REFUSED),
    /// applications are free to use them: 4003 for a ban, for example.
    pub const STAY_AWAY: RangeInclusive<Self> = Self(4000)..=Self(4099);
    /// Codes for applications. After them a client reconnects later, with its back-off and after 1 s or more.
    pub const COME_LATER: RangeInclusive<Self> = Self(4100)..=Self(4199);
    /// Codes for applications. After them a client reconnects after a small random delay.
    pub const COME_NOW: RangeInclusive<Self> = Self(4200)..=Self(4299);

    /// Whether an endpoint may send it (RFC 6455, 7.4).
    #[must_use]
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether a client that closes with this code may return soon, so that its presences are held: its page is reloaded or cached.
    pub(crate) const fn is_about_to_return(self) -> bool {
        matches!(self, Self::AWAY | Self::ASIDE)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The code and the reason of a Close that is sent to a client.
///
/// ```
/// use presence::{Close, CloseCode};
///
/// let close = Close::new(CloseCode(4003), "you are banned");
/// assert_eq!((close.code, &*close.reason), (CloseCode(4003), "you are banned"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Close {
    /// The code; see [`CloseCode::is_sendable`].
    pub code: CloseCode,
    /// The reason, for people. More than 123 bytes are cut.
    pub reason: String,
}

impl Close {
    /// A Close with this code and reason.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Whether it is about the client, and not about the state of one presence, such as stale. Then a client that leaves and joins again
    /// before it is closed, is closed all the same.
    pub(crate) fn is_for_client(&self) -> bool {
        !matches!(self.code, CloseCode::STALE | CloseCode::SUPERSEDED)
    }
}
