//! How a room learns what it missed: it reads the missing changes, and the whole room only if that is not enough.

use super::prelude::*;
use crate::{rooms::Reconcile, store::Store};

/// A round of comparisons, and what follows from it.
const ROUND: Duration = secs(6);

/// Nodes that do nothing but compare.
fn comparing() -> ConfigBuilder {
    let hour = secs(3600);
    let config = config().lease(hour * 24).max_age(hour * 24).sweep_interval(hour).prune_interval(hour);
    config.reconcile_interval(secs(5)).prune_rooms_interval(hour)
}

/// Ann on a node that has just read the whole lobby, and another node, on which cid is. The changes of both are kept.
async fn caught_up() -> ([TestNode; 2], FakeClient, FakeClient) {
    let nodes = nodes(comparing).await;
    pass(ROUND * 2).await;
    let ann = nodes[0].client("ann").with_token("ann", secs(60));
    ann.join(lobby()).await.unwrap();
    let cid = nodes[1].member("cid").await;
    pass(ROUND).await;
    assert_eq!(ann.sees(), ["ann", "cid"]);
    (nodes, ann, cid)
}

#[actix::test]
async fn a_room_that_misses_changes_reads_these_alone() {
    let ([here, there], ann, cid) = caught_up().await;
    let loads = here.store.loads();
    let bob = there.member("bob").await;
    cid.update(lobby(), r#"{"busy":true}"#).await.unwrap();
    pass(ROUND).await;
    assert_eq!(ann.sees(), ["ann", "bob", "cid"]);
    assert_eq!(ann.view().here[&cid.me()].1["busy"], true);
    bob.leave(lobby()).await.unwrap();
    // A change of this node shows at once that another one is missing before it.
    let dan = here.member("dan").await;
    assert_eq!((dan.sees(), ann.sees()), (vec!["ann".to_owned(), "cid".into(), "dan".into()], dan.sees()));
    assert_eq!(here.store.loads(), loads);
}

#[actix::test]
async fn the_whole_room_is_read_if_that_was_not_done_for_30_s() {
    let ([here, there], ann, _cid) = caught_up().await;
    let loads = here.store.loads();
    let _bob = there.member("bob").await;
    pass(ROUND).await;
    assert_eq!((ann.sees().len(), here.store.loads()), (3, loads));
    pass(secs(30)).await;
    let _dan = there.member("dan").await;
    pass(ROUND).await;
    assert_eq!((ann.sees().len(), here.store.loads()), (4, loads + 1));
}

#[actix::test]
async fn the_whole_room_is_read_if_a_change_is_not_in_the_log() {
    let ([here, there], ann, _cid) = caught_up().await;
    let loads = here.store.loads();
    there.store.keep_changes(false);
    let _bob = there.member("bob").await;
    there.store.keep_changes(true);
    let _dan = there.member("dan").await;
    pass(ROUND).await;
    assert_eq!((ann.sees(), here.store.loads()), (["ann", "bob", "cid", "dan"].map(str::to_owned).to_vec(), loads + 1));
}

#[actix::test]
async fn a_takeover_on_another_node_closes_the_former_socket() {
    let ([here, there], ann, cid) = caught_up().await;
    let again = there.client("ann").with_token("ann", secs(60));
    again.join(lobby()).await.unwrap();
    assert_eq!((again.me(), ann.close_codes()), (ann.me(), vec![]));
    // The change of this node shows that it missed one.
    let dan = here.member("dan").await;
    pass(ROUND).await;
    assert_eq!(ann.close_codes(), [CloseCode::SUPERSEDED]);
    assert_eq!((dan.sees(), cid.sees()), (vec!["ann".to_owned(), "cid".into(), "dan".into()], dan.sees()));
}

#[actix::test]
async fn a_presence_that_the_other_node_removed_joins_again() {
    let ([here, there], ann, cid) = caught_up().await;
    let dan = here.member("dan").await;
    // As if the other node had taken this one for dead.
    let leave = Write::Leave { id: dan.id(lobby()), channel: dan.presence(lobby()).channel.clone() };
    let writes = RoomWrites { room: lobby().clone(), writes: vec![leave] };
    let by = there.rooms.0.node.id().unwrap();
    let _ = there.store.commit(by, Attempt::next(), [writes].into()).await.unwrap();
    pass(ROUND * 2).await;
    assert_eq!((dan.sees(), cid.sees()), (vec!["ann".to_owned(), "cid".into(), "dan".into()], ann.sees()));
    assert_eq!((dan.close_codes(), here.children()), (vec![], 2));
}

#[actix::test]
async fn a_change_of_this_node_whose_answer_is_late_is_waited_for() {
    let ([here, there], ann, _cid) = caught_up().await;
    let loads = here.store.loads();
    here.store.hang_after_commit();
    let dan = here.client("dan");
    let mut joined = Box::pin(dan.join(lobby()));
    assert!(joined.as_mut().now_or_never().is_none());
    settle().await;
    let _bob = there.member("bob").await;
    // The log has both joins, and the answer to the first one is under way.
    PruningSupervisor::spawn(&here).send(Reconcile).await.unwrap().unwrap();
    pass(ms(250)).await;
    assert_eq!((ann.sees(), here.store.loads()), (vec!["ann".to_owned(), "cid".into()], loads));
    here.store.release_commits();
    joined.await.unwrap();
    pass(ms(50)).await;
    assert_eq!((ann.sees(), here.store.loads()), (["ann", "bob", "cid", "dan"].map(str::to_owned).to_vec(), loads));
}

#[actix::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let ([here, there], ann, _cid) = caught_up().await;
    let loads = here.store.loads();
    here.store.hang_after_commit();
    let dan = here.client("dan");
    let mut joined = Box::pin(dan.join(lobby()));
    assert!(joined.as_mut().now_or_never().is_none());
    settle().await;
    let _bob = there.member("bob").await;
    PruningSupervisor::spawn(&here).send(Reconcile).await.unwrap().unwrap();
    pass(secs(1)).await;
    assert_eq!(ann.sees(), ["ann", "bob", "cid", "dan"]);
    assert_eq!(here.store.loads(), loads + 1);
    here.store.release_commits();
    joined.await.unwrap();
}

#[actix::test]
async fn a_takeover_that_is_read_before_the_resume_here_is_answered_closes_its_socket() {
    let ([here, there], ann, _cid) = caught_up().await;
    let second = there.client("ann").with_token("ann", secs(60));
    second.join(lobby()).await.unwrap();
    pass(ROUND).await;
    assert_eq!(ann.close_codes(), [CloseCode::SUPERSEDED]);
    here.store.hang_after_commit();
    let third = here.client("ann").with_token("ann", secs(60));
    let mut joined = Box::pin(third.join(lobby()));
    assert!(joined.as_mut().now_or_never().is_none());
    settle().await;
    let fourth = there.client("ann").with_token("ann", secs(60));
    fourth.join(lobby()).await.unwrap();
    PruningSupervisor::spawn(&here).send(Reconcile).await.unwrap().unwrap();
    pass(ms(250)).await;
    here.store.release_commits();
    joined.await.unwrap();
    pass(ROUND).await;
    assert_eq!((third.close_codes(), fourth.close_codes()), (vec![CloseCode::SUPERSEDED], vec![]));
    let owners = async |node: &TestNode| {
        let members = node.members(lobby()).await.unwrap();
        members.iter().map(|one| one.presences()[0].node).collect::<Vec<_>>()
    };
    assert_eq!(owners(&here).await, owners(&there).await);
}
