//! How a transaction changes how many presences each user has in a room, and so who comes online and who goes offline.

use std::collections::{BTreeMap, HashMap};

use crate::{
    model::{Delta, Turns},
    name::{PresenceId, UserId},
};

/// The users whose number of presences in a room is another after a transaction.
#[derive(Debug, Default)]
pub(super) struct Shifts(BTreeMap<UserId, Shift>);

/// By how many presences a user has more now, and which of them is told first, or last if there are fewer.
#[derive(Debug, Clone, Copy)]
struct Shift {
    more: i64,
    first: Option<PresenceId>,
    last: Option<PresenceId>,
}

impl Shift {
    fn at_least(self) -> i64 {
        self.more.max(0)
    }
}

impl Shifts {
    /// Those of a change. `rebound` says whose the presences were that have another user now.
    pub(super) fn of(delta: &Delta, rebound: &HashMap<PresenceId, Option<UserId>>) -> Self {
        let mut shifts = Self::default();
        for left in &delta.left {
            shifts.went(left.user.as_ref(), left.id);
        }
        for updated in &delta.updated {
            if let Some(was) = rebound.get(&updated.id) {
                shifts.went(was.as_ref(), updated.id);
                shifts.came(updated.user.as_ref(), updated.id);
            }
        }
        for joined in &delta.joined {
            shifts.came(joined.user.as_ref(), joined.id);
        }
        // Who is there as often as before was there, and is.
        shifts.0.retain(|_, shift| shift.more != 0);
        shifts
    }

    fn of_user(&mut self, user: &UserId) -> &mut Shift {
        self.0.entry(user.clone()).or_insert(Shift { more: 0, first: None, last: None })
    }

    fn came(&mut self, user: Option<&UserId>, id: PresenceId) {
        if let Some(user) = user {
            let shift = self.of_user(user);
            shift.more += 1;
            shift.first.get_or_insert(id);
        }
    }

    fn went(&mut self, user: Option<&UserId>, id: PresenceId) {
        if let Some(user) = user {
            let shift = self.of_user(user);
            shift.more -= 1;
            shift.last = Some(id);
        }
    }

    /// How many users they are, if all of them have fewer presences than before, and else 0.
    #[cfg(feature = "sql")]
    pub(super) fn only_went(&self) -> usize {
        if self.0.values().all(|shift| shift.more < 0) { self.0.len() } else { 0 }
    }

    /// How many presences each of them has at least, now. Who has just so many came online or went offline.
    #[cfg(feature = "sql")]
    pub(super) fn at_least(&self) -> impl Iterator<Item = (&UserId, i64)> {
        self.0.iter().map(|(user, shift)| (user, shift.at_least()))
    }

    /// Who came online and who went offline. `more` says whether a user has more presences now than so many; it is asked in
    /// the order of [`at_least`](Self::at_least).
    pub(super) fn turns(self, mut more: impl FnMut(&UserId, i64) -> bool) -> Turns {
        let mut turns = Turns::default();
        for (user, shift) in self.0 {
            let (list, by) =
                if shift.more > 0 { (&mut turns.online, shift.first) } else { (&mut turns.offline, shift.last) };
            if let (Some(by), false) = (by, more(&user, shift.at_least())) {
                list.insert(by, user);
            }
        }
        turns
    }
}
