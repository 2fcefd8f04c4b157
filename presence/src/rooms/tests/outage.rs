//! The database goes away, and comes back.

use futures_util::{FutureExt, future::join_all};

use super::bench::{Node, config, heard, lobby, ms, node, node_with, pass, secs, settle};
use crate::{
    Error,
    name::{NodeId, NodeName},
    store::{Attempt, NodeStore, RoomStore, Write},
};

fn is_away<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::StoreUnavailable(_)))
}

/// What came and went in equal numbers, whoever it was.
fn check_pairs(heard: &[String]) {
    let (mut came, mut went): (Vec<_>, Vec<_>) = heard.iter().partition(|event| event.starts_with('+'));
    came.sort();
    went.sort();
    assert!(came.iter().map(|event| &event[1..]).eq(went.iter().map(|event| &event[1..])), "{heard:?}");
}

// behaviour: 2.1 failed-add-leaves-nothing; W6 no-ghosts
#[actix::test]
async fn a_join_fails_after_the_time_out_and_leaves_nothing_when_the_database_is_back() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.faults.hang();
    let asked = node.rooms.this_node().now();
    assert!(is_away(&bob.join(lobby()).await));
    let waited = node.rooms.this_node().now().since(asked);
    assert!((secs(5)..secs(5) + ms(200)).contains(&waited), "{waited:?}");
    pass(secs(20)).await;
    node.store.faults.release();
    ann.touch();
    pass(secs(5)).await;
    assert_eq!((heard(&mut changes), ann.screen().told), (Vec::new(), Vec::<String>::new()));
    assert_eq!((node.rows(lobby()).await, node.children(), bob.frames().len()), (vec!["ann".to_owned()], 1, 0));
    assert!(bob.join(lobby()).await.is_ok(), "and it may try again");
}

#[actix::test]
async fn a_join_that_was_committed_but_not_answered_is_taken_back_and_what_is_announced_adds_up() {
    let node = node_with(config().reconcile_interval(secs(3600))).await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.hang_after_commit();
    let away = async {
        settle().await;
        node.store.faults.fail_next(usize::MAX);
    };
    let (joined, ()) = tokio::join!(bob.join(lobby()), away);
    assert!(is_away(&joined));
    assert_eq!(node.rows(lobby()).await, ["ann", "bob"], "the commit did happen");
    ann.touch();
    pass(secs(20)).await;
    node.store.faults.fail_next(0);
    node.store.release_commits();
    pass(secs(5)).await;
    assert_eq!((node.rows(lobby()).await, node.children()), (vec!["ann".to_owned()], 1));
    check_pairs(&heard(&mut changes));
    check_pairs(&ann.screen().told);
    assert_eq!((ann.sees(), bob.screen().messages.len()), (vec!["ann".to_owned()], 0));
}

#[actix::test]
async fn a_join_that_was_committed_but_not_answered_succeeds_if_the_room_is_read_in_time() {
    let node = node_with(config().reconcile_interval(secs(1))).await;
    let mut changes = node.changes();
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    node.store.hang_after_commit();
    bob.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    node.store.release_commits();
    pass(secs(10)).await;
    assert_eq!(heard(&mut changes), ["+ann", "+bob"]);
    bob.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(
        (heard(&mut changes), ann.screen().told),
        (vec!["-bob".to_owned()], vec!["+bob".to_owned(), "-bob".into()])
    );
}

#[actix::test]
async fn a_commit_that_changed_nothing_is_not_taken_for_the_change_of_another_hand() {
    // It was taken for the change that led to the room's version, so that change was never seen.
    let node = node().await;
    let ann = node.member("ann").await;
    let (cid, other) = (node.client("cid"), NodeId::random());
    node.store.database().register(other, NodeName::new("other").unwrap(), secs(60)).await.unwrap();
    let elsewhere =
        crate::store::RoomWrites { room: lobby().clone(), writes: vec![Write::Join(cid.presence(lobby()))] };
    node.store.database().commit(other, Attempt::next(), [elsewhere].clone().into()).await.unwrap();
    node.client("nobody").leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(
        (node.names(lobby()).await, ann.sees()),
        (vec!["ann".to_owned(), "cid".into()], node.names(lobby()).await)
    );
}

#[actix::test]
async fn a_join_whose_answer_was_lost_succeeds_and_is_announced() {
    // The repeated commit changed nothing, so nobody was told of the join, but of its leave everybody was.
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.lose_commits(1);
    bob.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((heard(&mut changes), ann.sees(), bob.sees()), (vec!["+bob".into()], ann.sees(), ann.sees()));
    node.store.lose_commits(1);
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    node.store.lose_commits(1);
    bob.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((heard(&mut changes), ann.sees()), (vec!["~bob".to_owned(), "-bob".into()], vec!["ann".to_owned()]));
    assert_eq!(ann.screen().told, ["+bob", "~bob", "-bob"]);
}

#[actix::test]
async fn leaves_during_an_outage_happen_and_are_announced_on_its_return() {
    let node = node().await;
    let (ann, crowd) = (node.member("ann").await, node.crowd(5).await);
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.faults.fail_next(usize::MAX);
    let left = join_all(crowd.iter().map(|one| one.leave(lobby()))).await;
    assert!(left.iter().all(is_away), "they are told that it will take its time");
    pass(secs(30)).await;
    node.send(lobby(), r#""still here""#).await.unwrap();
    assert_eq!((heard(&mut changes), crowd[0].screen().messages.len()), (Vec::new(), 0), "gone from the group at once");
    assert_eq!(ann.screen().messages.len(), 1, "broadcast goes on");
    node.store.faults.fail_next(0);
    ann.touch();
    pass(secs(3)).await;
    let mut told = heard(&mut changes);
    told.sort();
    assert_eq!(told, ["-u0", "-u1", "-u2", "-u3", "-u4"]);
    assert_eq!((ann.sees(), node.rows(lobby()).await), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
}

#[actix::test]
async fn an_outage_shorter_than_max_age_makes_nobody_leave() {
    let node = node().await;
    let crowd = node.crowd(10).await;
    pass(secs(1)).await;
    let (mut changes, before) = (node.changes(), crowd[0].count());
    node.store.faults.hang();
    for _ in 0..5 {
        pass(secs(10)).await;
        crowd.iter().for_each(super::bench::Client::touch);
    }
    assert!(!node.is_ready());
    node.store.faults.release();
    pass(secs(30)).await;
    assert!(node.is_ready());
    assert_eq!((heard(&mut changes), crowd[0].count(), node.rows(lobby()).await.len()), (Vec::new(), before, 10));
}

#[actix::test]
async fn a_join_that_nobody_waits_for_any_more_leaves_nothing() {
    // Dropped at each moment of its life: before, during and after its commit, and while it waits for its first frame.
    let node = node().await;
    let (ann, mut changes) = (node.member("ann").await, node.changes());
    node.store.commits_take(ms(20));
    for after in 0..45 {
        let bob = node.client("bob");
        {
            let join = bob.join(lobby());
            tokio::pin!(join);
            assert!(tokio::time::timeout(ms(after), &mut join).await.is_err() || after >= 20, "{after}");
        }
        if after >= 21 {
            let _ = bob.leave(lobby()).await;
        }
        pass(ms(200)).await;
        assert_eq!((node.rows(lobby()).await, node.children()), (vec!["ann".to_owned()], 1), "{after}");
    }
    check_pairs(&heard(&mut changes));
    check_pairs(&ann.screen().told);
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn one_whose_join_was_dropped_may_join_again_under_the_same_id_and_leave_for_good() {
    // The second leave was taken for the first, and the second join stayed.
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    node.store.faults.fail_next(usize::MAX);
    let (id, channel) = (bob.id(lobby()), bob.channel.clone());
    assert!(tokio::time::timeout(ms(100), bob.join(lobby())).await.is_err());
    assert!(tokio::time::timeout(ms(100), bob.join(lobby())).await.is_err());
    assert!(bob.join(lobby()).now_or_never().is_none());
    let again = bob.join(lobby());
    tokio::pin!(again);
    assert!(again.as_mut().now_or_never().is_none());
    settle().await;
    assert!(node.rooms.leave(lobby(), id, &channel).now_or_never().is_none());
    settle().await;
    node.store.faults.fail_next(0);
    assert!(matches!(again.await, Err(Error::LeftWhileJoining { .. })));
    pass(secs(5)).await;
    assert_eq!((node.rows(lobby()).await, node.children()), (vec!["ann".to_owned()], 1));
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn a_join_back_after_a_leave_that_waits_is_not_forgotten_with_the_leave_that_follows() {
    // The join and the second leave cancelled out, though the database had still to hear of the first.
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(1)).await;
    let (id, channel) = (bob.id(lobby()), bob.channel.clone());
    node.store.commits_take(secs(1));
    let (updated, ()) = tokio::join!(ann.update(lobby(), r#"{"n":1}"#), async {
        settle().await;
        assert!(node.rooms.leave(lobby(), id, &channel).now_or_never().is_none());
        settle().await;
        let join = bob.join(lobby());
        tokio::pin!(join);
        assert!(join.as_mut().now_or_never().is_none());
        settle().await;
        assert!(node.rooms.leave(lobby(), id, &channel).now_or_never().is_none());
        assert!(matches!(join.await, Err(Error::LeftWhileJoining { .. })));
    });
    updated.unwrap();
    pass(secs(5)).await;
    assert_eq!((node.rows(lobby()).await, node.children()), (vec!["ann".to_owned()], 1));
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn the_database_is_not_asked_more_and_more_often_while_it_is_away() {
    let node = node().await;
    let _ann = node.member("ann").await;
    node.store.faults.fail_next(usize::MAX);
    let bob = node.client("bob");
    assert!(is_away(&bob.join(lobby()).await));
    let calls = node.store.faults.calls();
    pass(secs(20)).await;
    let calls = node.store.faults.calls() - calls;
    assert!((20..100).contains(&calls), "{calls} calls");
}

#[actix::test]
async fn what_waits_is_written_in_the_order_of_each_presence() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(1)).await;
    node.store.faults.fail_next(usize::MAX);
    assert!(is_away(&ann.update(lobby(), r#"{"n":1}"#).await));
    assert!(is_away(&bob.leave(lobby()).await));
    assert!(is_away(&ann.update(lobby(), r#"{"n":2}"#).await));
    node.store.commits();
    node.store.faults.fail_next(0);
    pass(secs(3)).await;
    let last: Vec<_> = node.store.commits().pop().unwrap().into_iter().flat_map(|room| room.writes).collect();
    assert_eq!(last.len(), 2, "one for each, however often it was tried: {last:?}");
    assert!(
        last.iter()
            .any(|write| matches!(write, Write::Update { meta: Some(meta), .. } if meta.as_str() == r#"{"n":2}"#))
    );
    assert_eq!(ann.screen().here[&ann.id(lobby()).to_string()].1["n"], 2);
}

#[actix::test]
async fn first_frames_and_notices_wait_for_the_commit_but_messages_do_not() {
    let node = node_with(config()).await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    node.store.commits_take(secs(2));
    let (joined, ()) = tokio::join!(bob.join(lobby()), async {
        pass(secs(1)).await;
        node.send(lobby(), "1").await.unwrap();
        check_said(&node, &ann).await;
    });
    joined.unwrap();
    assert_eq!(bob.screen().messages.len(), 0);
}

async fn check_said(node: &Node, ann: &super::bench::Client) {
    assert_eq!(ann.screen().messages, [1]);
    assert_eq!((ann.sees(), node.names(lobby()).await), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
}

#[actix::test]
async fn joins_that_are_turned_away_leave_nothing_that_waits_and_no_room() {
    // Each of them took itself back with a leave that nobody needed, and leaves are always taken.
    let node = node_with(config().max_pending_writes(10)).await;
    node.store.faults.hang();
    let crowd: Vec<_> = (0..50).map(|n| node.client(&format!("u{n}"))).collect();
    let joins = futures_util::future::join_all(crowd.iter().map(|client| client.join(lobby())));
    assert!(joins.await.iter().all(Result::is_err));
    for n in 0..50 {
        assert!(node.client("late").join(&super::bench::room(&format!("r{n}"))).await.is_err());
    }
    super::bench::settle().await;
    assert!(node.rooms.this_node().writer.pending() <= 10, "{:?}", node.rooms.this_node().writer);
    assert!(node.running() <= 11, "{} rooms", node.running());
    node.store.faults.release();
    pass(secs(10)).await;
    assert_eq!((node.running(), node.rows(lobby()).await), (0, Vec::<String>::new()));
}

#[actix::test]
async fn touches_that_are_refused_keep_nobody_waiting() {
    // They were asked again for ever, and the database was taken to be away.
    let node = node().await;
    let ann = node.member("ann").await;
    node.store.refuse_touches();
    for _ in 0..4 {
        ann.touch();
        pass(secs(10)).await;
    }
    let touches = node.store.touches().len();
    assert!((1..=4).contains(&touches), "{touches} tries");
    assert!(node.is_ready() && node.client("bob").join(lobby()).await.is_ok());
}

#[actix::test]
async fn a_node_is_not_ready_from_the_first_change_that_cannot_be_written() {
    // It was ready until the lease could not be renewed, 3 to 6 s later.
    let node = node().await;
    let ann = node.member("ann").await;
    node.store.faults.fail_next(usize::MAX);
    let leave = ann.leave(lobby());
    tokio::pin!(leave);
    assert!(node.is_ready() && leave.as_mut().now_or_never().is_none());
    pass(ms(6)).await;
    assert!(!node.is_ready());
    node.store.faults.fail_next(0);
    leave.await.unwrap();
    assert!(node.is_ready(), "and it is again with the first that can");
}

#[actix::test]
async fn a_database_that_is_there_again_is_noticed_although_nothing_waits_for_it() {
    let node = node().await;
    node.store.faults.fail_next(usize::MAX);
    pass(secs(4)).await;
    assert!(!node.is_ready(), "by the first renewal");
    node.store.faults.fail_next(0);
    pass(secs(4)).await;
    assert!(node.is_ready(), "by the next renewal");
}

#[actix::test]
async fn a_slow_database_makes_joins_slow_and_one_too_slow_makes_them_fail() {
    let node = node().await;
    let (ann, mut changes) = (node.member("ann").await, node.changes());
    node.store.faults.slow_down(secs(2));
    let asked = node.rooms.this_node().now();
    let (bob, cid) = (node.client("bob"), node.client("cid"));
    let (first, second) = tokio::join!(bob.join(lobby()), cid.join(lobby()));
    assert!(first.is_ok() && second.is_ok() && node.rooms.this_node().now().since(asked) <= secs(4) + ms(50));
    node.store.faults.slow_down(secs(6));
    let dan = node.client("dan");
    let asked = node.rooms.this_node().now();
    let joined = dan.join(lobby()).await;
    let waited = node.rooms.this_node().now().since(asked);
    assert!(is_away(&joined) && waited <= secs(5) + ms(200), "{joined:?} after {waited:?}");
    assert!(is_away(&bob.leave(lobby()).await));
    pass(secs(10)).await;
    ann.touch();
    node.send(lobby(), r#""still here""#).await.unwrap();
    settle().await;
    assert_eq!((ann.screen().messages.len(), node.is_ready()), (1, false));
    heard(&mut changes);
    node.store.faults.slow_down(secs(0));
    pass(secs(8)).await;
    assert_eq!((heard(&mut changes), ann.sees()), (vec!["-bob".to_owned()], vec!["ann".to_owned(), "cid".into()]));
    assert!(node.is_ready());
}
