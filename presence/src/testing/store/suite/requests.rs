//! Requests between nodes, and their answers.

#![expect(missing_docs, reason = "the names are sentences")]

use std::time::Duration;

use crate::{
    CloseCode,
    model::Close,
    name::{ChannelName, NodeId, PresenceId, RequestId},
    store::{ClearMode, Order, Removal, RemovalTarget, Request, Store, Write},
};

use super::{super::ManualClock, LEASE, SECOND, change, crowd, is_fenced, let_die, node, room, user};

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

pub async fn a_removal_arrives_unchanged(store: &dyn Store, _: &ManualClock) {
    let (asker, [here]) = nodes(store, ["here"]).await;
    let close = Some(Close::new(CloseCode(4003), "it's \"over\""));
    let of_channel = |room| RemovalTarget::Channel { channel: ChannelName::new("job 7").expect("a name"), room };
    let removals = [
        Removal { target: RemovalTarget::User(user("ann")), close: close.clone() },
        Removal { target: RemovalTarget::Room(room("lobby")), close: None },
        Removal { target: RemovalTarget::UserIn { user: user("ann"), room: room("lobby") }, close: None },
        Removal { target: of_channel(None), close: None },
        Removal { target: of_channel(Some(room("lobby"))), close: close.clone() },
        Removal { target: RemovalTarget::Presence { room: room("lobby"), id: PresenceId::random() }, close },
    ];
    for removal in removals {
        let request = Request { id: RequestId::random(), order: Order::Remove(removal) };
        store.send_request(asker, request.clone()).await.expect("it may send a request");
        assert_eq!(asked(store, here).await, std::slice::from_ref(&request));
        store.answer(here, request.id, 4).await.expect("it may answer");
        assert_eq!(answers(store, request.id).await, [("here".into(), Some(4))]);
    }
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
