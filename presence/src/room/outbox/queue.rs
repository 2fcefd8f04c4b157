//! What waits for one client, as a value: pieces of frames in their order, and how much of them counts.
//!
//! A frame lies here whole until part of it is written. A large state lies here as one piece that stands for all its pages, which
//! those share who wait for them, and is unfolded page by page.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};

use crate::room::wire::Rest;

/// How much goes out in one piece, and the least that is progress. The write buffer that the server makes for each connection is as
/// large; one that has grown becomes smaller again only if it is above 128 KiB.
pub(crate) const PIECE: usize = 8 * 1024;

#[derive(Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    /// What counts against the bound.
    frames: usize,
    bytes: usize,
    /// The pieces that do not count against it: of first frames, and a Close.
    firsts: usize,
    /// How many frames whose writing is waited for are here.
    marked: usize,
}

struct Piece {
    bytes: Bytes,
    /// Part of its frame was taken already.
    begun: bool,
    /// Its writing is waited for.
    marked: bool,
    frames: usize,
    counted: usize,
    /// It has no bytes of its own, but stands for the frames from this page on: all who wait for them share them.
    rest: Option<(Arc<Rest>, usize)>,
}

impl Piece {
    const fn of(bytes: Bytes) -> Self {
        Self { bytes, begun: false, marked: false, frames: 0, counted: 0, rest: None }
    }

    fn rest(rest: Arc<Rest>, number: usize) -> Self {
        Self { rest: Some((rest, number)), ..Self::of(Bytes::new()) }
    }
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) const fn frames(&self) -> usize {
        self.frames
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether part of a first frame is in it, or a Close, which do not count against the bound.
    pub(super) const fn holds_first(&self) -> bool {
        self.firsts > 0
    }

    /// Whether a frame is in it whose writing is waited for.
    pub(super) const fn holds_marked(&self) -> bool {
        self.marked > 0
    }

    /// Adds frames, of which `counted` bytes count against the bound.
    pub(super) fn push(&mut self, bytes: Bytes, frames: usize, counted: usize) {
        self.pieces.push_back(Piece { frames, counted, ..Piece::of(bytes) });
        self.frames += frames;
        self.bytes += counted;
        self.firsts += usize::from(frames == 0);
    }

    /// Adds what continues a first frame.
    pub(super) fn push_rest(&mut self, rest: Arc<Rest>) {
        self.pieces.push_back(Piece::rest(rest, 0));
        self.firsts += 1;
    }

    /// The last piece goes on with a frame whose beginning lies before it, or was taken.
    pub(super) fn continue_last(&mut self) {
        if let Some(last) = self.pieces.back_mut() {
            last.begun = true;
        }
    }

    /// Has the last piece count as one whose writing is waited for. Returns whether there is one.
    pub(super) fn mark_last(&mut self) -> bool {
        let Some(last) = self.pieces.back_mut() else { return false };
        last.marked = true;
        self.marked += 1;
        true
    }

    /// Whether no frame is half taken, so that another may follow what was taken.
    pub(super) fn is_whole(&self) -> bool {
        self.pieces.front().is_none_or(|piece| !piece.begun)
    }

    /// Takes out what is left of the frame that is half taken. Only for a queue that is cleared then.
    pub(super) fn take_begun(&mut self) -> Vec<Bytes> {
        let mut begun = Vec::new();
        while let Some(piece) = self.pieces.pop_front_if(|piece| piece.begun) {
            begun.push(piece.bytes);
        }
        begun
    }

    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        (self.frames, self.bytes, self.firsts, self.marked) = (0, 0, 0, 0);
    }

    /// A piece to write: several small ones together, or part of a large one.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.unfold();
        let first = self.pieces.front_mut()?;
        if first.bytes.len() > PIECE {
            first.begun = true;
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

    fn take_first(&mut self) -> Option<Bytes> {
        let Piece { bytes, frames, counted, marked, .. } = self.pieces.pop_front()?;
        self.frames -= frames;
        self.bytes -= counted;
        self.firsts -= usize::from(frames == 0);
        self.marked -= usize::from(marked);
        Some(bytes)
    }

    /// How long the piece is that comes next.
    fn next_len(&mut self) -> Option<usize> {
        self.unfold();
        self.pieces.front().map(|next| next.bytes.len())
    }

    /// Puts the next page in front if it is what comes next. Nothing else can come in between: no other piece goes to the front.
    fn unfold(&mut self) {
        let Some((rest, number)) = self.pieces.front_mut().and_then(|front| front.rest.take()) else { return };
        self.pieces.pop_front();
        self.firsts -= 1;
        let Some((head, body)) = rest.page(number) else { return };
        let others = (number + 1 < rest.len()).then(|| Piece::rest(rest, number + 1));
        let body = Piece { begun: head.is_some(), ..Piece::of(body) };
        for piece in [others, Some(body), head.map(Piece::of)].into_iter().flatten() {
            self.pieces.push_front(piece);
            self.firsts += 1;
        }
    }
}
