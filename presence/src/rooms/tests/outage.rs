//! Outages of the database.

use super::prelude::*;

fn is_away<T>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::StoreUnavailable(_)))
}

/// Checks that each join has its leave.
fn check_pairs(published: &[String]) {
    let (mut came, mut went): (Vec<_>, Vec<_>) = published.iter().partition(|event| event.starts_with('+'));
    came.sort();
    went.sort();
    assert!(came.iter().map(|event| &event[1..]).eq(went.iter().map(|event| &event[1..])), "{published:?}");
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
    assert_eq!(published(&mut changes), NONE);
    assert_eq!(ann.view().changes, NONE);
    assert_eq!((node.rows(lobby()).await, node.children(), bob.frames().len()), (vec!["ann".to_owned()], 1, 0));
    assert!(bob.join(lobby()).await.is_ok(), "and it may try again");
}

#[actix::test]
async fn a_join_that_was_committed_but_not_answered_is_undone_and_each_event_has_its_opposite() {
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
    check_pairs(&published(&mut changes));
    check_pairs(&ann.view().changes);
    assert_eq!((ann.sees(), bob.view().messages.len()), (vec!["ann".to_owned()], 0));
}

#[actix::test]
async fn a_join_that_was_committed_but_not_answered_succeeds_if_the_room_is_reloaded_in_time() {
    let node = node_with(config().reconcile_interval(secs(1))).await;
    let mut changes = node.changes();
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    node.store.hang_after_commit();
    bob.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((ann.sees(), bob.sees()), (vec!["ann".to_owned(), "bob".into()], ann.sees()));
    node.store.release_commits();
    pass(secs(10)).await;
    assert_eq!(published(&mut changes), ["+ann", "+bob"]);
    bob.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["-bob"]);
    assert_eq!(ann.view().changes, ["+bob", "-bob"]);
}

#[actix::test]
async fn a_commit_without_effect_does_not_hide_a_change_of_another_node() {
    // It was mistaken for the change that led to the version of the room, so that change was never loaded.
    let node = node().await;
    let ann = node.member("ann").await;
    let (cid, other) = (node.client("cid"), NodeId::random());
    node.store.database().register(other, NodeName::new("other").unwrap(), secs(60)).await.unwrap();
    let elsewhere =
        crate::store::RoomWrites { room: lobby().clone(), writes: vec![Write::Join(cid.presence(lobby()))] };
    node.store.database().commit(other, Attempt::next(), [elsewhere].clone().into()).await.unwrap();
    node.client("nobody").leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!(node.names(lobby()).await, ["ann", "cid"]);
    assert_eq!(ann.sees(), node.names(lobby()).await);
}

#[actix::test]
async fn changes_whose_answers_were_lost_succeed_and_fire_their_events() {
    // The repeated commit changed nothing, so the join was never sent, but its leave was.
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.lose_commits(1);
    bob.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((published(&mut changes), ann.sees(), bob.sees()), (vec!["+bob".into()], ann.sees(), ann.sees()));
    node.store.lose_commits(1);
    bob.update(lobby(), r#"{"n":1}"#).await.unwrap();
    node.store.lose_commits(1);
    bob.leave(lobby()).await.unwrap();
    pass(secs(1)).await;
    assert_eq!((published(&mut changes), ann.sees()), (vec!["~bob".to_owned(), "-bob".into()], vec!["ann".to_owned()]));
    assert_eq!(ann.view().changes, ["+bob", "~bob", "-bob"]);
}

#[actix::test]
async fn leaves_during_an_outage_happen_and_are_announced_on_its_return() {
    let node = node().await;
    let (ann, crowd) = (node.member("ann").await, node.crowd(5).await);
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.faults.fail_next(usize::MAX);
    let left = join_all(crowd.iter().map(|one| one.leave(lobby()))).await;
    assert!(left.iter().all(is_away), "they are events that it will take its time");
    pass(secs(30)).await;
    node.send(lobby(), r#""still here""#).await.unwrap();
    assert_eq!(
        (published(&mut changes), crowd[0].view().messages.len()),
        (Vec::new(), 0),
        "gone from the group at once"
    );
    assert_eq!(ann.view().messages.len(), 1, "broadcast goes on");
    node.store.faults.fail_next(0);
    ann.touch();
    pass(secs(3)).await;
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(events, ["-u0", "-u1", "-u2", "-u3", "-u4"]);
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
        crowd.iter().for_each(FakeClient::touch);
    }
    assert!(!node.is_ready());
    node.store.faults.release();
    pass(secs(30)).await;
    assert!(node.is_ready());
    assert_eq!((published(&mut changes), crowd[0].count(), node.rows(lobby()).await.len()), (Vec::new(), before, 10));
}

#[actix::test]
async fn a_join_whose_future_is_dropped_leaves_no_presence() {
    // It is dropped at each moment: before, during and after its commit, and while it waits for its first frame.
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
    check_pairs(&published(&mut changes));
    check_pairs(&ann.view().changes);
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn after_a_dropped_join_the_same_presence_joins_again_and_leaves_for_good() {
    // The second leave was mistaken for the first, and the second join stayed.
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
async fn the_rate_of_calls_does_not_rise_while_the_database_is_away() {
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
    assert_eq!(bob.view().messages.len(), 0);
}

async fn check_said(node: &TestNode, ann: &FakeClient) {
    assert_eq!(ann.view().messages, [1]);
    assert_eq!((ann.sees(), node.names(lobby()).await), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
}

#[actix::test]
async fn refused_joins_leave_no_pending_changes_and_no_room() {
    // Each refused join was undone by a leave that nobody needed, and leaves are never refused.
    let node = node_with(config().max_pending_writes(10)).await;
    node.store.faults.hang();
    let crowd: Vec<_> = (0..50).map(|n| node.client(&format!("u{n}"))).collect();
    let joins = futures_util::future::join_all(crowd.iter().map(|client| client.join(lobby())));
    assert!(joins.await.iter().all(Result::is_err));
    for n in 0..50 {
        assert!(node.client("late").join(&room(&format!("r{n}"))).await.is_err());
    }
    settle().await;
    assert!(node.rooms.this_node().writer.pending() <= 10, "{:?}", node.rooms.this_node().writer);
    assert!(node.running() <= 11, "{} rooms", node.running());
    node.store.faults.release();
    pass(secs(10)).await;
    assert_eq!(node.running(), 0);
    assert_eq!(node.rows(lobby()).await, NONE);
}

#[actix::test]
async fn refused_touches_delay_nobody() {
    // They were repeated for ever, and the database was considered away.
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
async fn a_node_is_not_ready_as_soon_as_a_change_cannot_be_written() {
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
async fn a_node_notices_that_the_database_is_back_also_without_pending_changes() {
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
    assert_eq!((ann.view().messages.len(), node.is_ready()), (1, false));
    published(&mut changes);
    node.store.faults.slow_down(secs(0));
    pass(secs(8)).await;
    assert_eq!((published(&mut changes), ann.sees()), (vec!["-bob".to_owned()], vec!["ann".to_owned(), "cid".into()]));
    assert!(node.is_ready());
}
