//! How many rows a statement takes.
//!
//! A statement with another number of rows is another text, which the database must prepare anew. So rows are cut into
//! powers of two, of which there are few enough for all of them to stay prepared.

/// The most rows of one statement with values of its own for each row. With 11 parameters a row it stays within
/// SQLite's limit of 32,766 parameters, and beyond a few hundred rows a statement gains nothing (measured).
const ROWS: usize = 512;

/// The most bytes of names and metas in such a statement. A server takes no more than a packet at once, which MySQL calls
/// `max_allowed_packet`: 1 MiB at least, if nobody made it smaller.
const BYTES: usize = 512 * 1024;

/// The most keys of one statement's `IN` list.
pub(super) const KEYS: usize = 1024;

/// Cuts rows that each must be there exactly once, and are small.
pub(super) fn rows<T>(rest: &[T]) -> impl Iterator<Item = &[T]> {
    rows_of(rest, |_| 0)
}

/// Cuts rows that each must be there exactly once, of so many bytes.
pub(super) fn rows_of<T>(mut rest: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |row: &&T| {
            sum += bytes(row);
            sum <= BYTES
        };
        // One goes in any case.
        let fitting = rest.iter().take(ROWS).take_while(fits).count().max(1);
        let take = 1 << rest.len().min(fitting).checked_ilog2()?;
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
    fn large_rows_are_fewer_to_a_statement_and_none_is_too_large() {
        let all = [BYTES / 8, BYTES / 8, BYTES / 8, BYTES / 8, BYTES, BYTES + 1, 0, BYTES, 1];
        let sizes: Vec<_> = rows_of(&all, |bytes| *bytes).map(<[usize]>::len).collect();
        assert_eq!(sizes, [4, 1, 1, 2, 1]);
        assert_eq!(rows_of(&all, |bytes| *bytes).flatten().copied().collect::<Vec<_>>(), all);
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
