//! A node that stood still: what did not come meanwhile is nobody's silence.

use super::bench::{config, heard, lobby, ms, node, node_with, pass, secs, settle};

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
async fn one_who_is_held_has_a_whole_grace_after_a_standstill() {
    let node = node_with(config().grace(secs(10))).await;
    let (bob, ann) = (node.member("bob").await, node.client("ann").with_token("ann", secs(10)));
    ann.join(lobby()).await.unwrap();
    pass(secs(1)).await;
    ann.lose(lobby());
    pass(secs(5)).await;
    bob.touch();
    stand_still(secs(3600)).await;
    pass(secs(9)).await;
    assert_eq!(node.names(lobby()).await, ["ann", "bob"]);
    pass(secs(1) + ms(200)).await;
    assert_eq!(node.names(lobby()).await, ["bob"]);
}
