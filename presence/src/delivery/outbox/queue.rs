//! The queue of an outbox, as a value: pieces of frames in their order, and how many bytes and frames count against the bound.
//!
//! A frame is one piece until part of it is written. A large state is one piece that stands for all its pages. The pages are shared by all
//! clients that wait for them, and each page becomes a piece of its own when it is next.

use std::{
    collections::{HashSet, VecDeque},
    io::IoSlice,
};

use bytes::{Buf, Bytes, BytesMut};

use crate::{delivery::wire::Rest, name::RoomName};

/// The most bytes that are written in one piece, and one step of progress. The server's write buffer begins at this size, and a buffer
/// that has grown shrinks again only if it is above 128 KiB.
pub(crate) const PIECE: usize = 8 * 1024;
/// How many pongs are queued at most. A new pong then replaces the last one, and answers all pings since (RFC 6455, 5.5.3).
const MOST_PONGS: usize = 16;
/// The number of pieces for which an empty queue keeps its memory.
const KEPT_PIECES: usize = 32;

#[derive(Default)]
pub(super) struct OutboxQueue {
    pieces: VecDeque<QueuedPiece>,
    /// The frames and bytes that count against the bound.
    frames: usize,
    bytes: usize,
    /// The number of pieces that do not count against it: those of first frames, and a Close.
    firsts: usize,
    /// The number of marked pieces.
    marked: usize,
}

/// The kind of frame that a piece belongs to.
enum PieceKind {
    /// A control frame, which like a pong may go between any two frames.
    Ping,
    Pong,
    /// The first frame of a room, or a part of it.
    First(RoomName),
    /// A notice of a room.
    Notice(RoomName),
    Other,
}

/// About as many bytes as a piece takes in a queue that grows, besides those of its frame.
pub(super) const PIECE_COST: usize = 2 * size_of::<QueuedPiece>();

struct QueuedPiece {
    bytes: Bytes,
    /// Part of its frame is written already.
    begun: bool,
    /// The outbox records when it is written.
    marked: bool,
    frames: usize,
    counted: usize,
    kind: PieceKind,
    /// The shared pages for which this piece stands; its own `bytes` are empty then.
    rest: Option<Rest>,
}

impl QueuedPiece {
    const fn of(bytes: Bytes) -> Self {
        Self { bytes, begun: false, marked: false, frames: 0, counted: 0, kind: PieceKind::Other, rest: None }
    }

    fn first(room: &RoomName, bytes: Bytes) -> Self {
        Self { kind: PieceKind::First(room.clone()), ..Self::of(bytes) }
    }

    /// Records that so many of its bytes are written. Returns how many of them counted against the bound.
    fn begin(&mut self, written: usize) -> usize {
        self.begun = true;
        let counted = self.counted.min(written);
        self.counted -= counted;
        counted
    }

    fn rest(room: &RoomName, rest: Rest) -> Self {
        Self { rest: Some(rest), ..Self::first(room, Bytes::new()) }
    }
}

impl OutboxQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether part of a first frame or a Close is queued, which do not count against the bound.
    pub(super) const fn holds_first(&self) -> bool {
        self.firsts > 0
    }

    /// Whether a marked frame is queued.
    pub(super) const fn holds_marked(&self) -> bool {
        self.marked > 0
    }

    /// Adds frames, of which `counted` bytes count against the bound.
    pub(super) fn push(&mut self, bytes: Bytes, frames: usize, counted: usize) {
        self.pieces.push_back(QueuedPiece { frames, counted, ..QueuedPiece::of(bytes) });
        self.frames += frames;
        self.bytes += counted;
        self.firsts += usize::from(frames == 0);
    }

    /// Adds a notice of a room, of which `counted` bytes count against the bound.
    pub(super) fn push_notice(&mut self, room: &RoomName, bytes: Bytes, frames: usize, counted: usize) {
        self.push(bytes, frames, counted);
        if let Some(last) = self.pieces.back_mut() {
            last.kind = PieceKind::Notice(room.clone());
        }
    }

    /// Adds a ping, and marks it.
    pub(super) fn push_ping(&mut self, bytes: Bytes) {
        self.insert(
            self.after_controls(),
            QueuedPiece { marked: true, kind: PieceKind::Ping, ..QueuedPiece::of(bytes) },
        );
        self.marked += 1;
    }

    /// Adds a pong, or replaces the last one if [`MOST_PONGS`] are queued.
    pub(super) fn push_pong(&mut self, bytes: Bytes) {
        let end = self.after_controls();
        let is_pong = |piece: &QueuedPiece| matches!(piece.kind, PieceKind::Pong);
        if self.pieces.range(..end).filter(|piece| is_pong(piece)).count() < MOST_PONGS {
            self.insert(end, QueuedPiece { kind: PieceKind::Pong, ..QueuedPiece::of(bytes) });
        } else if let Some(last) = self.pieces.range_mut(..end).rfind(|piece| is_pong(piece)) {
            self.bytes = self.bytes - last.counted + bytes.len();
            (last.counted, last.bytes) = (bytes.len(), bytes);
        }
    }

    /// The index for a ping or a pong: after the partly written frame and other pings and pongs, and before all other frames.
    fn after_controls(&self) -> usize {
        let goes_first = |piece: &&QueuedPiece| piece.begun || matches!(piece.kind, PieceKind::Ping | PieceKind::Pong);
        self.pieces.iter().take_while(goes_first).count()
    }

    /// Adds a frame that counts against the bound.
    fn insert(&mut self, at: usize, piece: QueuedPiece) {
        let counted = piece.bytes.len();
        self.pieces.insert(at, QueuedPiece { frames: 1, counted, ..piece });
        self.frames += 1;
        self.bytes += counted;
    }

    /// Adds the first frame of a room, in one piece or two, and its pages. What is queued of an earlier first frame of the room is dropped,
    /// except the rest of a partly written frame.
    pub(super) fn push_first(&mut self, room: &RoomName, shared: Bytes, tail: Option<Bytes>, rest: Option<Rest>) {
        self.drop_first(Some(room));
        let tail = tail.map(|tail| QueuedPiece { begun: true, ..QueuedPiece::first(room, tail) });
        let rest = rest.map(|rest| QueuedPiece::rest(room, rest));
        for piece in [Some(QueuedPiece::first(room, shared)), tail, rest].into_iter().flatten() {
            self.pieces.push_back(piece);
            self.firsts += 1;
        }
    }

    /// Drops what is queued of the first frame of this room (or of any room, for `None`), and the notices that follow it, since they continue
    /// it. The rest of a partly written frame stays.
    pub(super) fn drop_first(&mut self, room: Option<&RoomName>) {
        let (mut keeps_frame, mut dropped) = (true, HashSet::new());
        for piece in std::mem::take(&mut self.pieces) {
            keeps_frame = match &piece.kind {
                PieceKind::First(_) | PieceKind::Notice(_) if piece.begun => keeps_frame,
                PieceKind::First(of) => room.is_some_and(|room| room != of),
                PieceKind::Notice(of) => !dropped.contains(of),
                PieceKind::Ping | PieceKind::Pong | PieceKind::Other => true,
            };
            if keeps_frame {
                self.pieces.push_back(piece);
            } else {
                self.count_out(&piece);
                if let PieceKind::First(of) = piece.kind {
                    dropped.insert(of);
                }
            }
        }
    }

    fn count_out(&mut self, piece: &QueuedPiece) {
        self.frames -= piece.frames;
        self.bytes -= piece.counted;
        self.firsts -= usize::from(piece.frames == 0);
        self.marked -= usize::from(piece.marked);
    }

    /// Whether part of the first frame of this room (or of any room, for `None`) is queued.
    pub(super) fn holds_first_of(&self, room: Option<&RoomName>) -> bool {
        self.pieces.iter().any(|piece| match &piece.kind {
            PieceKind::First(first_of) => room.is_none_or(|room| room == first_of),
            _ => false,
        })
    }

    /// Marks the last piece. Returns false if the queue is empty.
    pub(super) fn mark_last(&mut self) -> bool {
        let Some(last) = self.pieces.back_mut() else { return false };
        last.marked = true;
        self.marked += 1;
        true
    }

    /// Whether no frame is partly written, so that any frame may come next.
    pub(super) fn is_whole(&self) -> bool {
        self.pieces.front().is_none_or(|piece| !piece.begun)
    }

    /// How many bytes are left of the partly written frame.
    pub(super) fn begun_bytes(&self) -> usize {
        self.pieces.iter().take_while(|piece| piece.begun).map(|piece| piece.bytes.len()).sum()
    }

    /// Drops everything except the rest of the partly written frame.
    pub(super) fn keep_begun(&mut self) {
        let begun = self.pieces.iter().take_while(|piece| piece.begun).count();
        for piece in self.pieces.split_off(begun) {
            self.count_out(&piece);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes the next bytes to write: several small pieces together, or part of a large one.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.unfold();
        let first = self.pieces.front_mut()?;
        if first.bytes.len() > PIECE {
            self.bytes -= first.begin(PIECE);
            return Some(first.bytes.split_to(PIECE));
        }
        let first = self.take_first()?;
        let mut fits = PIECE - first.len();
        let more = self.next_len().is_some_and(|next| next <= fits);
        if !more {
            return Some(first);
        }
        let mut together = BytesMut::with_capacity(PIECE.min(first.len() * 4));
        together.extend_from_slice(&first);
        while self.next_len().is_some_and(|next| next <= fits) {
            let Some(next) = self.take_first() else { break };
            fits -= next.len();
            together.extend_from_slice(&next);
        }
        Some(together.freeze())
    }

    /// The next bytes to write, and their number: up to `most_of_first` bytes of the first piece, and further pieces that fit into `most` bytes
    /// and into `slices`.
    pub(super) fn gather<'a>(
        &'a mut self,
        slices: &mut [IoSlice<'a>],
        most_of_first: usize,
        most: usize,
    ) -> (usize, usize) {
        self.unfold();
        let (mut count, mut bytes) = (0, 0);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            if piece.rest.is_some() || count > 0 && bytes + piece.bytes.len() > most {
                break;
            }
            *slice = IoSlice::new(&piece.bytes[..piece.bytes.len().min(most_of_first)]);
            count += 1;
            bytes += slice.len();
        }
        (count, bytes)
    }

    /// Drops so many bytes, which are written.
    pub(super) fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.pieces.front_mut().filter(|_| written > 0) {
            if written < first.bytes.len() {
                self.bytes -= first.begin(written);
                first.bytes.advance(written);
                return;
            }
            written -= self.take_first().map_or(written, |bytes| bytes.len());
        }
    }

    fn take_first(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.count_out(&piece);
        if self.pieces.is_empty() && self.pieces.capacity() > KEPT_PIECES {
            // Otherwise a socket that once had a long queue would keep that memory until it closes.
            self.pieces = VecDeque::new();
        }
        Some(piece.bytes)
    }

    /// Frees what a long queue has left of its memory.
    pub(super) fn shrink(&mut self) {
        self.pieces.shrink_to(KEPT_PIECES.max(2 * self.pieces.len()));
    }

    /// The length of the next piece in bytes.
    fn next_len(&mut self) -> Option<usize> {
        self.unfold();
        self.pieces.front().map(|next| next.bytes.len())
    }

    /// If the first piece stands for shared pages, puts the next page in front of it.
    fn unfold(&mut self) {
        let Some(mut rest) = self.pieces.front_mut().and_then(|front| front.rest.take()) else { return };
        let front = self.pieces.pop_front();
        self.firsts -= 1;
        let (Some(PieceKind::First(room)), Some((head, body))) = (front.map(|front| front.kind), rest.take()) else {
            return;
        };
        let others = (!rest.is_empty()).then(|| QueuedPiece::rest(&room, rest));
        let body = QueuedPiece { begun: head.is_some(), ..QueuedPiece::first(&room, body) };
        let head = head.map(|head| QueuedPiece::first(&room, head));
        for piece in [others, Some(body), head].into_iter().flatten() {
            self.pieces.push_front(piece);
            self.firsts += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes of the queue.
    fn take_all(queue: &mut OutboxQueue) -> Vec<u8> {
        std::iter::from_fn(|| queue.take()).flatten().collect()
    }

    #[test]
    fn of_many_pongs_that_wait_the_first_and_the_last_are_sent_before_the_state_that_they_wait_for() {
        let (mut queue, room) = (OutboxQueue::default(), RoomName::new("lobby").unwrap());
        queue.push_first(&room, vec![b'x'; 3 * PIECE].into(), None, None);
        assert_eq!(queue.take().unwrap().len(), PIECE, "its client has begun to take it");
        queue.push_ping("ping".into());
        for n in 0..10_000 {
            queue.push_pong(format!("pong{n:06},").into());
        }
        queue.push(b"text".as_slice().into(), 1, 4);
        assert_eq!((queue.frames(), queue.bytes()), (MOST_PONGS + 2, MOST_PONGS * 11 + 8));
        let all = take_all(&mut queue);
        let firsts: String = (0..MOST_PONGS - 1).map(|n| format!("pong{n:06},")).collect();
        assert_eq!(all[2 * PIECE..], *format!("ping{firsts}pong009999,text").as_bytes());
        assert_eq!((queue.frames(), queue.bytes(), queue.holds_marked()), (0, 0, false));
    }

    #[test]
    fn a_queue_that_is_empty_again_does_not_keep_the_memory_of_all_that_was_in_it() {
        let mut queue = OutboxQueue::default();
        let mut fill = |count: usize, empty: fn(&mut OutboxQueue)| {
            (0..count).for_each(|_| queue.push(b"text".as_slice().into(), 1, 4));
            empty(&mut queue);
            queue.pieces.capacity()
        };
        assert_eq!(fill(2048, |queue| drop(take_all(queue))), 0);
        assert_eq!(fill(2048, OutboxQueue::clear), 0);
        assert!(fill(KEPT_PIECES, |queue| drop(take_all(queue))) > 0, "it is not made anew each time");
    }
}
