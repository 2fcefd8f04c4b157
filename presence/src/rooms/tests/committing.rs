//! Group commit: which changes share a transaction, in which order they are written, and that a refusal affects no other change.

use super::prelude::*;

#[actix::test]
async fn joins_during_a_transaction_share_the_next_one() {
    let node = node().await;
    let first = node.client("first");
    let crowd: Vec<_> = (0..100).map(|n| node.client(&format!("u{n}"))).collect();
    node.store.commits_take(secs(1));
    let began = node.rooms.this_node().now();
    let (joined, ()) = tokio::join!(first.join(lobby()), async {
        settle().await;
        all_join(&crowd, lobby()).await;
    });
    joined.unwrap();
    assert_eq!(node.store.sizes(), [1, 100]);
    let took = node.rooms.this_node().now().since(began);
    assert!((secs(2)..secs(2) + ms(50)).contains(&took), "two commits, and no delay for batching: {took:?}");
}

#[actix::test]
async fn a_commit_looks_at_the_joins_that_it_made_and_not_at_all_that_are_pending() {
    let node = node().await;
    node.store.commits_take(secs(1));
    let channels: Vec<_> = (0..5_000).map(|n| channel(format!("job {n}"))).collect();
    let added = join_all(channels.iter().map(|channel| node.rooms.add(lobby(), channel, None))).await;
    assert!(added.iter().all(Result::is_ok));
    assert!(node.store.sizes().len() > 4, "{:?}", node.store.sizes());
    let looks = node.rooms.this_node().joins_looked_at.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(looks, 5_000);
}

#[actix::test]
async fn a_leave_shares_the_transaction_of_a_join_that_follows_at_once() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let carl = node.client("carl");
    let mut changes = node.changes();
    node.store.commits();
    let (left, joined) = tokio::join!(bob.leave(lobby()), async {
        pass(ms(4)).await;
        carl.join(&room("another room")).await
    });
    left.unwrap();
    joined.unwrap();
    assert_eq!(node.store.sizes(), [2]);
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["-bob", "+carl"]);
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn a_lone_leave_is_written_after_5_ms() {
    let node = node().await;
    let bob = node.member("bob").await;
    node.store.commits();
    let before = node.rooms.this_node().now();
    bob.leave(lobby()).await.unwrap();
    let took = node.rooms.this_node().now().since(before);
    assert!((ms(5)..=ms(6)).contains(&took), "{took:?}");
    assert_eq!(node.store.sizes(), [1]);
}

#[actix::test]
async fn many_leaves_are_written_at_once() {
    let node = node().await;
    let crowd: Vec<_> = (0..17).map(|n| node.client(&format!("u{n}"))).collect();
    all_join(&crowd, lobby()).await;
    node.store.commits();
    let before = node.rooms.this_node().now();
    join_all(crowd.iter().map(|client| client.leave(lobby()))).await;
    assert_eq!(node.rooms.this_node().now(), before);
    assert_eq!(node.store.sizes(), [17]);
}

#[actix::test]
async fn changes_of_many_rooms_share_a_commit_and_a_room_has_one_version_for_each() {
    let node = node().await;
    let crowd: Vec<_> = (0..30).map(|n| node.client(&format!("u{n}"))).collect();
    let rooms = [room("a"), room("b"), room("c")];
    node.store.commits_take(ms(20));
    let first = node.client("first");
    let (joined, _) = tokio::join!(first.join(&rooms[0]), async {
        settle().await;
        join_all((0..30).map(|n| crowd[n].join(&rooms[n % 3]))).await
    });
    joined.unwrap();
    assert_eq!(node.store.sizes(), [1, 30]);
    assert_eq!(crowd[0].view().version, 2, "the thirty were one change of each room");
    assert_eq!(crowd[1].view().version, 1);
}

#[actix::test]
async fn a_join_and_a_leave_that_wait_together_cancel_out() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    let mut changes = node.changes();
    node.store.commits();
    node.store.commits_take(ms(100));
    let (updated, joined, left) = tokio::join!(
        ann.update(lobby(), r#"{"n":1}"#),
        async {
            settle().await;
            bob.join(lobby()).await
        },
        async {
            pass(ms(50)).await;
            bob.leave(lobby()).await
        }
    );
    assert!(updated.is_ok() && left.is_ok());
    assert!(matches!(joined, Err(Error::LeftWhileJoining { room }) if room == *lobby()));
    pass(secs(1)).await;
    let writes: Vec<_> = node.store.commits().into_iter().flatten().flat_map(|room| room.writes).collect();
    assert!(writes.iter().all(|write| write.id() != bob.id(lobby()) && !matches!(write, Write::Join(_))));
    assert_eq!((published(&mut changes), ann.sees()), (vec!["~ann".to_owned()], vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_leave_while_its_join_is_being_committed_follows_it() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.commits_take(ms(100));
    let (joined, left) = tokio::join!(bob.join(lobby()), async {
        pass(ms(50)).await;
        bob.leave(lobby()).await
    });
    assert!(matches!(joined, Err(Error::LeftWhileJoining { .. })) && left.is_ok());
    pass(secs(1)).await;
    assert_eq!((published(&mut changes), ann.sees()), (vec!["+bob".to_owned(), "-bob".into()], vec!["ann".to_owned()]));
    assert_eq!((node.rows(lobby()).await, bob.frames().len()), (vec!["ann".to_owned()], 0));
}

#[actix::test]
async fn a_leave_replaces_a_pending_update() {
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.commits_take(ms(100));
    let (first, second, left) = tokio::join!(
        ann.update(lobby(), r#"{"n":1}"#),
        async {
            settle().await;
            bob.update(lobby(), r#"{"n":2}"#).await
        },
        async {
            pass(ms(50)).await;
            bob.leave(lobby()).await
        }
    );
    assert!(first.is_ok() && left.is_ok() && matches!(second, Err(Error::NotInRoom { .. })));
    pass(secs(1)).await;
    assert_eq!((published(&mut changes), ann.sees()), (vec!["~ann".to_owned(), "-bob".into()], vec!["ann".to_owned()]));
}

#[actix::test]
async fn an_update_during_its_join_is_written() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    node.store.commits_take(ms(100));
    let (joined, updated) = tokio::join!(bob.join(lobby()), async {
        pass(ms(50)).await;
        bob.update(lobby(), r#"{"n":1}"#).await
    });
    assert!(joined.is_ok() && updated.is_ok());
    pass(secs(1)).await;
    for client in [&ann, &bob] {
        assert_eq!(client.view().here[&bob.id(lobby()).to_string()].1["n"], 1);
    }
}

// behaviour: 3 failed-add
#[actix::test]
async fn a_refused_join_fails_alone_and_fires_no_event() {
    let node = node().await;
    let ann = node.member("ann").await;
    let crowd: Vec<_> = (0..20).map(|n| node.client(&format!("u{n}"))).collect();
    let rooms: Vec<_> = (0..10).map(|n| room(&format!("r{n}"))).collect();
    let mut changes = node.changes();
    node.store.refuse(
        |write| matches!(write, Write::Join(one) if one.user.as_ref().is_some_and(|user| user.as_str() == "u7")),
    );
    node.store.commits_take(ms(10));
    let (updated, joined) = tokio::join!(ann.update(lobby(), r#"{"n":1}"#), async {
        settle().await;
        join_all((0..20).map(|n| crowd[n].join(&rooms[n % 10]))).await
    });
    updated.unwrap();
    for (n, joined) in joined.into_iter().enumerate() {
        assert_eq!(matches!(joined, Err(Error::StoreRefused(_))), n == 7, "{n}");
        assert!(n == 7 || joined.is_ok(), "{n}");
    }
    pass(secs(1)).await;
    assert_eq!(node.names(&rooms[7]).await, ["u17"]);
    let published = published(&mut changes);
    assert!(published.len() == 1 + 19 && !published.contains(&"+u7".to_owned()), "{published:?}");
    assert_eq!(node.children(), 20);
}

#[actix::test]
async fn a_leave_in_the_transaction_of_a_refused_join_is_written() {
    // All pending changes of the room were dropped with the refused one, so a presence that left stayed for ever.
    let node = node().await;
    let [ann, bob] = node.members_named(["ann", "bob"]).await;
    let cid = node.client("cid");
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.refuse(|write| matches!(write, Write::Join(_)));
    node.store.commits_take(ms(10));
    let (updated, joined, left) = tokio::join!(
        ann.update(lobby(), r#"{"n":1}"#),
        async {
            settle().await;
            cid.join(lobby()).await
        },
        async {
            settle().await;
            bob.leave(lobby()).await
        }
    );
    assert!(updated.is_ok() && left.is_ok() && matches!(joined, Err(Error::StoreRefused(_))));
    pass(secs(1)).await;
    assert_eq!(published(&mut changes), ["~ann", "-bob"]);
    assert_eq!(node.rows(lobby()).await, ["ann"]);
    assert_eq!(ann.sees(), ["ann"]);
}

#[actix::test]
async fn changes_over_the_limit_of_pending_ones_are_refused_but_leaves_are_not() {
    let node = node_with(config().max_pending_writes(10)).await;
    let members = node.crowd(5).await;
    let crowd: Vec<_> = (0..20).map(|n| node.client(&format!("x{n}"))).collect();
    node.store.commits_take(ms(100));
    let (updated, joined, left) = tokio::join!(
        members[0].update(lobby(), r#"{"n":1}"#),
        async {
            settle().await;
            join_all(crowd.iter().map(|one| one.join(lobby()))).await
        },
        async {
            pass(ms(50)).await;
            let refused = members[1].update(lobby(), r#"{"n":1}"#).await;
            assert!(matches!(refused, Err(Error::Overloaded { limit: 10 })));
            let refused = node.client("tab").with_token("tab", secs(5)).join(lobby()).await;
            assert!(matches!(refused, Err(Error::Overloaded { limit: 10 })));
            join_all(members[2..].iter().map(|one| one.leave(lobby()))).await
        }
    );
    assert!(updated.is_ok() && left.into_iter().all(|left| left.is_ok()));
    assert_eq!(joined.iter().filter(|joined| joined.is_ok()).count(), 10);
    assert!(joined.iter().all(|joined| joined.as_ref().err().is_none_or(Error::is_retryable)));
    pass(secs(1)).await;
    assert_eq!(node.count(lobby()).await.unwrap().presences, 2 + 10);
    all_join(&crowd[10..], lobby()).await;
}

#[actix::test]
async fn relaxed_changes_resolve_at_once_and_are_sent_after_the_commit() {
    let node = node_with(config().durability(Durability::Relaxed)).await;
    let ann = node.member("ann").await;
    pass(secs(1)).await;
    let (bob, mut changes) = (node.client("bob"), node.changes());
    node.store.commits_take(secs(1));
    let before = node.rooms.this_node().now();
    bob.join(lobby()).await.unwrap();
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    assert_eq!(node.rooms.this_node().now(), before);
    settle().await;
    assert_eq!((published(&mut changes), bob.frames().len(), ann.sees()), (Vec::new(), 0, vec!["ann".to_owned()]));
    pass(secs(3)).await;
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!((events, bob.view().states), (vec!["+bob".to_owned(), "~ann".into()], 1));
    bob.leave(lobby()).await.unwrap();
    assert_eq!(published(&mut changes), NONE);
    pass(secs(3)).await;
    assert_eq!((published(&mut changes), ann.sees()), (vec!["-bob".to_owned()], vec!["ann".to_owned()]));
}

#[actix::test]
async fn a_relaxed_update_that_is_reverted_while_it_is_pending_has_no_effect() {
    // The second update was equal to the committed meta and was dropped, and the first one was written.
    let node = node_with(config().durability(Durability::Relaxed)).await;
    let ann = node.member("ann").await;
    pass(secs(1)).await;
    node.store.commits_take(ms(100));
    ann.update(lobby(), r#"{"n":1}"#).await.unwrap();
    pass(ms(50)).await;
    ann.update(lobby(), "{}").await.unwrap();
    pass(secs(1)).await;
    assert_eq!(ann.view().here[&ann.id(lobby()).to_string()].1, serde_json::json!({}));
}
