//! A subscriber that keeps a set of the online users, event by event.

use crate::rooms::tests::prelude::*;

/// The events so far.
pub(super) fn events(changes: &mut Subscription) -> Vec<PresenceChanged> {
    let mut published = Vec::new();
    while let Some(Some(event)) = tokio::task::unconstrained(changes.next()).now_or_never() {
        published.push(event);
    }
    published
}

/// The presences and the online users of each room, after all events so far.
#[derive(Debug, Default)]
pub(super) struct Fold {
    rooms: BTreeMap<RoomName, RoomView>,
}

#[derive(Debug, Default)]
struct RoomView {
    presences: BTreeMap<PresenceId, Option<UserId>>,
    online: BTreeSet<UserId>,
}

impl RoomView {
    fn there(&self) -> BTreeSet<UserId> {
        self.presences.values().flatten().cloned().collect()
    }
}

impl Fold {
    /// Applies the events that have arrived. No presence joins or leaves twice, and no user goes online or offline twice. After each event
    /// the users of all presences so far are online, and after the last one no others are. In between, a user who leaves and joins in one
    /// commit is online without a presence. If answers are `late`, a `Bulk` may overtake changes that its node has not published yet.
    pub(super) fn receive(&mut self, changes: &mut Subscription, late: bool) -> Vec<PresenceChanged> {
        let published = events(changes);
        published.iter().for_each(|event| self.apply(event, late));
        for room in self.rooms.values().filter(|_| !late) {
            assert_eq!(room.online, room.there(), "{published:?}");
        }
        published
    }

    fn apply(&mut self, event: &PresenceChanged, late: bool) {
        assert_eq!(event.missed, 0);
        let room = self.rooms.entry(event.room.clone()).or_default();
        match &event.change {
            PresenceChange::Added(one) => {
                assert_eq!(room.presences.insert(one.id, one.user.clone()), None, "{event:?}")
            }
            PresenceChange::Updated(one) => {
                assert!(room.presences.insert(one.id, one.user.clone()).is_some(), "{event:?}");
            }
            PresenceChange::Removed(one) => {
                assert_eq!(room.presences.remove(&one.id), Some(one.user.clone()), "{event:?}");
            }
            PresenceChange::Bulk(left) => {
                for one in left {
                    assert_eq!(room.presences.remove(&one.id), Some(one.user.clone()), "{event:?}");
                }
            }
        }
        for user in event.user_offline() {
            assert!(room.online.remove(user), "offline twice: {event:?}");
        }
        for user in event.user_online() {
            assert!(room.online.insert(user.clone()), "online twice: {event:?}");
        }
        assert!(late || room.online.is_superset(&room.there()), "{event:?}");
    }

    pub(super) fn online(&self, room: &RoomName) -> BTreeSet<UserId> {
        self.rooms.get(room).map(|room| room.online.clone()).unwrap_or_default()
    }
}
