//! What clients have received, and so what a server that was killed must still know.
//!
//! A join is acknowledged when some client has received it: the joiner by its first frame, or another by a notice. A leave
//! is acknowledged when another has received it, or when the client that requested it learns that it is not in the room.

use crate::support::roster::{ClientRoster, Diff};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// One presence. Each visitor has a name of its own and joins once, so its name identifies it.
#[derive(Debug, Clone, Default)]
struct Fate {
    room: String,
    anonymous: bool,
    id: Option<String>,
    /// Some client has received that it is there.
    came: bool,
    /// It has asked to leave, or was given up.
    going: bool,
    /// Some client has received that it left.
    gone: bool,
    /// The last number that was requested for its meta, and the highest that some client has received.
    asked: u64,
    told: u64,
}

impl Fate {
    fn must_be_there(&self) -> bool {
        self.came && !self.going
    }
}

/// What is known of everybody.
#[derive(Debug)]
pub(super) struct Ledger {
    fates: Mutex<BTreeMap<String, Fate>>,
    /// How many joins, leaves and updates were acknowledged, each as often as some client has received it.
    told: watch::Sender<u64>,
}

/// How many presences a check was about.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) there: usize,
    pub(super) gone: usize,
    pub(super) unknown: usize,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { fates: Mutex::default(), told: watch::Sender::new(0) }
    }

    fn fates(&self) -> MutexGuard<'_, BTreeMap<String, Fate>> {
        self.fates.lock().unwrap()
    }

    /// Resolves when so much was acknowledged.
    pub(super) async fn reached(&self, told: u64) {
        self.told.subscribe().wait_for(|now| *now >= told).await.expect("the ledger is here");
    }

    pub(super) fn asks_to_join(&self, name: &str, room: &str, anonymous: bool) {
        let fate = Fate { room: room.to_owned(), anonymous, ..Fate::default() };
        assert!(self.fates().insert(name.to_owned(), fate).is_none(), "{name} joins once");
    }

    pub(super) fn asks_to_leave(&self, name: &str) {
        self.change(name, |fate| fate.going = true);
    }

    pub(super) fn asks_to_update(&self, name: &str, number: u64) {
        self.change(name, |fate| fate.asked = number);
    }

    /// It has received itself that it is not in the room.
    pub(super) fn is_out(&self, name: &str) {
        self.change(name, |fate| fate.gone = true);
        self.told.send_modify(|told| *told += 1);
    }

    /// A first frame came to `name`.
    pub(super) fn first_frame(&self, name: &str, roster: &ClientRoster) {
        self.change(name, |fate| (fate.came, fate.id) = (true, Some(roster.me.clone())));
        for (user, presences) in &roster.users {
            presences.iter().for_each(|(id, meta)| self.is_there(user, id, meta));
        }
        self.told.send_modify(|told| *told += 1);
    }

    /// A notice came to somebody.
    pub(super) fn notice(&self, diff: &Diff) {
        for entry in diff.joins.iter().chain(&diff.updates) {
            self.is_there(&entry.user, &entry.id, &entry.meta);
        }
        for entry in &diff.leaves {
            self.change(&entry.user, |fate| {
                assert!(fate.going, "{} did not ask to leave", entry.user);
                fate.gone = true;
            });
        }
        self.told.send_modify(|told| *told += (diff.joins.len() + diff.leaves.len() + diff.updates.len()) as u64);
    }

    fn is_there(&self, user: &str, id: &str, meta: &Value) {
        // An observer's own name, or one of an earlier round, is not in the ledger.
        let mut fates = self.fates();
        let Some(fate) = fates.get_mut(user) else { return };
        let known = fate.id.get_or_insert_with(|| id.to_owned());
        assert_eq!(known, id, "{user} has one presence");
        fate.came = true;
        fate.told = fate.told.max(meta["n"].as_u64().unwrap_or(0));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Fate)) {
        if let Some(fate) = self.fates().get_mut(name) {
            change(fate);
        }
    }

    /// Compares a room as a newcomer sees it after the restart with what was acknowledged before.
    pub(super) fn check(&self, room: &ClientRoster) -> Checked {
        let fates = self.fates();
        let here = || fates.iter().filter(|(_, fate)| fate.room == room.room);
        let mut checked = Checked::default();
        for (name, fate) in here().filter(|(_, fate)| !fate.anonymous) {
            let there = room.users.get(name);
            match there {
                None => assert!(!fate.must_be_there(), "the join of {name} was acknowledged, and it is lost: {fate:?}"),
                Some(presences) => {
                    assert!(!fate.gone, "the leave of {name} was acknowledged, and it is there: {fate:?}");
                    assert_eq!(presences.len(), 1, "{name} is there once: {presences:?}");
                    let (id, meta) = presences.iter().next().expect("one");
                    assert_eq!(fate.id.as_ref().unwrap_or(id), id, "{name} has the id that it was given");
                    let number = meta["n"].as_u64().unwrap_or(0);
                    assert!((fate.told..=fate.asked).contains(&number), "{name} has {meta}: {fate:?}");
                }
            }
            match there {
                _ if fate.must_be_there() => checked.there += 1,
                _ if fate.gone => checked.gone += 1,
                _ => checked.unknown += 1,
            }
        }
        let known: BTreeSet<_> = here().map(|(name, _)| name).collect();
        let strangers: Vec<_> = room.users.keys().filter(|name| !known.contains(name)).collect();
        assert!(strangers.iter().all(|name| name.starts_with("newcomer")), "who is that: {strangers:?}");
        let anonymous = || here().filter(|(_, fate)| fate.anonymous);
        let least = anonymous().filter(|(_, fate)| fate.must_be_there()).count() as u64;
        let most = anonymous().filter(|(_, fate)| !fate.gone).count() as u64;
        assert!((least..=most).contains(&room.anonymous), "{} anonymous ones, not {least}..={most}", room.anonymous);
        checked
    }
}
