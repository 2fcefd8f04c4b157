//! The WebSocket close codes that a server of this crate sends, with the meanings they have in `docs/wire.md`.

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
/// The client did not read fast enough.
pub const TOO_SLOW: u16 = 1013;
/// The socket was not seen for `max_age`.
pub const STALE: u16 = 4408;
/// A newer socket came with the same resume token, and has the presence now.
pub const TAKEN_OVER: u16 = 4409;
/// What a consumer's `disconnect` is told when the client closed without a code.
pub const NO_CODE: u16 = 1005;
/// What a consumer's `disconnect` is told when the connection was lost.
pub const LOST: u16 = 1006;
