//! What waits for one client, as a value: pieces of frames in their order, and how much of them counts.
//!
//! A frame lies here whole until part of it is written. A large state lies here as one piece that stands for all its pages, which
//! those share who wait for them, and is unfolded page by page.

use std::collections::{HashSet, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::{name::RoomName, room::wire::Rest};

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

/// What a piece is part of.
enum Kind {
    /// A ping or a pong, which may go between any two frames.
    Control,
    /// The first frame of a room, or one that continues it.
    First(RoomName),
    /// What changed in a room.
    News(RoomName),
    Other,
}

struct Piece {
    bytes: Bytes,
    /// Part of its frame was taken already.
    begun: bool,
    /// Its writing is waited for.
    marked: bool,
    frames: usize,
    counted: usize,
    kind: Kind,
    /// It has no bytes of its own, but stands for frames that all who wait for them share.
    rest: Option<Rest>,
}

impl Piece {
    const fn of(bytes: Bytes) -> Self {
        Self { bytes, begun: false, marked: false, frames: 0, counted: 0, kind: Kind::Other, rest: None }
    }

    fn first(room: &RoomName, bytes: Bytes) -> Self {
        Self { kind: Kind::First(room.clone()), ..Self::of(bytes) }
    }

    fn rest(room: &RoomName, rest: Rest) -> Self {
        Self { rest: Some(rest), ..Self::first(room, Bytes::new()) }
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

    /// Adds what changed in a room, of which `counted` bytes count against the bound.
    pub(super) fn push_news(&mut self, room: &RoomName, bytes: Bytes, frames: usize, counted: usize) {
        self.push(bytes, frames, counted);
        if let Some(last) = self.pieces.back_mut() {
            last.kind = Kind::News(room.clone());
        }
    }

    /// Adds a ping or a pong: behind the frame that is half taken and others of its kind, before all else.
    pub(super) fn push_control(&mut self, bytes: Bytes, frames: usize, counted: usize, marked: bool) {
        let behind = self.pieces.iter().take_while(|piece| piece.begun || matches!(piece.kind, Kind::Control)).count();
        self.pieces.insert(behind, Piece { frames, counted, marked, kind: Kind::Control, ..Piece::of(bytes) });
        self.frames += frames;
        self.bytes += counted;
        self.marked += usize::from(marked);
    }

    /// Adds the first frame of a room, in one piece or two, and what continues it. What is still here of an earlier one is dropped,
    /// but for a frame that is half taken.
    pub(super) fn push_first(&mut self, room: &RoomName, shared: Bytes, tail: Option<Bytes>, rest: Option<Rest>) {
        self.drop_first(Some(room));
        let tail = tail.map(|tail| Piece { begun: true, ..Piece::first(room, tail) });
        let rest = rest.map(|rest| Piece::rest(room, rest));
        for piece in [Some(Piece::first(room, shared)), tail, rest].into_iter().flatten() {
            self.pieces.push_back(piece);
            self.firsts += 1;
        }
    }

    /// Drops what is left of the first frame of this room, or of any, but for a frame that is half taken, and with it the news that
    /// build on that.
    pub(super) fn drop_first(&mut self, room: Option<&RoomName>) {
        let (mut keeps_frame, mut dropped) = (true, HashSet::new());
        for piece in std::mem::take(&mut self.pieces) {
            keeps_frame = match &piece.kind {
                Kind::First(_) | Kind::News(_) if piece.begun => keeps_frame,
                Kind::First(of) => room.is_some_and(|room| room != of),
                Kind::News(of) => !dropped.contains(of),
                Kind::Control | Kind::Other => true,
            };
            if keeps_frame {
                self.pieces.push_back(piece);
            } else {
                self.count_out(&piece);
                if let Kind::First(of) = piece.kind {
                    dropped.insert(of);
                }
            }
        }
    }

    fn count_out(&mut self, piece: &Piece) {
        self.frames -= piece.frames;
        self.bytes -= piece.counted;
        self.firsts -= usize::from(piece.frames == 0);
        self.marked -= usize::from(piece.marked);
    }

    /// Whether part of the first frame of this room is here, or of any room.
    pub(super) fn holds_first_of(&self, room: Option<&RoomName>) -> bool {
        self.pieces.iter().any(|piece| match &piece.kind {
            Kind::First(first_of) => room.is_none_or(|room| room == first_of),
            _ => false,
        })
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

    /// How many bytes are left of the frame that is half taken.
    pub(super) fn begun_bytes(&self) -> usize {
        self.pieces.iter().take_while(|piece| piece.begun).map(|piece| piece.bytes.len()).sum()
    }

    /// Drops all but what is left of the frame that is half taken.
    pub(super) fn keep_begun(&mut self) {
        let begun = self.pieces.iter().take_while(|piece| piece.begun).count();
        for piece in self.pieces.split_off(begun) {
            self.count_out(&piece);
        }
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
            let counted = first.counted.min(PIECE);
            first.counted -= counted;
            self.bytes -= counted;
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
        let piece = self.pieces.pop_front()?;
        self.count_out(&piece);
        Some(piece.bytes)
    }

    /// How long the piece is that comes next.
    fn next_len(&mut self) -> Option<usize> {
        self.unfold();
        self.pieces.front().map(|next| next.bytes.len())
    }

    /// Puts the next page in front if it is what comes next.
    fn unfold(&mut self) {
        let Some(mut rest) = self.pieces.front_mut().and_then(|front| front.rest.take()) else { return };
        let front = self.pieces.pop_front();
        self.firsts -= 1;
        let (Some(Kind::First(room)), Some((head, body))) = (front.map(|front| front.kind), rest.take()) else {
            return;
        };
        let others = (!rest.is_empty()).then(|| Piece::rest(&room, rest));
        let body = Piece { begun: head.is_some(), ..Piece::first(&room, body) };
        let head = head.map(|head| Piece::first(&room, head));
        for piece in [others, Some(body), head].into_iter().flatten() {
            self.pieces.push_front(piece);
            self.firsts += 1;
        }
    }
}
