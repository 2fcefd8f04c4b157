//! PostgreSQL and MariaDB servers for tests: each on a free port of the loopback, with its data in a temporary folder.
//!
//! [`database`] gives a test a database of its own on a server that all tests share; a [`Server`] is for tests that stop
//! theirs. The programs must be installed (`tests/run` does that); a test that does not find them fails and says so.

mod bouncer;
mod database;
mod process;
mod program;
mod server;

pub use bouncer::{Bouncer, Pooling};
pub use database::{Database, database};
pub use server::{CommitSync, Server, ServerKind};
