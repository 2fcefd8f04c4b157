//! The settings of the connections to a database.

use std::time::Duration;

/// After this time between two statements the server ends a transaction, and with it the connection. The statements of a node follow one
/// another within milliseconds.
pub(super) const IDLE_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(2);

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
