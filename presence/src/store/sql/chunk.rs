//! Splits rows and keys over several statements.
//!
//! Each number of rows is another statement text, which the database must prepare. So rows are split into powers of two,
//! which are few enough for all statements to stay prepared.

use sea_orm::{
    ColumnTrait, DbBackend, Value,
    prelude::{Expr, Uuid},
    sea_query::{ExprTrait, Func, Query, SimpleExpr},
};

/// The most rows of one statement that has parameters for each row. With 11 parameters for each row it stays within SQLite's
/// limit of 32,766 parameters. More than a few hundred rows make a statement no faster (measured).
const ROWS: usize = 512;

/// The most bytes of names and metas in such a statement. A server accepts statements up to the size of a packet, which is 1 MiB
/// or more by default (`max_allowed_packet` of MySQL).
const BYTES: usize = 512 * 1024;

/// The most keys of one statement's `IN` list.
pub(super) const KEYS: usize = 1024;

/// Splits small rows, each of which goes into exactly one statement.
pub(super) fn rows<T>(rest: &[T]) -> impl Iterator<Item = &[T]> {
    rows_of(rest, |_| 0)
}

/// Splits rows with these sizes in bytes, each of which goes into exactly one statement.
pub(super) fn rows_of<T>(mut rest: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |row: &&T| {
            sum += bytes(row);
            sum <= BYTES
        };
        // A single row is taken whatever its size.
        let fitting = rest.iter().take(ROWS).take_while(fits).count().max(1);
        let take = 1 << rest.len().min(fitting).checked_ilog2()?;
        let (chunk, others) = rest.split_at(take);
        rest = others;
        Some(chunk)
    })
}

/// Splits the keys of an `IN` list. A key may occur more than once there, so the last one fills the list to a power of two.
pub(super) fn lists<T: Copy>(keys: &[T]) -> impl Iterator<Item = Vec<T>> {
    keys.chunks(KEYS).map(|chunk| {
        let mut chunk = chunk.to_vec();
        if let Some(last) = chunk.last().copied() {
            chunk.resize(chunk.len().next_power_of_two(), last);
        }
        chunk
    })
}

/// Splits keys over statements, in the form that the database needs.
pub(super) fn keys<T: Key>(backend: DbBackend, keys: &[T]) -> Vec<Keys<T>> {
    match backend {
        DbBackend::Postgres => keys.chunks(KEYS).map(|chunk| Keys::Array(chunk.to_vec())).collect(),
        _ => lists(keys).map(Keys::List).collect(),
    }
}

/// The keys of the rows that a statement changes or reads.
///
/// PostgreSQL receives them as one array and looks each of them up. With a list of parameters, its generic plan used the list
/// as a filter: it read every presence of a node, and built an array of the list for each.
#[derive(Debug, Clone)]
pub(super) enum Keys<T> {
    List(Vec<T>),
    Array(Vec<T>),
}

impl<T> From<Vec<T>> for Keys<T> {
    fn from(keys: Vec<T>) -> Self {
        Self::List(keys)
    }
}

impl<T: Key> Keys<T> {
    /// Whether the column has one of the keys.
    pub(super) fn contain(self, column: impl ColumnTrait) -> SimpleExpr {
        match self {
            Self::List(keys) => column.is_in(keys),
            Self::Array(keys) => {
                let each = Query::select().expr(Func::cust("unnest").arg(T::array(keys))).take();
                Expr::col(column.as_column_ref()).in_subquery(each)
            }
        }
    }
}

/// A key of a row.
pub(super) trait Key: Copy + Into<Value> {
    /// All keys as one parameter.
    fn array(keys: Vec<Self>) -> Value;
}

impl Key for Uuid {
    fn array(keys: Vec<Self>) -> Value {
        keys.into()
    }
}

impl Key for &str {
    fn array(keys: Vec<Self>) -> Value {
        keys.into_iter().map(str::to_owned).collect::<Vec<_>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_into_powers_of_two_and_none_is_lost() {
        let all: Vec<u32> = (0..1_543).collect();
        let sizes: Vec<_> = rows(&all).map(<[u32]>::len).collect();
        assert_eq!(sizes, [512, 512, 512, 4, 2, 1]);
        assert_eq!(rows(&all).flatten().copied().collect::<Vec<_>>(), all);
        assert_eq!(rows::<u32>(&[]).count(), 0);
    }

    #[test]
    fn a_statement_has_fewer_large_rows_and_stays_within_its_size() {
        let all = [BYTES / 8, BYTES / 8, BYTES / 8, BYTES / 8, BYTES, BYTES + 1, 0, BYTES, 1];
        let sizes: Vec<_> = rows_of(&all, |bytes| *bytes).map(<[usize]>::len).collect();
        assert_eq!(sizes, [4, 1, 1, 2, 1]);
        assert_eq!(rows_of(&all, |bytes| *bytes).flatten().copied().collect::<Vec<_>>(), all);
    }

    #[test]
    fn lists_of_keys_are_filled_to_a_power_of_two() {
        let all: Vec<u32> = (0..1_029).collect();
        let chunks: Vec<_> = lists(&all).collect();
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 8]);
        assert_eq!(chunks[1], [1024, 1025, 1026, 1027, 1028, 1028, 1028, 1028]);
        assert_eq!(lists::<u32>(&[]).count(), 0);
    }
}
