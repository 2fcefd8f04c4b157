//! All SQL statements that are common to the databases.
//!
//! They are built with sea-query, so that one function serves all databases. Statements of one database are in its file, behind
//! [`Dialect`](super::dialect::Dialect). Rows are locked in this order: node, rooms by id, presences by id. PostgreSQL deletes
//! presences in any order once their rooms are locked; a deadlock with a transaction that does not lock rooms (a touch or a hold)
//! is repeated. SQLite has no row locks, but one lock for the database, which a transaction takes when it begins.

mod node;
mod presence;
mod recent;
mod removal;
mod request;
mod room;
mod room_change;

use sea_orm::{
    Condition, SelectGetableTuple, Selector,
    sea_query::{CaseStatement, ExprTrait, SimpleExpr},
};

use crate::name::Epoch;

use super::chunk::Keys;

pub(super) use self::{node::*, presence::*, recent::*, removal::*, request::*, room::*, room_change::*};

/// A query that returns tuples, which is several times faster than models.
pub(super) type Rows<T> = Selector<SelectGetableTuple<T>>;

/// A value with the room that it belongs to.
pub(super) type In<T> = (Epoch, T);

/// A limit that fits the largest number of a database.
fn at_most(limit: u64) -> u64 {
    Ord::min(limit, i64::MAX.unsigned_abs())
}

/// Wraps the condition in CASE, so that no index is chosen for it. Databases with few statistics otherwise used the index on the
/// node, read all its presences instead of a few, and compared each with all keys.
fn unindexed(condition: Condition) -> SimpleExpr {
    CaseStatement::new().case(condition, 1).finally(0).eq(1)
}
