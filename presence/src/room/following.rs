//! Who follows the members of a room.
//!
//! The room gives each follower how presences are now, not what happened to them. So it does no harm if a follower receives
//! something twice, and what waits for a follower that does not read is no more than one entry for each presence.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::{
    model::{Presence, delta::RosterChange, roster::Roster},
    name::PresenceId,
};

/// What a room gives to one follower.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    waiting: Mutex<(Unread, bool)>,
    /// The task that waits for more.
    pub(crate) waker: AtomicWaker,
}

/// What has not been read yet.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// How each of these presences is now; `None`: it has left.
    pub(crate) presences: BTreeMap<PresenceId, Option<Arc<Presence>>>,
    /// All others have left.
    pub(crate) is_whole: bool,
}

impl Feed {
    /// Takes what waits. Returns also whether the room has stopped.
    pub(crate) fn take(&self) -> (Unread, bool) {
        let (unread, has_ended) = &mut *self.waiting.lock();
        (std::mem::take(unread), *has_ended)
    }
}

/// One follower, as its room knows it. The feed ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Weak<Feed>,
    /// It knows the roster, and needs no more than the changes.
    is_current: bool,
}

impl Follower {
    /// Fills the feed from now on.
    pub(crate) fn new(feed: &Arc<Feed>) -> Self {
        feed.waiting.lock().1 = false;
        Self { feed: Arc::downgrade(feed), is_current: false }
    }

    /// Whether somebody still follows the room.
    pub(crate) fn is_there(&self) -> bool {
        self.feed.strong_count() > 0
    }

    /// The roster may have changed in other ways than by the changes that it was given.
    pub(crate) const fn is_outdated(&mut self) {
        self.is_current = false;
    }

    /// This is the roster now.
    pub(crate) fn show(&mut self, roster: &Roster) {
        if std::mem::replace(&mut self.is_current, true) {
            return;
        }
        let Some(feed) = self.feed.upgrade() else { return };
        let presences = roster.iter().map(|presence| (presence.id, Some(presence.clone()))).collect();
        feed.waiting.lock().0 = Unread { presences, is_whole: true };
        feed.waker.wake();
    }

    /// The roster changed so.
    pub(crate) fn add(&self, changes: &[RosterChange]) {
        let Some(feed) = self.feed.upgrade().filter(|_| self.is_current) else { return };
        let changes = changes.iter().filter_map(|RosterChange { was, now }| {
            let id = now.as_ref().or(was.as_ref())?.id;
            Some((id, now.clone()))
        });
        feed.waiting.lock().0.presences.extend(changes);
        feed.waker.wake();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.upgrade() {
            feed.waiting.lock().1 = true;
            feed.waker.wake();
        }
    }
}
