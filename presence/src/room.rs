//! One room of a node.

pub(crate) mod actor;
pub(crate) mod leaving;
pub(crate) mod loading;
pub(crate) mod local_channels;
pub(crate) mod message;
pub(crate) mod presence;
pub(crate) mod state;
pub(crate) mod table;
