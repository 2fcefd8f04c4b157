//! Removing a user or a room, on every node that uses the database.

mod closing;
mod connecting;
mod in_progress;
mod moving;
mod requests;
mod single;

use super::prelude::*;
use crate::actor::RemoveUserFrom;

/// The rooms of which the connection was notified that its presence was removed, and how its socket is to be closed.
pub(super) fn removals(client: &FakeClient) -> Vec<(String, Option<Close>)> {
    let removal = |message| match message {
        ToConnection::Removed { room, close } => Some((room.as_str().to_owned(), close)),
        _ => None,
    };
    client.connection_messages().into_iter().filter_map(removal).collect()
}

#[actix::test]
async fn a_join_that_is_removed_before_its_answer_arrives_fails() {
    // The room was removed after the join was answered and before its caller received the answer. The call returned success.
    let node = node().await;
    let channel = channel("job");
    for again in [false, true] {
        if again {
            node.add(lobby(), &channel, None).await.unwrap();
        }
        let mut joins = Box::pin(node.add(lobby(), &channel, None));
        assert!(joins.as_mut().now_or_never().is_none());
        settle().await;
        assert_eq!(node.remove_room(lobby(), None).await.unwrap(), 1);
        assert!(matches!(joins.await, Err(Error::LeftWhileJoining { .. })), "again: {again}");
        pass(secs(1)).await;
        assert_eq!((node.rows(lobby()).await.len(), node.children()), (0, 0));
    }
    node.add(lobby(), &channel, None).await.unwrap();
    assert_eq!(node.count(lobby()).await.unwrap().presences, 1);
}

// behaviour: 2.8 user-deleted
#[actix::test]
async fn a_user_is_removed_on_every_node_and_no_node_rejoins_it() {
    // The node of the socket considered the removal an error, and restored the presence.
    let [here, there, yonder] = nodes::<3>(quick).await;
    let mut changes = here.changes();
    let mut others = there.changes();
    let mut last = yonder.changes();
    let [ann, bob] = here.members_named(["ann", "bob"]).await;
    let (ann2, ann3) = (there.member("ann").await, there.client("ann"));
    ann3.join(&room("bar")).await.unwrap();
    let cid = yonder.member("cid").await;
    pass(secs(3)).await;
    for changes in [&mut changes, &mut others, &mut last] {
        published(changes);
    }
    assert_eq!(here.remove_user(&user("ann"), None).await.unwrap(), 3);
    pass(secs(10)).await;
    assert_eq!((bob.sees(), cid.sees()), (vec!["bob".to_owned(), "cid".into()], bob.sees()));
    assert_eq!((here.rows(lobby()).await, here.rows(&room("bar")).await), (bob.sees(), Vec::new()));
    assert_eq!(published(&mut changes), ["-[ann]"]);
    assert_eq!(published(&mut others), ["-[ann]", "-[ann]"]);
    assert_eq!(published(&mut last), NONE, "each event fires where the change was made");
    let events = |room: &str| vec![(room.to_owned(), None)];
    assert_eq!([removals(&ann), removals(&ann2), removals(&ann3)], [events("lobby"), events("lobby"), events("bar")]);
    ann2.join(lobby()).await.unwrap();
    pass(secs(5)).await;
    assert_eq!(bob.sees(), ["ann", "bob", "cid"], "it may come back");
}

// behaviour: W16 deletion-closes
#[actix::test]
async fn a_room_is_removed_on_every_node_and_its_sockets_are_closed_with_code_and_reason() {
    let [here, there, _] = nodes::<3>(quick).await;
    let (ann, crowd) = (here.member("ann").await, there.crowd(20).await);
    crowd[0].join(&room("bar")).await.unwrap();
    let close = Close::new(CloseCode(4003), "it is late");
    assert_eq!(here.remove_room(lobby(), Some(close.clone())).await.unwrap(), 21);
    settle().await;
    for one in crowd.iter().chain([&ann]) {
        assert_eq!(removals(one), [("lobby".to_owned(), Some(close.clone()))]);
    }
    pass(secs(10)).await;
    assert_eq!((here.rows(lobby()).await, here.rows(&room("bar")).await), (Vec::new(), vec!["u0".to_owned()]));
}

// behaviour: 3 deletions
#[actix::test]
async fn a_removal_without_a_match_succeeds_with_zero() {
    let [here, there, _] = nodes::<3>(quick).await;
    let (_ann, _bob) = (here.member("ann").await, there.member("bob").await);
    let mut changes = here.changes();
    assert_eq!(here.remove_user(&user("zoe"), None).await.unwrap(), 0);
    assert_eq!(here.remove_room(&room("nowhere"), None).await.unwrap(), 0);
    assert_eq!((here.rows(lobby()).await, published(&mut changes)), (vec!["ann".to_owned(), "bob".into()], vec![]));
}

#[actix::test]
async fn presences_without_a_live_node_are_removed_by_the_requesting_node() {
    let [here, there, _] = nodes::<3>(quick).await;
    let _crowd = there.crowd(3).await;
    // Its next incarnation holds its presences.
    let later = node_on(here.store.database(), "there", quick()).await;
    settle().await;
    let mut changes = here.changes();
    assert_eq!(here.remove_room(lobby(), None).await.unwrap(), 3);
    assert_eq!((published(&mut changes), here.rows(lobby()).await), (vec!["-[u0 u1 u2]".to_owned()], Vec::new()));
    drop(later);
}

#[actix::test]
async fn a_node_that_does_not_answer_is_named_and_removes_nothing_later() {
    let [here, there, yonder] = nodes::<3>(quick).await;
    let (_ann, ann2) = (here.member("ann").await, there.member("ann").await);
    let _bob = yonder.member("bob").await;
    let before = here.rooms.this_node().now();
    // It renews its lease, but never looks for requests.
    let deaf = there.store.database().clone();
    there.store.faults.hang();
    let life = there.node().unwrap();
    let alive = async {
        loop {
            deaf.renew(life, secs(3)).await.unwrap();
            tokio::time::sleep(ms(500)).await;
        }
    };
    let name = user("ann");
    let removed = tokio::select! {
        removed = here.remove_user(&name, None) => removed,
        () = alive => unreachable!(),
    };
    let silent = vec![NodeName::new("there").unwrap()];
    assert!(matches!(&removed, Err(Error::Unanswered { nodes, removed: 1 }) if *nodes == silent), "{removed:?}");
    assert_eq!(removed.unwrap_err().to_string(), "node `there` did not answer in time");
    assert!(here.rooms.this_node().now().since(before) < secs(5));
    there.store.faults.release();
    pass(secs(10)).await;
    assert_eq!((removals(&ann2), here.rows(lobby()).await), (vec![], vec!["ann".to_owned(), "bob".into()]));
}

#[actix::test]
async fn a_node_that_is_dead_before_it_answers_need_not_answer() {
    // The error named this node, although its presences were removed and it could never answer.
    let [here, there, _] = nodes::<3>(quick).await;
    let (_ann, ann2) = (here.member("ann").await, there.member("ann").await);
    there.store.faults.hang();
    assert_eq!(here.remove_user(&user("ann"), None).await.unwrap(), 1, "the other was removed with its node");
    assert_eq!(here.rows(lobby()).await, NONE);
    there.store.faults.release();
    pass(secs(10)).await;
    assert_eq!((removals(&ann2), here.rows(lobby()).await), (vec![], vec!["ann".to_owned()]), "it lives all the same");
}

#[actix::test]
async fn a_node_that_shuts_down_before_it_answers_need_not_answer() {
    // The requesting node waited for it as long as for a live one, and the call failed with its name.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let here = node_on(&database, "here", quick().lease(secs(30))).await;
    let deaf = config().lease(secs(30)).grace(secs(40)).sweep_interval(secs(20));
    let there = node_on(&database, "there", deaf).await;
    let (_ann, ann2) = (here.member("ann").await, there.member("ann").await);
    let before = here.rooms.this_node().now();
    let (name, removed) = (user("ann"), async {
        settle().await;
        ann2.vanish();
        there.shutdown().await;
    });
    let (removed, ()) = tokio::join!(here.remove_user(&name, None), removed);
    assert_eq!(removed.unwrap(), 1, "the other left with its node");
    assert_eq!(here.rows(lobby()).await, NONE);
    assert!(here.rooms.this_node().now().since(before) < secs(15));
}

#[actix::test]
async fn a_request_that_takes_long_delays_no_other_request() {
    // Requests were carried out one after the other, however long each took.
    let [here, there, _] = nodes::<3>(quick).await;
    let (_ann, _bob) = (there.member("ann").await, here.member("bob").await);
    there.store.commits_take(secs(60));
    let (long, short) = (user("ann"), user("bob"));
    let (long, short) = tokio::join!(here.remove_user(&long, None), async {
        pass(ms(1100)).await;
        let before = here.rooms.this_node().now();
        (here.remove_user(&short, None).await, here.rooms.this_node().now().since(before))
    });
    assert_eq!(short.0.unwrap(), 1);
    assert!(short.1 < secs(2), "{:?}", short.1);
    assert!(matches!(long, Err(Error::Unanswered { removed: 0, .. })), "{long:?}");
}

#[actix::test]
async fn a_code_that_may_not_be_sent_removes_nobody() {
    let [here, ..] = nodes::<3>(quick).await;
    let _ann = here.member("ann").await;
    let removed = here.remove_user(&user("ann"), Some(Close::new(CloseCode(1005), ""))).await;
    assert!(matches!(removed, Err(Error::CloseCode { code: CloseCode(1005) })));
    assert_eq!(here.rows(lobby()).await, ["ann"]);
}

#[actix::test]
async fn a_presence_that_is_not_held_in_the_database_yet_is_removed_and_not_resumed() {
    // The database did not have it as held yet, so nobody removed it.
    let [here, there, _] = nodes::<3>(quick).await;
    for node in [&here, &there] {
        let ann = |node: &TestNode| node.client("ann").with_token("ann", secs(10));
        let (bob, first) = (node.member("bob").await, ann(node));
        first.join(lobby()).await.unwrap();
        pass(secs(3)).await;
        node.store.commits_take(secs(2));
        let _under_way = bob.update(lobby(), r#"{"n":1}"#).now_or_never();
        settle().await;
        first.lose(lobby());
        assert_eq!(here.remove_user(&user("ann"), None).await.unwrap(), 1);
        assert_eq!(here.rows(lobby()).await, ["bob"]);
        node.store.commits_take(ms(0));
        let second = ann(node);
        second.join(lobby()).await.unwrap();
        assert_ne!(second.me(), first.me());
        here.remove_room(lobby(), None).await.unwrap();
    }
}

/// The node of ann does not reach the database when she is to be removed. It reaches it again after the caller has failed.
async fn given_up(meanwhile: impl AsyncFnOnce(&TestNode), asked: usize) {
    let [here, there, _] = nodes::<3>(quick).await;
    let ann = there.member("ann").await;
    pass(ms(100)).await;
    there.store.faults.hang();
    let (removed, ()) = tokio::join!(here.remove_room(lobby(), None), meanwhile(&here));
    assert!(matches!(removed, Err(Error::StoreUnavailable(_))), "{removed:?}");
    let life = there.node().unwrap();
    assert_eq!(here.store.database().open_requests(life).await.unwrap().len(), asked);
    pass(ms(1100)).await;
    there.store.faults.release();
    pass(secs(3)).await;
    assert_eq!((removals(&ann), here.rows(lobby()).await), (vec![], vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_request_that_could_not_be_withdrawn_is_withdrawn_when_the_database_is_back() {
    // The request stayed as long as the node ran, and a node that continued late carried it out.
    let away = async |here: &TestNode| {
        pass(ms(300)).await;
        here.store.faults.fail_next(usize::MAX);
        pass(ms(200)).await;
        here.store.faults.fail_next(0);
    };
    given_up(away, 1).await;
}

#[actix::test]
async fn a_request_whose_confirmation_was_lost_is_withdrawn() {
    // It was not withdrawn.
    given_up(async |here: &TestNode| here.store.faults.lose_answers(1), 0).await;
}

#[actix::test]
async fn many_removals_together_are_one_message_to_their_hub() {
    let node = node().await;
    let bob = node.member("bob").await;
    let mut crowd = Vec::new();
    for _ in 0..20 {
        crowd.push(node.member("ann").await);
    }
    pass(secs(1)).await;
    let sockets = node.rooms.hubs().here().sockets;
    let before = sockets.borrow().messages;
    assert_eq!(node.remove_user(&user("ann"), None).await.unwrap(), 20);
    pass(secs(1)).await;
    assert_eq!(
        sockets.borrow().messages - before,
        2,
        "one takes them out and notifies them, one is the notice for bob"
    );
    assert_eq!(bob.sees(), ["bob"]);
    assert!(crowd.iter().all(|client| removals(client).len() == 1));
}

#[actix::test]
async fn a_user_is_removed_from_one_room_on_every_node_and_stays_in_the_others() {
    let quick = || config().sweep_interval(secs(1));
    let [here, there] = nodes(quick).await;
    let (first, second) = (here.member("ann").await, there.member("ann").await);
    let [bob, cid] = [here.member("bob").await, here.member("cid").await];
    for member in [&first, &bob, &cid] {
        member.join(&room("attic")).await.unwrap();
    }
    pass(secs(1)).await;
    let mut changes = here.changes();
    let close = Some(Close::new(CloseCode(4003), "enough"));
    assert_eq!(here.remove_user_from(lobby(), &user("ann"), close).await.unwrap(), 2);
    assert_eq!(published(&mut changes), ["-[ann]"]);
    assert_eq!((first.close_codes(), second.close_codes()), (vec![CloseCode(4003)], vec![CloseCode(4003)]));
    assert_eq!(here.rows(lobby()).await, ["bob", "cid"]);
    let message = RemoveUserFrom { room: lobby().clone(), user: user("cid"), close: None };
    assert_eq!(here.addr().send(message.clone()).await.unwrap().unwrap(), 1);
    assert_eq!(here.addr().send(message).await.unwrap().unwrap(), 0);
    assert_eq!(here.room(lobby()).remove_user(&user("bob"), None).await.unwrap(), 1);
    assert_eq!((here.rows(lobby()).await.len(), here.rows(&room("attic")).await.len()), (0, 3));
    assert_eq!((bob.close_codes(), cid.close_codes()), (vec![], vec![]));
}
