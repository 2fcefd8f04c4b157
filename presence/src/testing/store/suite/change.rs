//! Commits: joins, leaves, updates, and their versions.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll};

use futures_util::future::join_all;

use crate::{
    model::{Delta, Presence},
    name::Version,
    store::{Attempt, ClearMode, Resumed, Store, StoreError, SweepShare, Write},
};

use super::{
    super::ManualClock, LEASE, anonymous, change, channel, commit, crowd, join, leave, let_die, members, meta, node,
    of_user, update, writes,
};

pub async fn the_first_change_of_a_room_creates_it_with_version_1(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let commit = change(store, node, "lobby", [join(&a)]).await;
    assert_eq!((commit.version, commit.delta.joined), (Version(1), vec![a.clone()]));
    assert_eq!(members(store, "lobby").await, (1, vec![a]));
}

pub async fn versions_never_skip_or_repeat(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let changes = [join(&a), update(&a, r#"{"n":1}"#), update(&a, r#"{"n":2}"#), leave(&a), join(&a)];
    for (n, one) in (1..).zip(changes) {
        assert_eq!(change(store, node, "lobby", [one]).await.version, Version(n));
        assert_eq!(members(store, "lobby").await.0, n);
    }
}

pub async fn a_change_of_many_presences_is_one_version(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let [a, b, c] = ["a", "b", "c"].map(|name| anonymous(node, name));
    let _ = change(store, node, "lobby", [join(&a), join(&b)]).await;
    let commit = change(store, node, "lobby", [leave(&a), update(&b, r#"{"n":1}"#), join(&c)]).await;
    assert_eq!((commit.version, commit.delta.len()), (Version(2), 3));
}

pub async fn a_commit_without_changes_gives_no_version(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let commit = change(store, node, "lobby", []).await;
    assert_eq!((commit.version, commit.delta), (Version(0), Delta::default()));
    let a = anonymous(node, "a");
    let first = change(store, node, "lobby", [join(&a)]).await;
    assert_eq!(first.epoch, commit.epoch);
    let again = change(store, node, "lobby", [leave(&anonymous(node, "b"))]).await;
    assert_eq!((again.epoch, again.version, again.delta), (first.epoch, Version(1), Delta::default()));
    assert_eq!(store.commit(node, Attempt::next(), [].into()).await.expect("nothing is fine"), []);
}

pub async fn a_repeated_join_changes_nothing(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = of_user(node, "a", "ann");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let again = change(store, node, "lobby", [join(&a)]).await;
    assert_eq!((again.version, again.delta), (Version(1), Delta::default()));
    assert_eq!(members(store, "lobby").await, (1, vec![a]));
}

pub async fn a_join_of_a_held_presence_ends_its_hold(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let a = of_user(there, "a", "ann");
    let _ = change(store, there, "lobby", [join(&a)]).await;
    let_die(store, time, here).await;
    let held = store.clear(here, there, ClearMode::HoldAll(LEASE), 10).await.expect("it may clear");
    assert_eq!(held.handled, 1);
    assert!(members(store, "lobby").await.1[0].held);

    let back = Arc::new(Presence { node: here, ..Presence::clone(&a) });
    let joined = change(store, here, "lobby", [join(&back)]).await;
    assert_eq!(joined.delta, Delta { moved: vec![back.clone()], ..Delta::default() }, "no member can tell");
    time.advance(LEASE * 2);
    assert_eq!(
        store.sweep(here, SweepShare::whole(), 10).await.expect("it may sweep").handled,
        0,
        "it is not held any more"
    );
    assert_eq!(members(store, "lobby").await, (2, vec![back]));
}

pub async fn a_join_does_not_take_a_presence_from_another_channel(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let other = Arc::new(Presence { channel: channel("b"), ..Presence::clone(&a) });
    let joined = change(store, node, "lobby", [join(&other)]).await;
    let theirs = Resumed { requested: a.id, presence: a.clone() };
    assert_eq!((joined.version, joined.delta.len(), joined.resumed), (Version(1), 0, vec![theirs]));
    assert_eq!(members(store, "lobby").await, (1, vec![a]));
}

pub async fn a_join_that_moves_a_presence_to_another_room_is_refused(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let moved = commit(store, node, "bar", [join(&a)]).await;
    assert!(matches!(&moved, Err(error @ StoreError::Refused(_)) if !error.is_channel_taken()), "{moved:?}");
}

pub async fn a_channel_has_one_presence_in_a_room(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let twice = commit(store, node, "lobby", [join(&anonymous(node, "b")), join(&anonymous(node, "b"))]).await;
    assert!(matches!(&twice, Err(error @ StoreError::Refused(_)) if error.is_channel_taken()), "{twice:?}");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let other = commit(store, node, "lobby", [join(&anonymous(node, "a"))]).await;
    assert!(matches!(&other, Err(error @ StoreError::Refused(_)) if error.is_channel_taken()), "{other:?}");
    assert_eq!(members(store, "lobby").await, (1, vec![a]));
}

pub async fn a_channel_may_leave_and_join_again_in_one_commit(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let (old, new) = (anonymous(node, "a"), anonymous(node, "a"));
    let _ = change(store, node, "lobby", [join(&old)]).await;
    let commit = change(store, node, "lobby", [join(&new), leave(&old)]).await;
    assert_eq!((commit.delta.joined, commit.delta.left), (vec![new.clone()], vec![old]));
    assert_eq!(members(store, "lobby").await, (2, vec![new]));
}

pub async fn a_channel_may_be_in_many_rooms(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let [a, b] = ["a", "a"].map(|name| anonymous(node, name));
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let _ = change(store, node, "bar", [join(&b)]).await;
    assert_eq!(members(store, "lobby").await.1, [a]);
    assert_eq!(members(store, "bar").await.1, [b]);
}

pub async fn naming_a_room_or_a_presence_twice_is_refused(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let twice = store.commit(node, Attempt::next(), [writes("lobby", [join(&a)]), writes("lobby", [])].into()).await;
    assert!(matches!(&twice, Err(error @ StoreError::Refused(_)) if !error.is_channel_taken()), "{twice:?}");
    let twice =
        store.commit(node, Attempt::next(), [writes("lobby", [join(&a)]), writes("bar", [leave(&a)])].into()).await;
    assert!(matches!(&twice, Err(error @ StoreError::Refused(_)) if !error.is_channel_taken()), "{twice:?}");
}

pub async fn a_refused_commit_writes_nothing_at_all(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let [a, b] = ["a", "b"].map(|name| anonymous(node, name));
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let rooms = [writes("bar", [join(&b)]), writes("lobby", [join(&anonymous(node, "a"))])];
    assert!(matches!(store.commit(node, Attempt::next(), rooms.clone().into()).await, Err(StoreError::Refused(_))));
    assert_eq!(members(store, "bar").await, (0, Vec::new()));
    assert_eq!(members(store, "lobby").await, (1, vec![a]));
}

pub async fn a_leave_needs_the_right_presence_and_channel(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let other_channel = Write::Leave { id: a.id, channel: channel("b") };
    assert!(change(store, node, "lobby", [other_channel]).await.delta.is_empty());
    assert!(change(store, node, "lobby", [leave(&anonymous(node, "a"))]).await.delta.is_empty());
    assert!(change(store, node, "bar", [leave(&a)]).await.delta.is_empty(), "it is in another room");
    assert_eq!(members(store, "lobby").await, (1, vec![a.clone()]));
    assert_eq!(change(store, node, "lobby", [leave(&a)]).await.delta.left, [a]);
    assert_eq!(members(store, "lobby").await, (2, Vec::new()));
}

pub async fn an_update_needs_the_right_presence_and_channel(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = of_user(node, "a", "ann");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let other_channel = Write::Update { id: a.id, channel: channel("b"), user: None, meta: Some(meta(r#"{"n":1}"#)) };
    assert!(change(store, node, "lobby", [other_channel]).await.delta.is_empty());
    assert!(change(store, node, "lobby", [update(&anonymous(node, "a"), r#"{"n":1}"#)]).await.delta.is_empty());
    assert!(change(store, node, "bar", [update(&a, r#"{"n":1}"#)]).await.delta.is_empty());
    assert_eq!(members(store, "lobby").await, (1, vec![a.clone()]));
    let busy = Arc::new(Presence { meta: meta(r#"{"n":1}"#), ..Presence::clone(&a) });
    let commit = change(store, node, "lobby", [update(&a, r#"{"n":1}"#)]).await;
    assert_eq!(commit.delta.updated, std::slice::from_ref(&busy));
    assert_eq!(members(store, "lobby").await, (2, vec![busy]));
}

pub async fn an_update_to_an_equal_meta_changes_nothing(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    assert_eq!(change(store, node, "lobby", [update(&a, r#"{"n":1,"m":2}"#)]).await.version, Version(2));
    let same = change(store, node, "lobby", [update(&a, r#" {"n":1,"m":2} "#)]).await;
    assert_eq!((same.version, same.delta), (Version(2), Delta::default()));
}

pub async fn an_update_beyond_the_precision_of_a_double_is_a_change(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = anonymous(node, "a");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    for (version, n) in [(2, "9007199254740992.0"), (3, "9007199254740993.0")] {
        let json = format!(r#"{{"n":{n}}}"#);
        let now = Arc::new(Presence { meta: meta(&json), ..Presence::clone(&a) });
        let changed = change(store, node, "lobby", [update(&a, &json)]).await;
        assert_eq!((changed.version, changed.delta.updated), (Version(version), vec![now.clone()]));
        assert_eq!(members(store, "lobby").await, (version, vec![now]));
    }
}

pub async fn a_leave_has_the_last_user_and_meta(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let a = of_user(node, "a", "ann");
    let _ = change(store, node, "lobby", [join(&a)]).await;
    let _ = change(store, node, "lobby", [update(&a, r#"{"at":"the \"bar\""}"#)]).await;
    let last = Arc::new(Presence { meta: meta(r#"{"at":"the \"bar\""}"#), ..Presence::clone(&a) });
    assert_eq!(change(store, node, "lobby", [leave(&a)]).await.delta.left, [last]);
}

pub async fn one_commit_changes_many_rooms_and_returns_them_in_order(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let names: Vec<_> = (0..40).rev().map(|n| format!("room {n}")).collect();
    let a = anonymous(node, "a");
    let _ = change(store, node, "room 7", [join(&a)]).await;
    let rooms: Vec<_> = names
        .iter()
        .map(|name| if name == "room 9" { writes(name, []) } else { writes(name, [join(&anonymous(node, "b"))]) })
        .collect();
    let commits = store.commit(node, Attempt::next(), rooms.clone().into()).await.expect("the commit works");
    assert_eq!(commits.iter().map(|commit| commit.room.as_str()).collect::<Vec<_>>(), names);
    for commit in commits {
        let expected = match commit.room.as_str() {
            "room 7" => 2,
            "room 9" => 0,
            _ => 1,
        };
        assert_eq!(commit.version, Version(expected), "{}", commit.room);
        assert_eq!(members(store, commit.room.as_str()).await.0, expected);
    }
}

pub async fn one_commit_may_have_a_thousand_changes(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let stay = crowd(store, node, "lobby", 1_501).await;
    let come: Vec<_> = (0..1_203).map(|n| of_user(node, &format!("new/{n}"), "ann")).collect();
    let changes = come.iter().map(join).chain(stay.iter().take(700).map(|presence| leave(presence)));
    let changes = changes.chain(stay.iter().skip(700).map(|presence| update(presence, r#"{"n":1}"#)));
    let commit = change(store, node, "lobby", changes).await;
    assert_eq!((commit.version, commit.delta.joined), (Version(2), come));
    assert_eq!((commit.delta.left.len(), commit.delta.updated.len()), (700, 801));
    let (version, members) = members(store, "lobby").await;
    assert_eq!((version, members.len()), (2, 1_203 + 801));
    let updated = members.iter().filter(|presence| presence.meta == meta(r#"{"n":1}"#)).count();
    assert_eq!(updated, 801);
}

pub async fn concurrent_commits_each_get_a_version(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let joins = (0..50).map(|n| async move {
        let joins = join(&anonymous(node, &n.to_string()));
        change(store, node, "lobby", [joins]).await.version.0
    });
    let mut versions = join_all(joins).await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=50).collect::<Vec<_>>());
}

pub async fn a_dropped_call_leaves_the_store_usable(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let mut there = 0;
    for polls in 0.. {
        let presence = anonymous(node, &polls.to_string());
        let changes = [writes("lobby", [join(&presence)])];
        let done = polled(store.commit(node, Attempt::next(), changes.clone().into()), polls).await;
        let (version, members) = members(store, "lobby").await;
        // A server may receive and execute a COMMIT after its caller has dropped the call.
        assert!((there..=polls as u64 + 1).contains(&version), "each commit is done once at most, and stays");
        assert_eq!(members.len() as u64, version, "a commit is all or nothing");
        there = version;
        if let Some(done) = done {
            done.expect("those that were dropped are in nobody's way");
            assert!(members.contains(&presence), "a commit that was answered is there");
            break;
        }
    }
}

/// Polls a future at most this many times, and then drops it.
pub(super) async fn polled<T>(future: impl Future<Output = T>, times: u32) -> Option<T> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}
