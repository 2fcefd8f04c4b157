//! [`JoinOptions`], which a caller can pass with a join.

use std::time::Duration;

use crate::Meta;

/// The options of a join. Each option is for this join only.
///
/// ```
/// use std::time::Duration;
/// use presence::{JoinOptions, Meta, RoomName, Socket};
/// use serde_json::json;
///
/// async fn sit_down(socket: &Socket, table: &RoomName) -> presence::Result<()> {
///     let status = Meta::new(&json!({ "status": "free" }))?;
///     let options = JoinOptions::new().meta(status).grace(Duration::from_secs(30)).limit(4);
///     socket.join_with(table, options).await
/// }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct JoinOptions {
    pub(super) meta: Meta,
    pub(super) grace: Option<Duration>,
    pub(super) limit: Option<usize>,
}

impl JoinOptions {
    /// An empty meta, the setting `grace`, and no limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// The first meta: the other members see it with the join. A presence that is resumed, or is in the room already, keeps the meta that
    /// it has.
    pub fn meta(mut self, meta: Meta) -> Self {
        self.meta = meta;
        self
    }

    /// For how long the presence is held if it has a [resume token](crate::Socket::set_resume_token) and its socket is lost, instead of the
    /// setting `grace`. With zero it leaves at once. It may be at most `max_age`. A presence that is in the room already keeps the grace
    /// that it has.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Joins only if the room then has at most this number of presences. Each socket counts, so a user with two tabs counts twice. A held
    /// presence counts until its grace is over. A socket that returns with the resume token always succeeds, and so does one that is in
    /// the room already.
    ///
    /// The database decides, so the limit is exact for all nodes together, also if many sockets join at once. It limits this call only: a
    /// join without a limit does not check the number, but is counted. The join resolves when the presence is durable, also with
    /// [`Durability::Relaxed`](crate::Durability::Relaxed).
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}
