//! Where rooms and presences outlive the process.
//!
//! A [`Store`] keeps nodes with their leases and last commits, rooms with their epoch and version, and presences. It decides
//! nothing about presence; it makes what was decided durable, and gives each room's changes one order. Time inside a store
//! is the database's own (milliseconds since 1970), never a node's.
//!
//! [`MemoryStore`] forgets everything with the process. [`SqlStore`] speaks to a database by sea-orm.

pub(crate) mod apart;
#[cfg(feature = "sql")]
mod entity;
pub(crate) mod health;
mod listing;
mod memory;
#[cfg(feature = "sql")]
mod migration;
pub(crate) mod pace;
mod plan;
mod shifts;
#[cfg(feature = "sql")]
mod sql;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::{
    cmp::Ordering,
    fmt,
    sync::{
        Arc,
        atomic::{self, AtomicI64},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Close, Delta, Meta, Presence, Snapshot, Turns},
    name::{ChannelName, Epoch, NodeId, NodeName, PresenceId, RequestId, RoomName, UserId, Version},
};

pub use crate::session::{Session, SessionHash};
pub use listing::{NodeState, NodeSummary, RoomSummary};
pub use memory::MemoryStore;
#[cfg(test)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) use sql::trial;
#[cfg(feature = "sql")]
pub use sql::{MissingFeature, SeveralHosts, SqlStore, Synchronous};
#[cfg(feature = "cli")]
pub(crate) use sql::{is_turned_away, said_by_database};

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

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is away, too slow, full, locked, read-only or damaged, or its tables are gone. Whether the change happened
    /// is not known; asking again is safe and may work.
    #[error("the presence store is unavailable")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// This node's lease ran out and somebody declared it dead, or another process took its name. Nothing was written.
    #[error("node `{node}` may not write any more")]
    Fenced {
        /// The life that is over.
        node: NodeId,
        /// A later life holds the same name, so this one must stop rather than register again.
        superseded: bool,
    },
    /// The database refused the data itself, or its schema is not one that this version knows. Asking again gives the
    /// same answer.
    #[error("the presence store refused the request")]
    Refused(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why a change was refused: the channel speaks for another presence of the room.
#[derive(Debug, thiserror::Error)]
#[error("the channel speaks for another presence of the room")]
pub(crate) struct ChannelTaken(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);

/// Why the database does nothing that it is asked: the tables are not there, as in a database that was made anew.
#[derive(Debug, thiserror::Error)]
#[error("the tables of the store are not there")]
struct TablesMissing(#[source] Box<dyn std::error::Error + Send + Sync>);

/// What lasts until somebody changes how the database is set up or reached.
#[cfg(feature = "sql")]
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NeedsOperator {
    what: std::borrow::Cow<'static, str>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// As [`Unavailable`](Self::Unavailable), because the tables are not there. A node then calls
    /// [`prepare`](Store::prepare), which makes them again, and begins anew. `source` is what the database says of it.
    #[must_use]
    pub fn tables_missing(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Arc::new(TablesMissing(source.into())))
    }

    /// Whether the tables are not there.
    #[must_use]
    pub fn is_tables_missing(&self) -> bool {
        matches!(self, Self::Unavailable(source) if source.is::<TablesMissing>())
    }

    /// As [`Refused`](Self::Refused), because a channel speaks for another presence of the room. `source` is what the database
    /// says of it.
    #[must_use]
    pub fn channel_taken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(Arc::new(ChannelTaken(source.into())))
    }

    /// Whether it was refused because a channel speaks for another presence of the room.
    #[must_use]
    pub fn is_channel_taken(&self) -> bool {
        matches!(self, Self::Refused(source) if source.is::<ChannelTaken>())
    }

    /// Whether it lasts until somebody changes how the database is set up or reached.
    pub(crate) fn needs_operator(&self) -> bool {
        self.remedy().is_some()
    }

    /// What somebody has to change.
    #[cfg(feature = "sql")]
    pub(crate) fn remedy(&self) -> Option<String> {
        let (Self::Unavailable(source) | Self::Refused(source)) = self else { return None };
        source.downcast_ref::<NeedsOperator>().map(ToString::to_string)
    }

    #[cfg(not(feature = "sql"))]
    const fn remedy(&self) -> Option<&str> {
        None
    }
}

/// One change of one presence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Adds the presence. If its id is there already under this channel, it becomes this node's and is no longer held; its
    /// user and meta become those given here. Under another channel it was resumed by another socket: it stays as it is, and
    /// [`RoomCommit::taken`] says so.
    Join(Arc<Presence>),
    /// As `Join`, for a presence whose client can resume it. One that was resumed as another presence is not added.
    Restore {
        /// The presence.
        presence: Arc<Presence>,
        /// By what it can be resumed.
        session: Session,
    },
    /// A socket comes with a resume token. If a presence of the room has it, held or not and on whichever node, that becomes
    /// this node's, under this channel, and is no longer held; its id, user and meta stay. [`RoomCommit::taken`] says which it
    /// is. If there is none, the presence is added.
    ///
    /// In a commit this comes after the leaves, holds and updates of the room.
    Resume {
        /// The presence as it is if there is none to take over.
        presence: Arc<Presence>,
        /// By what it can be resumed, now and again.
        session: Session,
    },
    /// As `Join`, or with a session as `Resume`; but one that would be added is refused if the room has `limit` presences by
    /// then, those that are held included. Nothing is written of it then, and [`RoomCommit::refused`] names it.
    ///
    /// In a commit this comes after all other changes of the room, and several of these in the order of their ids.
    JoinWithin {
        /// The presence as it is if there is none to take over.
        presence: Arc<Presence>,
        /// By what it can be resumed.
        session: Option<Session>,
        /// How many presences the room may have with it.
        limit: usize,
    },
    /// The socket is lost: keeps the presence, if it is there under this channel, for its grace from now. It counts as seen
    /// now.
    Hold {
        /// Which presence.
        id: PresenceId,
        /// The channel it must have. One that was resumed has another, and is not held.
        channel: ChannelName,
        /// For how long.
        grace: Duration,
    },
    /// Removes the presence if it is there under this channel.
    Leave {
        /// Which presence.
        id: PresenceId,
        /// The channel it must have. One that was resumed has another, and stays.
        channel: ChannelName,
    },
    /// Changes the presence if it is there under this channel.
    Update {
        /// Which presence.
        id: PresenceId,
        /// The channel it must have.
        channel: ChannelName,
        /// Whose it is now, `Some(None)` for nobody's; `None` leaves it as it is. A presence that is given a user, also the one
        /// that it has, can no longer be resumed.
        user: Option<Option<UserId>>,
        /// The new meta; `None` leaves it as it is.
        meta: Option<Meta>,
    },
}

impl Write {
    /// Which presence it is about.
    #[must_use]
    pub fn id(&self) -> PresenceId {
        match self {
            Self::Join(presence)
            | Self::Restore { presence, .. }
            | Self::Resume { presence, .. }
            | Self::JoinWithin { presence, .. } => presence.id,
            Self::Leave { id, .. } | Self::Update { id, .. } | Self::Hold { id, .. } => *id,
        }
    }

    /// By what the presence can be resumed that it adds.
    pub(crate) const fn session(&self) -> Option<&Session> {
        match self {
            Self::Restore { session, .. }
            | Self::Resume { session, .. }
            | Self::JoinWithin { session: Some(session), .. } => Some(session),
            _ => None,
        }
    }

    /// Whether it depends on how many are in the room.
    #[cfg(feature = "sql")]
    pub(crate) const fn is_limited(&self) -> bool {
        matches!(self, Self::JoinWithin { .. })
    }
}

/// What one try of a [`commit`](Store::commit) is known by, in case that its answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt(i64);

impl Attempt {
    /// One that this process has not had before. A node is of one process, so it has none of its attempts twice.
    #[must_use]
    pub fn next() -> Self {
        static LAST: AtomicI64 = AtomicI64::new(0);
        Self(LAST.fetch_add(1, atomic::Ordering::Relaxed) + 1)
    }
}

/// What is to change in one room. A commit names each room, and each presence, at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomWrites {
    /// The room.
    pub room: RoomName,
    /// The changes; their order does not matter, since no two are about the same presence.
    pub writes: Vec<Write>,
}

/// Where a room stands after a transaction, and what that transaction changed in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomCommit {
    /// The room.
    pub room: RoomName,
    /// Its life.
    pub epoch: Epoch,
    /// Its version now. One more than before if this [took a version](Self::is_new_version), else as before.
    pub version: Version,
    /// What really changed.
    pub delta: Delta,
    /// The presences that were resumed, by these writes or before them. Others are told nothing of that.
    pub taken: Vec<Taken>,
    /// The presences that were not added, since the room had as many as their [joins](Write::JoinWithin) allow.
    pub refused: Vec<PresenceId>,
    /// The users whose first presence came, or whose last one went, as of this very version. Empty before
    /// [`tell_turns`](Store::tell_turns).
    pub turns: Turns,
}

impl RoomCommit {
    /// What changed in a room, if nobody resumed, came online or went offline.
    #[must_use]
    pub fn new(room: RoomName, epoch: Epoch, version: Version, delta: Delta) -> Self {
        Self { room, epoch, version, delta, taken: Vec::new(), refused: Vec::new(), turns: Turns::default() }
    }

    /// Whether the room has another version than before: somebody came, went or changed, or a presence was taken from a live
    /// socket of another node, which finds out by that.
    #[must_use]
    pub fn is_new_version(&self) -> bool {
        !self.delta.is_empty() || self.taken.iter().any(|taken| taken.moved)
    }
}

/// A presence that belongs to who resumed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The presence that the write named.
    pub asked: PresenceId,
    /// The presence that it came to, as it is now. If its channel is not that of the write, it is another's, and the write did
    /// nothing.
    pub presence: Arc<Presence>,
    /// It was taken from a socket of another node that was not known to be lost.
    pub moved: bool,
}

/// What a call that works in batches did in this one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The rooms that changed.
    pub commits: Vec<RoomCommit>,
    /// How many presences this batch handled, those included whose room did not change (they were held).
    pub handled: u64,
    /// Whether there may be more: the limit was reached, or the number of rooms that one transaction changes, 512.
    pub more: bool,
}

/// What becomes of the presences of a life that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remains {
    /// All are held: the node itself has started again, and its clients are about to return. Those with a resume token for the
    /// grace they joined with, the others for this one.
    HoldAll(Duration),
    /// Those with a resume token are held for the grace they joined with, or for this one if that is not known; the others are
    /// removed.
    HoldResumable(Duration),
}

/// What a node asks the others to do, each with the presences that it answers for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which request.
    pub id: RequestId,
    /// What is to be done.
    pub order: Order,
}

/// What nodes may be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Order {
    /// Remove the presences that it last saw longer ago than this, by its own clock.
    Prune {
        /// The age that is too old.
        max_age: Duration,
    },
    /// Remove presences.
    Remove(Removal),
}

/// Who is to be removed, and what becomes of their sockets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Removal {
    /// Who.
    pub whom: Whom,
    /// How their sockets are closed; `None`: they stay open, and their consumers are told.
    pub close: Option<Close>,
}

/// Whom a [`Removal`] is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whom {
    /// Everyone in this room.
    Room(RoomName),
    /// This user, in whichever rooms.
    User(UserId),
    /// This channel.
    Channel {
        /// The channel.
        channel: ChannelName,
        /// In this room; `None`: in whichever rooms.
        room: Option<RoomName>,
    },
    /// One presence.
    Presence {
        /// Its room.
        room: RoomName,
        /// Which one.
        id: PresenceId,
    },
}

/// One node that was asked to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its life.
    pub node: NodeId,
    /// Its name when it was asked.
    pub name: NodeName,
    /// How many presences it removed; `None`: it has not answered yet.
    pub removed: Option<u64>,
}

impl Answer {
    fn in_order(&self, other: &Self) -> Ordering {
        (&self.name, self.node).cmp(&(&other.name, other.node))
    }
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
/// a [`commit`](Self::commit) the store knows more, if it is asked for the [`outcome`](Self::outcome).
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Brings the schema up to date. Safe when several nodes start at once.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if the schema is from a later version of this crate.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Makes a new connection and lets go of it. A store whose calls wait for a database, until their callers have no more
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

    /// Somebody wants to know of [`RoomCommit::turns`] from now on. A store to which counting them costs something may leave
    /// them empty until it is told so; it tells them for good then.
    fn tell_turns(&self) {}

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
    async fn register(&self, node: NodeId, name: &NodeName, lease: Duration) -> Result<Vec<NodeId>, StoreError>;

    /// Extends the lease to `lease` from now, also if it ran out but nobody fenced it. Returns what is now, as the time since
    /// 1970: by that a node notices when the clock of the database jumps.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life is over.
    async fn renew(&self, node: NodeId, lease: Duration) -> Result<Duration, StoreError>;

    /// Changes rooms, all in one transaction. A room that is not there is made first. Returns the commits of the rooms
    /// in the order given. `attempt` is what it is known by if its answer is lost: then nothing else of this node may be under way
    /// until its [`outcome`](Self::outcome) is known.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life is over, [`StoreError::Refused`] if a room or a presence is named twice, a
    /// presence is in another room already, its channel speaks for another presence of the room (which
    /// [`StoreError::channel_taken`] makes, and nothing else), or two come with one resume token. Nothing was written.
    async fn commit(&self, node: NodeId, attempt: Attempt, rooms: &[RoomWrites])
    -> Result<Vec<RoomCommit>, StoreError>;

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
    async fn touch(&self, node: NodeId, seen: &[(PresenceId, Duration)]) -> Result<(), StoreError>;

    /// Who is in the room, all as of one moment. `None` if there is no such room.
    async fn load(&self, room: &RoomName) -> Result<Option<Snapshot>, StoreError>;

    /// Where these rooms stand. A room that is not there is left out.
    async fn positions(&self, rooms: &[RoomName]) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError>;

    /// Where every room stands, in no particular order.
    async fn all_positions(&self) -> Result<Vec<(RoomName, Epoch, Version)>, StoreError>;

    /// Every room and how many are in it, empty ones included, sorted by the bytes of their names, all as of one moment. Looks
    /// at every presence: for an operator, not for a request.
    async fn rooms(&self) -> Result<Vec<RoomSummary>, StoreError>;

    /// Every life of a node that is not forgotten, sorted by the bytes of their names and then by their ids, all as of one
    /// moment. Looks at every presence: for an operator, not for a request.
    async fn nodes(&self) -> Result<Vec<NodeSummary>, StoreError>;

    /// The rooms in which the user has a presence, sorted by their bytes.
    async fn rooms_of(&self, user: &UserId) -> Result<Vec<RoomName>, StoreError>;

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
    /// lease ran out. Those of live nodes are for these to remove ([`ask`](Self::ask)), which would else take the removal for
    /// a mistake and join again.
    ///
    /// A room itself stays, empty, with its version, until [`prune_rooms`](Self::prune_rooms): so whoever follows it learns
    /// that they left, and one who joins meanwhile is in the same room. Nobody to remove: nothing happens.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn remove(&self, node: NodeId, whom: &Whom, limit: u64) -> Result<Batch, StoreError>;

    /// Asks every other live node that has a presence to do something with its own. One that is held counts: by its token
    /// it could be taken back on that node, which has to forget it. Asking again under the same id also asks those that came
    /// to life in the meantime, and nobody twice.
    ///
    /// The request ends when it is [withdrawn](Self::withdraw), or with the life of the one who asks: its nodes are then no
    /// longer asked, and their answers are forgotten with it. So one that is abandoned does no harm.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn ask(&self, node: NodeId, request: &Request) -> Result<(), StoreError>;

    /// What `node` is asked and has not answered, the oldest request first. The requests of one whose lease ran out are left
    /// out, and orders that this version does not know.
    async fn asked(&self, node: NodeId) -> Result<Vec<Request>, StoreError>;

    /// Says how many presences `node` removed when it was asked. The first answer counts; one to a request that has ended, or
    /// that did not ask this node, is nothing.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that answers is over.
    async fn answer(&self, node: NodeId, request: RequestId, removed: u64) -> Result<(), StoreError>;

    /// Whom the request asked, and what they answered, sorted by the bytes of their names. An answer stays when the node that
    /// gave it ends.
    async fn answers(&self, request: RequestId) -> Result<Vec<Answer>, StoreError>;

    /// Ends a request of `node`: nobody is asked any more, and the answers are forgotten. One that has ended: nothing happens.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the life that asks is over.
    async fn withdraw(&self, node: NodeId, request: RequestId) -> Result<(), StoreError>;

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
