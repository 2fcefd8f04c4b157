//! Lists of all rooms and nodes, for operators.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{collections::HashSet, time::Duration};

use crate::store::{ClearMode, LiveNode, NodeState, NodeSummary, RoomSummary, Store};

use super::{
    super::ManualClock, LEASE, SECOND, anonymous, change, commit, crowd, join, leave, let_die, node, of_user, room,
};

const GRACE: Duration = Duration::from_secs(20);

async fn rooms(store: &dyn Store) -> Vec<RoomSummary> {
    store.rooms(None, u64::MAX).await.expect("listing works")
}

async fn nodes(store: &dyn Store) -> Vec<NodeSummary> {
    store.nodes().await.expect("listing works")
}

pub async fn a_room_is_listed_with_its_numbers(store: &dyn Store, time: &ManualClock) {
    assert_eq!(rooms(store).await, []);
    let (dead, here) = (node(store, "here").await, node(store, "judge").await);
    let three = [of_user(dead, "1", "ann"), of_user(dead, "2", "ann"), anonymous(dead, "3")];
    let _ = change(store, dead, "lobby", three.iter().map(join)).await;
    let _ = let_die(store, time, here).await;
    let held = store.clear(here, dead, ClearMode::HoldAll(GRACE), 10).await.expect("it may clear");
    assert_eq!(held.handled, 3);
    let last = change(store, here, "lobby", [join(&of_user(here, "4", "Ann")), join(&anonymous(here, "5"))]).await;
    let listed = rooms(store).await;
    let [lobby] = &listed[..] else { panic!("one room: {listed:?}") };
    assert_eq!((&lobby.room, lobby.epoch, lobby.version), (&last.room, last.epoch, last.version));
    assert_eq!((lobby.users, lobby.anonymous, lobby.presences, lobby.held), (2, 2, 5, 3));
}

pub async fn rooms_are_listed_in_the_order_of_their_bytes_empty_ones_too(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    for name in ["b", "Z", "é", "a"] {
        let _ = crowd(store, here, name, 1).await;
    }
    let _ = change(store, here, "nobody", []).await;
    let listed = rooms(store).await;
    let told: Vec<_> = listed.iter().map(|room| (room.room.as_str(), room.version.0, room.presences)).collect();
    assert_eq!(told, [("Z", 1, 1), ("a", 1, 1), ("b", 1, 1), ("nobody", 0, 0), ("é", 1, 1)]);
}

pub async fn rooms_are_listed_page_by_page(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    for name in ["b", "Z", "é", "a", "nobody"] {
        let _ = crowd(store, here, name, if name == "nobody" { 0 } else { 1 }).await;
    }
    let mut pages: Vec<Vec<String>> = Vec::new();
    let mut after = None;
    while pages.last().is_none_or(|page| !page.is_empty()) {
        let page = store.rooms(after.clone(), 2).await.expect("listing works");
        pages.push(page.iter().map(|listed| listed.room.to_string()).collect());
        after = page.into_iter().next_back().map(|listed| listed.room).or(after);
    }
    assert_eq!(pages, [vec!["Z", "a"], vec!["b", "nobody"], vec!["é"], vec![]]);
    assert_eq!(store.rooms(Some(room("c")), 1).await.expect("listing works")[0].room, room("nobody"));
}

pub async fn the_last_seen_times_of_a_room_are_listed(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let two = crowd(store, here, "lobby", 2).await;
    let _ = crowd(store, here, "bar", 1).await;
    time.advance(SECOND * 5);
    store.touch(here, [(two[0].id, SECOND)].into()).await.expect("it lives");
    let mut seen = store.last_seen(room("lobby")).await.expect("listing works");
    seen.sort_unstable();
    let mut expected = [(two[0].id, SECOND), (two[1].id, SECOND * 5)];
    expected.sort_unstable();
    assert_eq!(seen, expected);
    assert_eq!(store.last_seen(room("nowhere")).await.expect("listing works"), []);
}

pub async fn all_positions_are_those_of_every_room(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let mut expected = HashSet::new();
    for n in 0..30 {
        let commit = change(store, here, &format!("room {n}"), [join(&anonymous(here, "a"))]).await;
        expected.insert((commit.room, commit.epoch, commit.version));
    }
    let told = store.all_positions().await.expect("reading works");
    assert_eq!(told.len(), 30);
    assert_eq!(told.into_iter().collect::<HashSet<_>>(), expected);
}

pub async fn a_node_is_listed_with_its_age_its_lease_and_its_presences(store: &dyn Store, time: &ManualClock) {
    let (there, here) = (node(store, "there").await, node(store, "here").await);
    let _ = crowd(store, here, "lobby", 3).await;
    time.advance(SECOND * 3);
    store.renew(here, LEASE).await.expect("it lives");
    time.advance(SECOND);
    let listed = nodes(store).await;
    let told: Vec<_> = listed.iter().map(|node| (node.name.as_str(), node.node, node.presences, node.held)).collect();
    assert_eq!(told, [("here", here, 3, 0), ("there", there, 0, 0)]);
    let process = listed[0].process.as_deref().expect("this version says it");
    assert!(process.starts_with(&format!("pid {} on ", std::process::id())), "{process}");
    assert_eq!((listed[0].age, listed[0].state), (SECOND * 4, NodeState::Live { left: SECOND * 9 }));
    assert_eq!((listed[1].age, listed[1].state), (SECOND * 4, NodeState::Live { left: SECOND * 6 }));
}

pub async fn registering_again_does_not_make_a_node_younger(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    time.advance(SECOND * 3);
    let name = nodes(store).await.remove(0).name;
    assert_eq!(store.register(here, name.clone(), LEASE).await.expect("it lives"), []);
    let listed = nodes(store).await.remove(0);
    assert_eq!((listed.age, listed.state), (SECOND * 3, NodeState::Live { left: LEASE }));
}

pub async fn a_lease_that_ran_out_is_listed_and_then_that_it_was_fenced(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let _ = crowd(store, dead, "lobby", 1).await;
    time.advance(LEASE);
    assert_eq!(nodes(store).await[0].state, NodeState::Live { left: Duration::ZERO });
    time.advance(SECOND);
    assert_eq!(nodes(store).await[0].state, NodeState::Expired { since: SECOND });
    assert_eq!(store.fence(judge).await.expect("it may judge"), [dead]);
    time.advance(SECOND * 2);
    assert_eq!(nodes(store).await[0].state, NodeState::Fenced { since: SECOND * 2, superseded: false });
    let batch = store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 10).await.expect("it may clear");
    assert_eq!(batch.handled, 1);
    let listed = nodes(store).await;
    assert_eq!(listed.iter().map(|node| node.node).collect::<Vec<_>>(), [judge], "it is forgotten");
}

pub async fn only_nodes_that_are_not_fenced_are_among_the_live_ones(store: &dyn Store, time: &ManualClock) {
    let (dead, former) = (node(store, "dead").await, node(store, "here").await);
    for (node, room) in [(dead, "lobby"), (former, "desk")] {
        let _ = crowd(store, node, room, 1).await;
    }
    time.advance(SECOND);
    let later = node(store, "here").await;
    let live = async || store.live_nodes().await.expect("listing works");
    let told =
        |nodes: Vec<LiveNode>| nodes.into_iter().map(|node| (node.node, node.age, node.state)).collect::<Vec<_>>();
    let left = |left| NodeState::Live { left };
    let both = [(dead, SECOND, left(LEASE - SECOND)), (later, Duration::ZERO, left(LEASE))];
    assert_eq!(told(live().await), both);
    let (live_ones, all) = (live().await, nodes(store).await);
    assert_eq!(live_ones.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["dead", "here"]);
    assert_eq!(live_ones[1].process, all[2].process);
    time.advance(LEASE);
    store.renew(later, LEASE).await.expect("it lives");
    let expired = (dead, SECOND + LEASE, NodeState::Expired { since: SECOND });
    assert_eq!(told(live().await), [expired, (later, LEASE, left(LEASE))]);
    assert_eq!(store.fence(later).await.expect("it may judge"), [dead]);
    assert_eq!(told(live().await), [(later, LEASE, left(LEASE))]);
}

pub async fn a_former_life_is_listed_under_the_name_that_it_lost(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 2).await;
    let later = node(store, "here").await;
    let held = store.clear(later, former, ClearMode::HoldAll(GRACE), 1).await.expect("it may clear");
    assert_eq!(held.handled, 1);
    time.advance(SECOND);
    let listed = nodes(store).await;
    let told: Vec<_> = listed.iter().map(|node| (node.name.as_str(), node.node, node.presences, node.held)).collect();
    assert_eq!(told, [("here", former, 2, 1), ("here", later, 0, 0)]);
    assert_eq!(listed[0].state, NodeState::Fenced { since: SECOND, superseded: true });
}

pub async fn who_leaves_is_no_longer_counted(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let there = crowd(store, here, "lobby", 2).await;
    let gone = commit(store, here, "lobby", [leave(&there[0])]).await.expect("it lives");
    assert_eq!(gone.room, room("lobby"));
    assert_eq!((rooms(store).await[0].presences, nodes(store).await[0].presences), (1, 1));
}
