//! Parts of the application that follow the members of a room.
//!
//! A follower receives the present state of each presence, not the events that led to it. So it does no harm if a follower receives a
//! state twice. For a follower that does not read, one state is kept of each presence that it has received or that is in the room.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::{
    model::{Presence, delta::RosterChange, roster::Roster},
    name::PresenceId,
};

/// The changes from a room to one follower.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    state: Mutex<FeedState>,
    /// The task that waits until there is something to read, or the room has stopped.
    pub(crate) waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct FeedState {
    unread: Unread,
    /// The room has stopped, so nothing will be added.
    has_ended: bool,
}

/// The changes that the follower has not read yet.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// The present state of each of these presences; `None` if it has left.
    pub(crate) presences: BTreeMap<PresenceId, Option<Arc<Presence>>>,
    /// All presences of the room are listed, so all others have left.
    pub(crate) is_whole: bool,
    /// Those of them that the follower has not received yet. If they leave before that, it need not know of them.
    new: BTreeSet<PresenceId>,
}

impl Unread {
    fn add(&mut self, changes: &[RosterChange]) {
        for RosterChange { was, now } in changes {
            match (was, now) {
                (None, None) => {}
                (was, Some(now)) => {
                    if self.presences.insert(now.id, Some(now.clone())).is_none() && was.is_none() {
                        self.new.insert(now.id);
                    }
                }
                (Some(was), None) => {
                    if self.new.remove(&was.id) || self.is_whole {
                        self.presences.remove(&was.id);
                    } else {
                        self.presences.insert(was.id, None);
                    }
                }
            }
        }
    }
}

impl Feed {
    /// Takes the unread changes, and whether the room has stopped.
    pub(crate) fn take(&self) -> (Unread, bool) {
        let FeedState { unread, has_ended } = &mut *self.state.lock();
        (std::mem::take(unread), *has_ended)
    }
}

/// The room's end of a feed. The feed ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    feed: Weak<Feed>,
    /// The follower was sent the roster, so it needs only the changes.
    is_current: bool,
}

impl Follower {
    /// The feed receives changes from now on.
    pub(crate) fn new(feed: &Arc<Feed>) -> Self {
        feed.state.lock().has_ended = false;
        Self { feed: Arc::downgrade(feed), is_current: false }
    }

    /// Whether the application still has the other end of the feed.
    pub(crate) fn is_connected(&self) -> bool {
        self.feed.strong_count() > 0
    }

    /// The room was loaded, so the follower must be sent the whole roster again.
    pub(crate) const fn invalidate(&mut self) {
        self.is_current = false;
    }

    /// Sends the whole roster, unless the follower has it already.
    pub(crate) fn send_roster(&mut self, roster: &Roster) {
        if std::mem::replace(&mut self.is_current, true) {
            return;
        }
        let Some(feed) = self.feed.upgrade() else { return };
        let presences = roster.iter().map(|presence| (presence.id, Some(presence.clone()))).collect();
        feed.state.lock().unread = Unread { presences, is_whole: true, ..Unread::default() };
        feed.waker.wake();
    }

    /// Sends changes to a follower that has the roster.
    pub(crate) fn send_changes(&self, changes: &[RosterChange]) {
        let Some(feed) = self.feed.upgrade().filter(|_| self.is_current) else { return };
        feed.state.lock().unread.add(changes);
        feed.waker.wake();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(feed) = self.feed.upgrade() {
            feed.state.lock().has_ended = true;
            feed.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ChannelName, NodeId};

    fn presence() -> Arc<Presence> {
        Arc::new(Presence::new(PresenceId::random(), ChannelName::new("c").unwrap(), None, NodeId::random()))
    }

    #[test]
    fn what_waits_does_not_grow_with_the_presences_that_come_and_go() {
        let (feed, stays) = (Arc::new(Feed::default()), presence());
        let mut follower = Follower::new(&feed);
        follower.send_roster(&Roster::from(vec![stays.clone()]));
        for has_read in [false, true] {
            for _ in 0..1000 {
                let comes = presence();
                follower.send_changes(&[RosterChange { was: None, now: Some(comes.clone()) }]);
                follower.send_changes(&[RosterChange { was: Some(comes), now: None }]);
            }
            let (Unread { presences, is_whole, .. }, _) = feed.take();
            assert_eq!((presences.len(), is_whole), (usize::from(!has_read), !has_read));
        }
        // One that it knows leaves, comes back, and leaves again.
        let (left, back) = (
            RosterChange { was: Some(stays.clone()), now: None },
            RosterChange { was: None, now: Some(stays.clone()) },
        );
        follower.send_changes(&[left.clone(), back, left]);
        assert_eq!(feed.take().0.presences, BTreeMap::from([(stays.id, None)]));
    }
}
