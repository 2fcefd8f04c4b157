//! When members are told what: at once in a quiet room, together in a busy one, and always in one chain.

use std::collections::BTreeSet;

use super::bench::{config, join_all, lobby, ms, node, node_with, pass, secs};

#[actix::test]
async fn the_first_change_of_a_quiet_room_is_told_at_once() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(secs(1)).await;
    let before = (node.rooms.now(), ann.count());
    let _bob = node.member("bob").await;
    super::bench::settle().await;
    assert_eq!((node.rooms.now(), ann.count()), (before.0, before.1 + 1));
}

#[actix::test]
async fn a_storm_of_joins_costs_each_member_a_bounded_number_of_frames() {
    let node = node().await;
    let ann = node.member("ann").await;
    pass(secs(1)).await;
    let before = ann.count();
    let crowd: Vec<_> = (0..200).map(|n| node.client(&format!("u{n}"))).collect();
    // Five at a time, every 10 ms: two seconds in all.
    for five in crowd.chunks(5) {
        let joins = five.iter().map(|client| client.join(lobby()));
        let joins = futures_util::future::join_all(joins);
        let (joined, ()) = futures_util::future::join(joins, pass(ms(10))).await;
        joined.into_iter().for_each(|joined| joined.unwrap());
    }
    pass(secs(1)).await;
    let frames = ann.count() - before;
    // One for each 100 ms of the storm, and those by which the interval grew to that.
    assert!((2..=60).contains(&frames), "{frames} frames");
    assert_eq!(ann.sees().len(), 201);
    assert!(crowd.iter().all(|one| one.sees().len() == 201));
}

#[actix::test]
async fn all_members_are_told_from_the_same_version_and_a_joiners_first_frame_chains_with_what_follows() {
    let node = node().await;
    let crowd = node.crowd(10).await;
    let late: Vec<_> = (0..10).map(|n| node.client(&format!("late{n}"))).collect();
    join_all(&late, lobby()).await;
    pass(secs(1)).await;
    let all = || crowd.iter().chain(&late);
    all().for_each(|one| drop(one.frames()));
    let _eve = node.member("eve").await;
    pass(secs(1)).await;
    let versions: BTreeSet<_> = all()
        .flat_map(|one| one.frames())
        .map(|diff| (diff["from"].as_u64(), diff["version"].as_u64(), diff["type"].to_string()))
        .collect();
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert!(all().all(|one| one.sees().len() == 21), "each chain is whole");
}

#[actix::test]
async fn who_comes_and_goes_between_two_notices_is_never_mentioned() {
    let node = node_with(config().notify_interval(secs(5))).await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(10)).await;
    // The room becomes busy, so that what follows waits.
    for n in 0..9 {
        node.member(&format!("u{n}")).await.leave(lobby()).await.unwrap();
    }
    let before = ann.count();
    let (joined, left) = futures_util::future::join(bob.join(lobby()), bob.leave(lobby())).await;
    left.unwrap();
    drop(joined);
    pass(secs(10)).await;
    assert!(ann.count() - before <= 1);
    assert!(ann.screen().told.iter().all(|event| !event.ends_with("bob")), "{:?}", ann.screen().told);
}

#[actix::test]
async fn without_an_interval_each_change_is_told_by_itself() {
    let node = node_with(config().notify_interval(secs(0))).await;
    let ann = node.member("ann").await;
    let before = ann.count();
    for n in 0..5 {
        ann.update(lobby(), &format!(r#"{{"n":{n}}}"#)).await.unwrap();
    }
    pass(secs(1)).await;
    assert_eq!(ann.count() - before, 5);
}

#[actix::test]
async fn anonymous_sockets_that_change_places_are_no_news() {
    let node = node_with(config().notify_interval(secs(5))).await;
    let (ann, one, two) = (node.member("ann").await, node.anonymous(), node.anonymous());
    one.join(lobby()).await.unwrap();
    pass(secs(10)).await;
    for n in 0..9 {
        node.member(&format!("u{n}")).await.leave(lobby()).await.unwrap();
    }
    pass(secs(10)).await;
    for n in 0..3 {
        node.member(&format!("v{n}")).await.leave(lobby()).await.unwrap();
    }
    let (joined, left) = futures_util::future::join(two.join(lobby()), one.leave(lobby())).await;
    (joined.unwrap(), left.unwrap());
    pass(secs(10)).await;
    let last = ann.frames().pop().unwrap();
    assert_eq!(last["anonymous"], 1);
    assert_eq!(node.anonymous_count(lobby()).await.unwrap(), 1);
}
