//! Where rooms and presences outlive the process.
//!
//! A [`Store`] keeps nodes with their leases and last commits, rooms with their epoch and version, and presences. It decides
//! nothing about presence; it makes what was decided durable, and gives each room's changes one order. Time inside a store
//! is the database's own (milliseconds since 1970), never a node's.
//!
//! [`MemoryStore`] forgets everything with the process. `SqlStore` speaks to a database by sea-orm.

mod change;
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
mod request;
mod shifts;
#[cfg(feature = "sql")]
mod sql;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::name::{NodeId, NodeName, PresenceId, RoomName, UserId};

pub use crate::{
    model::{Delta, Snapshot, Turns},
    name::{Epoch, RequestId, Version},
    session::{Session, SessionHash},
};
pub use change::{Attempt, Batch, Changes, Remains, RoomCommit, RoomWrites, Taken, Write};
pub use error::StoreError;
pub use listing::{NodeState, NodeSummary, RoomSummary};
pub use memory::MemoryStore;
pub use request::{Answer, Order, Removal, Request, RequestStore, Whom};
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) use sql::trial;
#[cfg(feature = "sql")]
pub use sql::{MissingFeature, SeveralHosts, SqlStore, Synchronous};
#[cfg(feature = "cli")]
pub(crate) use sql::{is_turned_away, said_by_database};

#[cfg(feature = "sql")]
pub(crate) use error::{ChannelTaken, NeedsOperator};

/// How long a life that lost its name to a later one is remembered after its end. A process that wakes up from a longer
/// sleep than this takes its name back from the later one, instead of being told to stop.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// A time that a database stored.
fn time(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A time as a database stores it.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Keeps nodes, rooms and presences. See the [module](self) for what it is for.
///
/// Every method is one transaction, all or nothing, and may be repeated after [`StoreError::Unavailable`]. A transaction
/// that changes who is in a room, or a meta, gives that room the next version, exactly one whatever the number of changes;
/// one that changes nothing gives none. Nor does one that holds or resumes, unless it takes a presence from a live socket of
/// another node. Who came online and who went offline by it ([`RoomCommit::turns`]) is counted within the transaction.
/// Implementations lock rows in the order node, rooms by id, presences by id.
///
/// A call that is repeated because its answer was lost finds its work done, and so tells of no change: only the version of
/// the room betrays that there was one. The same goes for a call whose future was dropped, which may yet have been done. Of
/// a [`commit`](RoomStore::commit) the store knows more, if it is asked for the [`outcome`](RoomStore::outcome).
#[async_trait]
pub trait Store: RoomStore + NodeStore + RequestStore + fmt::Debug + Send + Sync + 'static {
    /// Brings the schema up to date. Safe when several nodes start at once.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Makes a new connection, looks whether it may do what a node does, and lets go of it. A store whose calls wait for a database, until their callers have no more
    /// patience, tells here at once why there is none: for a log, or for a person who waits. `Ok` if there is one, or if the
    /// store has no connections.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], whose source is the reason.
    async fn reach(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Tells this database from others within this process: by it, rooms of one process that were started twice under one name on one
    /// database are found. Two stores that answer the same number are in one database; `None` says nothing.
    fn database(&self) -> Option<u64> {
        None
    }

    /// Somebody wants to know [`RoomCommit::turns`] from now on. A store to which counting them costs something may leave
    /// them empty before this is called; from then on it fills them.
    fn count_turns(&self) {}
}

/// The part of a [`Store`] that keeps rooms and presences.
#[async_trait]
pub trait RoomStore {
    /// Changes rooms, all in one transaction. A room that is not there is made first. Returns the commits of the rooms
    /// in the order given. `attempt` is what it is known by if its answer is lost: then nothing else of this node may be under way
    /// until its [`outcome`](Self::outcome) is known.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life is over, [`StoreError::Refused`] if a room or a presence is named twice, a
    /// presence is in another room already, its channel speaks for another presence of the room (which
    /// [`StoreError::channel_taken`] makes, and nothing else), or two come with one resume token. Nothing was written.
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: Changes) -> Result<Vec<RoomCommit>, StoreError>;

    /// What became of the last commit of `node`, which failed as [`StoreError::Unavailable`] or whose future was dropped: what
    /// it would have returned, or `None` if it did nothing and never will. To be asked before the node's next commit; of those
    /// before the last nothing is known. Also of a life that is over, as long as that is not forgotten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while it is not known.
    async fn outcome(&self, node: NodeId, attempt: Attempt) -> Result<Option<Vec<RoomCommit>>, StoreError>;

    /// Notes when presences of this node were last seen: so long ago. Those that are gone, or another node's by now, are
    /// passed over; one that is known to have been seen later stays as it is. It gives no version.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life is over.
    async fn touch(&self, node: NodeId, seen: Arc<[(PresenceId, Duration)]>) -> Result<(), StoreError>;

    /// Who is in the room, all as of one moment. `None` if there is no such room.
    async fn load(&self, room: RoomName) -> Result<Option<Snapshot>, StoreError>;

    /// Where these rooms stand. A room that is not there is left out.
    async fn positions(&self, rooms: Arc<[RoomName]>) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError>;

    /// Where every room stands, in no particular order.
    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError>;

    /// The first `limit` rooms after this name, or of all, and how many are in each, empty ones included, sorted by the bytes of their
    /// names, all as of one moment.
    async fn rooms(&self, after: Option<RoomName>, limit: u64) -> Result<Vec<RoomSummary>, StoreError>;

    /// How long ago each presence of the room was last seen, as far as its node has written that, in no particular order. No such room:
    /// nobody.
    async fn last_seen(&self, room: RoomName) -> Result<Vec<(PresenceId, Duration)>, StoreError>;

    /// The rooms in which the user has a presence, sorted by their bytes.
    async fn rooms_of(&self, user: UserId) -> Result<Vec<RoomName>, StoreError>;

    /// Removes up to `limit` presences, in up to 512 rooms, whose grace is over.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn sweep(&self, node: NodeId, limit: u64) -> Result<Batch, StoreError>;

    /// Removes up to `limit` presences, in up to 512 rooms, that no live node answers for (they are held, or their node's lease ran out) and
    /// that were last seen more than `max_age` ago. Those of the node that asks are its own to judge, also if its lease ran
    /// out: the clock of the database may have jumped.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn prune(&self, node: NodeId, max_age: Duration, limit: u64) -> Result<Batch, StoreError>;

    /// Removes every room that nobody is in, and returns how many. A room that is being joined at the same time stays.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn prune_rooms(&self, node: NodeId) -> Result<u64, StoreError>;

    /// Removes up to `limit` of these presences that no live node answers for: they are held, or their node's
    /// lease ran out. Those of live nodes are for these to remove ([`ask`](RequestStore::ask)), which would else take the removal for
    /// a mistake and join again.
    ///
    /// A room itself stays, empty, with its version, until [`prune_rooms`](Self::prune_rooms): so whoever follows it learns
    /// that they left, and one who joins meanwhile is in the same room. Nobody to remove: nothing happens.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn remove(&self, node: NodeId, whom: Whom, limit: u64) -> Result<Batch, StoreError>;
}

/// The part of a [`Store`] that keeps nodes: the lives of processes, each with a lease.
#[async_trait]
pub trait NodeStore {
    /// Begins the life `node` under `name`, with a lease of `lease` from now. A former life under that name loses the
    /// name and is fenced. Returns every former life under that name that has presences left to
    /// [`clear`](Self::clear): more than one if a life was over before it had cleared the one before. Registering the
    /// same life again renews its lease.
    ///
    /// Nobody could come back between the end of the life that had the name and now. So the graces of all former lives under
    /// that name that were running at that end are extended by the time since. A life that nobody ended and that lost its name
    /// counts as over since its last renewal, which is taken to have been for `lease` as well.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if this very life is over.
    async fn register(&self, node: NodeId, name: NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError>;

    /// Extends the lease to `lease` from now, also if it ran out but nobody fenced it. Returns what is now, as the time since
    /// 1970: by that a node notices when the clock of the database jumps.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life is over.
    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError>;

    /// Every life of a node that is not forgotten, sorted by the bytes of their names and then by their ids, all as of one
    /// moment. Looks at every presence: for an operator, not for a request.
    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError>;

    /// Fences every other life whose lease ran out, and returns all fenced lives that have presences left to
    /// [`clear`](Self::clear). Those whose name went to a later life that is not over are left out: they are its to clear
    /// ([`register`](Self::register) told it).
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn fence(&self, node: NodeId) -> Result<Vec<NodeId>, StoreError>;

    /// Handles up to `limit` presences, in up to 512 rooms, of the fenced life `dead`. Those that are held already keep the grace they have
    /// and do not count. Once `dead` has no presence left at all, it is forgotten. Does nothing if `dead` is not fenced.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn clear(&self, node: NodeId, dead: NodeId, remains: Remains, limit: u64) -> Result<Batch, StoreError>;

    /// Ends the life `node`: removes every presence it still has, save those that are held, and forgets the life. Does
    /// nothing if it is forgotten already.
    ///
    /// `closed` is for how long the node has let nobody in. Its graces that were running when that began are extended by it,
    /// since nobody could come back meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if somebody else ended it: its presences are theirs to clear.
    async fn retire(&self, node: NodeId, closed: Duration) -> Result<Vec<RoomCommit>, StoreError>;
}
