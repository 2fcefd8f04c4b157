//! When the members of a room are told what, on one node.
//!
//! Changes that fall together are told together, with net effect. The first change of a quiet room goes out at once; while
//! changes keep coming, they go out at most once per interval, which doubles up to a limit. First frames are given out
//! only at these flushes, so that all members on the node are always at the same version, and no cut of the changes into
//! flushes can leave any of them with a wrong roster.

use std::time::Duration;

use crate::{
    clock::Tick,
    name::{Epoch, Version},
};

use super::{
    Delta,
    delta::{Change, Net},
};

/// The interval of a room that has just become busy.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);

/// What waits to be told. `J` stands for one who waits for its first frame.
#[derive(Debug)]
pub(crate) struct Notices<J> {
    limit: Duration,
    interval: Duration,
    flushed: Option<Tick>,
    due: Option<Tick>,
    busy: bool,
    net: Net,
    joiners: Vec<J>,
    announced: Option<(Epoch, Version)>,
}

/// What goes out at one moment.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Flush<J> {
    /// What members know already, and what they know afterwards: the same if there is no news.
    pub(crate) from: Version,
    pub(crate) version: Version,
    pub(crate) epoch: Epoch,
    /// The news, for everyone who is not a joiner.
    pub(crate) news: News,
    /// Who gets the whole state, at `version`.
    pub(crate) joiners: Vec<J>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// What changed.
    Delta(Delta),
    /// The room began another life: what members know no longer counts, and they need the whole state too.
    NewLife,
}

impl<J> Notices<J> {
    /// `limit` is the longest time between two flushes; zero flushes at once, always.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            limit,
            interval: FIRST_INTERVAL.min(limit),
            flushed: None,
            due: None,
            busy: false,
            net: Net::default(),
            joiners: Vec::new(),
            announced: None,
        }
    }

    /// Something changed.
    pub(crate) fn changed(&mut self, now: Tick, changes: impl IntoIterator<Item = Change>) {
        let mut changes = changes.into_iter().peekable();
        if changes.peek().is_some() {
            self.net.then(changes);
            self.schedule(now);
        }
    }

    /// One who is in the roster waits for its first frame.
    pub(crate) fn joined(&mut self, now: Tick, joiner: J) {
        self.joiners.push(joiner);
        self.schedule(now);
    }

    /// Those for whom `left` holds went before they had their first frame.
    pub(crate) fn forget(&mut self, left: impl FnMut(&mut J) -> bool) -> Vec<J> {
        self.joiners.extract_if(.., left).collect()
    }

    pub(crate) fn joiners(&self) -> impl Iterator<Item = &J> {
        self.joiners.iter()
    }

    /// What members know: the position of the last frame that they were told.
    pub(crate) const fn announced(&self) -> Option<(Epoch, Version)> {
        self.announced
    }

    /// When the next flush is due.
    pub(crate) const fn due(&self) -> Option<Tick> {
        self.due
    }

    fn schedule(&mut self, now: Tick) {
        if self.due.is_some() {
            return;
        }
        let earliest = self.flushed.map_or(now, |flushed| flushed.after(self.interval));
        self.busy = earliest > now;
        self.due = Some(earliest.max(now));
    }

    /// Takes all that waits. `position` is where the roster stands.
    pub(crate) fn flush(&mut self, now: Tick, position: (Epoch, Version)) -> Flush<J> {
        self.interval = if self.busy { self.interval * 2 } else { FIRST_INTERVAL }.min(self.limit);
        self.flushed = Some(now);
        self.due = None;
        let delta = self.net.take();
        let joiners = std::mem::take(&mut self.joiners);
        let (epoch, version) = position;
        let (from, news) = match self.announced {
            Some((known, from)) if known == epoch && delta.is_empty() => {
                return Flush { from, version: from, epoch, news: News::None, joiners };
            }
            Some((known, from)) if known == epoch => (from, News::Delta(delta)),
            Some(_) => (version, News::NewLife),
            None => (version, News::None),
        };
        self.announced = Some(position);
        Flush { from, version, epoch, news, joiners }
    }
}
