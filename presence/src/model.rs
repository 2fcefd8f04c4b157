//! The rules of presence, as plain values.
//!
//! There are no actors here, no I/O, no clock and no randomness. Times and ids are arguments, and effects are return values. So the same
//! code runs in production, in unit tests and in a simulation.

pub(crate) mod cleaner;
pub(crate) mod close;
pub(crate) mod deadline;
pub(crate) mod delta;
pub(crate) mod high_water;
pub(crate) mod lease;
pub(crate) mod meta;
pub(crate) mod notice;
pub(crate) mod notice_budget;
pub(crate) mod online;
pub(crate) mod own;
pub(crate) mod presence;
pub(crate) mod rate;
pub(crate) mod replica;
pub(crate) mod roster;
pub(crate) mod sessions;
#[cfg(test)]
pub(crate) mod tests;

pub use close::{Close, CloseCode};
pub use delta::{Delta, Snapshot};
pub use meta::{MAX_META_BYTES, MAX_META_DEPTH, Meta, MetaError};
pub use online::OnlineChanges;
pub use presence::{Member, Presence};
