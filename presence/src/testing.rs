//! What tests of this crate, and of applications and stores built on it, need.

pub mod bare;
pub mod fault;
mod socket;
pub mod store;

pub use socket::{PATIENCE, Received, Refused, TestSocket, upgrade_request};
