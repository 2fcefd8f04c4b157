//! A room, a child or a hub that panics: nobody leaves by it, nobody is told twice, and all goes on.

use super::bench::{heard, join_all, lobby, node, pass, secs, settle};
use crate::testing::fault::{panic_hubs, panic_presence, panic_room};

#[actix::test]
async fn a_room_that_fails_keeps_its_members_and_goes_on() {
    let node = node().await;
    let crowd = node.crowd(50).await;
    pass(secs(1)).await;
    let (mut changes, before) = (node.changes(), crowd[0].count());
    panic_room(&node.rooms, lobby());
    node.send(lobby(), r#""still here""#).await;
    let late = node.member("late").await;
    pass(secs(5)).await;
    assert_eq!(heard(&mut changes), ["+late"]);
    assert_eq!(late.sees().len(), 51);
    for member in &crowd {
        assert_eq!((member.sees().len(), member.screen().messages.len()), (51, 1));
    }
    assert_eq!(crowd[0].count() - before, 2, "the message and the newcomer, and nothing twice");
    assert_eq!(node.children(), 51);
}

#[actix::test]
async fn joins_that_are_under_way_when_the_room_fails_succeed() {
    let node = node().await;
    let _ann = node.member("ann").await;
    node.store.faults.hang();
    let late: Vec<_> = (0..20).map(|n| node.client(&format!("late{n}"))).collect();
    let joining = join_all(&late, lobby());
    let breaking = async {
        settle().await;
        panic_room(&node.rooms, lobby());
        settle().await;
        node.store.faults.release();
    };
    futures_util::future::join(joining, breaking).await;
    pass(secs(3)).await;
    assert!(late.iter().all(|one| one.sees().len() == 21));
    assert_eq!((node.rows(lobby()).await.len(), node.children()), (21, 21));
}

#[actix::test]
async fn a_member_that_leaves_as_the_room_fails_is_gone_for_good() {
    let node = node().await;
    let crowd = node.crowd(10).await;
    pass(secs(1)).await;
    let mut changes = node.changes();
    panic_room(&node.rooms, lobby());
    crowd[3].leave(lobby()).await.unwrap();
    panic_room(&node.rooms, lobby());
    pass(secs(5)).await;
    assert_eq!(heard(&mut changes), ["-u3"]);
    assert_eq!((crowd[0].sees().len(), node.rows(lobby()).await.len(), node.children()), (9, 9, 9));
}

#[actix::test]
async fn a_presence_that_fails_is_looked_after_again_and_still_goes_stale() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    pass(secs(30)).await;
    let mut changes = node.changes();
    panic_presence(&node.rooms, lobby(), ann.id(lobby()));
    settle().await;
    assert_eq!(node.children(), 2);
    bob.touch();
    pass(secs(31)).await;
    assert_eq!(heard(&mut changes), ["-[ann]"], "its last touch is not forgotten");
    assert_eq!(bob.sees(), ["bob"]);
}

#[actix::test]
async fn a_hub_that_fails_loses_and_repeats_nothing() {
    let node = node().await;
    let crowd = node.crowd(50).await;
    pass(secs(1)).await;
    for n in 0..5 {
        node.send(lobby(), format!("\"{n}\"")).await;
        panic_hubs(&node.rooms);
    }
    let _late = node.member("late").await;
    pass(secs(1)).await;
    for member in &crowd {
        assert_eq!((member.sees().len(), member.screen().messages.len()), (51, 5));
    }
}

#[actix::test]
async fn a_room_that_fails_again_and_again_is_given_up_and_can_be_joined_anew() {
    let node = node().await;
    let ann = node.member("ann").await;
    for _ in 0..20 {
        panic_room(&node.rooms, lobby());
        settle().await;
    }
    assert!(ann.closes().contains(&1011), "{:?}", ann.closes());
    let bob = node.client("bob");
    bob.join(lobby()).await.unwrap();
    assert!(bob.sees().contains(&"bob".to_owned()));
}
