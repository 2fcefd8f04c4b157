//! How a socket is closed.

use serde::{Deserialize, Serialize};

/// The code and the reason of a Close that is sent to a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Close {
    /// The code; see [`CloseCode::is_sendable`](crate::CloseCode::is_sendable).
    pub code: u16,
    /// The reason, for people. More than 123 bytes are cut.
    pub reason: String,
}

impl Close {
    /// A Close with this code and reason.
    #[must_use]
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}
