//! What a replica does with deltas that are missing, repeated or early, and with loads.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{
    Presence,
    tests::truth::{TestCommit, Truth, channel, epoch, presence, writes},
};

const HOLD: Duration = Duration::from_millis(200);

/// Presence `n` joins.
fn joins(n: u8) -> Delta {
    Delta { joined: vec![presence(n)], ..Delta::default() }
}

/// Presence `version` joins with each version.
fn receive(replica: &mut Replica, now: u64, n: u8, version: u8) -> Applied {
    replica.apply(Tick(now), epoch(n), Version(version.into()), joins(version))
}

/// The room at a version: presences 1 to `version`.
fn room_at(n: u8, version: u8) -> Option<Snapshot> {
    let presences = (1..=version).map(presence).collect();
    Some(Snapshot { epoch: epoch(n), version: Version(version.into()), presences })
}

/// The changes by a load.
fn reload(replica: &mut Replica, found: Option<Snapshot>) -> Vec<RosterChange> {
    let before = replica.reload(found.map(LoadedRoom::from));
    before.map_or_else(Vec::new, |before| replica.roster().changes_since(&before))
}

fn replica_at(n: u8, version: u8) -> Replica {
    let mut replica = Replica::default();
    replica.reloading();
    let _ = reload(&mut replica, room_at(n, version));
    replica
}

fn check(replica: &Replica, n: u8, version: u8) {
    assert_eq!(replica.position(), Some((epoch(n), Version(version.into()))));
    let presences: Vec<_> = (1..=version).map(presence).collect();
    assert!(replica.roster().iter().eq(&presences));
}

/// A commit without changes returns the position of the room, but not the changes that led to it.
#[test]
fn a_new_version_without_a_delta_needs_a_load_at_once() {
    let mut replica = replica_at(1, 2);
    assert_eq!(replica.apply(Tick(5), epoch(1), Version(3), Delta::default()), Applied::Reload);
    check(&replica, 1, 2);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(5)));
    replica.reloading();
    let _ = reload(&mut replica, room_at(1, 3));
    check(&replica, 1, 3);
    assert_eq!(replica.reload_at(HOLD), None);

    let mut fresh = Replica::default();
    assert_eq!(fresh.apply(Tick(5), epoch(1), Version(1), Delta::default()), Applied::Reload);
}

#[test]
fn a_known_version_without_a_delta_has_no_effect() {
    let mut replica = replica_at(1, 2);
    assert_eq!(replica.apply(Tick(5), epoch(1), Version(2), Delta::default()), Applied::Changed(Vec::new()));
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn the_first_change_of_a_room_needs_no_load() {
    let mut replica = Replica::default();
    let Applied::Changed(changes) = receive(&mut replica, 0, 1, 1) else { panic!("not applied") };
    assert_eq!(changes, [RosterChange { was: None, now: Some(presence(1)) }]);
    check(&replica, 1, 1);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_change_of_an_unknown_room_needs_a_load_at_once() {
    let mut replica = Replica::default();
    assert_eq!(receive(&mut replica, 7, 1, 2), Applied::Reload);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(7)));
}

#[test]
fn a_gap_that_closes_in_time_needs_no_load() {
    let mut replica = replica_at(1, 1);
    assert_eq!(receive(&mut replica, 0, 1, 4), Applied::Early);
    assert_eq!(receive(&mut replica, 10, 1, 3), Applied::Early);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(200)));
    let Applied::Changed(changes) = receive(&mut replica, 20, 1, 2) else { panic!("not applied") };
    assert_eq!(changes.len(), 3);
    check(&replica, 1, 4);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn each_gap_has_its_own_hold_window() {
    // The second gap got the window of the first, and the room was loaded needlessly.
    let mut replica = replica_at(1, 1);
    let _ = receive(&mut replica, 0, 1, 3);
    let _ = receive(&mut replica, 190, 1, 6);
    let _ = receive(&mut replica, 195, 1, 2);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(390)));
}

#[test]
fn a_repeated_early_delta_does_not_postpone_the_load() {
    let mut replica = replica_at(1, 1);
    let _ = receive(&mut replica, 0, 1, 3);
    let _ = receive(&mut replica, 150, 1, 3);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(200)));
}

#[test]
fn another_epoch_needs_a_load_at_once_which_ends_the_old_one() {
    let mut replica = replica_at(1, 3);
    assert_eq!(receive(&mut replica, 5, 2, 1), Applied::Reload);
    check(&replica, 1, 3);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(5)));
    replica.reloading();
    let changes = reload(&mut replica, room_at(2, 1));
    assert_eq!(changes.len(), 2);
    check(&replica, 2, 1);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_load_with_less_than_was_known_before_it_began_shows_that_the_database_lost_changes() {
    let mut replica = replica_at(1, 5);
    replica.reloading();
    let _ = reload(&mut replica, room_at(1, 3));
    check(&replica, 1, 3);
    assert!(replica.take_rolled_back());
    assert_eq!(replica.reload_at(HOLD), Some(Tick(0)), "deltas that arrived meanwhile may be from before");
    replica.reloading();
    let _ = reload(&mut replica, room_at(1, 3));
    assert!(!replica.take_rolled_back());
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn after_the_database_lost_changes_nothing_is_applied_before_a_load() {
    let mut replica = replica_at(1, 5);
    replica.distrust(Tick(7));
    assert_eq!(receive(&mut replica, 8, 1, 6), Applied::Reload);
    assert_eq!((replica.position(), replica.reload_at(HOLD)), (None, Some(Tick(7))));
    replica.reloading();
    let _ = receive(&mut replica, 9, 1, 5);
    let _ = reload(&mut replica, room_at(1, 4));
    check(&replica, 1, 5);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_presence_has_departed_until_the_roster_reaches_its_leave_or_a_later_load_ends() {
    let (mut replica, one) = (replica_at(1, 3), presence(1));
    replica.departs(one.id, one.channel.clone(), (epoch(1), Version(3)));
    assert!(!replica.has_departed(&one), "the roster has reached the version");
    replica.reloading();
    replica.departs(one.id, one.channel.clone(), (epoch(1), Version(5)));
    let _ = reload(&mut replica, room_at(1, 4));
    assert!(replica.has_departed(&one), "the load began before");
    assert!(!replica.has_departed(&Presence { channel: channel(9), ..(*one).clone() }), "another socket has it");
    let _ = receive(&mut replica, 0, 1, 5);
    assert!(!replica.has_departed(&one));
    replica.departs(one.id, one.channel.clone(), (epoch(2), Version(1)));
    replica.reloading();
    assert!(replica.has_departed(&one));
    let _ = reload(&mut replica, None);
    assert!(!replica.has_departed(&one), "the load shows the result");
}

#[test]
fn deltas_that_arrive_during_a_load_are_applied_on_top() {
    let mut replica = replica_at(1, 1);
    replica.reloading();
    let _ = receive(&mut replica, 0, 1, 4);
    let _ = receive(&mut replica, 0, 1, 5);
    let _ = reload(&mut replica, room_at(1, 4));
    check(&replica, 1, 5);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_load_older_than_deltas_that_arrived_meanwhile_undoes_nothing() {
    let mut replica = replica_at(1, 2);
    replica.reloading();
    let _ = receive(&mut replica, 0, 1, 3);
    assert_eq!(reload(&mut replica, room_at(1, 2)), []);
    check(&replica, 1, 3);
}

#[test]
fn a_load_of_the_known_version_updates_owners() {
    let mut replica = replica_at(1, 1);
    let resumed = Arc::new(Presence { channel: channel(9), ..(*presence(1)).clone() });
    replica.reloading();
    let mut snapshot = room_at(1, 1).unwrap();
    snapshot.presences = vec![resumed.clone()];
    assert_eq!(reload(&mut replica, Some(snapshot)), []);
    assert_eq!(replica.roster().get(resumed.id), Some(&resumed));
}

#[test]
fn a_room_that_begins_during_a_load_that_found_none_is_not_lost() {
    // The first change was applied, and then the load undid it.
    let mut replica = Replica::default();
    replica.reloading();
    assert_eq!(receive(&mut replica, 3, 1, 1), Applied::Reload);
    let _ = reload(&mut replica, None);
    assert_eq!(replica.reload_at(HOLD), Some(Tick(3)));
    replica.reloading();
    let _ = reload(&mut replica, room_at(1, 1));
    check(&replica, 1, 1);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn an_epoch_that_begins_during_a_load_needs_another_load() {
    // It waited for ever: the load had ended, and no other followed.
    let mut replica = replica_at(1, 1);
    replica.reloading();
    assert_eq!(receive(&mut replica, 8, 2, 3), Applied::Reload);
    let _ = reload(&mut replica, room_at(1, 1));
    assert_eq!(replica.reload_at(HOLD), Some(Tick(8)));
    replica.reloading();
    let _ = reload(&mut replica, room_at(2, 3));
    check(&replica, 2, 3);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_late_delta_does_not_restore_a_room_that_has_ended() {
    // The first change of the old epoch looked like the first of a new one.
    let mut replica = replica_at(1, 3);
    replica.reloading();
    assert_eq!(reload(&mut replica, None).len(), 3);
    assert_eq!(replica.position(), None);
    assert_eq!(receive(&mut replica, 0, 1, 1), Applied::Reload);
    assert!(replica.roster().is_empty());
    replica.reloading();
    assert_eq!(reload(&mut replica, None), []);
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_failed_load_is_repeated() {
    // Waiting deltas were forgotten when the load began, and so was the need for a load.
    let mut replica = replica_at(1, 1);
    let _ = receive(&mut replica, 4, 1, 3);
    replica.reloading();
    assert_eq!(replica.reload_at(HOLD), Some(Tick(4)));
    replica.reloading();
    assert_eq!(replica.reload_at(HOLD), Some(Tick(4)));
    let _ = reload(&mut replica, room_at(1, 3));
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn a_delta_that_the_database_does_not_have_needs_one_load() {
    let mut replica = replica_at(1, 1);
    let _ = receive(&mut replica, 0, 1, 9);
    replica.reloading();
    let _ = reload(&mut replica, room_at(1, 1));
    assert_eq!(replica.reload_at(HOLD), None);
}

#[test]
fn at_most_1024_deltas_wait_and_the_next_one_needs_a_load_at_once() {
    // Any number of deltas waited.
    let mut replica = replica_at(1, 1);
    let wait = |replica: &mut Replica, version| replica.apply(Tick(version), epoch(1), Version(version), joins(7));
    for version in 3..3 + 1024 {
        assert_eq!(wait(&mut replica, version), Applied::Early);
    }
    assert_eq!(wait(&mut replica, 2000), Applied::Reload);
    assert_eq!(wait(&mut replica, 2001), Applied::Reload);
    assert_eq!(replica.early.len(), 1024);
    let far = Duration::from_secs(3600);
    assert_eq!(replica.reload_at(far), Some(Tick(2000)));
    replica.reloading();
    assert_eq!(replica.early.len(), 0);
    let snapshot = |version| Some(Snapshot { version: Version(version), ..room_at(1, 1).unwrap() });
    let _ = reload(&mut replica, snapshot(2001));
    assert_eq!(replica.reload_at(far), None);
}

#[test]
fn a_delta_that_is_dropped_during_a_load_needs_another_load() {
    let mut replica = replica_at(1, 1);
    replica.reloading();
    for version in 3..=3 + 1024 {
        let _ = replica.apply(Tick(version), epoch(1), Version(version), joins(7));
    }
    let _ = reload(&mut replica, Some(Snapshot { version: Version(2), ..room_at(1, 1).unwrap() }));
    assert_eq!(replica.position(), Some((epoch(1), Version(1026))));
    assert_eq!(replica.reload_at(Duration::from_secs(3600)), Some(Tick(1027)));
}

proptest! {
    #[test]
    fn deltas_of_one_epoch_repeated_and_in_any_order_need_no_load(
        history in prop::collection::vec(writes(), 1..15),
        order in Just((0..60).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let mut truth = Truth::new();
        for writes in &history {
            let _ = truth.commit(writes);
        }
        prop_assume!(!truth.commits.is_empty());
        let mut replica = Replica::default();
        for n in order {
            let TestCommit { epoch, version, delta } = truth.commits[n % truth.commits.len()].clone();
            let _ = replica.apply(Tick(0), epoch, version, delta);
        }
        prop_assert_eq!(replica.position(), truth.now().position);
        prop_assert!(replica.roster().iter().eq(truth.now().presences.values()));
        prop_assert_eq!(replica.reload_at(HOLD), None);
    }
}

#[test]
fn only_changes_are_missing_after_a_gap_in_one_epoch_and_not_if_the_epoch_is_unclear() {
    let mut replica = replica_at(1, 2);
    assert!(replica.misses_only_changes());
    assert_eq!(receive(&mut replica, 5, 1, 4), Applied::Early);
    assert!(replica.misses_only_changes() && replica.knows((epoch(1), Version(4))));
    assert!(!replica.knows((epoch(1), Version(3))));
    assert_eq!(receive(&mut replica, 6, 2, 1), Applied::Reload);
    assert!(!replica.misses_only_changes(), "only a load shows which epoch is current");
    replica.reloading();
    let _ = reload(&mut replica, room_at(1, 4));
    assert!(replica.misses_only_changes());
    replica.distrust(Tick(9));
    assert!(!replica.misses_only_changes());
}
