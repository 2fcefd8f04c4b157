//! Who is in which room, right now.

pub mod clock;
pub mod config;
pub mod model;
pub mod name;
pub mod store;
