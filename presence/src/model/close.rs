//! How a socket is closed.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

/// The code of a WebSocket Close: why a socket ended, and whether its client is to come back. `docs/wire.md` has them all.
///
/// ```
/// # use presence::CloseCode;
/// const BANNED: CloseCode = CloseCode(4003);
/// assert!(CloseCode::STAY_AWAY.contains(&BANNED));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose is fulfilled: the client does not come back.
    pub const NORMAL: Self = Self(1000);
    /// The page goes away, or the server does.
    pub const AWAY: Self = Self(1001);
    /// The client broke the WebSocket protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// Stands for a Close without a code; never sent.
    pub const NONE: Self = Self(1005);
    /// Stands for a lost connection; never sent.
    pub const LOST: Self = Self(1006);
    /// A text was not UTF-8.
    pub const INVALID_TEXT: Self = Self(1007);
    /// The client sent, or joined rooms, faster than it may for longer than `rate_patience`: it does not come back.
    pub const TOO_FAST: Self = Self(1008);
    /// A frame or message was larger than `max_frame_bytes` or `max_message_bytes`.
    pub const TOO_LARGE: Self = Self(1009);
    /// The consumer failed, panicked, or took longer than `handler_timeout`.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The node restarts: the client comes back after a random delay.
    pub const RESTARTING: Self = Self(1012);
    /// The client did not read, or so slowly that others had to wait for it. What it can resume is held.
    pub const TOO_SLOW: Self = Self(1013);
    /// The consumer refused the socket in `connect`: the client does not come back.
    pub const REFUSED: Self = Self(4000);
    /// Sent by a client only: its page goes into the browser's back/forward cache. Its presences are held as after
    /// [`AWAY`](Self::AWAY), which a page may not send.
    pub const ASIDE: Self = Self(4300);
    /// The socket was not seen for `max_age`.
    pub const STALE: Self = Self(4408);
    /// A newer socket resumed the presence with the same resume token.
    pub const SUPERSEDED: Self = Self(4409);

    /// The codes after which a client does not come back by itself, as after 1000 and 1008. Except for
    /// [`REFUSED`](Self::REFUSED) they are the application's: 4003 for a ban, for example.
    pub const STAY_AWAY: RangeInclusive<Self> = Self(4000)..=Self(4099);
    /// The application's codes after which a client comes back later: with its back-off, after 1 s or more.
    pub const COME_LATER: RangeInclusive<Self> = Self(4100)..=Self(4199);
    /// The application's codes after which a client comes back at once, after a small random delay.
    pub const COME_NOW: RangeInclusive<Self> = Self(4200)..=Self(4299);

    /// Whether an endpoint may send it (RFC 6455, 7.4).
    #[must_use]
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// Whether a client that closes with this code is about to come back, so that what it can resume is held: its page is
    /// reloaded, or put aside.
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
}
