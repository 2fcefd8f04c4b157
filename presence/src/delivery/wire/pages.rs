//! The pages of a state after its first frame. All clients that have not read a page share it, whenever they joined.
//!
//! Each join changes the room, so the states of clients that join one after another differ a little. The end of a page depends only on the
//! presences next to it, so a change affects the page that contains it, and sometimes the next one. All other pages are used again while
//! any client waits for them. A page for which no client waits is freed.

use std::{
    collections::HashMap,
    iter::Peekable,
    sync::{Arc, Weak},
};

use bytes::{Bytes, BytesMut};

use crate::{model::Presence, name::PresenceId};

use super::{
    TEXT,
    held::{Counted, Held},
    parts::{changed, push},
    put_frame,
};

/// The end of each page, after its last member.
pub(super) const END: &[u8] = b"]}";
/// A page does not end, unless there are no more members, before it is filled to one part in so many.
const FULL_ENOUGH: usize = 4;
/// How many possible ends a full page has on average.
const ENDS: usize = 2;

/// One page without its head.
#[derive(Debug)]
pub(super) struct Page {
    body: Counted<Vec<u8>>,
    /// The presences on the page, and the one after them. If these are the same, the page can be used again.
    presences: Vec<Arc<Presence>>,
    next: Option<Arc<Presence>>,
}

impl Page {
    /// A page that is not used again for later states.
    pub(super) fn alone(body: Vec<u8>, held: &Arc<Held>) -> Arc<Self> {
        Arc::new(Self { body: Counted::new(body, held), presences: Vec::new(), next: None })
    }

    /// Whether the next presences of `named` are those of this page. If so, `named` is advanced past them.
    fn fits<'a, I>(&self, named: &mut Peekable<I>) -> bool
    where
        I: Iterator<Item = &'a Arc<Presence>> + Clone,
    {
        let mut ahead = named.clone();
        let are_here = self.presences.iter().all(|one| ahead.next().is_some_and(|now| is_same(one, now)));
        let next = match (&self.next, ahead.peek()) {
            (Some(next), Some(now)) => is_same(next, now),
            (next, now) => next.is_none() && now.is_none(),
        };
        if are_here && next {
            *named = ahead;
        }
        are_here && next
    }

    /// Takes the presences of one page, at least one.
    fn take<'a>(named: &mut Peekable<impl Iterator<Item = &'a Arc<Presence>>>, space: usize, held: &Arc<Held>) -> Self {
        let (mut joins, mut presences) = (Vec::new(), Vec::new());
        while let Some(presence) = named.peek() {
            let Some(element) = changed(presence) else {
                named.next();
                continue;
            };
            let grown = joins.len() + 1 + element.len() + END.len();
            let could_end = grown > space / FULL_ENOUGH && begins_page(presence.id, element.len(), space);
            if !presences.is_empty() && (grown > space || could_end) {
                break;
            }
            push(&mut joins, &element);
            presences.extend(named.next().cloned());
        }
        joins.extend_from_slice(END);
        joins.shrink_to_fit();
        Self { body: Counted::new(joins, held), presences, next: named.peek().map(|next| Arc::clone(next)) }
    }
}

/// Whether the two are equal for a client. A room that was reloaded has new values of the same presences.
fn is_same(one: &Arc<Presence>, other: &Arc<Presence>) -> bool {
    Arc::ptr_eq(one, other) || one.id == other.id && one.looks_like(other)
}

/// Whether a page may end before this presence, whose element has this many bytes. On average that is so [`ENDS`] times in a full page.
fn begins_page(id: PresenceId, bytes: usize, space: usize) -> bool {
    // The lowest bits of an id are random. The factor is 2^64 divided by the golden ratio, and also spreads small numbers.
    #[expect(clippy::cast_possible_truncation, reason = "the lowest bits are what is wanted")]
    let random = (id.as_uuid().as_u128() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    u128::from(random) * (space as u128) < ((bytes * ENDS) as u128) << 32
}

/// The pages of a room for which clients still wait.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    held: Arc<Held>,
    /// The pages by the first presence on each.
    known: HashMap<PresenceId, Weak<Page>>,
    /// How many bytes the last first frame had, with all its pages.
    size: usize,
}

impl Pages {
    pub(crate) fn new(held: Arc<Held>) -> Self {
        Self { held, ..Self::default() }
    }

    /// The count of unread bytes of the room.
    pub(crate) const fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// How many bytes the last first frame had, with all its pages.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(super) const fn set_size(&mut self, size: usize) {
        self.size = size;
    }

    /// The pages of the presences that are left in `named`, with at most `space` bytes each.
    pub(super) fn of<'a, I>(&mut self, named: &mut Peekable<I>, space: usize) -> Vec<Arc<Page>>
    where
        I: Iterator<Item = &'a Arc<Presence>> + Clone,
    {
        let mut pages = Vec::new();
        while let Some(first) = named.peek().map(|first| first.id) {
            let known = self.known.get(&first).and_then(Weak::upgrade);
            let page = known.filter(|page| page.fits(named));
            pages.push(page.unwrap_or_else(|| Arc::new(Page::take(named, space, &self.held))));
        }
        let id = |page: &Arc<Page>| page.presences.first().map(|first| first.id);
        self.known = pages.iter().filter_map(|page| Some((id(page)?, Arc::downgrade(page)))).collect();
        pages
    }
}

/// The pages of a state that are not taken out yet. A page that was taken out is not kept in memory by the others.
#[derive(Debug, Clone)]
pub(crate) struct Rest {
    heads: Arc<Heads>,
    next: Option<Arc<Link>>,
}

/// The text before the members, on the last page and on all others.
#[derive(Debug)]
struct Heads {
    more: Vec<u8>,
    last: Vec<u8>,
}

/// A page, and the pages after it.
#[derive(Debug)]
struct Link {
    page: Arc<Page>,
    next: Option<Arc<Self>>,
}

impl Rest {
    pub(super) fn new(more: Vec<u8>, last: Vec<u8>, pages: Vec<Arc<Page>>) -> Option<Self> {
        let link = |next, page| Some(Arc::new(Link { page, next }));
        let first = pages.into_iter().rev().fold(None, link)?;
        Some(Self { heads: Arc::new(Heads { more, last }), next: Some(first) })
    }

    /// How many bytes there are without the headers of the frames.
    pub(super) fn bytes(&self) -> usize {
        let heads = |link: &Link| if link.next.is_some() { self.heads.more.len() } else { self.heads.last.len() };
        self.links().map(|link| link.page.body.as_ref().len() + heads(link)).sum()
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::successors(self.next.as_deref(), |link| link.next.as_deref())
    }

    /// Takes out the next page: its head, and its shared body. If there is no head, the body consists of whole frames.
    pub(crate) fn take(&mut self) -> Option<(Option<Bytes>, Bytes)> {
        let link = self.next.take()?;
        self.next.clone_from(&link.next);
        let head = if self.is_empty() { &self.heads.last } else { &self.heads.more };
        let body = Bytes::from_owner(PageBytes(link.page.clone()));
        let head = (!head.is_empty()).then(|| {
            let mut bytes = BytesMut::with_capacity(head.len() + 10);
            put_frame(&mut bytes, TEXT, head, body.len());
            bytes.freeze()
        });
        Some((head, body))
    }

    /// Whether all pages were taken out.
    pub(crate) const fn is_empty(&self) -> bool {
        self.next.is_none()
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> Vec<Arc<Page>> {
        self.links().map(|link| link.page.clone()).collect()
    }
}

impl Drop for Link {
    /// Drops the links in a loop: a recursive drop of a long chain would overflow the stack.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut link) = next.and_then(Arc::into_inner) {
            next = link.next.take();
        }
    }
}

struct PageBytes(Arc<Page>);

impl AsRef<[u8]> for PageBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.body.as_ref()
    }
}
