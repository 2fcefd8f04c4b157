//! Keeps rooms and presences longer than the process runs.
//!
//! A [`Store`] keeps nodes with their leases and last commits, rooms with their epoch and version, and presences. It makes no
//! decisions about presence: it makes them durable, and gives the changes of each room one order. Times in a store are
//! those of the database (milliseconds since 1970), not those of a node.
//!
//! [`MemoryStore`] keeps everything in the memory of the process. `SqlStore` uses a database through sea-orm.

mod change;
mod count_changes;
#[cfg(feature = "sql")]
mod entity;
mod error;
pub(crate) mod forward;
mod listing;
mod memory;
#[cfg(feature = "sql")]
mod migration;
pub(crate) mod pace;
mod plan;
mod recent;
mod request;
mod room_change;
#[cfg(feature = "sql")]
mod sql;
mod survey;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::name::{NodeId, NodeName, PresenceId, RoomName, UserId};

pub use crate::{
    model::{Delta, OnlineChanges, Snapshot},
    name::{Epoch, RequestId, Version},
    session::{Session, SessionHash},
};
pub use change::{Attempt, Batch, Changes, ClearMode, Resumed, RoomCommit, RoomWrites, Write};
pub use error::StoreError;
pub use listing::{LiveNode, NodeState, NodeSummary, RoomSummary};
pub use memory::MemoryStore;
pub use recent::{ChangedRoom, RecentChanges, WriteCounts};
pub use request::{Answer, Order, Remaining, Removal, RemovalTarget, Request, RequestStore};
pub(crate) use room_change::KEEP_CHANGES_FOR;
pub use room_change::RoomChange;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) use sql::tests::trial;
#[cfg(feature = "sql")]
pub use sql::{MissingFeature, SeveralHosts, SqlStore, Synchronous};
#[cfg(feature = "cli")]
pub(crate) use sql::{database_message, is_access_denied};
pub use survey::{Survey, SweepShare};

#[cfg(feature = "sql")]
pub(crate) use error::{ChannelTaken, NeedsOperator};

/// How long an incarnation that lost its name to a later one is kept after its end. A process that was suspended for longer
/// takes its name back from the later one, instead of being stopped.
const KEEP_SUPERSEDED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// For how long the node that began to clear a dead one is left alone with it after each of its batches. If it takes longer over the next
/// one, or died itself, another node continues.
const LEAVE_TO_CLEANER_FOR: Duration = Duration::from_secs(10);

/// A time that a database stored.
fn time(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A time as a database stores it.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Keeps nodes, rooms and presences. The [module](self) says what it is for.
///
/// Every method is one transaction, and may be repeated after [`StoreError::Unavailable`]. A transaction that changes the
/// members of a room, or a meta, gives that room the next version: exactly one, whatever the number of changes. A
/// transaction that changes nothing gives no version. Neither does a hold, nor a resume by another socket of the same
/// incarnation. A presence that belongs to another node or incarnation since the transaction gives a version
/// ([`Delta::moved`]). The users who go online and offline ([`RoomCommit::online_changes`]) are counted in the
/// same transaction. Implementations lock rows in this order: node, rooms by id, presences by id.
///
/// A call that is repeated because its answer was lost finds its work done, and reports no change: only the version of the
/// room shows that there was one. The same is true after a call whose future was dropped, since it may have been done. For
/// a [`commit`](RoomStore::commit), [`outcome`](RoomStore::outcome) returns what the lost answer was.
#[async_trait]
pub trait Store: RoomStore + NodeStore + RequestStore + fmt::Debug + Send + Sync + 'static {
    /// Brings the schema up to date. Several nodes may call it at the same time.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Opens a new connection, checks that its user has the rights that a node needs, and closes it.
    ///
    /// Other calls may wait for a database that is away until their callers give up, and then only report that the time is
    /// up. This one returns the reason at once, for the log or for an operator. A store without connections returns `Ok`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], whose source is the reason.
    async fn check_connection(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// A number that identifies the database within this process. Two stores with the same number use the same database. It
    /// serves to find rooms of one process that were started twice under one name. `None` if the store does not know.
    fn database_id(&self) -> Option<u64> {
        None
    }

    /// Bounds what one node can do to the others: for how long it waits for locks when it cleans up after them (a sixth of `lease`), and for
    /// how long it keeps its own locks when it does not respond (`store_timeout`, after which the node itself gives up a call). Call it
    /// before the store is used. It has no effect on a store that knows no locks.
    fn limit_waits(&self, _lease: Duration, _store_timeout: Duration) {}

    /// The node is about to make up to `lanes` commits at a time, each in a lane of its own. Returns in how many lanes it may, which are
    /// numbered from 0: 1 unless the store can keep a [last commit](RoomStore::outcome) for each. Call it before the node registers.
    fn allow_lanes(&self, _lanes: u16) -> u16 {
        1
    }

    /// Whether transactions that give a room a version keep what they change in the change log, which
    /// [`changes_after`](RoomStore::changes_after) reads. It is on at first; a node asks for it to be off
    /// when it knows that it is alone.
    fn keep_changes(&self, _keep: bool) {}

    /// From now on, each commit reports [`RoomCommit::online_changes`]. A store for which the counting has a cost may leave
    /// them empty before this call.
    fn track_online(&self) {}
}

/// The part of a [`Store`] that keeps rooms and presences.
#[async_trait]
pub trait RoomStore {
    /// Changes rooms, all in one transaction. Rooms that do not exist are created. Returns the commits in the order of
    /// `rooms`. If the answer is lost, `attempt` identifies this commit for [`outcome`](Self::outcome), and the node makes no
    /// other commit in the same lane before it knows the outcome. No room is in commits of two lanes at a time.
    ///
    /// # Errors
    /// Nothing was written. [`StoreError::Fenced`] if the incarnation is fenced. [`StoreError::Refused`] if a room or a presence
    /// is named twice, a presence is in another room, its channel has another presence in the room (only then the error is
    /// [`StoreError::channel_taken`]), or two presences come with the same resume token. [`StoreError::Busy`] if the attempt has a patience
    /// and other transactions have locked rooms for longer.
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: Changes) -> Result<Vec<RoomCommit>, StoreError>;

    /// The outcome of the last commit of `node` in the lane of `attempt`, if it failed as [`StoreError::Unavailable`] or its future was
    /// dropped: what it would have returned, or `None` if it was not done and never will be. It must be called before the next commit in
    /// that lane, since only the last outcome of each is kept. It also works for a fenced incarnation that is not forgotten yet.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while the outcome is not known.
    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError>;

    /// Records how long ago presences of this node were last seen. Presences that are gone or belong to another node are
    /// skipped, and a later time that is already recorded stays. Rooms get no version for it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the incarnation is fenced.
    async fn touch(&self, node: NodeId, seen: Arc<[(PresenceId, Duration)]>) -> Result<(), StoreError>;

    /// All presences of a room at one moment. `None` if the room does not exist.
    async fn load(&self, room: RoomName) -> Result<Option<Snapshot>, StoreError>;

    /// The changes of a room after this version up to its present one, in their order, from the change log. `None` if the log does not have
    /// all of them, if they are too many (more than 256), or if the room does not exist or has no such version: then [`load`](Self::load) it.
    async fn changes_after(&self, room: Epoch, version: Version) -> Result<Option<Vec<RoomChange>>, StoreError>;

    /// Removes the changes from the change log that are older than `age`. Sends nothing to a database if this process has kept nothing since all was forgotten.
    async fn forget_changes(&self, age: Duration) -> Result<(), StoreError>;

    /// The positions of these rooms. Rooms that do not exist are left out.
    async fn positions(&self, rooms: Arc<[RoomName]>) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError>;

    /// The positions of all rooms, in no particular order.
    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError>;

    /// Up to `limit` of the rooms that have received a version at `since` or later, by the clock of the database, whatever the transaction
    /// did. A room whose transaction began at `since` or later is among them. Times are compared in whole seconds. Reads as many rows as it
    /// returns, by an index.
    ///
    /// The answer also has what shows that the database has lost changes, as seen by the incarnation `node`. It may be asked for a fenced one.
    async fn recent_changes(&self, node: NodeId, since: Duration, limit: u64) -> Result<RecentChanges, StoreError>;

    /// The first `limit` rooms after this name, or of all rooms, with the number of their presences. Empty rooms are included.
    /// The rooms are sorted by the bytes of their names, and all numbers are of one moment.
    async fn rooms(&self, after: Option<RoomName>, limit: u64) -> Result<Vec<RoomSummary>, StoreError>;

    /// How long ago each presence of the room was last seen, as far as its node has written it, in no particular order. Empty
    /// if the room does not exist.
    async fn last_seen(&self, room: RoomName) -> Result<Vec<(PresenceId, Duration)>, StoreError>;

    /// The rooms in which the user has a presence, sorted by their bytes.
    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomName>, StoreError>;

    /// Removes up to `limit` presences, in up to 512 rooms, whose grace has expired: those in the `share` of the calling node, and those that
    /// have been left to other nodes for long enough.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn sweep(&self, node: NodeId, share: SweepShare, limit: u64) -> Result<Batch, StoreError>;

    /// Removes up to `limit` orphaned presences, in up to 512 rooms, that were last seen more than `max_age` ago. A presence is
    /// orphaned if it is held, or if its node has no lease. One that is not held may have been seen up to `unwritten` later than its node has
    /// written, so it is removed after `max_age` and `unwritten`. Presences of the calling node are never orphaned, even if its lease
    /// has expired: the clock of the database may have jumped.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn prune(
        &self,
        node: NodeId,
        max_age: Duration,
        unwritten: Duration,
        limit: u64,
    ) -> Result<Batch, StoreError>;

    /// Removes all empty rooms and returns their number. A room that a presence joins at the same time stays.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError>;

    /// Removes up to `limit` orphaned presences of the target: those that are held, or whose node has no lease. Live nodes
    /// remove their own presences ([`send_request`](RequestStore::send_request)). They would take a removal from outside for a
    /// mistake and let the presences join again.
    ///
    /// The room itself stays, empty and with its version, until [`prune_rooms`](Self::prune_rooms). So nodes that follow the
    /// room learn of the removal, and a presence that joins meanwhile is in the same room.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn remove(&self, node: NodeId, target: RemovalTarget, limit: u64) -> Result<Batch, StoreError>;
}

/// The part of a [`Store`] that keeps nodes: the incarnations of processes, each with a lease.
#[async_trait]
pub trait NodeStore {
    /// Begins the incarnation `node` under `name`, with a lease of `lease` from now. The incarnation that had the name loses it
    /// and is fenced. Returns all former incarnations of that name with presences left to [`clear`](Self::clear). There is more
    /// than one if an incarnation ended before it had cleared the one before. Registering an incarnation again renews its lease.
    ///
    /// No client could return between the end of the former incarnation and now. So all graces of former incarnations of
    /// that name that had not expired at that end are extended by the time since. If the former incarnation was not ended
    /// properly, its last renewal counts as its end; it is assumed that this renewal was for `lease`, too.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if this very incarnation is fenced.
    async fn register(&self, node: NodeId, name: NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError>;

    /// Extends the lease to `lease` from now. It may have expired, as long as no other node has fenced this one. Returns the
    /// time of the database since 1970, so that the node notices when its clock jumps.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the incarnation is fenced.
    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError>;

    /// Reports to all nodes that the database has lost changes that it had confirmed: sets
    /// [`RecentChanges::set_backs`](RecentChanges::set_backs) to `count`, which is higher than any value that the caller knows. Does nothing if
    /// the database has another value than `seen` by now, because then somebody else has reported the loss. A fenced incarnation may report,
    /// too.
    async fn report_set_back(&self, seen: u64, count: u64) -> Result<(), StoreError>;

    /// The rooms in which the incarnation has presences that are not held, in no particular order. Reads all of these, by an index.
    async fn rooms_with_presences_of(&self, node: NodeId) -> Result<Vec<RoomName>, StoreError>;

    /// All incarnations that are not forgotten, sorted by the bytes of their names and then by their ids, at one moment. It
    /// reads every presence, so it is for operators and not for requests.
    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError>;

    /// All incarnations that are not fenced, in the order of [`nodes`](Self::nodes), at one moment. Those whose lease has expired are among
    /// them, since they may still renew it. It reads no presence.
    async fn live_nodes(&self) -> Result<Vec<LiveNode>, StoreError>;

    /// What a sweep of `node` would find, and whether other nodes have sent it requests. It locks nothing and changes nothing, so that a sweep
    /// that would find nothing need not begin. A fenced incarnation may ask, too.
    async fn survey(&self, node: NodeId) -> Result<Survey, StoreError>;

    /// Fences all other incarnations whose lease has expired. Returns all fenced incarnations with presences left to
    /// [`clear`](Self::clear). Those whose name belongs to a live incarnation are left out, because that one clears them, and so are those
    /// that another node is clearing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError>;

    /// Removes or holds up to `limit` presences, in up to 512 rooms, of the fenced incarnation `dead`. Presences that are held
    /// already keep their grace and do not count. When `dead` has no presence left, it is forgotten. Does nothing if `dead` is
    /// not fenced. With [`ClearMode::HoldResumable`] it also does nothing while another node is clearing `dead`, which is so for ten seconds
    /// after each of that node's batches.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the calling incarnation is fenced.
    async fn clear(&self, node: NodeId, dead: NodeId, mode: ClearMode, limit: u64) -> Result<Batch, StoreError>;

    /// Ends the incarnation `node`: removes all its presences that are not held, and forgets it. Does nothing if it is
    /// forgotten already.
    ///
    /// `closed` is for how long the node has accepted no sockets. No client could return meanwhile, so graces that had not
    /// expired when it began are extended by this time.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if another node fenced this one, and so clears its presences.
    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError>;
}
