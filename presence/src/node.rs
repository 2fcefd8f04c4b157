//! What every actor of a node needs, and what the node does by itself.

pub(crate) mod apart;
pub(crate) mod backoff;
pub(crate) mod health;
pub(crate) mod listening;
pub(crate) mod open_requests;
pub(crate) mod registration;
pub(crate) mod threads;
pub(crate) mod writer;
