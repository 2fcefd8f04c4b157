//! The payload of a message of which not all has arrived.
//!
//! A part is either copied and unmasked at once, or kept masked in the memory that the HTTP server read it into. The second costs no
//! copy, but such memory may be large and may hold other frames too, so it is released when it is mostly not this message's.

use std::ops::Range;

use bytes::Bytes;

use super::MASK;

/// A full buffer grows by at least its size divided by this.
const SLACK: usize = 16;
/// Only parts of chunks of at least so many bytes are kept as they arrived.
pub(super) const KEPT_CHUNK: usize = 64 * 1024;
/// Parts of fewer bytes are copied in any case.
pub(super) const KEPT_PART: usize = 4 * 1024;
/// When the connection has received more than so many times the bytes that are kept as they arrived, those are copied, and their memory
/// is released.
pub(super) const MOST_BESIDES: usize = 2;

/// The parts that have arrived.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) pieces: Vec<PayloadPiece>,
    /// The number of their bytes.
    pub(super) len: usize,
    /// How many of these bytes are kept as they arrived.
    kept: usize,
    /// How many bytes the connection has received since the first of those, because they may be in the same memory.
    received: usize,
}

#[derive(Debug)]
pub(super) enum PayloadPiece {
    /// Still masked, in the memory that it was read into.
    Kept(Bytes, [u8; MASK]),
    Copied(Vec<u8>),
}

impl Pieces {
    /// Adds a part of `chunk`.
    pub(super) fn add(&mut self, chunk: &Bytes, part: Range<usize>, mask: [u8; MASK]) {
        self.len += part.len();
        if chunk.len() >= KEPT_CHUNK && part.len() >= KEPT_PART {
            // The decoder keeps `chunk` until the next one arrives, so `more_arrives` decides whether this memory is worth keeping.
            if self.kept == 0 {
                self.received = chunk.len();
            }
            self.kept += part.len();
            self.pieces.push(PayloadPiece::Kept(chunk.slice(part), mask));
            return;
        }
        if !matches!(self.pieces.last(), Some(PayloadPiece::Copied(_))) {
            self.pieces.push(PayloadPiece::Copied(Vec::new()));
        }
        if let Some(PayloadPiece::Copied(copied)) = self.pieces.last_mut() {
            append_unmasked(copied, &chunk[part], mask);
        }
    }

    /// The connection has received more bytes. Copies what is kept as it arrived if the memory is mostly not this message's.
    pub(super) fn more_arrives(&mut self, bytes: usize) {
        if self.kept == 0 {
            return;
        }
        if self.received <= MOST_BESIDES * self.kept {
            self.received += bytes;
            return;
        }
        let copied = std::mem::take(self).join();
        self.len = copied.len();
        self.pieces.push(PayloadPiece::Copied(copied));
    }

    /// All bytes, unmasked.
    pub(super) fn join(mut self) -> Vec<u8> {
        if let [PayloadPiece::Copied(copied)] = &mut self.pieces[..] {
            return std::mem::take(copied);
        }
        let mut joined = Vec::with_capacity(self.len);
        for piece in self.pieces {
            match piece {
                PayloadPiece::Kept(bytes, mask) => append_unmasked(&mut joined, &bytes, mask),
                PayloadPiece::Copied(bytes) => joined.extend_from_slice(&bytes),
            }
        }
        joined
    }
}

/// Appends a part of a payload, unmasked. The buffer grows by a [`SLACK`]th of its size, and does not double as a `Vec` does by itself.
pub(super) fn append_unmasked(buffer: &mut Vec<u8>, payload: &[u8], mask: [u8; MASK]) {
    if buffer.capacity() - buffer.len() < payload.len() {
        buffer.reserve_exact(payload.len().max(buffer.len() / SLACK));
    }
    let at = buffer.len();
    buffer.extend_from_slice(payload);
    let (words, rest) = buffer[at..].as_chunks_mut::<MASK>();
    let in_words = u32::from_ne_bytes(mask);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ in_words).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}
