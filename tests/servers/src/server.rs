//! A server of its own for a test that stops it, or pauses it.

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    Database,
    process::{Process, command, give},
    program,
};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB, or MySQL where that is what is installed.
    MySql,
}

/// Whether a commit survives a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommitSync {
    /// It does not, but it survives the end of the server's process at once: for tests.
    None,
    /// It does: for measurements.
    Full,
}

/// A server that this process started. It ends, and its data with it, when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Server {
    kind: ServerKind,
    durability: CommitSync,
    port: u16,
    /// `None` while it is stopped.
    process: Mutex<Option<Process>>,
    folder: TempDir,
}

impl Server {
    /// Starts an empty server and waits until it takes connections.
    ///
    /// # Panics
    /// If the database is not installed, or does not start.
    #[must_use]
    pub fn start(kind: ServerKind, durability: CommitSync) -> Self {
        let folder = tempfile::Builder::new().prefix("presence-").tempdir().expect("there is a place for it");
        give(folder.path());
        program::initialise(kind, folder.path(), |program| command(folder.path(), program));
        let mut server = Self { kind, durability, port: 0, process: Mutex::new(None), folder };
        for _ in 0..10 {
            server.port = free_port();
            match server.run() {
                Ok(process) => {
                    *server.process() = Some(process);
                    return server;
                }
                // Somebody else took the port meanwhile.
                Err(said) if said.contains("in use") => {}
                Err(said) => panic!("{kind:?} did not start:\n{said}"),
            }
        }
        panic!("{kind:?} found no free port")
    }

    /// Makes a database.
    pub async fn database(&self) -> Database {
        Database::make(self.kind, &self.url()).await
    }

    /// Ends the server at once, as a crash would. Does nothing if it is stopped already.
    pub fn stop_hard(&self) {
        if let Some(mut process) = self.process().take() {
            process.stop();
        }
    }

    /// Starts the server anew, on the same port and with its data, and waits until it takes connections. Does nothing if it
    /// runs.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_again(&self) {
        let mut process = self.process();
        if process.is_none() {
            let started = self.run();
            *process = Some(started.unwrap_or_else(|said| panic!("{:?} did not start again:\n{said}", self.kind)));
        }
    }

    /// Stops the main process in its tracks, so that it answers nobody who connects. A server that is one process (MariaDB)
    /// answers nothing at all any more.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused server go on.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// The address of the server, without a database.
    #[must_use]
    pub fn url(&self) -> String {
        let user = program::USER;
        match self.kind {
            ServerKind::Postgres => format!("postgres://{user}:{user}@127.0.0.1:{}", self.port),
            ServerKind::MySql => format!("mysql://{user}:{user}@127.0.0.1:{}", self.port),
        }
    }

    fn signal(&self, signal: &str) {
        self.process().as_ref().expect("the server runs").signal(signal);
    }

    fn run(&self) -> Result<Process, String> {
        let (kind, folder) = (self.kind, self.folder.path());
        let line = program::serve(kind, folder, self.port, self.durability);
        Process::start(folder, program::crash(kind), &line, move |line| program::is_ready(kind, line))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its data is.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// A port that nobody listens on, below those that the system gives to clients: a server that is stopped for a while finds
/// its port free again.
pub(crate) fn free_port() -> u16 {
    loop {
        let [high, low, ..] = *Uuid::new_v4().as_bytes();
        let port = 15_000 + u16::from_be_bytes([high, low]) % 16_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
