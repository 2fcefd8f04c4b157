//! A roster is compared with a plain list of its presences.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::tests::truth::{
    AllVisible, TestCommit, Truth, all_visible, channel, presence, user, visible, with_meta, writes,
};

/// Applies changes to what a member believes.
fn apply_to(mut believed: AllVisible, changes: &[RosterChange]) -> AllVisible {
    for RosterChange { was, now } in changes {
        let id = was.as_ref().or(now.as_ref()).unwrap().id;
        let before = match now {
            Some(now) => believed.insert(id, visible(now)),
            None => believed.remove(&id),
        };
        assert_eq!(before, was.as_deref().map(visible), "the change begins where the last one ended");
    }
    believed
}

/// Replaces the roster, and returns what that changed.
fn replace(roster: &mut Roster, presences: Vec<Arc<Presence>>) -> Vec<RosterChange> {
    let before = mem::replace(roster, Roster::from(presences));
    roster.changes_since(&before)
}

/// Compares all methods of the roster with a list of its presences.
fn check(roster: &Roster, truth: &BTreeMap<PresenceId, Arc<Presence>>) {
    assert!(roster.iter().eq(truth.values()));
    assert_eq!((roster.len(), roster.is_empty()), (truth.len(), truth.is_empty()));
    for presence in truth.values() {
        assert_eq!(roster.get(presence.id), Some(presence));
    }
    let mut users: Vec<&UserId> = truth.values().filter_map(|presence| presence.user.as_ref()).collect();
    users.sort();
    users.dedup();
    assert_eq!(roster.users(), users.len());
    let of = |user: &UserId| -> Vec<_> {
        truth.values().filter(|presence| presence.user.as_ref() == Some(user)).cloned().collect()
    };
    for user in &users {
        assert_eq!(roster.presences_of(user), of(user).len());
    }
    let by_user = roster.by_user().map(|(user, own)| (user, own.into_iter().cloned().collect::<Vec<_>>()));
    assert!(by_user.eq(users.iter().map(|user| (*user, of(user)))));
    let anonymous = truth.values().filter(|presence| presence.user.is_none());
    assert_eq!(roster.anonymous(), anonymous.clone().count());
    let members = users
        .iter()
        .map(|user| Member::of_user((*user).clone(), of(user)))
        .chain(anonymous.cloned().map(Member::anonymous));
    assert!(roster.members().into_iter().eq(members));
}

proptest! {
    #[test]
    fn a_snapshot_and_the_deltas_after_it_are_the_next_snapshot(
        history in prop::collection::vec(writes(), 1..30),
        from in any::<prop::sample::Index>(),
    ) {
        let mut truth = Truth::new();
        for writes in &history {
            let _ = truth.commit(writes);
        }
        let from = from.index(truth.moments.len());
        let start = &truth.moments[from];
        let mut roster = Roster::default();
        let changes = replace(&mut roster, start.presences.values().rev().cloned().collect());
        let mut believed = apply_to(AllVisible::new(), &changes);
        for (commit, then) in truth.commits[from..].iter().zip(&truth.moments[from + 1..]) {
            believed = apply_to(believed, &roster.apply(&commit.delta));
            check(&roster, &then.presences);
            prop_assert_eq!(&believed, &all_visible(then.presences.values()));
            prop_assert_eq!(roster.apply(&commit.delta), []);
            check(&roster, &then.presences);
        }
    }

    #[test]
    fn changes_since_are_exactly_the_difference_of_two_rosters(
        before in writes(), between in prop::collection::vec(writes(), 0..4),
    ) {
        let mut truth = Truth::new();
        let _ = truth.commit(&before);
        let mut roster = Roster::default();
        let mut believed = apply_to(AllVisible::new(), &replace(&mut roster, truth.now().presences.values().cloned().collect()));
        for writes in &between {
            let _ = truth.commit(writes);
        }
        let presences: Vec<_> = truth.now().presences.values().rev().cloned().collect();
        let changes = replace(&mut roster, presences.clone());
        for RosterChange { was, now } in &changes {
            prop_assert_ne!(was.as_deref().map(visible), now.as_deref().map(visible));
        }
        believed = apply_to(believed, &changes);
        check(&roster, &truth.now().presences);
        prop_assert_eq!(believed, all_visible(&presences));
        prop_assert_eq!(replace(&mut roster, presences), []);
    }
}

proptest! {
    #[test]
    fn a_roster_that_is_built_at_once_equals_one_that_is_built_step_by_step(
        // Few ids and users, so that ids occur twice, with the same user or another one.
        named in prop::collection::vec((0..20u8, prop::option::of(0..5u8), 0..3u8), 0..40),
        history in prop::collection::vec(writes(), 0..5),
    ) {
        let named = named.into_iter().map(|(who, of, status)| {
            Arc::new(Presence { user: of.map(user), ..(*with_meta(&presence(who), status)).clone() })
        });
        let named: Vec<_> = named.collect();
        let mut one_by_one = Roster::default();
        for presence in &named {
            let _ = one_by_one.put(presence.clone());
        }
        let mut at_once = Roster::from(named.clone());
        let mut truth: BTreeMap<_, _> = named.into_iter().map(|presence| (presence.id, presence)).collect();
        check(&at_once, &truth);
        prop_assert_eq!(at_once.changes_since(&one_by_one), []);
        // Later changes have the same effect on both.
        let mut room = Truth::new();
        for TestCommit { delta, .. } in history.iter().filter_map(|writes| room.commit(writes)) {
            prop_assert_eq!(at_once.apply(&delta), one_by_one.apply(&delta));
            for here in delta.joined.iter().chain(&delta.updated) {
                truth.insert(here.id, here.clone());
            }
            delta.left.iter().for_each(|left| drop(truth.remove(&left.id)));
            check(&at_once, &truth);
        }
    }
}

#[test]
fn changes_are_sorted_by_id_and_leaves_come_last() {
    let before = Roster::from([1, 2, 3, 5].map(presence).to_vec());
    let (now, moved) =
        (with_meta(&presence(3), 1), Arc::new(Presence { channel: channel(9), ..(*presence(2)).clone() }));
    let roster = Roster::from(vec![presence(6), now.clone(), moved, presence(4)]);
    let went = |n| RosterChange { was: Some(presence(n)), now: None };
    let came = |n| RosterChange { was: None, now: Some(presence(n)) };
    let became = RosterChange { was: Some(presence(3)), now: Some(now) };
    assert_eq!(roster.changes_since(&before), [became, came(4), came(6), went(1), went(5)]);
}
