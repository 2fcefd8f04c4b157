//! What has changed since a node last asked.

#![expect(missing_docs, reason = "the names are sentences")]

use std::collections::BTreeMap;

use crate::{
    session::{Session, SessionHash},
    store::{ClearMode, RecentChanges, RemovalTarget, SweepShare, WriteCounts},
};

use super::*;

/// Longer than any overlap of two questions.
const LONG: Duration = Duration::from_secs(3600);

async fn recent(store: &dyn Store, node: NodeId, since: Duration) -> RecentChanges {
    store.recent_changes(node, since, 100).await.expect("reading works")
}

/// The versions of the rooms that have changed since the last answer. Much time passes first, so that no other room is among them.
async fn changed_in(
    store: &dyn Store,
    time: &ManualClock,
    node: NodeId,
    change: impl AsyncFnOnce(),
) -> BTreeMap<String, u64> {
    time.advance(LONG);
    let before = recent(store, node, Duration::MAX).await;
    assert_eq!((before.rooms.len(), before.is_complete), (0, true), "nothing is later than all times");
    time.advance(LONG);
    change().await;
    let now = recent(store, node, before.next).await;
    assert!(now.is_complete);
    now.rooms.iter().map(|room| (room.room.as_str().to_owned(), room.version.0)).collect()
}

fn rooms<const N: usize>(rooms: [(&str, u64); N]) -> BTreeMap<String, u64> {
    rooms.into_iter().map(|(room, version)| (room.to_owned(), version)).collect()
}

pub async fn a_changed_room_is_among_the_recent_changes_with_its_position(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let _ = crowd(store, here, "old", 1).await;
    time.advance(LONG);
    let before = recent(store, here, Duration::MAX).await;
    let since = before.next;
    assert!(since <= before.time && before.time - since < LONG, "{before:?}");
    assert_eq!(recent(store, here, since).await.rooms, []);
    let (ann, bob) = (anonymous(here, "ann"), anonymous(here, "bob"));
    let first = change(store, here, "lobby", [join(&ann)]).await;
    let second = change(store, here, "bar", [join(&bob)]).await;
    let now = recent(store, here, since).await;
    let mut found: Vec<_> = now.rooms.iter().map(|room| (room.room.clone(), room.epoch, room.version)).collect();
    found.sort();
    assert_eq!(found, [(second.room, second.epoch, second.version), (first.room, first.epoch, first.version)]);
    assert!(now.rooms.iter().all(|room| room.changed_at.as_secs() == now.time.as_secs()), "{now:?}");
    // It is in the next answer, too, since the questions overlap, and later it is not.
    assert_eq!(recent(store, here, now.next).await.rooms.len(), 2);
    time.advance(LONG);
    let later = recent(store, here, Duration::MAX).await;
    assert_eq!(later.time - now.time, LONG);
    assert_eq!(recent(store, here, later.next).await.rooms, []);
    let changed = changed_in(store, time, here, async || {
        let _ = change(store, here, "lobby", [update(&ann, r#"{"n":1}"#)]).await;
        let _ = change(store, here, "bar", [leave(&bob)]).await;
    });
    assert_eq!(changed.await, rooms([("lobby", 2), ("bar", 2)]));
}

pub async fn what_gives_no_version_is_no_recent_change(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = anonymous(here, "ann");
    let _ = change(store, here, "lobby", [join(&ann)]).await;
    let changed = changed_in(store, time, here, async || {
        store.touch(here, [(ann.id, Duration::ZERO)].into()).await.expect("it lives");
        let _ = change(store, here, "lobby", [join(&ann)]).await;
        let hold = Write::Hold { id: ann.id, channel: ann.channel.clone(), grace: SECOND };
        let _ = change(store, here, "lobby", [hold]).await;
    });
    assert_eq!(changed.await, rooms([]));
}

pub async fn every_removal_is_a_recent_change(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let (lost, stale, ann) = (anonymous(here, "lost"), anonymous(here, "stale"), of_user(here, "ann", "ann"));
    let hold = |presence: &Presence, grace| Write::Hold { id: presence.id, channel: presence.channel.clone(), grace };
    for (room, presence, grace) in [("swept", &lost, SECOND), ("pruned", &stale, LONG * 9), ("removed", &ann, LONG * 9)]
    {
        let _ = change(store, here, room, [join(presence)]).await;
        let _ = change(store, here, room, [hold(presence, grace)]).await;
    }
    let _ = crowd(store, there, "cleared", 1).await;
    let _ = crowd(store, here, "retired", 1).await;
    let changed = changed_in(store, time, here, async || {
        store.renew(here, LEASE).await.expect("it is not fenced");
        assert_eq!(store.sweep(here, SweepShare::whole(), 10).await.expect("it lives").handled, 1);
    });
    assert_eq!(changed.await, rooms([("swept", 2)]));
    let changed = changed_in(store, time, here, async || {
        store.renew(here, LEASE).await.expect("it is not fenced");
        let target = RemovalTarget::User(user("ann"));
        assert_eq!(store.remove(here, target, 10).await.expect("it lives").handled, 1);
    });
    assert_eq!(changed.await, rooms([("removed", 2)]));
    let changed = changed_in(store, time, here, async || {
        store.renew(here, LEASE).await.expect("it is not fenced");
        assert_eq!(store.fence(here).await.expect("it lives"), [there]);
        let mode = ClearMode::HoldResumable(SECOND);
        assert_eq!(store.clear(here, there, mode, 10).await.expect("it lives").handled, 1);
    });
    assert_eq!(changed.await, rooms([("cleared", 2)]));
    let changed = changed_in(store, time, here, async || {
        store.renew(here, LEASE).await.expect("it is not fenced");
        assert_eq!(store.prune(here, SECOND, Duration::ZERO, 10).await.expect("it lives").handled, 1);
    });
    assert_eq!(changed.await, rooms([("pruned", 2)]));
    let watching = node(store, "watching").await;
    let changed = changed_in(store, time, watching, async || {
        store.renew(here, LEASE).await.expect("it is not fenced");
        assert_eq!(store.retire(here, Duration::ZERO).await.expect("it lives").len(), 1);
    });
    assert_eq!(changed.await, rooms([("retired", 2)]));
}

pub async fn a_resume_on_another_node_is_a_recent_change(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let session = Session { hash: SessionHash::from_bytes([9; 32]), grace: SECOND };
    let _ = change(store, here, "lobby", [Write::Resume { presence: anonymous(here, "a"), session }]).await;
    let changed = changed_in(store, time, there, async || {
        let _ = change(store, there, "lobby", [Write::Resume { presence: anonymous(there, "b"), session }]).await;
    });
    assert_eq!(changed.await, rooms([("lobby", 2)]));
}

pub async fn of_more_recent_changes_than_the_limit_as_many_are_returned(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    for n in 0..5 {
        let _ = crowd(store, here, &format!("room {n}"), 1).await;
    }
    for (limit, returned, is_complete) in [(4, 4, false), (5, 5, true), (6, 5, true), (u64::MAX, 5, true)] {
        let recent = store.recent_changes(here, Duration::ZERO, limit).await.expect("reading works");
        assert_eq!((recent.rooms.len(), recent.is_complete), (returned, is_complete), "{limit}");
    }
}

pub async fn renewals_and_commits_are_counted_for_their_own_node(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let writes = async |node| {
        let own = recent(store, node, Duration::MAX).await.own_writes;
        own.map(|WriteCounts { renewals, commits }| (renewals, commits))
    };
    assert_eq!((writes(here).await, writes(there).await), (Some((0, 0)), Some((0, 0))));
    store.renew(here, LEASE).await.expect("it lives");
    assert_eq!((writes(here).await, writes(there).await), (Some((1, 0)), Some((0, 0))));
    let ann = anonymous(here, "ann");
    let _ = change(store, here, "lobby", [join(&ann)]).await;
    // A commit without a change is one, too.
    let _ = change(store, here, "lobby", [join(&ann)]).await;
    assert_eq!((writes(here).await, writes(there).await), (Some((1, 2)), Some((0, 0))));
    assert!(commit(store, here, "lobby", [join(&ann), join(&ann)]).await.is_err(), "it is refused");
    assert_eq!(writes(here).await, Some((1, 2)));
    assert_eq!(writes(NodeId::random()).await, None);
}

pub async fn prunes_and_set_backs_are_counted_for_all_nodes(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let counts = async || {
        let recent = recent(store, here, Duration::MAX).await;
        (recent.prunes, recent.set_backs)
    };
    let before = counts().await;
    let ann = anonymous(here, "ann");
    let _ = change(store, here, "lobby", [join(&ann)]).await;
    assert_eq!((store.prune_rooms(here).await.expect("it lives"), counts().await), (0, before), "it removed nothing");
    let _ = change(store, here, "lobby", [leave(&ann)]).await;
    assert_eq!(store.prune_rooms(here).await.expect("it lives"), 1);
    assert_eq!(counts().await, (before.0 + 1, before.1));
    assert_eq!(counts().await, (before.0 + 1, before.1));
    store.report_set_back(before.1, before.1 + 1).await.expect("it works");
    assert_eq!(counts().await, (before.0 + 1, before.1 + 1));
}

pub async fn of_two_reports_of_one_set_back_the_first_counts(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let seen = recent(store, here, Duration::MAX).await.set_backs;
    store.report_set_back(seen, seen + 3).await.expect("it works");
    store.report_set_back(seen, seen + 1).await.expect("another node has reported it");
    assert_eq!(recent(store, here, Duration::MAX).await.set_backs, seen + 3);
}

pub async fn the_rooms_with_presences_of_a_node_are_those_that_it_has_to_answer_for(
    store: &dyn Store,
    _: &ManualClock,
) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let _ = crowd(store, here, "lobby", 2).await;
    let theirs = anonymous(there, "theirs");
    let _ = change(store, there, "lobby", [join(&theirs)]).await;
    let _ = crowd(store, there, "bar", 1).await;
    let held = anonymous(here, "held");
    let hold = Write::Hold { id: held.id, channel: held.channel.clone(), grace: LONG };
    let _ = change(store, here, "kept", [join(&held)]).await;
    let _ = change(store, here, "kept", [hold]).await;
    assert_eq!(store.rooms_with_presences_of(here).await.expect("reading works"), [room("lobby")]);
    let mut theirs = store.rooms_with_presences_of(there).await.expect("reading works");
    theirs.sort();
    assert_eq!(theirs, [room("bar"), room("lobby")]);
}
