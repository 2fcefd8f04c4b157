//! Presences that are held for a grace, and resumed with a token. The many cases make this file long.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    model::{Delta, Presence},
    name::{NodeId, Version},
    store::{Batch, ClearMode, Resumed, RoomCommit, Session, SessionHash, Store, StoreError, SweepShare, Write},
};

use super::{
    super::ManualClock, LEASE, SECOND, anonymous, change, channel, commit, join, leave, let_die, members, meta, node,
    of_user, update, user,
};

const GRACE: Duration = Duration::from_secs(30);
const MILLISECOND: Duration = Duration::from_millis(1);

fn session(n: u8) -> Session {
    Session { hash: SessionHash::from_bytes([n; 32]), grace: GRACE }
}

fn resume(presence: &Arc<Presence>, session: Session) -> Write {
    Write::Resume { presence: presence.clone(), session }
}

fn hold(presence: &Presence) -> Write {
    Write::Hold { id: presence.id, channel: presence.channel.clone(), grace: GRACE }
}

/// A presence of ann with session 1 and a meta.
async fn ann(store: &dyn Store, node: NodeId) -> Arc<Presence> {
    let joined = of_user(node, "first", "ann");
    let _ = change(store, node, "lobby", [resume(&joined, session(1))]).await;
    let _ = change(store, node, "lobby", [update(&joined, r#"{"busy":true}"#)]).await;
    Arc::new(Presence { meta: meta(r#"{"busy":true}"#), ..Presence::clone(&joined) })
}

/// The presence after a resume by another socket of a node.
fn moved(presence: &Presence, node: NodeId, name: &str) -> Arc<Presence> {
    Arc::new(Presence { node, channel: channel(name), held: false, ..presence.clone() })
}

async fn sweep(store: &dyn Store, node: NodeId) -> Batch {
    store.sweep(node, SweepShare::whole(), 10).await.expect("it may sweep")
}

/// Checks the commit of a resume that members do not see.
fn takes(commit: &RoomCommit, asked: &Presence, now: &Arc<Presence>) {
    let moved = commit.delta.moved.clone();
    assert!(moved.is_empty() || moved == [now.clone()], "{moved:?}");
    assert_eq!(commit.delta, Delta { moved, ..Delta::default() }, "nobody is told");
    let taken: Vec<_> = commit.resumed.iter().map(|taken| (taken.requested, taken.presence.clone())).collect();
    assert_eq!(taken, [(asked.id, now.clone())]);
}

pub async fn a_lost_presence_is_held_for_its_grace_without_a_version(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let lost = change(store, here, "lobby", [hold(&ann)]).await;
    assert_eq!((lost.version, lost.delta, lost.resumed), (Version(2), Delta::default(), Vec::new()));
    let held = Arc::new(Presence { held: true, ..Presence::clone(&ann) });
    assert_eq!(members(store, "lobby").await, (2, vec![held.clone()]));
    time.advance(GRACE);
    assert_eq!(sweep(store, here).await.handled, 0);
    time.advance(MILLISECOND);
    assert_eq!(sweep(store, here).await.commits[0].delta.left, [held]);
    assert_eq!(members(store, "lobby").await, (3, Vec::new()));
}

pub async fn a_hold_needs_the_right_presence_and_channel(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    for wrong in [moved(&ann, here, "other"), anonymous(here, "first")] {
        let commit = change(store, here, "lobby", [hold(&wrong)]).await;
        assert!(commit.delta.is_empty());
        assert_eq!(members(store, "lobby").await, (2, vec![ann.clone()]));
    }
}

pub async fn a_repeated_hold_changes_nothing(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    for _ in 0..2 {
        // The first answer may have been lost.
        let _ = change(store, here, "lobby", [hold(&ann)]).await;
        time.advance(SECOND);
    }
    time.advance(GRACE);
    assert_eq!(sweep(store, here).await.handled, 1);
}

pub async fn a_held_presence_is_not_pruned_before_its_grace_expires(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    time.advance(GRACE);
    // It was silent for long, but connected.
    let _ = change(store, here, "lobby", [hold(&ann)]).await;
    time.advance(GRACE);
    assert_eq!(store.prune(here, GRACE, Duration::ZERO, 10).await.expect("it may prune").handled, 0);
}

pub async fn a_token_resumes_its_presence(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let _ = change(store, here, "lobby", [hold(&ann)]).await;
    time.advance(GRACE);
    let socket = of_user(here, "second", "ann");
    let back = moved(&ann, here, "second");
    let resumed = change(store, here, "lobby", [resume(&socket, session(1))]).await;
    takes(&resumed, &socket, &back);
    assert_eq!(resumed.version, Version(2), "others need not know");
    assert_eq!(members(store, "lobby").await, (2, vec![back]));
    time.advance(GRACE * 2);
    assert_eq!(sweep(store, here).await.handled, 0, "it is not held any more");
}

pub async fn a_repeated_resume_changes_nothing(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let socket = of_user(here, "second", "ann");
    for _ in 0..2 {
        // The first answer may have been lost.
        let resumed = change(store, here, "lobby", [resume(&socket, session(1))]).await;
        takes(&resumed, &socket, &moved(&ann, here, "second"));
    }
    let new = of_user(here, "third", "ann");
    let joined = change(store, here, "lobby", [resume(&new, session(2))]).await;
    assert_eq!((joined.delta.joined, joined.resumed), (vec![new.clone()], Vec::new()));
    let again = change(store, here, "lobby", [resume(&new, session(2))]).await;
    takes(&again, &new, &new);
    assert_eq!(again.version, joined.version);
}

pub async fn a_resume_with_an_unknown_token_is_a_join(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let other = of_user(here, "second", "ann");
    let joined = change(store, here, "lobby", [resume(&other, session(2))]).await;
    assert_eq!((joined.delta.joined, joined.resumed), (vec![other.clone()], Vec::new()));
    assert_eq!(members(store, "lobby").await, (3, vec![ann, other]));
}

pub async fn a_token_of_another_room_resumes_nothing(store: &dyn Store, _: &ManualClock) {
    // The hash includes the room, but a store must not rely on that.
    let here = node(store, "here").await;
    let _ = ann(store, here).await;
    let other = of_user(here, "second", "ann");
    let joined = commit(store, here, "bar", [resume(&other, session(1))]).await;
    assert!(joined.is_err() || joined.is_ok_and(|joined| joined.resumed.is_empty()));
    assert_eq!(members(store, "lobby").await.1.len(), 1);
}

pub async fn after_the_grace_a_token_makes_a_new_presence(store: &dyn Store, time: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let _ = change(store, here, "lobby", [hold(&ann)]).await;
    time.advance(GRACE + MILLISECOND);
    assert_eq!(sweep(store, here).await.handled, 1);
    let socket = of_user(here, "second", "ann");
    let joined = change(store, here, "lobby", [resume(&socket, session(1))]).await;
    assert_eq!((joined.delta.joined, joined.version), (vec![socket], Version(4)));
}

pub async fn after_a_leave_a_token_makes_a_new_presence(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let gone = ann(store, here).await;
    let socket = of_user(here, "second", "ann");
    let changed = change(store, here, "lobby", [resume(&socket, session(1)), leave(&gone)]).await;
    assert_eq!((changed.delta.left, changed.delta.joined), (vec![gone], vec![socket.clone()]));
    let _ = change(store, here, "lobby", [leave(&socket)]).await;
    let third = of_user(here, "third", "ann");
    let joined = change(store, here, "lobby", [resume(&third, session(1))]).await;
    assert_eq!(joined.delta.joined, [third]);
}

pub async fn a_presence_with_a_live_socket_can_be_resumed(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let socket = of_user(here, "second", "ann");
    let resumed = change(store, here, "lobby", [resume(&socket, session(1))]).await;
    let now = moved(&ann, here, "second");
    takes(&resumed, &socket, &now);
    assert_eq!(members(store, "lobby").await, (2, vec![now]));
}

pub async fn a_resume_on_another_node_gives_a_version(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let ann = ann(store, there).await;
    let socket = of_user(here, "second", "ann");
    let resumed = change(store, here, "lobby", [resume(&socket, session(1))]).await;
    let now = moved(&ann, here, "second");
    takes(&resumed, &socket, &now);
    assert_eq!((resumed.version, resumed.delta.moved), (Version(3), vec![now.clone()]), "the other node must find out");
    assert_eq!(members(store, "lobby").await, (3, vec![now.clone()]));
    let _ = change(store, here, "lobby", [hold(&now)]).await;
    let third = of_user(there, "third", "ann");
    let back = change(store, there, "lobby", [resume(&third, session(1))]).await;
    takes(&back, &third, &moved(&ann, there, "third"));
    assert_eq!((back.version, back.delta.moved.len()), (Version(4), 1), "all nodes must find out who has it");
}

pub async fn late_changes_of_the_former_owner_have_no_effect(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let ann = ann(store, there).await;
    let socket = of_user(here, "second", "ann");
    let _ = change(store, here, "lobby", [resume(&socket, session(1))]).await;
    let now = members(store, "lobby").await;
    for late in [leave(&ann), hold(&ann), update(&ann, "{}"), join(&ann)] {
        let commit = change(store, there, "lobby", [late.clone()]).await;
        assert!(commit.delta.is_empty(), "{late:?}");
        let told: Vec<_> = commit.resumed.into_iter().map(|resumed| resumed.presence).collect();
        assert_eq!(told == now.1, !matches!(late, Write::Leave { .. }), "{late:?}");
        assert_eq!(members(store, "lobby").await, now, "{late:?}");
    }
    time.advance(LEASE + SECOND);
    store.touch(there, [(ann.id, Duration::ZERO)].into()).await.expect("nobody fenced it");
    assert_eq!(
        store.prune(there, LEASE, Duration::ZERO, 10).await.expect("it may prune").handled,
        1,
        "it was not touched"
    );
}

pub async fn of_two_resumes_the_later_counts(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let ann = ann(store, there).await;
    let _ = change(store, there, "lobby", [hold(&ann)]).await;
    let (second, third) = (of_user(here, "second", "ann"), of_user(there, "third", "ann"));
    takes(&change(store, here, "lobby", [resume(&second, session(1))]).await, &second, &moved(&ann, here, "second"));
    let now = moved(&ann, there, "third");
    takes(&change(store, there, "lobby", [resume(&third, session(1))]).await, &third, &now);
    assert_eq!(members(store, "lobby").await.1, std::slice::from_ref(&now));
    let late = change(store, here, "lobby", [hold(&moved(&ann, here, "second"))]).await;
    assert!(late.delta.is_empty());
    time.advance(GRACE * 2);
    assert_eq!(sweep(store, here).await.handled, 0);
    assert_eq!(members(store, "lobby").await.1, [now]);
}

pub async fn two_resumes_at_once_agree_on_the_owner(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let ann = ann(store, there).await;
    let _ = change(store, there, "lobby", [hold(&ann)]).await;
    let claims = [(here, "second"), (there, "third")].map(|(node, name)| async move {
        let socket = of_user(node, name, "ann");
        change(store, node, "lobby", [resume(&socket, session(1))]).await
    });
    let commits = join_all(claims).await;
    assert!(commits.iter().all(|commit| !commit.delta.is_visible() && commit.resumed[0].presence.id == ann.id));
    let (_, now) = members(store, "lobby").await;
    assert!(commits.iter().any(|commit| now == [commit.resumed[0].presence.clone()]), "one of them has it");
    let mut versions: Vec<_> = commits.iter().map(|commit| (commit.version.0, commit.delta.moved.len())).collect();
    versions.sort_unstable();
    // If it is resumed there first, it has not changed its node by then.
    assert!(versions == [(2, 0), (3, 1)] || versions == [(3, 1), (4, 1)], "{versions:?}");
}

pub async fn a_restored_presence_keeps_its_token(store: &dyn Store, time: &ManualClock) {
    let (dead, here) = (node(store, "dead").await, node(store, "here").await);
    let ann = ann(store, dead).await;
    assert_eq!(let_die(store, time, here).await, [dead]);
    for remove in [false, true] {
        if remove {
            let _ = change(store, here, "lobby", [leave(&ann)]).await;
        }
        let own = moved(&ann, here, "first");
        let restored =
            change(store, here, "lobby", [Write::Restore { presence: own.clone(), session: session(1) }]).await;
        assert_eq!(
            (restored.delta.moved.len(), restored.delta.joined.len()),
            (usize::from(!remove), usize::from(remove))
        );
        assert_eq!(members(store, "lobby").await.1, [own]);
        let socket = of_user(here, "second", "ann");
        let resumed = change(store, here, "lobby", [resume(&socket, session(1))]).await;
        takes(&resumed, &socket, &moved(&ann, here, "second"));
        let back = of_user(here, "first", "ann");
        let _ = change(store, here, "lobby", [resume(&back, session(1))]).await;
    }
}

pub async fn a_presence_that_was_resumed_elsewhere_is_not_restored(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let ann = ann(store, there).await;
    let socket = of_user(here, "second", "ann");
    let _ = change(store, here, "lobby", [resume(&socket, session(1))]).await;
    let now = moved(&ann, here, "second");
    let restore = || Write::Restore { presence: ann.clone(), session: session(1) };
    let theirs = |presence: &Arc<Presence>| Resumed { requested: ann.id, presence: presence.clone() };
    assert_eq!(change(store, there, "lobby", [restore()]).await.resumed, [theirs(&now)]);
    // It left there and joined again, as another presence.
    let _ = change(store, here, "lobby", [leave(&now)]).await;
    let third = of_user(here, "third", "ann");
    let _ = change(store, here, "lobby", [resume(&third, session(1))]).await;
    assert_eq!(change(store, there, "lobby", [restore()]).await.resumed, [theirs(&third)]);
    assert_eq!(members(store, "lobby").await.1, [third]);
}

pub async fn a_presence_that_lost_its_token_is_restored_without_it(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let ann = ann(store, here).await;
    let hands = ["bob", "ann"].map(|name| Write::Update {
        id: ann.id,
        channel: ann.channel.clone(),
        user: Some(Some(user(name))),
        meta: None,
    });
    for update in hands {
        let _ = change(store, here, "lobby", [update]).await;
    }
    let second = of_user(there, "second", "ann");
    let _ = change(store, there, "lobby", [resume(&second, session(1))]).await;
    let restored = change(store, there, "lobby", [Write::Restore { presence: ann.clone(), session: session(1) }]).await;
    let own = vec![moved(&ann, there, "first")];
    assert_eq!(restored.delta, Delta { moved: own, ..Delta::default() }, "its socket is alive, so it stays");
    assert_eq!(restored.resumed, []);
    let third = of_user(here, "third", "ann");
    takes(&change(store, here, "lobby", [resume(&third, session(1))]).await, &third, &moved(&second, here, "third"));
    let mut both = [moved(&ann, there, "first"), moved(&second, here, "third")];
    both.sort_unstable_by_key(|one| one.id);
    assert_eq!(members(store, "lobby").await.1, both);
}

pub async fn two_joins_with_one_token_in_one_commit_are_refused(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let both = [of_user(here, "a", "ann"), of_user(here, "b", "ann")].map(|one| resume(&one, session(1)));
    assert!(matches!(commit(store, here, "lobby", both).await, Err(StoreError::Refused(_))));
    assert_eq!(members(store, "lobby").await.1, []);
}

pub async fn a_presence_whose_user_changes_loses_its_token(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    let user = Some(Some(user("bob")));
    let rebind = Write::Update { id: ann.id, channel: ann.channel.clone(), user, meta: None };
    // In the same commit, too: ann cannot resume a presence that is now bob's.
    let second = of_user(here, "second", "ann");
    let both = change(store, here, "lobby", [resume(&second, session(1)), rebind]).await;
    assert_eq!((both.delta.joined, both.delta.updated.len()), (vec![second.clone()], 1));
    let third = of_user(here, "third", "ann");
    let taken = change(store, here, "lobby", [resume(&third, session(1))]).await.resumed;
    assert_eq!(taken[0].presence.id, second.id, "the token is that of the presence that came with it last");
}

pub async fn a_presence_whose_user_is_set_to_the_same_user_loses_its_token_without_a_version(
    store: &dyn Store,
    _: &ManualClock,
) {
    let here = node(store, "here").await;
    let ann = ann(store, here).await;
    // Its user changed and changed back before either was written.
    let user = Some(Some(user("ann")));
    let back = Write::Update { id: ann.id, channel: ann.channel.clone(), user, meta: None };
    assert_eq!(change(store, here, "lobby", [back]).await.delta, Delta::default());
    let second = of_user(here, "second", "ann");
    let joined = change(store, here, "lobby", [resume(&second, session(1))]).await;
    assert_eq!((joined.delta.joined, joined.resumed), (vec![second], vec![]));
}

pub async fn resumable_presences_of_a_dead_node_are_held_and_the_others_leave(store: &dyn Store, time: &ManualClock) {
    let (dead, judge) = (node(store, "dead").await, node(store, "judge").await);
    let ann = ann(store, dead).await;
    let bob = of_user(dead, "b", "bob");
    let _ = change(store, dead, "lobby", [join(&bob)]).await;
    assert_eq!(let_die(store, time, judge).await, [dead]);
    let cleared = store.clear(judge, dead, ClearMode::HoldResumable(SECOND), 10).await.expect("it may clear");
    assert_eq!((cleared.handled, &cleared.commits[0].delta.left), (2, &vec![bob]));
    assert_eq!(members(store, "lobby").await.1, [Arc::new(Presence { held: true, ..Presence::clone(&ann) })]);
    time.advance(GRACE);
    assert_eq!(sweep(store, judge).await.handled, 0, "its grace is its own");
    time.advance(MILLISECOND);
    assert_eq!(sweep(store, judge).await.handled, 1);
}

pub async fn a_restart_holds_each_presence_for_its_own_grace(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let ann = ann(store, former).await;
    let bob = of_user(former, "b", "bob");
    let none = Session { grace: Duration::ZERO, ..session(2) };
    let cid = of_user(former, "c", "cid");
    let _ = change(store, former, "lobby", [join(&bob), resume(&cid, none)]).await;
    let later = node(store, "here").await;
    let cleared = store.clear(later, former, ClearMode::HoldAll(SECOND), 10).await.expect("it may clear");
    assert_eq!((cleared.handled, cleared.commits.len()), (3, 0));
    for (wait, gone) in [(MILLISECOND, cid), (SECOND, bob), (GRACE, ann)] {
        time.advance(wait);
        let left = sweep(store, later).await.commits.remove(0).delta.left;
        assert_eq!(left.iter().map(|presence| presence.id).collect::<Vec<_>>(), [gone.id]);
    }
}

pub async fn a_resume_ends_the_hold_of_a_restart(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "here").await;
    let ann = ann(store, former).await;
    let later = node(store, "here").await;
    let _ = store.clear(later, former, ClearMode::HoldAll(SECOND), 10).await.expect("it may clear");
    let socket = of_user(later, "second", "ann");
    let resumed = change(store, later, "lobby", [resume(&socket, session(1))]).await;
    takes(&resumed, &socket, &moved(&ann, later, "second"));
    assert_eq!(resumed.version, Version(3), "it belongs to another incarnation");
    time.advance(GRACE * 2);
    assert_eq!(sweep(store, later).await.handled, 0);
}

pub async fn one_commit_may_have_a_thousand_resumes(store: &dyn Store, _: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let session = |n: u16| {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&n.to_be_bytes());
        Session { hash: SessionHash::from_bytes(hash), grace: GRACE }
    };
    let first: Vec<_> = (0..1000).map(|n| anonymous(there, &format!("first {n}"))).collect();
    let joins = first.iter().zip(0..).map(|(one, n)| resume(one, session(n)));
    assert_eq!(change(store, there, "lobby", joins).await.delta.joined.len(), 1000);
    let _ = change(store, there, "lobby", first.iter().map(|one| hold(one))).await;
    let second: Vec<_> = (0..1000).map(|n| anonymous(here, &format!("second {n}"))).collect();
    let back = second.iter().zip(0..).map(|(one, n)| resume(one, session(n)));
    let resumed = change(store, here, "lobby", back).await;
    assert_eq!((resumed.version, resumed.delta.moved.len(), resumed.resumed.len()), (Version(2), 1000, 1000));
    let (_, now) = members(store, "lobby").await;
    assert!(now.iter().zip(&first).all(|(now, first)| now.id == first.id && now.node == here && !now.held));
}
