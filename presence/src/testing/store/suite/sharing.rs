//! How several nodes share the cleaning up, so that each part of it is done by one of them.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{collections::BTreeSet, time::Duration};

use crate::{
    name::NodeId,
    store::{Attempt, Batch, ClearMode, NodeState, Store, Survey, SweepShare, Write},
};

use super::{super::ManualClock, LEASE, SECOND, anonymous, change, crowd, join, let_die, members, node, writes};

const GRACE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);
/// For how long a dead node is left to the node that clears it.
const LEFT_TO_CLEANER: Duration = Duration::from_secs(10);

async fn clear(store: &dyn Store, judge: NodeId, dead: NodeId) -> Batch {
    store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 2).await.expect("it may clear")
}

async fn survey(store: &dyn Store, node: NodeId) -> Survey {
    store.survey(node).await.expect("the survey works")
}

pub async fn a_dead_node_is_left_to_the_node_that_clears_it(store: &dyn Store, time: &ManualClock) {
    let (dead, cleaner, other) = (node(store, "dead").await, node(store, "cleaner").await, node(store, "other").await);
    let _ = crowd(store, dead, "lobby", 7).await;
    time.advance(LEASE / 2);
    store.renew(other, LEASE).await.expect("it lives");
    time.advance(LEASE / 2 + MILLISECOND);
    store.renew(cleaner, LEASE).await.expect("it lives");
    assert_eq!(store.fence(other).await.expect("it may judge"), [dead]);
    assert_eq!(clear(store, cleaner, dead).await.handled, 2);
    assert_eq!(store.fence(other).await.expect("it may judge"), []);
    assert_eq!(clear(store, other, dead).await, Batch::default());
    assert_eq!(store.fence(cleaner).await.expect("it may judge"), [dead], "it is its own");
    time.advance(LEFT_TO_CLEANER);
    for alive in [cleaner, other] {
        store.renew(alive, LEASE).await.expect("it lives");
    }
    assert_eq!(clear(store, other, dead).await, Batch::default(), "not yet");
    assert_eq!(clear(store, cleaner, dead).await.handled, 2);
    time.advance(LEFT_TO_CLEANER + MILLISECOND);
    for alive in [cleaner, other] {
        store.renew(alive, LEASE).await.expect("nobody fenced it");
    }
    assert_eq!(store.fence(other).await.expect("it may judge"), [dead], "the cleaner has stopped");
    assert_eq!(clear(store, other, dead).await.handled, 2);
    assert_eq!(clear(store, cleaner, dead).await, Batch::default(), "now it is left to the other one");
    assert_eq!(clear(store, other, dead).await.handled, 1);
    assert_eq!(members(store, "lobby").await.1, []);
}

pub async fn a_node_that_restarts_holds_its_presences_while_another_one_clears_them(
    store: &dyn Store,
    time: &ManualClock,
) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let _ = crowd(store, dead, "lobby", 5).await;
    assert_eq!(let_die(store, time, judge).await, [dead]);
    assert_eq!(clear(store, judge, dead).await.handled, 2);
    let later = node(store, "dead").await;
    let held = store.clear(later, dead, ClearMode::HoldAll(GRACE), 10).await.expect("it may clear");
    assert_eq!(held.handled, 3);
    assert!(members(store, "lobby").await.1.iter().all(|presence| presence.held));
}

pub async fn each_room_is_swept_by_one_node_at_once_and_by_any_after_the_delay(store: &dyn Store, time: &ManualClock) {
    const ROOMS: usize = 60;
    let nodes = [node(store, "a").await, node(store, "b").await, node(store, "c").await];
    let there: Vec<_> = (0..ROOMS).map(|n| (format!("room {n}"), anonymous(nodes[0], "ann"))).collect();
    let joins: Vec<_> = there.iter().map(|(room, presence)| writes(room, [join(presence)])).collect();
    let _ = store.commit(nodes[0], Attempt::next(), joins.into()).await.expect("the commit works");
    let hold = |presence: &crate::model::Presence| Write::Hold {
        id: presence.id,
        channel: presence.channel.clone(),
        grace: SECOND,
    };
    let holds: Vec<_> = there.iter().map(|(room, presence)| writes(room, [hold(presence)])).collect();
    let _ = store.commit(nodes[0], Attempt::next(), holds.into()).await.expect("the commit works");
    time.advance(SECOND + MILLISECOND);
    let share = |here: NodeId| {
        let others: Vec<NodeId> = nodes.into_iter().filter(|node| *node != here).collect();
        SweepShare::beside(others, SECOND * 2)
    };
    let mut swept = BTreeSet::new();
    // The last one does not sweep.
    for here in &nodes[..2] {
        loop {
            let batch = store.sweep(*here, share(*here), 7).await.expect("it may sweep");
            assert!(batch.handled <= 7);
            for commit in batch.commits {
                assert!(share(*here).has(*here, commit.epoch));
                assert!(swept.insert(commit.room), "each room once");
            }
            if !batch.more {
                break;
            }
        }
    }
    let left: u64 = (ROOMS - swept.len()) as u64;
    assert!((5..=35).contains(&left), "{left} of {ROOMS} rooms are in the share of one of three");
    time.advance(SECOND * 2);
    let batch = store.sweep(nodes[0], share(nodes[0]), 1_000).await.expect("it may sweep");
    assert_eq!((batch.handled, batch.commits.len() as u64, batch.more), (left, left, false));
}

pub async fn a_survey_reports_what_a_sweep_would_find(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let presence = anonymous(there, "ann");
    let _ = change(store, there, "lobby", [join(&presence)]).await;
    let found = survey(store, here).await;
    assert_eq!((found.has_dead, found.has_expired_graces), (false, false));
    assert_eq!(found.live, store.live_nodes().await.expect("listing works"));
    let hold = Write::Hold { id: presence.id, channel: presence.channel.clone(), grace: SECOND };
    let _ = change(store, there, "lobby", [hold]).await;
    time.advance(SECOND);
    assert!(!survey(store, here).await.has_expired_graces);
    time.advance(MILLISECOND);
    assert!(survey(store, here).await.has_expired_graces);
    assert_eq!(store.sweep(here, SweepShare::whole(), 10).await.expect("it may sweep").handled, 1);
    assert!(!survey(store, here).await.has_expired_graces);

    let _ = crowd(store, there, "lobby", 3).await;
    time.advance(LEASE);
    store.renew(here, LEASE).await.expect("it lives");
    let found = survey(store, here).await;
    assert!(found.has_dead, "a lease has expired");
    assert!(matches!(found.live[1].state, NodeState::Expired { .. }), "{:?}", found.live);
    assert_eq!(store.fence(here).await.expect("it may judge"), [there]);
    let found = survey(store, here).await;
    assert!(found.has_dead, "presences are left to clear");
    assert_eq!(found.live.len(), 1);
    assert_eq!(clear(store, here, there).await.handled, 2);
    assert!(survey(store, here).await.has_dead);
    let third = node(store, "third").await;
    assert!(!survey(store, third).await.has_dead, "another node clears it");
    assert_eq!(clear(store, here, there).await.handled, 1);
    assert!(!survey(store, here).await.has_dead);
}

pub async fn a_survey_reports_former_incarnations_only_without_a_live_successor(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 1).await;
    let (_later, judge) = (node(store, "here").await, node(store, "judge").await);
    assert!(!survey(store, judge).await.has_dead);
    time.advance(LEASE + MILLISECOND);
    store.renew(judge, LEASE).await.expect("it lives");
    assert!(survey(store, judge).await.has_dead);
    assert_eq!(store.fence(judge).await.expect("it may judge"), [former]);
    assert!(survey(store, judge).await.has_dead);
    assert_eq!(clear(store, judge, former).await.handled, 1);
    assert!(!survey(store, judge).await.has_dead);
    // An incarnation that lost its name is kept for a day.
    time.advance(SECOND * 60 * 60 * 25);
    assert!(survey(store, judge).await.has_dead);
    store.renew(judge, LEASE).await.expect("it lives");
    assert_eq!(store.fence(judge).await.expect("it may judge"), []);
    assert!(!survey(store, judge).await.has_dead);
}
