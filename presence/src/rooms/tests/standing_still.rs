//! A node that stood still: what did not come meanwhile is nobody's silence.

use super::bench::{config, heard, lobby, ms, node, node_on, pass, secs, settle};
use crate::{CloseCode, clock::Clock, store::MemoryStore};

/// The node stands still for so long: its clock goes on, and nothing of it runs.
async fn stand_still(time: std::time::Duration) {
    tokio::time::advance(time).await;
    settle().await;
}

#[actix::test]
async fn after_a_standstill_nobody_is_stale_who_was_seen_less_than_max_age_of_running_ago() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.member("bob").await);
    let mut changes = node.changes();
    pass(secs(30)).await;
    bob.touch();
    for _ in 0..3 {
        stand_still(secs(3600)).await;
    }
    assert_eq!(node.prune_presences(None).await.unwrap(), 0);
    pass(secs(25)).await;
    assert_eq!((heard(&mut changes), ann.closes(), bob.closes()), (Vec::new(), vec![], vec![]));
    pass(secs(10)).await;
    assert_eq!(heard(&mut changes), ["-[ann]"], "after 60 s in which the node ran");
    pass(secs(30)).await;
    assert_eq!(heard(&mut changes), ["-[bob]"]);
}

// behaviour: 2.7 stale-are-not-counted
#[actix::test]
async fn a_channel_without_a_socket_is_not_stale_by_a_standstill_either() {
    let node = node().await;
    let job = crate::name::ChannelName::new("job").unwrap();
    node.add(lobby(), &job, None).await.unwrap();
    stand_still(secs(3600)).await;
    pass(secs(50)).await;
    assert_eq!(node.anonymous_count(lobby()).await.unwrap(), 1);
    pass(secs(15)).await;
    assert_eq!(node.anonymous_count(lobby()).await.unwrap(), 0);
}

#[actix::test]
async fn one_who_is_held_has_the_rest_of_its_grace_after_a_standstill() {
    // As long as a standstill is found within a pulse, a second of it may be missing.
    tokio::time::pause();
    for standstill in [secs(5), secs(3600)] {
        let node = node_on(&MemoryStore::new(Clock::system()), "here", config().grace(secs(10))).await;
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
async fn a_machine_that_stands_still_for_a_moment_again_and_again_keeps_no_ghosts() {
    // Each standstill gave everybody who was held a new grace, and none was swept nor any dead node found for one grace after it.
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let config = || config().grace(secs(30));
    let (here, there) = (node_on(&database, "here", config()).await, node_on(&database, "there", config()).await);
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
async fn one_whose_connection_never_answers_is_kept_for_max_age_more_and_no_longer() {
    // Those on a thread that is blocked for good were asked for ever, also if their clients had gone long ago.
    let node = node().await;
    let (ann, bob, cid) = (node.member("ann").await, node.member("bob").await, node.member("cid").await);
    let mut changes = node.changes();
    ann.block();
    cid.block();
    // What waits for a consumer is not handled on such a thread either.
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
    let mut left: Vec<_> = heard(&mut changes).concat().chars().filter(|c| c.is_alphabetic()).collect();
    left.sort_unstable();
    assert_eq!(String::from_iter(left), "acdinn", "each once");
    assert_eq!((ann.closes(), cid.closes(), bob.closes()), (vec![CloseCode::STALE], vec![CloseCode::STALE], vec![]));
}
