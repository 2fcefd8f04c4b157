//! The texts that servers send which the example chat is compared with. They are those of the example with `--notify events`.

use serde::Serialize;

/// One text.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Text<'a> {
    /// The first text of a new member.
    Presence {
        /// Who is there.
        payload: List<'a>,
    },
    /// A user went online.
    Join {
        /// The name.
        user: &'a str,
    },
    /// A user went offline.
    Leave {
        /// The name.
        user: &'a str,
    },
    /// A text of a client to its room.
    Message {
        /// The user who sent it.
        from: &'a str,
        /// What was sent.
        text: &'a str,
    },
}

/// The users of a room.
#[derive(Debug, Serialize)]
pub struct List<'a> {
    /// The room.
    pub channel_name: &'a str,
    /// The users in order.
    pub members: Vec<&'a str>,
    /// Sockets without a user.
    pub lurkers: usize,
}
