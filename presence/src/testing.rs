//! What tests of this crate, and of applications and stores built on it, need.

pub mod bare;
pub mod fault;
pub mod store;
