//! For tests of this crate, and of the applications and stores that are built on it.

pub mod bare;
mod channel;
pub mod fault;
mod probe;
mod socket;
pub mod store;
mod time;

pub use channel::TestChannel;
pub use probe::Probe;
pub use socket::{PATIENCE, Received, Refused, TestSocket, upgrade_request};
pub use time::ManualTime;
