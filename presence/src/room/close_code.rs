//! The WebSocket close codes of the wire format, with the meanings they have in `docs/wire.md`.
//!
//! An application that closes a socket ([`Socket::close`](crate::Socket::close), [`Rooms::remove_user`](crate::Rooms::remove_user))
//! says with the code whether the client is to come back: see [`STAY_AWAY`], [`COME_LATER`] and [`COME_NOW`].

use std::ops::RangeInclusive;

use crate::CloseCode;

/// Codes that tell a client not to come back by itself. So do 1000 and 1008. Except for [`REFUSED`] they are the application's:
/// 4003 for a ban, say.
pub const STAY_AWAY: RangeInclusive<u16> = 4000..=4099;
/// Codes that tell a client to come back later: with its back-off, and not before 1 s. They are the application's.
pub const COME_LATER: RangeInclusive<u16> = 4100..=4199;
/// Codes that tell a client to come back at once, after a small random delay. They are the application's.
pub const COME_NOW: RangeInclusive<u16> = 4200..=4299;

/// The client sent, or joined rooms, faster than it may for longer than `rate_patience`: do not come back.
pub const TOO_FAST: u16 = 1008;
/// The client broke the WebSocket protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A text was not UTF-8.
pub const INVALID_TEXT: u16 = 1007;
/// A frame or message was larger than `max_frame_bytes` or `max_message_bytes`.
pub const TOO_LARGE: u16 = 1009;
/// The consumer failed, panicked, or took longer than `handler_timeout`.
pub const INTERNAL_ERROR: u16 = 1011;
/// The node is restarting: come back, after a random delay.
pub const RESTARTING: u16 = 1012;
/// The client did not read, or so slowly that others had to wait for it. What it can resume is held.
pub const TOO_SLOW: u16 = 1013;
/// The consumer refused the socket in `connect`, and gave no other code: do not come back.
pub const REFUSED: u16 = 4000;
/// Sent by a client, not by the server: the page is put aside, into its browser's back/forward cache, and may come back. Its
/// presences are held as after 1001, which a page may not send.
pub const ASIDE: u16 = 4300;
/// The socket was not seen for `max_age`.
pub const STALE: u16 = 4408;
/// A newer socket came with the same resume token, and has the presence now.
pub const TAKEN_OVER: u16 = 4409;
/// What a consumer's `disconnect` is told when the client closed without a code.
pub const NO_CODE: u16 = 1005;
/// What a consumer's `disconnect` is told when the connection was lost.
pub const LOST: u16 = 1006;

/// Whether a client that closes with this code is about to come back, so that what it can resume is held: its page is loaded
/// anew ([`CloseCode::AWAY`]), or put aside.
pub(crate) const fn is_about_to_return(code: u16) -> bool {
    matches!(CloseCode(code), CloseCode::AWAY | CloseCode::ASIDE)
}
