//! Joins with a limit.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{sync::Arc, time::Duration};

use crate::{
    model::{Delta, Presence},
    name::{NodeId, PresenceId, Version},
    store::{Attempt, Resumed, Session, SessionHash, Store, Write},
};

use super::{super::ManualClock, SECOND, anonymous, change, channel, crowd, join, leave, members, node, writes};

const GRACE: Duration = Duration::from_secs(30);

fn session(n: u8) -> Session {
    Session { hash: SessionHash::from_bytes([n; 32]), grace: GRACE }
}

fn within(presence: &Arc<Presence>, limit: usize) -> Write {
    Write::JoinWithin { presence: presence.clone(), session: None, limit }
}

fn within_or_back(presence: &Arc<Presence>, limit: usize) -> Write {
    Write::JoinWithin { presence: presence.clone(), session: Some(session(1)), limit }
}

fn several(node: NodeId, size: usize) -> Vec<Arc<Presence>> {
    (0..size).map(|n| anonymous(node, &n.to_string())).collect()
}

fn ids(presences: &[Arc<Presence>]) -> Vec<PresenceId> {
    presences.iter().map(|presence| presence.id).collect()
}

pub async fn of_many_joins_at_once_as_many_succeed_as_there_are_places(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let twelve = several(here, 12);
    let attempt = Attempt::next();
    let changes = [writes("table", twelve.iter().rev().map(|one| within(one, 2)))];
    let commits =
        store.commit(here, attempt, changes.clone().into()).await.expect("those who find no place are no fault");
    assert_eq!(ids(&commits[0].delta.joined), ids(&twelve[..2]), "the first two");
    assert_eq!((commits[0].version, &commits[0].refused), (Version(1), &ids(&twelve[2..])));
    assert_eq!(members(store, "table").await, (1, twelve[..2].to_vec()));
    let outcome = store.outcome(here, attempt).await.expect("it is over");
    assert_eq!(outcome, Some(commits), "whoever lost the answer learns who was refused");
    let late = change(store, here, "table", [within(&twelve[2], 2)]).await;
    assert_eq!((late.version, late.delta.is_empty(), late.refused), (Version(1), true, vec![twelve[2].id]));
    let more = change(store, here, "table", [within(&twelve[2], 3)]).await;
    assert_eq!(
        (more.version, more.delta.joined.len(), more.refused.len()),
        (Version(2), 1, 0),
        "the limit is of the join"
    );
}

pub async fn the_limit_counts_the_presences_of_its_own_room(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let _ = crowd(store, here, "full", 2).await;
    let (one, other, third) = (anonymous(here, "one"), anonymous(here, "other"), anonymous(here, "third"));
    let changes =
        [writes("full", [within(&one, 2)]), writes("free", [within(&other, 1)]), writes("plain", [join(&third)])];
    let commits = store.commit(here, Attempt::next(), changes.clone().into()).await.expect("it works");
    assert_eq!([0, 1, 2].map(|n| commits[n].refused.clone()), [vec![one.id], vec![], vec![]]);
    assert_eq!([0, 1, 2].map(|n| commits[n].delta.joined.len()), [0, 1, 1]);
}

pub async fn a_leave_frees_a_place_and_a_join_without_a_limit_takes_one(store: &dyn Store, _: &ManualClock) {
    let here = node(store, "here").await;
    let table = crowd(store, here, "table", 2).await;
    let (guest, next) = (anonymous(here, "guest"), anonymous(here, "next"));
    let changed = change(store, here, "table", [within(&guest, 2), leave(&table[0])]).await;
    assert_eq!((ids(&changed.delta.joined), changed.refused.len()), (vec![guest.id], 0));
    let changed = change(store, here, "table", [within(&next, 2), leave(&table[1]), join(&table[0])]).await;
    assert_eq!((ids(&changed.delta.joined), changed.refused), (vec![table[0].id], vec![next.id]));
    let _ = change(store, here, "table", [leave(&guest)]).await;
    assert_eq!(change(store, here, "table", [within(&next, 2)]).await.delta.joined, [next]);
}

pub async fn repeated_joins_and_resumes_succeed_in_a_full_room(store: &dyn Store, time: &ManualClock) {
    let (here, there) = (node(store, "here").await, node(store, "there").await);
    let (ann, bob) = (anonymous(here, "ann"), anonymous(here, "bob"));
    let joined = change(store, here, "table", [within_or_back(&ann, 2), within(&bob, 2)]).await;
    assert_eq!((joined.delta.joined.len(), joined.refused.len()), (2, 0));
    let again = change(store, here, "table", [within(&bob, 1)]).await;
    assert!(again.delta.is_empty() && again.refused.is_empty(), "it is in");
    let hold = Write::Hold { id: ann.id, channel: ann.channel.clone(), grace: GRACE };
    let _ = change(store, here, "table", [hold]).await;
    let guest = anonymous(here, "guest");
    let full = change(store, here, "table", [within(&guest, 2)]).await;
    assert_eq!(full.refused, [guest.id], "who is held keeps its place");
    time.advance(SECOND);
    let socket = anonymous(there, "ann's next");
    let back = change(store, there, "table", [within_or_back(&socket, 1)]).await;
    let now = Presence { node: there, channel: channel("ann's next"), ..Presence::clone(&ann) };
    let now = Arc::new(now);
    assert_eq!(back.resumed, [Resumed { requested: socket.id, presence: now.clone() }]);
    assert_eq!((back.refused, back.delta), (Vec::new(), Delta { moved: vec![now], ..Delta::default() }));
}

pub async fn of_two_nodes_that_join_at_once_one_gets_the_last_place(store: &dyn Store, _: &ManualClock) {
    let nodes = [node(store, "here").await, node(store, "there").await];
    for n in 0..10 {
        let table = format!("table {n}");
        let _ = crowd(store, nodes[0], &table, 1).await;
        let [ours, theirs] = nodes.map(|node| anonymous(node, &format!("last of {node}")));
        let joins = (
            change(store, nodes[0], &table, [within(&ours, 2)]),
            change(store, nodes[1], &table, [within(&theirs, 2)]),
        );
        let (here, there) = futures_util::future::join(joins.0, joins.1).await;
        assert_eq!(here.delta.joined.len() + there.delta.joined.len(), 1);
        assert_eq!(here.refused.len() + there.refused.len(), 1);
        assert_eq!(members(store, &table).await.1.len(), 2);
    }
}
