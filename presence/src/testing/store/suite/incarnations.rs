//! Incarnations of nodes: leases, names, fencing, and the presences of fenced incarnations.

#![expect(missing_docs, reason = "the names are sentences")]

use std::time::Duration;

use crate::{
    name::{NodeId, NodeName},
    store::{ClearMode, RemovalTarget, Store, SweepShare, Write},
};

use super::{
    super::ManualClock, LEASE, SECOND, anonymous, change, commit, crowd, is_fenced, join, leave, let_die, members,
    node, room, user,
};

const GRACE: Duration = Duration::from_secs(30);

pub async fn an_unregistered_incarnation_may_not_write(store: &dyn Store, _: &ManualClock) {
    let stranger = NodeId::random();
    assert!(is_fenced(&store.renew(stranger, LEASE).await, stranger, false));
    let joins = join(&anonymous(stranger, "a"));
    assert!(is_fenced(&commit(store, stranger, "lobby", [joins]).await, stranger, false));
    assert_eq!(store.load(room("lobby")).await.expect("loading works"), None);
}

pub async fn registering_again_renews_the_lease(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    let _ = crowd(store, here, "lobby", 1).await;
    time.advance(LEASE - SECOND);
    let name = NodeName::new("here").expect("a good name");
    assert_eq!(store.register(here, name.clone(), LEASE).await.expect("it lives"), []);
    time.advance(SECOND * 5);
    store.renew(judge, LEASE).await.expect("it lives");
    assert_eq!(store.fence(judge).await.expect("it may judge"), []);
    store.renew(here, LEASE).await.expect("nobody fenced it");
}

pub async fn a_later_incarnation_takes_the_name_and_fences_the_former(store: &dyn Store, _: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 1).await;
    let (later, name) = (NodeId::random(), NodeName::new("here").expect("a good name"));
    assert_eq!(store.register(later, name.clone(), LEASE).await.expect("it is new"), [former]);
    assert!(is_fenced(&store.renew(former, LEASE).await, former, true));
    store.renew(later, LEASE).await.expect("it lives");
}

pub async fn an_incarnation_that_lost_its_name_is_superseded(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let later = node(store, "here").await;
    let name = NodeName::new("here").expect("a good name");
    assert!(
        is_fenced(&store.register(former, name.clone(), LEASE).await, former, true),
        "it must stop, not begin again"
    );
    assert!(is_fenced(&store.retire(former, Duration::ZERO).await, former, true));
    let judge = node(store, "judge").await;
    let_die(store, time, judge).await;
    assert!(is_fenced(&store.renew(later, LEASE).await, later, false), "nobody has its name");
    assert!(is_fenced(&store.renew(former, LEASE).await, former, false), "the name is free again");
}

pub async fn an_incarnation_that_lost_its_name_is_kept_for_a_day(store: &dyn Store, time: &ManualClock) {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let former = node(store, "here").await;
    let later = node(store, "here").await;
    for (hours, remembered) in [(23, true), (2, false)] {
        time.advance(HOUR * hours);
        store.renew(later, LEASE).await.expect("nobody fenced it");
        assert_eq!(store.fence(later).await.expect("it may judge"), []);
        assert!(is_fenced(&store.renew(former, LEASE).await, former, remembered));
    }
}

pub async fn an_incarnation_that_ends_before_it_cleared_the_former_leaves_both_to_the_next(
    store: &dyn Store,
    _: &ManualClock,
) {
    let first = node(store, "here").await;
    let _ = crowd(store, first, "lobby", 2).await;
    let second = node(store, "here").await;
    let _ = crowd(store, second, "bar", 2).await;
    let name = NodeName::new("here").expect("a good name");
    let mut former = vec![first, second];
    former.sort_unstable();
    assert_eq!(store.register(NodeId::random(), name.clone(), LEASE).await.expect("it is new"), former);
}

pub async fn registering_again_returns_the_former_incarnation_again(store: &dyn Store, _: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 2).await;
    let (later, name) = (NodeId::random(), NodeName::new("here").expect("a good name"));
    for _ in 0..2 {
        // The first answer may have been lost.
        assert_eq!(store.register(later, name.clone(), LEASE).await.expect("it lives"), [former]);
    }
    store.clear(later, former, ClearMode::HoldAll(GRACE), 10).await.expect("it may clear");
    assert_eq!(store.register(later, name.clone(), LEASE).await.expect("it lives"), []);
}

pub async fn an_expired_lease_can_be_renewed_before_the_node_is_fenced(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let members_before = crowd(store, here, "lobby", 3).await;
    time.advance(LEASE * 100);
    let commit = change(store, here, "lobby", [leave(&members_before[0])]).await;
    assert_eq!(commit.delta.left.len(), 1, "it may write as long as nobody fenced it");
    store.renew(here, LEASE).await.expect("nobody fenced it");
    assert_eq!(members(store, "lobby").await.1.len(), 2);
}

pub async fn a_renewal_returns_the_time_of_the_database(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    for hour in 0..3 {
        let now = store.renew(here, LEASE).await.expect("it lives");
        assert_eq!(i64::try_from(now.as_millis()), Ok(time.millis()), "after {hour} hours");
        time.advance(SECOND * 3600);
    }
}

pub async fn a_live_incarnation_is_not_fenced(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    let _ = crowd(store, here, "lobby", 1).await;
    for _ in 0..5 {
        time.advance(LEASE / 2);
        store.renew(here, LEASE).await.expect("it lives");
        store.renew(judge, LEASE).await.expect("it lives");
        assert_eq!(store.fence(judge).await.expect("it may judge"), []);
    }
}

pub async fn a_lease_is_valid_to_its_very_end(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    let _ = crowd(store, here, "lobby", 1).await;
    time.advance(LEASE);
    assert_eq!(store.fence(judge).await.expect("it may judge"), []);
    time.advance(Duration::from_millis(1));
    assert_eq!(store.fence(judge).await.expect("its own lease does not matter"), [here]);
}

pub async fn a_fenced_incarnation_may_not_write(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let there = crowd(store, dead, "lobby", 2).await;
    assert_eq!(let_die(store, time, judge).await, [dead]);
    for cleared in [false, true] {
        if cleared {
            let _ = store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 10).await.expect("it may clear");
        }
        let before = members(store, "lobby").await;
        assert!(is_fenced(&store.renew(dead, LEASE).await, dead, false));
        assert!(is_fenced(&commit(store, dead, "lobby", [join(&anonymous(dead, "late"))]).await, dead, false));
        assert!(is_fenced(&commit(store, dead, "lobby", [leave(&there[0])]).await, dead, false));
        assert!(is_fenced(&store.touch(dead, [(there[0].id, Duration::ZERO)].into()).await, dead, false));
        assert!(is_fenced(&store.fence(dead).await, dead, false));
        assert!(is_fenced(&store.clear(dead, dead, ClearMode::HoldAll(GRACE), 10).await, dead, false));
        assert!(is_fenced(&store.sweep(dead, SweepShare::whole(), 10).await, dead, false));
        assert!(is_fenced(&store.prune(dead, Duration::ZERO, Duration::ZERO, 10).await, dead, false));
        assert!(is_fenced(&store.prune_rooms(dead).await, dead, false));
        assert!(is_fenced(&store.remove(dead, RemovalTarget::Room(room("lobby")), 10).await, dead, false));
        assert!(is_fenced(&store.remove(dead, RemovalTarget::User(user("ann")), 10).await, dead, false));
        assert_eq!(members(store, "lobby").await, before);
    }
}

pub async fn a_fenced_incarnation_is_returned_until_it_is_cleared(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let _ = crowd(store, dead, "lobby", 3).await;
    assert_eq!(let_die(store, time, judge).await, [dead]);
    assert_eq!(store.fence(judge).await.expect("it may judge"), [dead]);
    let _ = store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 2).await.expect("it may clear");
    assert_eq!(store.fence(judge).await.expect("it may judge"), [dead]);
    let _ = store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 2).await.expect("it may clear");
    assert_eq!(store.fence(judge).await.expect("it may judge"), []);
}

pub async fn a_former_incarnation_is_left_to_its_live_successor(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 1).await;
    let _later = node(store, "here").await;
    let judge = node(store, "judge").await;
    assert_eq!(store.fence(judge).await.expect("it may judge"), []);
    assert_eq!(let_die(store, time, judge).await, [former], "the successor died before it had cleared it");
}

pub async fn a_live_incarnation_is_not_cleared(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    let _ = crowd(store, here, "lobby", 1).await;
    time.advance(LEASE * 2);
    for whose in [here, NodeId::random()] {
        let batch = store.clear(judge, whose, ClearMode::HoldResumable(GRACE), 10).await.expect("it may ask");
        assert_eq!((batch.handled, batch.commits), (0, Vec::new()));
    }
    assert!(!members(store, "lobby").await.1[0].held);
}

pub async fn a_restart_holds_all_presences_in_batches_and_changes_no_room(store: &dyn Store, _: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 5).await;
    let _ = crowd(store, former, "bar", 2).await;
    let later = node(store, "here").await;
    for handled in [3, 3, 1, 0] {
        let batch = store.clear(later, former, ClearMode::HoldAll(GRACE), 3).await.expect("it may clear");
        assert_eq!((batch.handled, batch.commits), (handled, Vec::new()));
    }
    let (version, members) = members(store, "lobby").await;
    assert_eq!((version, members.len()), (1, 5));
    assert!(members.iter().all(|presence| presence.held));
}

pub async fn presences_of_a_dead_node_without_a_token_leave_in_batches(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let mut there = crowd(store, dead, "lobby", 5).await;
    let stays = anonymous(judge, "stays");
    let _ = change(store, judge, "lobby", [join(&stays)]).await;
    assert_eq!(let_die(store, time, judge).await, [dead]);
    let mut left = Vec::new();
    for (handled, version) in [(3, 3), (2, 4)] {
        let batch = store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 3).await.expect("it may clear");
        assert_eq!((batch.handled, batch.commits.len()), (handled, 1));
        let commit = &batch.commits[0];
        assert_eq!((commit.room.as_str(), commit.version.0), ("lobby", version));
        left.extend(commit.delta.left.clone());
    }
    left.sort_unstable_by_key(|presence| presence.id);
    there.sort_unstable_by_key(|presence| presence.id);
    assert_eq!(left, there, "each leaves once");
    assert_eq!(members(store, "lobby").await, (4, vec![stays]));
}

pub async fn held_presences_keep_their_grace_when_cleared_again(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 2).await;
    let (later, judge) = (node(store, "here").await, node(store, "judge").await);
    assert_eq!(store.clear(later, former, ClearMode::HoldAll(GRACE), 10).await.expect("it may clear").handled, 2);
    assert_eq!(let_die(store, time, judge).await, [], "what is held needs nobody's care");
    for whose in [former, later] {
        let batch = store.clear(judge, whose, ClearMode::HoldResumable(GRACE), 10).await.expect("it may clear");
        assert_eq!(batch.handled, 0);
    }
    time.advance(GRACE - LEASE - SECOND);
    assert_eq!(store.sweep(judge, SweepShare::whole(), 10).await.expect("it may sweep").handled, 0);
    time.advance(Duration::from_millis(1));
    assert_eq!(store.sweep(judge, SweepShare::whole(), 10).await.expect("it may sweep").handled, 2);
}

pub async fn a_cleared_incarnation_is_forgotten(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let _ = crowd(store, dead, "lobby", 2).await;
    assert_eq!(let_die(store, time, judge).await, [dead]);
    assert_eq!(store.clear(judge, dead, ClearMode::HoldResumable(GRACE), 10).await.expect("it may clear").handled, 2);
    assert_eq!(store.retire(dead, Duration::ZERO).await.expect("there is nothing to retire"), []);
    assert!(is_fenced(&store.renew(dead, LEASE).await, dead, false));
}

pub async fn retiring_removes_the_presences_of_the_node(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let _ = crowd(store, here, "lobby", 3).await;
    let _ = crowd(store, here, "bar", 1).await;
    let stays = anonymous(there, "stays");
    let _ = change(store, there, "lobby", [join(&stays)]).await;
    let mut commits = store.retire(here, Duration::ZERO).await.expect("it may retire");
    commits.sort_unstable_by(|a, b| a.room.cmp(&b.room));
    let told: Vec<_> = commits.iter().map(|c| (c.room.as_str(), c.version.0, c.delta.left.len())).collect();
    assert_eq!(told, [("bar", 2, 1), ("lobby", 3, 3)]);
    assert_eq!(members(store, "lobby").await, (3, vec![stays]));
    assert!(is_fenced(&store.renew(here, LEASE).await, here, false));
}

pub async fn retiring_again_changes_nothing(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let _ = crowd(store, here, "lobby", 1).await;
    assert_eq!(store.retire(here, Duration::ZERO).await.expect("it may retire").len(), 1);
    assert_eq!(store.retire(here, Duration::ZERO).await.expect("the first answer may have been lost"), []);
}

pub async fn retiring_keeps_held_presences(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let _ = crowd(store, former, "lobby", 1).await;
    let (later, judge) = (node(store, "here").await, node(store, "judge").await);
    assert_eq!(store.clear(later, former, ClearMode::HoldAll(GRACE), 10).await.expect("it may clear").handled, 1);
    assert_eq!(store.retire(later, Duration::ZERO).await.expect("it may retire"), []);
    assert_eq!(members(store, "lobby").await.1.len(), 1);
    time.advance(GRACE + SECOND);
    assert_eq!(store.sweep(judge, SweepShare::whole(), 10).await.expect("it may sweep").handled, 1);
}

/// Held presences of `node` in the lobby.
async fn hold(store: &dyn Store, node: NodeId, names: [&str; 2], grace: Duration) {
    let presences = names.map(|name| anonymous(node, name));
    let _ = change(store, node, "lobby", presences.each_ref().map(join)).await;
    let holds =
        presences.each_ref().map(|presence| Write::Hold { id: presence.id, channel: presence.channel.clone(), grace });
    let _ = change(store, node, "lobby", holds).await;
}

/// How many presences a sweep removes.
async fn swept(store: &dyn Store, judge: NodeId) -> u64 {
    store.sweep(judge, SweepShare::whole(), 10).await.expect("it may sweep").handled
}

/// Two presences are swept when more than this time has passed, and none before.
async fn two_are_swept_after(store: &dyn Store, judge: NodeId, time: &ManualClock, wait: Duration) {
    time.advance(wait);
    assert_eq!(swept(store, judge).await, 0);
    time.advance(Duration::from_millis(1));
    assert_eq!(swept(store, judge).await, 2);
}

/// At a regular restart of a busy server, up to two thirds of the users were seen leaving: their graces expired while there was no server
/// to return to.
pub async fn a_grace_is_extended_by_the_time_its_node_is_closed_or_gone(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    hold(store, here, ["early", "too"], GRACE - SECOND * 5).await;
    time.advance(SECOND * 5);
    // The shutdown begins.
    hold(store, here, ["late", "also"], GRACE).await;
    time.advance(SECOND * 4);
    assert_eq!(store.retire(here, SECOND * 4).await.expect("it may retire"), []);
    time.advance(SECOND * 6);
    let _later = node(store, "here").await;
    // What was left of their grace when the shutdown began.
    two_are_swept_after(store, judge, time, GRACE - SECOND * 10).await;
    // A whole grace after the start.
    two_are_swept_after(store, judge, time, SECOND * 10 - Duration::from_millis(1)).await;
}

pub async fn a_grace_that_expired_before_its_node_closed_is_not_extended(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    hold(store, here, ["a", "b"], SECOND).await;
    time.advance(SECOND * 2);
    let closed = Duration::from_millis(500);
    assert_eq!(store.retire(here, closed).await.expect("it may retire"), []);
    time.advance(SECOND * 60);
    let _later = node(store, "here").await;
    assert_eq!(swept(store, judge).await, 2);
}

pub async fn a_grace_is_extended_by_the_time_between_a_kill_and_the_next_start(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    hold(store, here, ["a", "b"], GRACE).await;
    time.advance(SECOND * 3);
    store.renew(here, LEASE).await.expect("it lives");
    // It is killed, and no other node fences it.
    time.advance(GRACE * 10);
    let _next = node(store, "here").await;
    // So is the next incarnation, which had none of the presences.
    time.advance(SECOND);
    let _later = node(store, "here").await;
    two_are_swept_after(store, judge, time, GRACE - SECOND * 3).await;
}

pub async fn a_grace_of_another_node_is_not_extended_by_a_restart(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    hold(store, there, ["a", "b"], GRACE).await;
    time.advance(SECOND * 4);
    store.retire(here, SECOND * 4).await.expect("it may retire");
    time.advance(SECOND * 6);
    let _later = node(store, "here").await;
    two_are_swept_after(store, there, time, GRACE - SECOND * 10).await;
}

pub async fn registering_again_does_not_extend_graces_again(store: &dyn Store, time: &ManualClock) {
    let (here, judge) = (node(store, "here").await, node(store, "judge").await);
    hold(store, here, ["a", "b"], GRACE).await;
    store.retire(here, Duration::ZERO).await.expect("it may retire");
    let (later, name) = (NodeId::random(), NodeName::new("here").expect("a good name"));
    for _ in 0..2 {
        // The first answer may have been lost.
        time.advance(SECOND * 5);
        assert_eq!(store.register(later, name.clone(), LEASE).await.expect("it lives"), []);
    }
    two_are_swept_after(store, judge, time, GRACE - SECOND * 5).await;
}
