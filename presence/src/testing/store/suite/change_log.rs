//! The log of the last changes, from which a node reads what it misses of a room.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{collections::BTreeMap, time::Duration};

use crate::{
    model::Delta,
    name::{Epoch, PresenceId, Version},
    session::{Session, SessionHash},
    store::{ClearMode, RemovalTarget, RoomChange, Snapshot, SweepShare},
};

use super::*;

async fn after(store: &dyn Store, room: Epoch, version: u64) -> Option<Vec<RoomChange>> {
    store.changes_after(room, Version(version)).await.expect("reading works")
}

/// The versions of these changes, and who made them.
fn versions(changes: Option<Vec<RoomChange>>) -> Option<Vec<(u64, NodeId)>> {
    changes.map(|changes| changes.into_iter().map(|change| (change.version.0, change.by)).collect())
}

/// What a room has after these changes.
fn applied(before: Snapshot, changes: Vec<RoomChange>) -> BTreeMap<PresenceId, Arc<Presence>> {
    let mut there: BTreeMap<_, _> = before.presences.into_iter().map(|one| (one.id, one)).collect();
    for RoomChange { delta: Delta { joined, left, updated, moved }, .. } in changes {
        there.extend(joined.into_iter().chain(updated).chain(moved).map(|one| (one.id, one)));
        left.iter().for_each(|one| drop(there.remove(&one.id)));
    }
    there
}

pub async fn changes_are_kept_until_the_node_is_alone(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let lobby = change(store, here, "lobby", [join(&anonymous(here, "ann"))]).await.epoch;
    assert_eq!(versions(after(store, lobby, 1).await), Some(vec![]), "nothing is missing");
    assert_eq!(versions(after(store, lobby, 0).await), Some(vec![(1, here)]), "it is kept at first");
    let _ = change(store, here, "lobby", [join(&anonymous(here, "bob"))]).await;
    assert_eq!(versions(after(store, lobby, 1).await), Some(vec![(2, here)]));
    store.keep_changes(false);
    let _ = change(store, here, "lobby", [join(&anonymous(here, "cy"))]).await;
    assert_eq!(after(store, lobby, 1).await, None, "the third one is missing");
}

pub async fn the_changes_after_a_version_lead_to_the_present_room(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let session = Session { hash: SessionHash::from_bytes([7; 32]), grace: SECOND };
    let (ann, bob, cy) = (of_user(here, "ann", "ann"), anonymous(here, "bob"), anonymous(there, "cy"));
    let resume = |presence: &Arc<Presence>| Write::Resume { presence: presence.clone(), session };
    let lobby = change(store, here, "lobby", [join(&ann), resume(&bob)]).await.epoch;
    let before = store.load(room("lobby")).await.expect("loading works").expect("it exists");
    let _ = change(store, there, "lobby", [join(&cy)]).await;
    let _ = change(store, here, "lobby", [update(&ann, r#"{"a":1.50}"#)]).await;
    let taken = anonymous(there, "bob again");
    let _ = change(store, there, "lobby", [resume(&taken)]).await;
    let _ = change(store, there, "lobby", [leave(&cy)]).await;
    let changes = after(store, lobby, 1).await;
    assert_eq!(versions(changes.clone()), Some(vec![(2, there), (3, here), (4, there), (5, there)]));
    let now = applied(before, changes.expect("none is missing"));
    let (_, members) = members(store, "lobby").await;
    assert_eq!(now.into_values().collect::<Vec<_>>(), members);
    assert_eq!(versions(after(store, lobby, 4).await), Some(vec![(5, there)]));
}

pub async fn every_transaction_that_gives_a_version_is_in_the_log(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let mut expected = Vec::new();
    let mut note = |versions: u64, by: NodeId| {
        for _ in 0..versions {
            expected.push((expected.len() as u64 + 1, by));
        }
    };
    let [swept, pruned, removed] = ["swept", "pruned", "removed"].map(|name| anonymous(here, name));
    let lobby = change(store, here, "lobby", [join(&swept), join(&pruned), join(&removed)]).await.epoch;
    note(1, here);
    let hold = |one: &Presence, grace| Write::Hold { id: one.id, channel: one.channel.clone(), grace };
    let _ = change(store, here, "lobby", [hold(&swept, SECOND), hold(&pruned, LEASE * 10), hold(&removed, LEASE * 10)])
        .await;
    time.advance(SECOND * 2);
    let _ = store.sweep(here, SweepShare::whole(), 100).await.expect("it may sweep");
    note(1, here);
    let target = RemovalTarget::Presence { room: room("lobby"), id: removed.id };
    let _ = store.remove(here, target, 100).await.expect("it may remove");
    note(1, here);
    let _ = store.prune(here, SECOND, Duration::ZERO, 100).await.expect("it may prune");
    note(1, here);
    let dead = node(store, "dead").await;
    let _ = crowd(store, dead, "lobby", 3).await;
    note(1, dead);
    assert_eq!(let_die(store, time, here).await, [dead]);
    let _ = store.clear(here, dead, ClearMode::HoldResumable(SECOND), 100).await.expect("it may clear");
    note(1, here);
    let last = node(store, "last").await;
    let _ = crowd(store, last, "lobby", 2).await;
    note(1, last);
    let _ = store.retire(last, Duration::ZERO).await.expect("it may end");
    note(1, last);
    assert_eq!(versions(after(store, lobby, 0).await), Some(expected));
}

pub async fn changes_that_are_not_all_there_are_not_returned(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    assert_eq!(after(store, Epoch::random(), 0).await, None, "there is no such room");
    let ann = anonymous(here, "ann");
    let lobby = change(store, here, "lobby", [join(&ann)]).await.epoch;
    assert_eq!(after(store, lobby, 2).await, None, "it is not that far");
    for n in 0..256 {
        let _ = change(store, here, "lobby", [update(&ann, &format!(r#"{{"n":{n}}}"#))]).await;
    }
    assert_eq!(after(store, lobby, 1).await.map(|changes| changes.len()), Some(256));
    assert_eq!(after(store, lobby, 0).await, None, "they are too many");
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4000));
    let crowd: Vec<_> = (0..80).map(|n| anonymous(here, &n.to_string())).collect();
    let _ = change(store, here, "lobby", crowd.iter().map(join)).await;
    let _ = change(store, here, "lobby", crowd.iter().map(|one| update(one, &large))).await;
    // A store may keep it, or not.
    let missing = after(store, lobby, 258).await;
    assert!(missing.is_none_or(|changes| changes.len() == 1));
}

pub async fn changes_are_forgotten_by_their_age(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let lobby = change(store, here, "lobby", [join(&anonymous(here, "ann"))]).await.epoch;
    time.advance(SECOND * 2);
    let _ = change(store, here, "lobby", [join(&anonymous(here, "bob"))]).await;
    store.forget_changes(SECOND * 3).await.expect("it works");
    assert_eq!(versions(after(store, lobby, 0).await), Some(vec![(1, here), (2, here)]));
    store.forget_changes(SECOND).await.expect("it works");
    assert_eq!(after(store, lobby, 0).await, None);
    assert_eq!(versions(after(store, lobby, 1).await), Some(vec![(2, here)]));
    time.advance(SECOND * 2);
    store.forget_changes(SECOND).await.expect("it works");
    assert_eq!(after(store, lobby, 1).await, None);
    assert_eq!(versions(after(store, lobby, 2).await), Some(vec![]));
}
