//! The users who go online and offline in a room.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;

use crate::{
    model::{OnlineChanges, Presence},
    name::{NodeId, PresenceId, UserId},
    store::{Attempt, ClearMode, RemovalTarget, RoomCommit, Session, SessionHash, Store, SweepShare, Write},
};

use super::{
    super::ManualClock, LEASE, SECOND, anonymous, change, channel, join, leave, let_die, of_user, room, update, user,
    writes,
};

/// A new incarnation, with online tracking.
async fn node(store: &dyn Store, name: &str) -> NodeId {
    store.track_online();
    super::node(store, name).await
}

/// The users of these presences, by presence.
fn by<const N: usize>(presences: [&Presence; N]) -> BTreeMap<PresenceId, UserId> {
    presences.into_iter().map(|one| (one.id, one.user.clone().expect("it has a user"))).collect()
}

fn nobody() -> BTreeMap<PresenceId, UserId> {
    BTreeMap::new()
}

fn online<const N: usize>(presences: [&Presence; N]) -> OnlineChanges {
    OnlineChanges { online: by(presences), offline: nobody() }
}

fn offline<const N: usize>(presences: [&Presence; N]) -> OnlineChanges {
    OnlineChanges { online: nobody(), offline: by(presences) }
}

/// The user of a presence changes.
fn rebind(presence: &Presence, to: Option<&str>) -> Write {
    Write::Update { id: presence.id, channel: presence.channel.clone(), user: Some(to.map(user)), meta: None }
}

fn given(presence: &Presence, to: &str) -> Arc<Presence> {
    Arc::new(Presence { user: Some(user(to)), ..presence.clone() })
}

async fn turns(store: &dyn Store, node: NodeId, changes: impl IntoIterator<Item = Write>) -> OnlineChanges {
    change(store, node, "lobby", changes).await.online_changes
}

fn all(commits: &[RoomCommit]) -> Vec<(&str, OnlineChanges)> {
    commits.iter().map(|commit| (commit.room.as_str(), commit.online_changes.clone())).collect()
}

pub async fn a_user_goes_online_with_the_first_presence_and_offline_with_the_last(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let (first, second) = (of_user(here, "first", "ann"), of_user(there, "second", "ann"));
    assert_eq!(turns(store, here, [join(&first)]).await, online([&first]));
    assert_eq!(turns(store, there, [join(&second)]).await, OnlineChanges::default());
    assert_eq!(turns(store, here, [leave(&first)]).await, OnlineChanges::default());
    assert_eq!(turns(store, there, [leave(&second)]).await, offline([&second]));
    assert_eq!(turns(store, here, [join(&first)]).await, online([&first]), "and so again");
}

pub async fn other_rooms_other_users_and_the_anonymous_do_not_count(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let [attic, ann, large] = [("a", "ann"), ("b", "ann"), ("c", "Ann")].map(|(name, user)| of_user(here, name, user));
    assert_eq!(change(store, here, "attic", [join(&attic)]).await.online_changes, online([&attic]));
    let nobody = anonymous(here, "d");
    assert_eq!(turns(store, here, [join(&nobody), join(&ann)]).await, online([&ann]));
    assert_eq!(turns(store, here, [join(&large), leave(&nobody)]).await, online([&large]));
    assert_eq!(turns(store, here, [leave(&ann), update(&large, r#"{"n":1}"#)]).await, offline([&ann]));
}

pub async fn of_many_presences_in_one_commit_the_first_and_the_last_announced_count(
    store: &dyn Store,
    _: &ManualClock,
) {
    let here = node(store, "here").await;
    let tabs: [_; 3] = std::array::from_fn(|n| of_user(here, &n.to_string(), "ann"));
    let commit = change(store, here, "lobby", tabs.iter().map(join)).await;
    assert_eq!(commit.online_changes, online([&commit.delta.joined[0]]));
    let new = of_user(here, "new", "ann");
    let swapped = tabs.iter().map(|tab| leave(tab)).chain([join(&new)]);
    assert_eq!(turns(store, here, swapped).await, OnlineChanges::default(), "one goes on where others stop");
    let commit = change(store, here, "lobby", [leave(&new)]).await;
    assert_eq!(commit.online_changes, offline([&new]));
    let _ = change(store, here, "lobby", tabs.iter().map(join)).await;
    let commit = change(store, here, "lobby", tabs.iter().map(|tab| leave(tab))).await;
    assert_eq!(commit.online_changes, offline([&commit.delta.left[2]]));
}

pub async fn a_presence_whose_user_changes_may_be_the_last_of_one_and_the_first_of_another(
    store: &dyn Store,
    _: &ManualClock,
) {
    let here = node(store, "here").await;
    let [one, two] = ["1", "2"].map(|name| of_user(here, name, "ann"));
    let _ = change(store, here, "lobby", [join(&one), join(&two)]).await;
    assert_eq!(turns(store, here, [rebind(&one, Some("bob"))]).await, online([&given(&one, "bob")]));
    let both = OnlineChanges { online: nobody(), offline: by([&two]) };
    assert_eq!(turns(store, here, [rebind(&two, Some("bob"))]).await, both);
    // A repeated join with another user has the same effect.
    let cid = given(&one, "cid");
    assert_eq!(turns(store, here, [join(&cid)]).await, online([&cid]));
    assert_eq!(turns(store, here, [rebind(&two, None)]).await, offline([&given(&two, "bob")]));
    let ann = OnlineChanges { online: by([&given(&one, "ann")]), offline: by([&cid]) };
    assert_eq!(turns(store, here, [rebind(&one, Some("ann")), join(&anonymous(here, "3"))]).await, ann);
    let left = of_user(here, "4", "ann");
    let _ = change(store, here, "lobby", [join(&left)]).await;
    let last = OnlineChanges { online: by([&given(&one, "bob")]), offline: by([&given(&one, "ann")]) };
    assert_eq!(turns(store, here, [rebind(&one, Some("bob")), leave(&left)]).await, last, "who left is told before");
}

pub async fn a_user_with_a_held_presence_is_online_until_the_sweep(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = of_user(here, "first", "ann");
    let session = Session { hash: SessionHash::from_bytes([1; 32]), grace: SECOND };
    let resume = |presence: &Arc<Presence>| Write::Resume { presence: presence.clone(), session };
    let hold = |presence: &Presence| Write::Hold { id: presence.id, channel: presence.channel.clone(), grace: SECOND };
    assert_eq!(turns(store, here, [resume(&ann)]).await, online([&ann]));
    assert_eq!(turns(store, here, [hold(&ann)]).await, OnlineChanges::default());
    let tab = of_user(here, "tab", "ann");
    assert_eq!(turns(store, here, [join(&tab)]).await, OnlineChanges::default(), "she was here all the time");
    assert_eq!(
        turns(store, here, [resume(&of_user(here, "second", "ann")), leave(&tab)]).await,
        OnlineChanges::default()
    );
    let now = Presence { channel: channel("second"), ..Presence::clone(&ann) };
    assert_eq!(turns(store, here, [hold(&now)]).await, OnlineChanges::default());
    time.advance(SECOND * 2);
    let batch = store.sweep(here, SweepShare::whole(), 10).await.expect("it may sweep");
    assert_eq!(all(&batch.commits), [("lobby", offline([&ann]))]);
}

pub async fn repeated_changes_are_reported_once(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let ann = of_user(here, "first", "ann");
    assert_eq!(turns(store, here, [join(&ann)]).await, online([&ann]));
    assert_eq!(turns(store, here, [join(&ann)]).await, OnlineChanges::default());
    assert_eq!(turns(store, here, [leave(&ann)]).await, offline([&ann]));
    assert_eq!(turns(store, here, [leave(&ann)]).await, OnlineChanges::default());
}

pub async fn every_removal_reports_the_users_who_went_offline(store: &dyn Store, time: &ManualClock) {
    /// Ann has one presence in each of two rooms on a node, and bob has one. Ann has another one on a node that stays.
    async fn fill(store: &dyn Store, dying: NodeId, stays: NodeId, n: u8) -> [Arc<Presence>; 4] {
        let name = |what: &str| format!("{what}{n}");
        let [ann, attic, bob] =
            [("a", "ann"), ("b", "ann"), ("c", "bob")].map(|(what, user)| of_user(dying, &name(what), user));
        let other = of_user(stays, &name("d"), "ann");
        let _ = change(store, dying, "lobby", [join(&ann), join(&bob)]).await;
        let _ = change(store, dying, "attic", [join(&attic)]).await;
        let _ = change(store, stays, "lobby", [join(&other)]).await;
        [ann, attic, bob, other]
    }
    let judge = node(store, "judge").await;
    for (n, what) in (0..).zip(["clear", "prune", "room", "user", "retire"]) {
        let dying = node(store, &format!("dying {n}")).await;
        let [_, attic, bob, other] = fill(store, dying, judge, n).await;
        let mut commits = if what == "retire" {
            store.retire(dying, Duration::ZERO).await.expect("it may retire")
        } else {
            time.advance(LEASE + SECOND);
            store.renew(judge, LEASE).await.expect("nobody fenced it");
            let batch = match what {
                "clear" => {
                    assert_eq!(let_die(store, time, judge).await, [dying]);
                    store.clear(judge, dying, ClearMode::HoldResumable(SECOND), 10).await
                }
                "prune" => store.prune(judge, Duration::ZERO, Duration::ZERO, 10).await,
                "room" => store.remove(judge, RemovalTarget::Room(room("lobby")), 10).await,
                _ => store.remove(judge, RemovalTarget::User(user("ann")), 10).await,
            };
            batch.expect("it may").commits
        };
        commits.sort_unstable_by(|a, b| a.room.cmp(&b.room));
        let expected = match what {
            "room" => vec![("lobby", offline([&bob]))],
            "user" => vec![("attic", offline([&attic])), ("lobby", OnlineChanges::default())],
            _ => vec![("attic", offline([&attic])), ("lobby", offline([&bob]))],
        };
        assert_eq!(all(&commits), expected, "{what}");
        assert_eq!(turns(store, judge, [leave(&other)]).await, offline([&other]), "{what}");
        // The next round begins with empty rooms.
        let _ = store.prune(judge, Duration::ZERO, Duration::ZERO, 10).await.expect("it may prune");
        let _ = store.prune_rooms(judge).await.expect("it may prune");
    }
}

pub async fn one_commit_counts_in_each_of_its_rooms(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let [lobby, attic, tab] = ["a", "b", "c"].map(|name| of_user(here, name, "ann"));
    let _ = change(store, here, "attic", [join(&tab)]).await;
    let both = [writes("lobby", [join(&lobby)]), writes("attic", [join(&attic)])];
    let commits = store.commit(here, Attempt::next(), both.clone().into()).await.expect("the commit works");
    assert_eq!(all(&commits), [("lobby", online([&lobby])), ("attic", OnlineChanges::default())]);
}

pub async fn a_thousand_users_go_online_in_one_commit(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    // With all kinds of names.
    let names = |n: usize| [format!("u{n}"), format!("{n}"), format!("\"{n}'\\"), format!("ü {n} 𝄞 ")][n % 4].clone();
    let all: Vec<_> = (0..1000).map(|n| of_user(here, &n.to_string(), &names(n))).collect();
    let there: Vec<_> = (0..1000).step_by(10).map(|n| of_user(here, &format!("tab {n}"), &names(n))).collect();
    let _ = change(store, here, "lobby", there.iter().map(join)).await;
    let came = turns(store, here, all.iter().map(join)).await;
    assert_eq!((came.online.len(), came.offline.len()), (900, 0));
    assert!((0..1000).all(|n| came.online.contains_key(&all[n].id) == (n % 10 != 0)));
    let went = turns(store, here, all.iter().map(|one| leave(one))).await;
    assert_eq!((went.online, went.offline), (nobody(), came.online));
}

pub async fn users_are_counted_in_rooms_that_do_not_become_empty(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let crowd =
        |of: &str| (0..40).map(|n| of_user(here, &format!("{of} {n}"), &format!("u{}", n / 2))).collect::<Vec<_>>();
    let rooms = ["attic", "cellar", "lobby", "yard"];
    let crowds = rooms.map(crowd);
    let (tab, nobody) = (of_user(here, "tab", "u7"), anonymous(here, "nobody"));
    let comes = rooms.iter().zip(&crowds).map(|(room, crowd)| writes(room, crowd.iter().map(join)));
    let _ = store.commit(here, Attempt::next(), comes.collect()).await.expect("the commit works");
    let stay = [writes("cellar", [join(&tab)]), writes("yard", [join(&nobody)])];
    let _ = store.commit(here, Attempt::next(), stay.clone().into()).await.expect("the commit works");
    let goes = rooms.iter().zip(&crowds).map(|(room, crowd)| writes(room, crowd.iter().map(|one| leave(one))));
    let commits = store.commit(here, Attempt::next(), goes.collect()).await.expect("the commit works");
    let gone: Vec<_> =
        commits.iter().map(|commit| commit.online_changes.offline.values().cloned().collect::<Vec<_>>()).collect();
    let all: BTreeSet<_> = (0..20).map(|n| user(&format!("u{n}"))).collect();
    let all_but = |stays: &str| all.iter().filter(|one| one.as_str() != stays).cloned().collect::<BTreeSet<_>>();
    let expected = [all.clone(), all_but("u7"), all.clone(), all.clone()];
    assert_eq!(gone.iter().map(|gone| gone.iter().cloned().collect()).collect::<Vec<BTreeSet<_>>>(), expected);
    assert!(gone.iter().zip(&expected).all(|(gone, expected)| gone.len() == expected.len()), "nobody twice");
}

pub async fn of_tabs_that_join_or_leave_at_once_one_is_the_first_and_one_the_last(store: &dyn Store, _: &ManualClock) {
    const TABS: usize = 8;
    let nodes = [node(store, "here").await, node(store, "there").await];
    for round in 0..10 {
        let tabs: [_; TABS] = std::array::from_fn(|n| of_user(nodes[n % 2], &format!("{round}/{n}"), "ann"));
        let came = join_all(tabs.iter().map(|tab| turns(store, tab.node, [join(tab)]))).await;
        assert_eq!(came.iter().map(|turns| turns.online.len()).sum::<usize>(), 1);
        let went = join_all(tabs.iter().map(|tab| turns(store, tab.node, [leave(tab)]))).await;
        assert_eq!(went.iter().map(|turns| turns.offline.len()).sum::<usize>(), 1);
        assert!(came.iter().all(|turns| turns.offline.is_empty()) && went.iter().all(|turns| turns.online.is_empty()));
    }
}
