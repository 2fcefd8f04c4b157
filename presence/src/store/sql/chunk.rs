//! How many rows a statement takes.
//!
//! A statement with another number of rows is another text, which the database must prepare anew. So rows are cut into
//! powers of two, of which there are few enough for all of them to stay prepared.

/// The most rows of one statement with values of its own for each row. With 11 parameters a row it stays within
/// SQLite's limit of 32,766 parameters, and beyond a few hundred rows a statement gains nothing (measured).
const ROWS: usize = 512;

/// The most keys of one statement's `IN` list.
const KEYS: usize = 1024;

/// Cuts rows that each must be there exactly once.
pub(super) fn rows<T>(mut rest: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let take = 1 << rest.len().min(ROWS).checked_ilog2()?;
        let (chunk, others) = rest.split_at(take);
        rest = others;
        Some(chunk)
    })
}

/// Cuts keys of an `IN` list, where one may stand again and again: the last one fills the list up.
pub(super) fn keys<T: Copy>(keys: &[T]) -> impl Iterator<Item = Vec<T>> {
    keys.chunks(KEYS).map(|chunk| {
        let mut chunk = chunk.to_vec();
        if let Some(last) = chunk.last().copied() {
            chunk.resize(chunk.len().next_power_of_two(), last);
        }
        chunk
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_powers_of_two_and_none_is_lost() {
        let all: Vec<u32> = (0..1_543).collect();
        let sizes: Vec<_> = rows(&all).map(<[u32]>::len).collect();
        assert_eq!(sizes, [512, 512, 512, 4, 2, 1]);
        assert_eq!(rows(&all).flatten().copied().collect::<Vec<_>>(), all);
        assert_eq!(rows::<u32>(&[]).count(), 0);
    }

    #[test]
    fn keys_are_filled_up_to_a_power_of_two() {
        let all: Vec<u32> = (0..1_029).collect();
        let chunks: Vec<_> = keys(&all).collect();
        assert_eq!(chunks.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 8]);
        assert_eq!(chunks[1], [1024, 1025, 1026, 1027, 1028, 1028, 1028, 1028]);
        assert_eq!(keys::<u32>(&[]).count(), 0);
    }
}
