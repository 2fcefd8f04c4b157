//! Who is in which room, right now.

pub mod clock;
pub mod model;
pub mod name;
pub mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
