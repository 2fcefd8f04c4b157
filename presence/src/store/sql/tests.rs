//! Tests of the databases, beyond the suite that all stores pass.

mod concurrent;
mod recent;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod servers;
#[cfg(feature = "sqlite")]
mod sqlite;
pub(crate) mod trial;
mod unconfirmed;
