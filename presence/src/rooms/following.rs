//! The members of one room, kept up to date for a part of the application.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;

use crate::{
    Error, Result,
    model::{Member, Presence, roster::Roster},
    name::{PresenceId, RoomName, UserId},
    node::within,
    room::{Feed, Follower, LastState, ToRoom, Unread},
};

use super::Rooms;

/// What changed in a room since the last [`MembersChanged`] of the same [`MemberChanges`], with net effect: a presence that joined and
/// left in between is not mentioned.
///
/// ```
/// # use presence::MembersChanged;
/// fn log(changed: &MembersChanged) {
///     for presence in &changed.updated {
///         println!("{} is now {}", presence.id, presence.meta.as_str());
///     }
///     println!("online: {:?}, offline: {:?}", changed.user_online(), changed.user_offline());
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MembersChanged {
    /// The presences that joined, in the order of their ids.
    pub joined: Vec<Arc<Presence>>,
    /// The presences that left, each with the last meta that this node knows of. If the user of a presence changed before it left, and
    /// that change was not received either, it is listed as it was before.
    pub left: Vec<Arc<Presence>>,
    /// The presences that have another user or meta now, each as it is now.
    pub updated: Vec<Arc<Presence>>,
    user_online: Vec<UserId>,
    user_offline: Vec<UserId>,
}

impl MembersChanged {
    /// The users who had no presence in the room before, and have one now.
    #[must_use]
    pub fn user_online(&self) -> &[UserId] {
        &self.user_online
    }

    /// The users who had a presence in the room before, and have none now.
    #[must_use]
    pub fn user_offline(&self) -> &[UserId] {
        &self.user_offline
    }

    const fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.updated.is_empty()
    }
}

/// The changes of the members of one room, made by [`Rooms::members_and_changes`]. The room stays in memory as long as this exists.
///
/// It is a [`Stream`], too, for an actor that handles the changes with `StreamHandler`. Only one task may wait for changes at a time.
#[derive(Debug)]
pub struct MemberChanges {
    rooms: Rooms,
    room: RoomName,
    feed: Arc<Feed>,
    here: HashMap<PresenceId, Arc<Presence>>,
    /// How many presences each user has.
    users: HashMap<UserId, usize>,
}

impl MemberChanges {
    /// Waits for the next change. Changes that come while nobody waits for them are returned together. `None` once the node shuts down.
    pub async fn next(&mut self) -> Option<MembersChanged> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Makes the room send its changes to the feed from now on. `None` if the node shuts down.
    fn follow(&self) -> Option<()> {
        if self.rooms.this_node().is_shutting_down() {
            return None;
        }
        self.rooms.send_to_room(&self.room, ToRoom::Follow(Follower::new(&self.feed)));
        // The room may not have been started any more.
        (!self.rooms.table().has_ended()).then_some(())
    }

    /// Waits for the whole roster of the room.
    async fn begin(&mut self) -> Result<Vec<Member>> {
        self.follow().ok_or(Error::ShuttingDown)?;
        poll_fn(|cx| {
            self.feed.waker.register(cx.waker());
            let (unread, has_ended) = self.feed.take();
            if unread.is_whole {
                let _ = self.apply(unread);
                return Poll::Ready(Ok(Roster::from(self.here.values().cloned().collect::<Vec<_>>()).members()));
            }
            if has_ended {
                return Poll::Ready(Err(self.rooms.no_answer_error(&self.room)));
            }
            Poll::Pending
        })
        .await
    }

    fn apply(&mut self, Unread { mut presences, is_whole, .. }: Unread) -> MembersChanged {
        let mut changed = MembersChanged::default();
        if is_whole {
            let gone: Vec<_> = self.here.values().filter(|was| !presences.contains_key(&was.id)).cloned().collect();
            presences.extend(gone.into_iter().map(|was| (was.id, LastState::Left(was))));
        }
        // Whether each user that is concerned was online before.
        let mut was_online = BTreeMap::new();
        for (id, last) in presences {
            let (was, now) = match &last {
                LastState::Here(now) => (self.here.insert(id, now.clone()), Some(now)),
                LastState::Left(_) => (self.here.remove(&id), None),
            };
            for (presence, is_here) in was.iter().map(|was| (was, false)).chain(now.map(|now| (now, true))) {
                let Some(user) = &presence.user else { continue };
                let before = self.count(user, is_here);
                was_online.entry(user.clone()).or_insert(before > 0);
            }
            match (was, last) {
                (None, LastState::Here(now)) => changed.joined.push(now),
                // The follower knows the presence under its former user, as in a diff.
                (Some(was), LastState::Left(last)) => changed.left.push(if was.user == last.user { last } else { was }),
                (Some(was), LastState::Here(now)) if !was.looks_like(&now) => changed.updated.push(now),
                _ => {}
            }
        }
        for (user, was_online) in was_online {
            match (was_online, self.users.contains_key(&user)) {
                (false, true) => changed.user_online.push(user),
                (true, false) => changed.user_offline.push(user),
                _ => {}
            }
        }
        changed
    }

    /// Counts one presence of the user more, or one less. Returns how many there were before.
    fn count(&mut self, user: &UserId, is_here: bool) -> usize {
        match self.users.entry(user.clone()) {
            Entry::Vacant(entry) => {
                if is_here {
                    entry.insert(1);
                }
                0
            }
            Entry::Occupied(mut entry) => {
                let before = *entry.get();
                match (is_here, before) {
                    (true, _) => *entry.get_mut() += 1,
                    (false, 1) => drop(entry.remove()),
                    (false, _) => *entry.get_mut() -= 1,
                }
                before
            }
        }
    }
}

impl Stream for MemberChanges {
    type Item = MembersChanged;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<MembersChanged>> {
        self.feed.waker.register(cx.waker());
        let (unread, has_ended) = self.feed.take();
        let changed = self.apply(unread);
        if !changed.is_empty() {
            return Poll::Ready(Some(changed));
        }
        // The feed ends if the room failed too often and stopped, and if the node shuts down. In the first case it is started again.
        if has_ended && self.follow().is_none() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Rooms {
    /// Everyone in the room, and the changes of its members from that moment on. Members on other nodes are included, and so
    /// are changes that other nodes make: they arrive within `reconcile_interval`, while those of this node arrive at once. So a list that
    /// is kept by these changes is right on each node, and no change is missed, however late it is read.
    ///
    /// ```
    /// # use presence::{RoomName, Rooms, UserId};
    /// # use std::collections::BTreeSet;
    /// /// Shows the users who are online, again after each change.
    /// async fn online(rooms: &Rooms, room: &RoomName, mut show: impl FnMut(&BTreeSet<UserId>)) -> presence::Result<()> {
    ///     let (members, mut changes) = rooms.members_and_changes(room).await?;
    ///     let mut online: BTreeSet<UserId> = members.iter().filter_map(|member| member.user().cloned()).collect();
    ///     show(&online);
    ///     while let Some(changed) = changes.next().await {
    ///         online.extend(changed.user_online().iter().cloned());
    ///         online.retain(|user| !changed.user_offline().contains(user));
    ///         show(&online);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`members`](Self::members), and [`Error::ShuttingDown`] once a shutdown has begun.
    pub async fn members_and_changes(&self, room: &RoomName) -> Result<(Vec<Member>, MemberChanges)> {
        let (here, users) = (HashMap::new(), HashMap::new());
        let mut changes = MemberChanges { rooms: self.clone(), room: room.clone(), feed: Arc::default(), here, users };
        let members = within(self.config().store_timeout(), changes.begin()).await;
        Ok((members.unwrap_or(Err(Error::StoreUnavailable(None)))?, changes))
    }
}
