//! Tests of the model as a whole, and what the unit tests share.

pub(crate) mod audience;
mod properties;
mod sockets;
pub(crate) mod truth;
