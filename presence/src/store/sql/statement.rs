//! The text of every statement.
//!
//! They are built, not spelt, so that one text serves each database; what a database has of its own is in its file, behind
//! [`Dialect`](super::dialect::Dialect). Locks on rows are asked for in the order node, rooms by id, presences by id; PostgreSQL
//! deletes presences in an order of its own, once their rooms are locked, and a deadlock with who did not lock these (a touch, a
//! hold) is tried again. SQLite knows none: it has one lock for everything, taken when the transaction begins.

mod doomed;
mod node;
mod presence;
mod request;
mod room;

use sea_orm::{
    Condition, SelectGetableTuple, Selector,
    sea_query::{CaseStatement, ExprTrait, SimpleExpr},
};

use crate::name::Epoch;

use super::chunk::Keys;

pub(super) use self::{doomed::*, node::*, presence::*, request::*, room::*};

/// A query whose rows come as tuples: several times faster than as models.
pub(super) type Rows<T> = Selector<SelectGetableTuple<T>>;

/// Something of a room.
pub(super) type In<T> = (Epoch, T);

/// A limit that fits a database's largest number.
fn at_most(limit: u64) -> u64 {
    Ord::min(limit, i64::MAX.unsigned_abs())
}

/// A condition that is checked of each row that was found, and leads to none: a database that knows little of its tables yet
/// went by the node, found all its presences instead of a few, and compared each with all keys.
fn looked_at(condition: Condition) -> SimpleExpr {
    CaseStatement::new().case(condition, 1).finally(0).eq(1)
}
