//! A node that stood still: the time of the standstill counts as silence of no client.

use super::prelude::*;

/// The node stands still for this time: its clock continues, and nothing of it runs.
async fn stand_still(time: std::time::Duration) {
    tokio::time::advance(time).await;
    settle().await;
}

#[actix::test]
async fn a_standstill_does_not_count_as_silence() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let mut changes = node.changes();
    pass(secs(30)).await;
    bob.touch();
    for _ in 0..3 {
        stand_still(secs(3600)).await;
    }
    assert_eq!(node.prune_presences(None).await.unwrap(), 0);
    pass(secs(25)).await;
    assert_eq!((published(&mut changes), ann.close_codes(), bob.close_codes()), (Vec::new(), vec![], vec![]));
    pass(secs(10)).await;
    assert_eq!(published(&mut changes), ["-[ann]"], "after 60 s in which the node ran");
    pass(secs(30)).await;
    assert_eq!(published(&mut changes), ["-[bob]"]);
}

// behaviour: 2.7 stale-are-not-counted
#[actix::test]
async fn a_standstill_makes_no_channel_without_a_socket_stale() {
    let node = node().await;
    let job = channel("job");
    node.add(lobby(), &job, None).await.unwrap();
    stand_still(secs(3600)).await;
    pass(secs(50)).await;
    assert_eq!(node.anonymous_count(lobby()).await.unwrap(), 1);
    pass(secs(15)).await;
    assert_eq!(node.anonymous_count(lobby()).await.unwrap(), 0);
}

#[actix::test]
async fn a_held_presence_has_the_rest_of_its_grace_after_a_standstill() {
    // A standstill is noticed by the next pulse, so up to a second of it may not count.
    tokio::time::pause();
    for standstill in [secs(5), secs(3600)] {
        let node = new_node(config().grace(secs(10))).await;
        let (bob, ann) = (node.member("bob").await, node.client("ann").with_token("ann", secs(10)));
        ann.join(lobby()).await.unwrap();
        pass(secs(1)).await;
        ann.lose(lobby());
        pass(secs(2)).await;
        bob.touch();
        stand_still(standstill).await;
        pass(ms(6500)).await;
        assert_eq!(node.names(lobby()).await, ["ann", "bob"], "{standstill:?}");
        pass(ms(2000)).await;
        assert_eq!(node.names(lobby()).await, ["bob"], "{standstill:?}");
    }
}

#[actix::test]
async fn repeated_short_standstills_keep_no_presence_for_ever() {
    // Each standstill gave all held presences a new grace, and for one grace after it nothing was swept and no dead node was fenced.
    let config = || config().grace(secs(30));
    let [here, there] = nodes(config).await;
    let (bob, ann) = (here.member("bob").await, here.client("ann").with_token("ann", secs(30)));
    ann.join(lobby()).await.unwrap();
    let _cid = there.member("cid").await;
    pass(secs(12)).await;
    there.store.faults.fail_next(usize::MAX);
    ann.lose(lobby());
    for _ in 0..6 {
        bob.touch();
        stand_still(ms(2500)).await;
        pass(ms(7500)).await;
    }
    assert_eq!(here.rows(lobby()).await, ["bob"], "one was held for 30 s, and the other's node had a lease of 10 s");
}

#[actix::test]
async fn a_presence_whose_connection_never_answers_is_kept_for_at_most_max_age_more() {
    // The connections on a thread that is blocked for ever were asked for ever, even if their clients had gone long ago.
    let node = node().await;
    let [ann, bob, cid] = node.members_named(["ann", "bob", "cid"]).await;
    let mut changes = node.changes();
    ann.block();
    cid.block();
    // On such a thread, frames that wait for a consumer are not handled either.
    cid.touch.set_backlog(true);
    for _ in 0..11 {
        pass(secs(10)).await;
        bob.touch();
    }
    assert_eq!(node.names(lobby()).await, ["ann", "bob", "cid"]);
    for _ in 0..3 {
        pass(secs(10)).await;
        bob.touch();
    }
    assert_eq!(node.names(lobby()).await, ["bob"]);
    let mut left: Vec<_> = published(&mut changes).concat().chars().filter(|c| c.is_alphabetic()).collect();
    left.sort_unstable();
    assert_eq!(String::from_iter(left), "acdinn", "each once");
    assert_eq!(
        (ann.close_codes(), cid.close_codes(), bob.close_codes()),
        (vec![CloseCode::STALE], vec![CloseCode::STALE], vec![])
    );
}
