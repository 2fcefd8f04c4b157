//! Loads, positions, the rooms of a user, and all kinds of names.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{collections::HashSet, sync::Arc};

use crate::{model::Presence, store::Store};

use super::{super::ManualClock, change, crowd, join, members, meta, node, of_user, room, user};

pub async fn a_missing_room_has_no_snapshot(store: &dyn Store, _: &ManualClock) {
    assert_eq!(store.load(room("lobby")).await.expect("loading works"), None);
}

pub async fn a_snapshot_holds_what_was_joined(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let spelt = meta(r#"{ "n" : 1e2, "who":"O'Hara \u0000 \"x\"" }"#);
    let a = Arc::new(Presence { meta: spelt, ..Presence::clone(&of_user(node, "a", "ann")) });
    let commit = change(store, node, "lobby", [join(&a)]).await;
    let snapshot = store.load(room("lobby")).await.expect("loading works").expect("it was joined");
    assert_eq!((snapshot.epoch, snapshot.version), (commit.epoch, commit.version));
    assert_eq!(snapshot.presences, std::slice::from_ref(&a));
    assert_eq!(snapshot.presences[0].meta.as_str(), a.meta.as_str(), "a meta is passed on as it was given");
}

pub async fn a_large_room_is_loaded_whole(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let mut all = crowd(store, node, "lobby", 20_000).await;
    all.sort_unstable_by_key(|presence| presence.id);
    assert_eq!(members(store, "lobby").await, (1, all));
}

pub async fn positions_are_those_of_existing_rooms(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let mut expected = HashSet::new();
    for n in 0..30 {
        let name = format!("room {n}");
        let _ = crowd(store, node, &name, 1).await;
        let commit = change(store, node, &name, [join(&of_user(node, "x", "ann"))]).await;
        expected.insert((commit.room, commit.epoch, commit.version));
    }
    let asked: Vec<_> = (0..2_000).map(|n| room(&format!("room {n}"))).collect();
    let told = store.positions(asked.clone().into()).await.expect("reading works");
    assert_eq!(told.len(), expected.len());
    assert_eq!(told.into_iter().collect::<HashSet<_>>(), expected);
    assert_eq!(store.positions([].into()).await.expect("reading works"), []);
}

pub async fn the_rooms_of_a_user_are_sorted_and_unique(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    for (name, channel) in [("b", "1"), ("Z", "1"), ("é", "1"), ("a", "1"), ("b", "2")] {
        let _ = change(store, node, name, [join(&of_user(node, channel, "ann"))]).await;
    }
    let _ = change(store, node, "c", [join(&of_user(node, "1", "Ann"))]).await;
    let rooms = store.rooms_of(user("ann")).await.expect("reading works");
    assert_eq!(rooms, ["Z", "a", "b", "é"].map(room));
    assert_eq!(store.rooms_of(user("nobody")).await.expect("reading works"), []);
}

pub async fn names_are_compared_as_bytes(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let names = [
        "lobby",
        "Lobby",
        "lobby ",
        "caf\u{e9}",
        "cafe\u{301}",
        "ﬁ",
        "fi",
        "ß",
        "ss",
        "🦀",
        "🦀🦀",
        "'; DROP TABLE rooms; --",
        "\"",
        "`",
        "\\",
        "\\'",
        "?",
        "$1",
        ":a",
        "@a",
        "%",
        "_",
        "*",
        "{}",
        "[]",
        "NULL",
        "0",
        "00",
        "1e0",
        "x",
        "x\u{200b}",
        "x\u{feff}",
        "x\u{a0}",
        "x ",
        " x",
        "/",
        "../",
        "\u{10ffff}",
        "İ",
        "i",
        "I",
        "ı",
        &"x".repeat(255),
        &"🦀".repeat(63),
    ];
    for name in names {
        let joined = of_user(here, name, name);
        let commit = change(store, here, name, [join(&joined)]).await;
        assert_eq!((commit.version.0, commit.room.as_str()), (1, name), "a room of its own");
    }
    for name in names {
        let (version, members) = members(store, name).await;
        assert_eq!((version, members.len()), (1, 1), "{name:?}");
        assert_eq!(members[0].channel.as_str(), name);
        assert_eq!(store.rooms_of(user(name)).await.expect("reading works"), [room(name)]);
    }
    // All in one room, with different channels and users.
    let others = names.map(|name| of_user(here, name, name));
    let commit = change(store, here, "everybody", others.iter().map(join)).await;
    assert_eq!(commit.delta.joined.len(), names.len());
    // Each is a valid node name.
    for name in names {
        let _ = node(store, name).await;
    }
    store.renew(here, super::LEASE).await.expect("no name of these is its own");
}
