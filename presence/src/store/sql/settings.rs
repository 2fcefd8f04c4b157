//! The settings of the connections to a database.

use std::{
    sync::atomic::{AtomicU16, AtomicU64, Ordering},
    time::Duration,
};

/// After this time between two statements PostgreSQL and MariaDB end a transaction, and with it the connection. MySQL has no such limit. The
/// statements of a node follow one another within milliseconds.
pub(super) const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a call to MySQL may continue when its caller has dropped it.
pub(super) const ABANDONED_CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a transaction is assumed to last at most if nobody has limited it.
const UNLIMITED_TRANSACTION: Duration = Duration::from_secs(60);

/// In how many lanes one node may commit to a server: 16, and one for rooms that are set aside. Each has a connection.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) const MAX_LANES: u16 = 17;

/// What a commit in SQLite survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Synchronous {
    /// It survives the end of the process at once, and a loss of power a few moments later: the last transactions may be
    /// lost, but the file is not damaged. This is several times faster.
    #[default]
    Normal,
    /// It survives a loss of power at once.
    Full,
}

/// The settings of the connections.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) synchronous: Synchronous,
    /// How many connections write, and how many read. SQLite has one that writes.
    pub(super) connections: u32,
    /// How long a statement waits for a lock, and a caller for a connection.
    pub(super) wait_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { synchronous: Synchronous::default(), connections: 4, wait_timeout: Duration::from_secs(5) }
    }
}

/// What a node tells the store before it uses it: how long it cleans up after others, how long one transaction may last, both unlimited
/// until then, and in how many lanes it commits.
#[derive(Debug)]
pub(super) struct WaitLimits {
    /// In milliseconds.
    cleaning: AtomicU64,
    transaction: AtomicU64,
    lanes: AtomicU16,
}

impl Default for WaitLimits {
    fn default() -> Self {
        Self { cleaning: AtomicU64::new(u64::MAX), transaction: AtomicU64::new(u64::MAX), lanes: AtomicU16::new(1) }
    }
}

impl WaitLimits {
    pub(super) fn set(&self, lease: Duration, store_timeout: Duration) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        self.cleaning.store(millis(lease / 6), Ordering::Relaxed);
        self.transaction.store(millis(store_timeout), Ordering::Relaxed);
    }

    pub(super) fn set_lanes(&self, lanes: u16) {
        // Several nodes may share the connections, for example in a test.
        self.lanes.fetch_max(lanes, Ordering::Relaxed);
    }

    /// How many lanes a new incarnation has.
    pub(super) fn lanes(&self) -> u16 {
        self.lanes.load(Ordering::Relaxed)
    }

    /// How long a transaction that cleans up after other nodes waits for a lock.
    pub(super) fn cleaning(&self) -> Duration {
        Duration::from_millis(self.cleaning.load(Ordering::Relaxed))
    }

    /// How long after its first statement, which reads the time, a transaction that changes rooms may become visible to others. Its caller
    /// gives it up after `store_timeout`, MySQL may go on with it for [`ABANDONED_CALL_TIMEOUT`], and while its node is suspended within it,
    /// PostgreSQL and MariaDB end it after [`IDLE_TRANSACTION_TIMEOUT`]. A second more is for clocks that are adjusted. All nodes of a database
    /// are assumed to have one `store_timeout`.
    ///
    /// Three cases are not bounded by it: a server that takes longer for the commit itself, for example while it waits for its standby, a
    /// node of MySQL that is suspended within a transaction, and a process that is suspended while it writes to a file of SQLite. Others see
    /// such a change when they have compared each of their rooms by its name.
    pub(super) fn longest_transaction(&self) -> Duration {
        let own = self.transaction().unwrap_or(UNLIMITED_TRANSACTION);
        own + ABANDONED_CALL_TIMEOUT + IDLE_TRANSACTION_TIMEOUT + Duration::from_secs(1)
    }

    /// How long a transaction that writes may last, if there is a limit.
    pub(super) fn transaction(&self) -> Option<Duration> {
        let limit = self.transaction.load(Ordering::Relaxed);
        (limit < u64::MAX).then_some(Duration::from_millis(limit))
    }
}
