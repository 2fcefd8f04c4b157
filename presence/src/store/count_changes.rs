//! How a transaction changes the number of presences of each user in a room, and so which users go online or offline.

use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{Delta, OnlineChanges},
    name::{PresenceId, UserId},
};

/// The users whose number of presences in a room changes in a transaction.
#[derive(Debug, Default)]
pub(super) struct CountChanges(BTreeMap<UserId, CountChange>);

/// By how much the number of a user's presences changes, and the first presence that came and the last that went.
#[derive(Debug, Clone, Copy)]
struct CountChange {
    by: i64,
    first: Option<PresenceId>,
    last: Option<PresenceId>,
}

impl CountChange {
    fn at_least(self) -> i64 {
        self.by.max(0)
    }
}

impl CountChanges {
    /// The changes of a delta. `former_users` has the former user of each presence whose user changed.
    pub(super) fn of(delta: &Delta, former_users: &HashMap<PresenceId, Option<UserId>>) -> Self {
        let mut changes = Self::default();
        for left in &delta.left {
            changes.remove(left.user.as_ref(), left.id);
        }
        for updated in &delta.updated {
            if let Some(was) = former_users.get(&updated.id) {
                changes.remove(was.as_ref(), updated.id);
                changes.add(updated.user.as_ref(), updated.id);
            }
        }
        for joined in &delta.joined {
            changes.add(joined.user.as_ref(), joined.id);
        }
        // An unchanged number means that the user went neither online nor offline.
        changes.0.retain(|_, change| change.by != 0);
        changes
    }

    fn of_user(&mut self, user: &UserId) -> &mut CountChange {
        self.0.entry(user.clone()).or_insert(CountChange { by: 0, first: None, last: None })
    }

    fn add(&mut self, user: Option<&UserId>, id: PresenceId) {
        if let Some(user) = user {
            let change = self.of_user(user);
            change.by += 1;
            change.first.get_or_insert(id);
        }
    }

    fn remove(&mut self, user: Option<&UserId>, id: PresenceId) {
        if let Some(user) = user {
            let change = self.of_user(user);
            change.by -= 1;
            change.last = Some(id);
        }
    }

    /// The number of these users if all of them have fewer presences than before, otherwise 0.
    #[cfg(feature = "sql")]
    pub(super) fn users_if_all_decreased(&self) -> usize {
        if self.0.values().all(|change| change.by < 0) { self.0.len() } else { 0 }
    }

    /// The least number of presences that each of these users can have now. A user with just this number went online or
    /// offline.
    #[cfg(feature = "sql")]
    pub(super) fn at_least(&self) -> impl Iterator<Item = (&UserId, i64)> {
        self.0.iter().map(|(user, change)| (user, change.at_least()))
    }

    /// The users who went online and offline. `has_more` returns whether a user has more presences than this number now. It is
    /// called in the order of [`at_least`](Self::at_least).
    pub(super) fn online_changes(self, mut has_more: impl FnMut(&UserId, i64) -> bool) -> OnlineChanges {
        let mut changes = OnlineChanges::default();
        for (user, change) in self.0 {
            let (list, by) =
                if change.by > 0 { (&mut changes.online, change.first) } else { (&mut changes.offline, change.last) };
            if let (Some(by), false) = (by, has_more(&user, change.at_least())) {
                list.insert(by, user);
            }
        }
        changes
    }
}
