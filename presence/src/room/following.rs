//! Parts of the application that follow the members of a room.
//!
//! A follower receives the last state of each presence, not the events that led to it. So it does no harm if a follower receives a
//! state twice. For a follower that does not read, one state is kept of each presence that it has received, that is in the room, or that
//! was in the room when the whole roster was sent.

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
    /// The last state of each of these presences.
    pub(crate) presences: BTreeMap<PresenceId, LastState>,
    /// All presences of the room are listed, so all others have left.
    pub(crate) is_whole: bool,
    /// Those of them that the follower has not received yet. If they leave before that, it need not know of them.
    new: BTreeSet<PresenceId>,
}

/// A presence as the room has seen it last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LastState {
    Here(Arc<Presence>),
    Left(Arc<Presence>),
}

impl LastState {
    fn left(self) -> Self {
        let (Self::Here(presence) | Self::Left(presence)) = self;
        Self::Left(presence)
    }
}

impl Unread {
    fn add(&mut self, changes: &[RosterChange]) {
        for RosterChange { was, now } in changes {
            match (was, now) {
                (None, None) => {}
                (was, Some(now)) => {
                    if self.presences.insert(now.id, LastState::Here(now.clone())).is_none() && was.is_none() {
                        self.new.insert(now.id);
                    }
                }
                (Some(was), None) => {
                    if self.new.remove(&was.id) {
                        self.presences.remove(&was.id);
                    } else {
                        self.presences.insert(was.id, LastState::Left(was.clone()));
                    }
                }
            }
        }
    }

    /// Replaces the changes by the whole roster. A presence that has left in the meantime keeps its last state.
    fn set_roster(&mut self, roster: &Roster) {
        let mut former = std::mem::take(&mut self.presences);
        let was_whole = std::mem::replace(&mut self.is_whole, true);
        for presence in roster.iter() {
            // The follower may have received any presence that it need not have been sent again.
            if former.remove(&presence.id).is_none() && was_whole {
                self.new.insert(presence.id);
            }
            self.presences.insert(presence.id, LastState::Here(presence.clone()));
        }
        for (id, last) in former {
            if !self.new.remove(&id) {
                self.presences.insert(id, last.left());
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
        feed.state.lock().unread.set_roster(roster);
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
    use crate::{
        model::Meta,
        name::{ChannelName, NodeId},
    };

    fn presence() -> Arc<Presence> {
        Arc::new(Presence::new(PresenceId::random(), ChannelName::new("c").unwrap(), None, NodeId::random()))
    }

    fn joins(presence: &Arc<Presence>) -> RosterChange {
        RosterChange { was: None, now: Some(presence.clone()) }
    }

    fn leaves(presence: &Arc<Presence>) -> RosterChange {
        RosterChange { was: Some(presence.clone()), now: None }
    }

    #[test]
    fn what_waits_does_not_grow_with_the_presences_that_come_and_go() {
        let (feed, stays) = (Arc::new(Feed::default()), presence());
        let mut follower = Follower::new(&feed);
        follower.send_roster(&Roster::from(vec![stays.clone()]));
        for has_read in [false, true] {
            for _ in 0..1000 {
                let comes = presence();
                follower.send_changes(&[joins(&comes)]);
                follower.send_changes(&[leaves(&comes)]);
            }
            let (Unread { presences, is_whole, .. }, _) = feed.take();
            assert_eq!((presences.len(), is_whole), (usize::from(!has_read), !has_read));
        }
        // One that it knows leaves, comes back, and leaves again.
        follower.send_changes(&[leaves(&stays), joins(&stays), leaves(&stays)]);
        assert_eq!(feed.take().0.presences, BTreeMap::from([(stays.id, LastState::Left(stays))]));
    }

    #[test]
    fn what_waits_does_not_grow_with_the_rosters_that_are_sent() {
        let (feed, stays) = (Arc::new(Feed::default()), presence());
        let mut follower = Follower::new(&feed);
        for _ in 0..1000 {
            let comes = presence();
            follower.invalidate();
            follower.send_roster(&Roster::from(vec![stays.clone(), comes]));
        }
        // The first of them may have been received, and the last is in the room.
        assert_eq!(feed.take().0.presences.len(), 3);
    }

    #[test]
    fn a_presence_leaves_with_its_last_meta_whether_the_room_is_read_again_or_not() {
        for is_read_again in [false, true] {
            let (feed, old) = (Arc::new(Feed::default()), presence());
            let mut follower = Follower::new(&feed);
            follower.send_roster(&Roster::from(vec![old.clone()]));
            let _ = feed.take();
            let new = Arc::new(old.changed(None, Some(Meta::from_json(r#"{"n":1}"#).unwrap())));
            follower.send_changes(&[RosterChange { was: Some(old), now: Some(new.clone()) }]);
            if is_read_again {
                follower.invalidate();
                follower.send_roster(&Roster::default());
            } else {
                follower.send_changes(&[leaves(&new)]);
            }
            assert_eq!(feed.take().0.presences, BTreeMap::from([(new.id, LastState::Left(new))]));
        }
    }
}
