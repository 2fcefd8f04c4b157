//! Requests between nodes, and their answers.

#![expect(missing_docs, reason = "the names are sentences")]

use std::{sync::Arc, time::Duration};

use crate::{
    CloseCode,
    model::{Close, Presence},
    name::{ChannelName, NodeId, PresenceId, RequestId},
    session::{Session, SessionHash},
    store::{ClearMode, Order, Remaining, Removal, RemovalTarget, Request, Store, Write},
};

use super::{super::ManualClock, LEASE, SECOND, change, crowd, is_fenced, join, let_die, node, room, user};

const AGE: Duration = Duration::from_secs(60);

/// Nodes with one presence each, and a node without presences that sends the requests.
async fn nodes<const N: usize>(store: &dyn Store, names: [&str; N]) -> (NodeId, [NodeId; N]) {
    let mut nodes = [NodeId::random(); N];
    for (at, name) in names.into_iter().enumerate() {
        nodes[at] = node(store, name).await;
        let _ = crowd(store, nodes[at], name, 1).await;
    }
    (node(store, "asker").await, nodes)
}

fn to_prune(id: RequestId, max_age: Duration) -> Request {
    Request { id, order: Order::Prune { max_age } }
}

async fn ask(store: &dyn Store, asker: NodeId, max_age: Duration) -> RequestId {
    let id = RequestId::random();
    store.send_request(asker, to_prune(id, max_age)).await.expect("it may send a request");
    id
}

async fn asked(store: &dyn Store, node: NodeId) -> Vec<Request> {
    store.open_requests(node).await.expect("reading works")
}

async fn answers(store: &dyn Store, request: RequestId) -> Vec<(String, Option<u64>)> {
    let answers = store.answers(request).await.expect("reading works");
    answers.into_iter().map(|answer| (answer.name.into(), answer.removed)).collect()
}

pub async fn a_node_answers_a_request_once(store: &dyn Store, _: &ManualClock) {
    let (asker, [here, there]) = nodes(store, ["here", "there"]).await;
    assert_eq!(asked(store, here).await, []);
    let request = ask(store, asker, AGE).await;
    assert_eq!(answers(store, request).await, [("here".into(), None), ("there".into(), None)]);
    assert_eq!(asked(store, here).await, [to_prune(request, AGE)]);
    store.answer(here, request, 7).await.expect("it may answer");
    store.answer(here, request, 0).await.expect("the first answer may have been lost");
    assert_eq!(asked(store, here).await, []);
    assert_eq!(asked(store, there).await.len(), 1);
    assert_eq!(answers(store, request).await, [("here".into(), Some(7)), ("there".into(), None)]);
    let nodes: Vec<_> = store.answers(request).await.expect("reading works").iter().map(|a| a.node).collect();
    assert_eq!(nodes, [here, there]);
}

pub async fn an_age_is_kept_to_the_millisecond(store: &dyn Store, _: &ManualClock) {
    let (asker, [here]) = nodes(store, ["here"]).await;
    for millis in [0, 1, 1_500, u64::from(u32::MAX)] {
        let request = ask(store, asker, Duration::from_millis(millis)).await;
        assert_eq!(asked(store, here).await, [to_prune(request, Duration::from_millis(millis))]);
        store.answer(here, request, 0).await.expect("it may answer");
    }
}

pub async fn only_live_nodes_with_a_presence_receive_a_request(store: &dyn Store, time: &ManualClock) {
    let former = node(store, "held").await;
    let _ = crowd(store, former, "lobby", 1).await;
    let judge = node(store, "judge").await;
    let (_, [_, fenced, here]) = nodes(store, ["expired", "fenced", "here"]).await;
    for live in [judge, here] {
        time.advance(LEASE / 2 + SECOND);
        store.renew(live, LEASE).await.expect("it lives");
    }
    store.renew(judge, LEASE).await.expect("it lives");
    // The presence of the former incarnation is held, even while its node runs again.
    let later = node(store, "held").await;
    let held = store.clear(later, former, ClearMode::HoldAll(AGE), 10).await.expect("it may clear");
    assert_eq!(held.handled, 1);
    let asker = node(store, "asker").await;
    let request = ask(store, asker, AGE).await;
    assert_eq!(answers(store, request).await, [("here".into(), None)]);
    assert!(store.fence(judge).await.expect("it may judge").contains(&fenced));
    let request = ask(store, asker, AGE).await;
    assert_eq!(answers(store, request).await, [("here".into(), None)]);
}

pub async fn a_node_with_only_held_presences_receives_a_request(store: &dyn Store, _: &ManualClock) {
    let (asker, here) = (node(store, "asker").await, node(store, "here").await);
    let held = crowd(store, here, "lobby", 1).await.remove(0);
    let hold = Write::Hold { id: held.id, channel: held.channel.clone(), grace: AGE };
    let _ = change(store, here, "lobby", [hold]).await;
    let request = ask(store, asker, AGE).await;
    assert_eq!(answers(store, request).await, [("here".into(), None)]);
    assert_eq!(asked(store, here).await.len(), 1);
}

pub async fn a_request_that_is_sent_again_reaches_new_nodes_and_no_node_twice(store: &dyn Store, _: &ManualClock) {
    let (asker, [here]) = nodes(store, ["here"]).await;
    let request = ask(store, asker, AGE).await;
    store.answer(here, request, 3).await.expect("it may answer");
    let late = node(store, "late").await;
    let _ = crowd(store, late, "late", 1).await;
    store.send_request(asker, to_prune(request, AGE)).await.expect("it may send a request");
    assert_eq!(answers(store, request).await, [("here".into(), Some(3)), ("late".into(), None)]);
    assert_eq!(asked(store, here).await, []);
}

pub async fn two_requests_at_once_have_separate_answers(store: &dyn Store, _: &ManualClock) {
    let (one, [here]) = nodes(store, ["here"]).await;
    let other = node(store, "other asker").await;
    let first = ask(store, one, AGE).await;
    let second = ask(store, other, SECOND).await;
    let requests = [to_prune(first, AGE), to_prune(second, SECOND)];
    assert_eq!(asked(store, here).await, requests, "the oldest first");
    store.answer(here, second, 2).await.expect("it may answer");
    assert_eq!(answers(store, first).await, [("here".into(), None)]);
    assert_eq!(answers(store, second).await, [("here".into(), Some(2))]);
    assert_eq!(store.retire(other, Duration::ZERO).await.expect("it may retire"), []);
    assert_eq!(answers(store, second).await, []);
    assert_eq!(asked(store, here).await, requests[..1]);
}

pub async fn a_request_ends_with_the_incarnation_that_sent_it(store: &dyn Store, time: &ManualClock) {
    let (asker, [here]) = nodes(store, ["here"]).await;
    let request = ask(store, asker, AGE).await;
    time.advance(LEASE + SECOND);
    store.renew(here, LEASE).await.expect("it lives");
    assert_eq!(asked(store, here).await, [], "its lease ran out");
    assert_eq!(store.fence(here).await.expect("it may judge"), []);
    assert_eq!(answers(store, request).await, [], "it is forgotten");
    store.answer(here, request, 1).await.expect("an answer that nobody waits for is nothing");
    store.answer(here, RequestId::random(), 1).await.expect("an answer that nobody waits for is nothing");
    assert_eq!(answers(store, request).await, []);
    assert!(is_fenced(&store.send_request(asker, to_prune(request, AGE)).await, asker, false));
}

pub async fn an_answer_stays_when_its_node_ends(store: &dyn Store, _: &ManualClock) {
    let (asker, [here, there]) = nodes(store, ["here", "there"]).await;
    let request = ask(store, asker, AGE).await;
    store.answer(here, request, 5).await.expect("it may answer");
    for node in [here, there] {
        assert_eq!(store.retire(node, Duration::ZERO).await.expect("it may retire").len(), 1);
    }
    assert_eq!(answers(store, request).await, [("here".into(), Some(5)), ("there".into(), None)]);
}

pub async fn a_fenced_incarnation_may_not_answer(store: &dyn Store, time: &ManualClock) {
    let (asker, [dead]) = nodes(store, ["dead"]).await;
    let request = ask(store, asker, AGE).await;
    assert_eq!(let_die(store, time, asker).await, [dead]);
    assert!(is_fenced(&store.answer(dead, request, 1).await, dead, false));
    assert_eq!(answers(store, request).await, [("dead".into(), None)]);
}

/// A presence of ann in the lobby, on the channel `job 7`.
async fn ann_in_lobby(store: &dyn Store, node: NodeId) -> Arc<Presence> {
    let ann = Arc::new(Presence::new(PresenceId::random(), channel("job 7"), Some(user("ann")), node));
    let _ = change(store, node, "lobby", [join(&ann)]).await;
    ann
}

fn channel(name: &str) -> ChannelName {
    ChannelName::new(name).expect("a name")
}

/// The targets to which ann's presence in the lobby belongs.
fn targets_of(ann: &Presence) -> [RemovalTarget; 6] {
    let of_channel = |room| RemovalTarget::Channel { channel: ann.channel.clone(), room };
    [
        RemovalTarget::User(user("ann")),
        RemovalTarget::Room(room("lobby")),
        RemovalTarget::UserIn { user: user("ann"), room: room("lobby") },
        RemovalTarget::Presence { room: room("lobby"), id: ann.id },
        of_channel(Some(room("lobby"))),
        of_channel(None),
    ]
}

async fn ask_to_remove(store: &dyn Store, asker: NodeId, target: RemovalTarget) -> RequestId {
    let order = Order::Remove(Removal { target, close: None });
    let request = Request { id: RequestId::random(), order };
    store.send_request(asker, request.clone()).await.expect("it may send a request");
    request.id
}

pub async fn a_removal_arrives_unchanged(store: &dyn Store, _: &ManualClock) {
    let (asker, []) = nodes(store, []).await;
    let here = node(store, "here").await;
    let ann = ann_in_lobby(store, here).await;
    let close = Some(Close::new(CloseCode(4003), "it's \"over\""));
    for target in targets_of(&ann) {
        for close in [None, close.clone()] {
            let order = Order::Remove(Removal { target: target.clone(), close });
            let request = Request { id: RequestId::random(), order };
            store.send_request(asker, request.clone()).await.expect("it may send a request");
            assert_eq!(asked(store, here).await, std::slice::from_ref(&request));
            store.answer(here, request.id, 4).await.expect("it may answer");
            assert_eq!(answers(store, request.id).await, [("here".into(), Some(4))]);
        }
    }
}

pub async fn only_nodes_with_presences_of_the_target_receive_a_removal(store: &dyn Store, _: &ManualClock) {
    let (asker, [with_user, in_room]) = nodes(store, ["bar", "lobby"]).await;
    let here = node(store, "here").await;
    let ann = ann_in_lobby(store, here).await;
    let elsewhere = Arc::new(Presence::new(PresenceId::random(), channel("job 7"), Some(user("ann")), with_user));
    let _ = change(store, with_user, "bar", [join(&elsewhere)]).await;
    let hold = Write::Hold { id: ann.id, channel: ann.channel.clone(), grace: AGE };
    let _ = change(store, here, "lobby", [hold]).await;
    let expected: [&[&str]; 6] =
        [&["bar", "here"], &["here", "lobby"], &["here"], &["here"], &["here"], &["bar", "here", "lobby"]];
    for (target, expected) in targets_of(&ann).into_iter().zip(expected) {
        let request = ask_to_remove(store, asker, target.clone()).await;
        let receivers: Vec<_> = answers(store, request).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(receivers, expected, "{target:?}");
    }
    let nowhere = ask_to_remove(store, asker, RemovalTarget::Room(room("attic"))).await;
    assert_eq!((answers(store, nowhere).await, asked(store, in_room).await.len()), (vec![], 2));
}

pub async fn a_removal_that_is_sent_again_reaches_the_node_to_which_a_presence_has_moved(
    store: &dyn Store,
    time: &ManualClock,
) {
    let (asker, [there]) = nodes(store, ["there"]).await;
    let here = node(store, "here").await;
    let session = Session { hash: SessionHash::from_bytes([7; 32]), grace: AGE };
    let first = Arc::new(Presence::new(PresenceId::random(), channel("first"), Some(user("ann")), here));
    let _ = change(store, here, "lobby", [Write::Resume { presence: first.clone(), session }]).await;
    time.advance(SECOND);
    let order = Order::Remove(Removal { target: RemovalTarget::User(user("ann")), close: None });
    let request = Request { id: RequestId::random(), order };
    let sent = store.send_request(asker, request.clone()).await.expect("it may send a request");
    assert_eq!(answers(store, request.id).await, [("here".into(), None)]);
    time.advance(SECOND);
    let moved = Presence::new(PresenceId::random(), channel("second"), Some(user("ann")), there);
    let _ = change(store, there, "lobby", [Write::Resume { presence: moved.into(), session }]).await;
    let later = Arc::new(Presence::new(PresenceId::random(), channel("third"), Some(user("ann")), there));
    let _ = change(store, there, "lobby", [join(&later)]).await;
    let left = async |target: RemovalTarget, before| {
        let mut left = store.remaining(target, before, 10).await.expect("reading works");
        left.sort_unstable();
        left
    };
    let ann = Remaining { room: room("lobby"), id: first.id, node: there };
    for target in [
        RemovalTarget::User(user("ann")),
        RemovalTarget::UserIn { user: user("ann"), room: room("lobby") },
        RemovalTarget::Presence { room: room("lobby"), id: first.id },
        RemovalTarget::Channel { channel: channel("second"), room: Some(room("lobby")) },
        RemovalTarget::Room(room("lobby")),
    ] {
        assert_eq!(left(target, sent).await, std::slice::from_ref(&ann));
    }
    assert_eq!(left(RemovalTarget::User(user("ann")), sent + SECOND * 2).await.len(), 2);
    assert_eq!(left(RemovalTarget::User(user("bob")), sent).await, []);
    assert_eq!(left(RemovalTarget::Room(room("bar")), sent).await, []);
    let two = store.remaining(RemovalTarget::User(user("ann")), sent + SECOND * 2, 1).await.expect("reading works");
    assert_eq!(two.len(), 1, "at most so many");
    store.send_request(asker, request.clone()).await.expect("it may send a request");
    assert_eq!(answers(store, request.id).await, [("here".into(), None), ("there".into(), None)]);
}

pub async fn a_node_does_not_receive_its_own_request(store: &dyn Store, _: &ManualClock) {
    let (_, [here, there]) = nodes(store, ["here", "there"]).await;
    let request = ask(store, here, AGE).await;
    assert_eq!(asked(store, here).await, []);
    assert_eq!(answers(store, request).await, [("there".into(), None)]);
    assert_eq!(asked(store, there).await.len(), 1);
}

pub async fn a_withdrawn_request_reaches_no_node(store: &dyn Store, _: &ManualClock) {
    let (asker, [here]) = nodes(store, ["here"]).await;
    let (request, other) = (ask(store, asker, AGE).await, ask(store, asker, SECOND).await);
    store.withdraw(here, request).await.expect("it is another's, so nothing happens");
    assert_eq!(asked(store, here).await.len(), 2);
    store.withdraw(asker, request).await.expect("it may withdraw");
    store.withdraw(asker, request).await.expect("what has ended is nothing");
    assert_eq!(asked(store, here).await, [to_prune(other, SECOND)]);
    store.answer(here, request, 1).await.expect("an answer that nobody waits for is nothing");
    assert_eq!(answers(store, request).await, []);
}

pub async fn a_survey_shows_whether_there_are_unanswered_requests(store: &dyn Store, _: &ManualClock) {
    let (asker, [here, there]) = nodes(store, ["here", "there"]).await;
    let has_requests = async |node| store.survey(node).await.expect("the survey works").has_requests;
    assert!(!has_requests(here).await);
    let (request, other) = (ask(store, asker, AGE).await, ask(store, here, SECOND).await);
    assert!(has_requests(here).await && has_requests(there).await && !has_requests(asker).await);
    store.answer(here, request, 1).await.expect("it may answer");
    assert!(!has_requests(here).await && has_requests(there).await);
    store.withdraw(asker, request).await.expect("it may withdraw");
    assert!(has_requests(there).await, "the other request is left");
    store.withdraw(here, other).await.expect("it may withdraw");
    assert!(!has_requests(there).await);
}
