//! Sweeps, prunes, touches, and empty rooms.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{collections::HashSet, time::Duration};

use futures_util::future::join;

use crate::{
    name::{ChannelName, NodeId, PresenceId, Version},
    store::{Attempt, Batch, ClearMode, RemovalTarget, Store, SweepShare},
};

use super::{
    super::ManualClock, LEASE, SECOND, anonymous, change, crowd, join as joins, leave, let_die, members, node, of_user,
    room, user, writes,
};

const AGE: Duration = Duration::from_secs(60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A room `lobby` with this many presences that are held for `grace` from now, and a node that may write.
async fn held(store: &dyn Store, size: usize, grace: Duration) -> NodeId {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", size).await;
    let later = node(store, "here").await;
    let batch = store.clear(later, former, ClearMode::HoldAll(grace), u64::MAX).await.expect("it may clear");
    assert_eq!(batch.handled, size as u64);
    later
}

pub async fn a_held_presence_stays_for_its_grace_and_no_longer(store: &dyn Store, time: &ManualClock) {
    let here = held(store, 1, AGE).await;
    time.advance(AGE);
    assert_eq!(store.sweep(here, SweepShare::whole(), 10).await.expect("it may sweep").handled, 0);
    time.advance(MILLISECOND);
    let batch = store.sweep(here, SweepShare::whole(), 10).await.expect("it may sweep");
    assert_eq!((batch.handled, batch.commits.len()), (1, 1));
    assert_eq!((batch.commits[0].version, batch.commits[0].delta.left.len()), (Version(2), 1));
    assert_eq!(members(store, "lobby").await, (2, Vec::new()));
}

pub async fn a_sweep_works_in_batches(store: &dyn Store, time: &ManualClock) {
    let here = held(store, 5, SECOND).await;
    let _ = crowd(store, here, "bar", 3).await;
    time.advance(SECOND * 2);
    for (handled, commits) in [(2, 1), (2, 1), (1, 1), (0, 0)] {
        let batch = store.sweep(here, SweepShare::whole(), 2).await.expect("it may sweep");
        assert_eq!((batch.handled, batch.commits.len()), (handled, commits));
    }
    assert_eq!(members(store, "lobby").await, (4, Vec::new()));
    assert_eq!(members(store, "bar").await.1.len(), 3);
}

pub async fn a_removal_changes_at_most_512_rooms_at_once_and_reports_that_there_are_more(
    store: &dyn Store,
    time: &ManualClock,
) {
    const ROOMS: usize = 600;
    let former = node(store, "here").await;
    let rooms: Vec<_> = (0..ROOMS).map(|n| writes(&format!("room {n}"), [joins(&anonymous(former, "ann"))])).collect();
    let _ = store.commit(former, Attempt::next(), rooms.clone().into()).await.expect("the commit works");
    let later = node(store, "here").await;
    while store.clear(later, former, ClearMode::HoldAll(SECOND), 10_000).await.expect("it may clear").more {}
    time.advance(SECOND * 2);
    let mut commits = Vec::new();
    for (handled, more) in [(512, true), (ROOMS as u64 - 512, false)] {
        let batch = store.sweep(later, SweepShare::whole(), 10_000).await.expect("it may sweep");
        assert_eq!((batch.handled, batch.more, batch.commits.len() as u64), (handled, more, handled));
        commits.extend(batch.commits);
    }
    assert_eq!(commits.iter().map(|commit| &commit.room).collect::<HashSet<_>>().len(), ROOMS);
}

pub async fn pruning_spares_presences_of_live_nodes(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    let _ = crowd(store, here, "lobby", 3).await;
    let _ = crowd(store, judge, "bar", 3).await;
    time.advance(AGE * 10);
    store.renew(here, LEASE).await.expect("nobody fenced it");
    store.renew(judge, LEASE).await.expect("nobody fenced it");
    assert_eq!(store.prune(judge, AGE, Duration::ZERO, 100).await.expect("it may prune").handled, 0);
    assert_eq!(members(store, "lobby").await.1.len(), 3);
}

pub async fn pruning_spares_presences_of_the_calling_node_after_its_lease_expired(
    store: &dyn Store,
    time: &ManualClock,
) {
    // After a jump of the clock or an outage, a node pruned its own live presences.
    let here = node(store, "here").await;
    let _ = crowd(store, here, "lobby", 3).await;
    time.advance(AGE * 10);
    assert_eq!(store.prune(here, AGE, Duration::ZERO, 100).await.expect("nobody fenced it").handled, 0);
    assert_eq!(members(store, "lobby").await.1.len(), 3);
}

pub async fn pruning_removes_held_presences_and_those_of_dead_nodes(store: &dyn Store, time: &ManualClock) {
    let judge = held(store, 2, AGE * 100).await;
    let dead = node(store, "dead").await;
    let _ = crowd(store, dead, "bar", 3).await;
    let _ = change(store, judge, "lobby", [joins(&anonymous(judge, "new"))]).await;
    time.advance(AGE * 2);
    store.renew(judge, LEASE).await.expect("nobody fenced it");
    let mut batch = store.prune(judge, AGE, Duration::ZERO, 100).await.expect("it may prune");
    batch.commits.sort_unstable_by(|a, b| a.room.cmp(&b.room));
    let told: Vec<_> = batch.commits.iter().map(|c| (c.room.as_str(), c.version.0, c.delta.left.len())).collect();
    assert_eq!((batch.handled, told), (5, vec![("bar", 2, 3), ("lobby", 3, 2)]));
}

pub async fn only_for_presences_of_dead_nodes_a_later_touch_may_be_unwritten(store: &dyn Store, time: &ManualClock) {
    let judge = held(store, 2, AGE * 100).await;
    let dead = node(store, "dead").await;
    let _ = crowd(store, dead, "bar", 3).await;
    time.advance(AGE + MILLISECOND);
    store.renew(judge, LEASE).await.expect("nobody fenced it");
    let prune = async || store.prune(judge, AGE, AGE, 100).await.expect("it may prune").handled;
    assert_eq!((prune().await, prune().await), (2, 0), "those that are held");
    time.advance(AGE - MILLISECOND);
    store.renew(judge, LEASE).await.expect("nobody fenced it");
    assert_eq!(prune().await, 0);
    time.advance(MILLISECOND);
    assert_eq!(prune().await, 3);
}

pub async fn a_presence_seen_exactly_max_age_ago_stays(store: &dyn Store, time: &ManualClock) {
    let here = held(store, 1, AGE * 100).await;
    time.advance(AGE);
    assert_eq!(store.prune(here, AGE, Duration::ZERO, 10).await.expect("it may prune").handled, 0);
    time.advance(MILLISECOND);
    assert_eq!(store.prune(here, AGE, Duration::ZERO, 10).await.expect("it may prune").handled, 1);
}

pub async fn a_presence_that_a_restart_holds_counts_as_seen(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 1).await;
    time.advance(AGE * 2);
    let here = node(store, "here").await;
    let held = store.clear(here, former, ClearMode::HoldAll(AGE), 10).await.expect("it may clear");
    assert_eq!(held.handled, 1);
    time.advance(AGE);
    assert_eq!(
        store.prune(here, AGE, Duration::ZERO, 10).await.expect("it may prune").handled,
        0,
        "its grace is not over"
    );
    time.advance(MILLISECOND);
    assert_eq!(store.prune(here, AGE, Duration::ZERO, 10).await.expect("it may prune").handled, 1);
}

pub async fn a_resumed_presence_counts_as_seen(store: &dyn Store, time: &ManualClock) {
    let here = held(store, 1, AGE * 100).await;
    let judge = node(store, "judge").await;
    let (_, there) = members(store, "lobby").await;
    time.advance(AGE);
    assert_eq!(change(store, here, "lobby", [joins(&there[0])]).await.version, Version(2), "it has another node");
    time.advance(AGE);
    assert_eq!(store.prune(judge, AGE, Duration::ZERO, 10).await.expect("it may prune").handled, 0);
    time.advance(MILLISECOND);
    assert_eq!(
        store.prune(judge, AGE, Duration::ZERO, 10).await.expect("it may prune").handled,
        1,
        "its new node has no lease"
    );
}

pub async fn pruning_works_in_batches(store: &dyn Store, time: &ManualClock) {
    let here = held(store, 5, AGE * 100).await;
    time.advance(AGE * 2);
    for handled in [2, 2, 1, 0] {
        assert_eq!(store.prune(here, AGE, Duration::ZERO, 2).await.expect("it may prune").handled, handled);
    }
}

/// Two presences of a node join, the first is touched, and the node dies. Returns the presences that a prune leaves.
async fn spared_by(store: &dyn Store, time: &ManualClock, ago: Duration) -> usize {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let there = crowd(store, dead, "lobby", 2).await;
    time.advance(AGE);
    store.touch(dead, [(there[0].id, ago)].into()).await.expect("nobody fenced it");
    time.advance(SECOND);
    let _ = store.prune(judge, AGE, Duration::ZERO, 10).await.expect("it may prune");
    members(store, "lobby").await.1.len()
}

pub async fn a_touch_keeps_a_presence_from_being_pruned(store: &dyn Store, time: &ManualClock) {
    assert_eq!(spared_by(store, time, AGE - SECOND).await, 1);
}

pub async fn a_touch_never_goes_back(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let there = crowd(store, dead, "lobby", 1).await;
    time.advance(AGE);
    for ago in [Duration::ZERO, AGE, AGE * 1000] {
        store.touch(dead, [(there[0].id, ago)].into()).await.expect("nobody fenced it");
    }
    time.advance(AGE);
    assert_eq!(store.prune(judge, AGE, Duration::ZERO, 10).await.expect("it may prune").handled, 0);
}

pub async fn a_touch_gives_no_version(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let there = crowd(store, here, "lobby", 2_100).await;
    let before = members(store, "lobby").await;
    time.advance(SECOND);
    let seen: Vec<_> = there.iter().map(|presence| (presence.id, Duration::from_millis(5))).collect();
    store.touch(here, seen.into()).await.expect("it lives");
    store.touch(here, [].into()).await.expect("it lives");
    assert_eq!(members(store, "lobby").await, before);
}

pub async fn a_touch_of_a_missing_or_foreign_presence_is_skipped(store: &dyn Store, time: &ManualClock) {
    let (dead, here) = (node(store, "dead").await, node(store, "here").await);
    let theirs = crowd(store, dead, "lobby", 1).await;
    time.advance(AGE * 2);
    store.renew(here, LEASE).await.expect("nobody fenced it");
    let seen = [(PresenceId::random(), Duration::ZERO), (theirs[0].id, Duration::ZERO)];
    store.touch(here, seen.into()).await.expect("it lives");
    assert_eq!(store.prune(here, AGE, Duration::ZERO, 10).await.expect("it may prune").handled, 1);
}

pub async fn only_empty_rooms_are_pruned(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let a = anonymous(here, "a");
    let _ = change(store, here, "left", [joins(&a)]).await;
    let _ = change(store, here, "left", [leave(&a)]).await;
    let _ = change(store, here, "never joined", []).await;
    let _ = crowd(store, here, "lobby", 1).await;
    assert_eq!(store.prune_rooms(here).await.expect("it may prune"), 2);
    assert_eq!(store.load(room("left")).await.expect("loading works"), None);
    assert_eq!(members(store, "lobby").await.1.len(), 1);
    assert_eq!(store.prune_rooms(here).await.expect("it may prune"), 0);
}

pub async fn a_room_that_is_created_again_has_another_epoch_and_version_1(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let a = anonymous(here, "a");
    let first = change(store, here, "lobby", [joins(&a)]).await;
    let _ = change(store, here, "lobby", [leave(&a)]).await;
    assert_eq!(store.prune_rooms(here).await.expect("it may prune"), 1);
    let second = change(store, here, "lobby", [joins(&a)]).await;
    assert_ne!(first.epoch, second.epoch);
    assert_eq!(second.version, Version(1));
}

pub async fn a_room_that_is_being_joined_stays(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    for n in 0..30 {
        let name = format!("room {n}");
        let a = anonymous(here, "a");
        let _ = change(store, here, &name, []).await;
        let (joined, pruned) = join(change(store, here, &name, [joins(&a)]), store.prune_rooms(here)).await;
        pruned.expect("it may prune");
        assert_eq!(members(store, &name).await, (1, vec![a]));
        let loaded = store.load(room(&name)).await.expect("loading works").expect("it is being joined");
        assert_eq!(loaded.epoch, joined.epoch);
    }
}

pub async fn a_removal_spares_presences_of_live_nodes(store: &dyn Store, time: &ManualClock) {
    let [here, there, dead] = [node(store, "here").await, node(store, "there").await, node(store, "dead").await];
    time.advance(LEASE);
    for live in [here, there] {
        store.renew(live, LEASE).await.expect("it lives");
    }
    time.advance(SECOND);
    for (life, name) in [(here, "1"), (there, "2"), (dead, "3")] {
        let _ = change(store, life, "lobby", [joins(&of_user(life, name, "ann"))]).await;
    }
    for target in [RemovalTarget::User(user("ann")), RemovalTarget::Room(room("lobby"))] {
        let batch = store.remove(here, target.clone(), 10).await.expect("it may remove");
        assert!(batch.commits.iter().flat_map(|commit| &commit.delta.left).all(|left| left.node == dead));
    }
    let stay: Vec<_> = members(store, "lobby").await.1.iter().map(|presence| presence.node).collect();
    assert_eq!(stay, [here, there], "only these can tell their sockets");
}

pub async fn a_room_is_removed_in_batches_and_stays_empty(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let mut all = crowd(store, here, "lobby", 3).await;
    let theirs = of_user(there, "theirs", "ann");
    let _ = change(store, there, "lobby", [joins(&theirs)]).await;
    all.push(theirs);
    let _ = crowd(store, here, "bar", 2).await;
    let mut left = Vec::new();
    let judge = node(store, "judge").await;
    let _ = let_die(store, time, judge).await;
    for (handled, version) in [(3, Some(3)), (1, Some(4)), (0, None)] {
        let batch = store.remove(judge, RemovalTarget::Room(room("lobby")), 3).await.expect("it may remove");
        let versions: Vec<_> = batch.commits.iter().map(|commit| commit.version.0).collect();
        assert_eq!((batch.handled, versions), (handled, Vec::from_iter(version)));
        left.extend(batch.commits.into_iter().flat_map(|commit| commit.delta.left));
    }
    left.sort_unstable_by_key(|presence| presence.id);
    all.sort_unstable_by_key(|presence| presence.id);
    assert_eq!(left, all, "each leaves once");
    assert_eq!(members(store, "lobby").await, (4, Vec::new()));
    assert!(store.load(room("lobby")).await.expect("loading works").is_some(), "the room is there to be joined");
    assert_eq!(members(store, "bar").await.1.len(), 2);
    let nowhere = store.remove(judge, RemovalTarget::Room(room("nowhere")), 3).await.expect("it may remove");
    assert_eq!(nowhere, Batch::default());
}

pub async fn a_user_is_removed_from_every_room_with_one_version_each(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    for (name, node) in [("lobby", here), ("bar", there)] {
        let two = ["1", "2"].map(|channel| of_user(node, channel, "ann"));
        let other = of_user(node, "3", "Ann");
        let _ = change(store, node, name, two.iter().chain([&other, &anonymous(node, "4")]).map(joins)).await;
    }
    let (judge, ann) = (node(store, "judge").await, RemovalTarget::User(user("ann")));
    let _ = let_die(store, time, judge).await;
    let mut batch = store.remove(judge, ann.clone(), 10).await.expect("it may remove");
    batch.commits.sort_unstable_by(|a, b| a.room.cmp(&b.room));
    let told: Vec<_> = batch.commits.iter().map(|c| (c.room.as_str(), c.version.0, c.delta.left.len())).collect();
    assert_eq!((batch.handled, told), (4, vec![("bar", 2, 2), ("lobby", 2, 2)]));
    assert_eq!(store.rooms_of(user("ann")).await.expect("reading works"), []);
    assert_eq!(members(store, "lobby").await.1.len(), 2);
    assert_eq!(store.remove(judge, ann.clone(), 10).await.expect("it may remove"), Batch::default());
}

pub async fn a_user_is_removed_from_one_room_and_stays_in_the_others(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    for name in ["lobby", "bar"] {
        let two = ["1", "2"].map(|channel| of_user(here, channel, "ann"));
        let _ = change(store, here, name, two.iter().chain([&of_user(here, "3", "Ann")]).map(joins)).await;
    }
    let from = |name: &str| RemovalTarget::UserIn { user: user("ann"), room: room(name) };
    assert_eq!(
        store.remove(judge, from("lobby"), 10).await.expect("it may remove"),
        Batch::default(),
        "its node lives"
    );
    let _ = let_die(store, time, judge).await;
    let batch = store.remove(judge, from("lobby"), 10).await.expect("it may remove");
    let told: Vec<_> = batch.commits.iter().map(|c| (c.room.as_str(), c.version.0, c.delta.left.len())).collect();
    assert_eq!((batch.handled, told), (2, vec![("lobby", 2, 2)]));
    assert_eq!(store.rooms_of(user("ann")).await.expect("reading works"), [room("bar")]);
    assert_eq!(store.remove(judge, from("nowhere"), 10).await.expect("it may remove"), Batch::default());
}

pub async fn an_orphaned_presence_is_removed_by_its_id_or_its_channel(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let (mine, theirs) = (of_user(here, "mine", "ann"), of_user(there, "theirs", "ann"));
    let _ = change(store, here, "lobby", [joins(&mine)]).await;
    let _ = change(store, there, "lobby", [joins(&theirs), joins(&of_user(there, "other", "bob"))]).await;
    let _ = change(store, there, "bar", [joins(&of_user(there, "theirs", "ann"))]).await;
    let in_room = |name: &str, id| RemovalTarget::Presence { room: room(name), id };
    let of_channel =
        |name: &str, room| RemovalTarget::Channel { channel: ChannelName::new(name).expect("a name"), room };
    for target in [in_room("lobby", theirs.id), of_channel("theirs", None), of_channel("theirs", Some(room("lobby")))] {
        assert_eq!(
            store.remove(here, target.clone(), 10).await.expect("it may remove"),
            Batch::default(),
            "its node lives"
        );
    }
    time.advance(LEASE);
    store.renew(here, LEASE).await.expect("it lives");
    time.advance(SECOND);
    for nobody in [
        in_room("bar", theirs.id),
        in_room("nowhere", theirs.id),
        in_room("lobby", PresenceId::random()),
        in_room("lobby", mine.id),
        of_channel("mine", None),
        of_channel("THEIRS", None),
        of_channel("theirs", Some(room("nowhere"))),
    ] {
        assert_eq!(
            store.remove(here, nobody.clone(), 10).await.expect("it may remove"),
            Batch::default(),
            "{nobody:?}"
        );
    }
    let one = store.remove(here, in_room("lobby", theirs.id), 10).await.expect("it may remove");
    let left: Vec<_> = one.commits.iter().flat_map(|commit| &commit.delta.left).map(|left| left.id).collect();
    assert_eq!((one.handled, left), (1, vec![theirs.id]));
    let other = store.remove(here, of_channel("other", Some(room("lobby"))), 10).await.expect("it may remove");
    assert_eq!((other.handled, other.commits.len()), (1, 1));
    assert_eq!(members(store, "lobby").await.1.iter().map(|one| one.id).collect::<Vec<_>>(), [mine.id]);
    let rest = store.remove(here, of_channel("theirs", None), 10).await.expect("it may remove");
    assert_eq!((rest.handled, members(store, "bar").await.1.len()), (1, 0));
}

pub async fn removing_a_user_works_in_batches_and_removes_held_presences(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let five: Vec<_> = (0..5).map(|n| of_user(former, &n.to_string(), "ann")).collect();
    let _ = change(store, former, "lobby", five.iter().map(joins)).await;
    let later = node(store, "here").await;
    let held = store.clear(later, former, ClearMode::HoldAll(AGE), u64::MAX).await.expect("it may clear");
    assert_eq!(held.handled, 5);
    for handled in [2, 2, 1, 0] {
        assert_eq!(
            store.remove(later, RemovalTarget::User(user("ann")), 2).await.expect("it may remove").handled,
            handled
        );
    }
    time.advance(AGE * 2);
    assert_eq!(store.sweep(later, SweepShare::whole(), 10).await.expect("it may sweep"), Batch::default());
    assert_eq!(members(store, "lobby").await, (4, Vec::new()));
}
