//! The command-line tool as its users run it: as a process of its own, on a SQLite file that others use too.

#![expect(clippy::unwrap_used, reason = "what fails a test may say so briefly")]

#[path = "cli/command.rs"]
mod command;
#[path = "cli/database.rs"]
mod database;
#[path = "cli/listing.rs"]
mod listing;
#[path = "cli/pruning.rs"]
mod pruning;
#[path = "cli/running.rs"]
mod running;
#[cfg(any(feature = "postgres", feature = "mysql"))]
#[path = "cli/unreached.rs"]
mod unreached;
#[path = "cli/watching.rs"]
mod watching;
