//! Presences that leave together in more than one transaction are one event.

use super::prelude::*;

/// More than two transactions can remove.
const CROWD: usize = 2500;
/// How many leaves a first transaction with leaves only contains.
const BATCH: usize = 1024;

/// The names in each event; only bulk events are expected.
fn bulks(changes: &mut Subscription) -> Vec<BTreeSet<String>> {
    let names = |event: String| {
        let names = event.strip_prefix("-[").and_then(|names| names.strip_suffix(']')).expect("a bulk event");
        names.split(' ').map(str::to_owned).collect()
    };
    published(changes).into_iter().map(names).collect()
}

fn sizes(bulks: &[BTreeSet<String>]) -> Vec<usize> {
    bulks.iter().map(BTreeSet::len).collect()
}

/// A node with many members in the lobby.
async fn crowded() -> (TestNode, Vec<FakeClient>, Subscription) {
    let node = node_with(config().on_stale(OnStale::Keep)).await;
    let crowd = node.crowd(CROWD).await;
    pass(secs(1)).await;
    let changes = node.changes();
    node.store.commits();
    (node, crowd, changes)
}

#[actix::test]
async fn thousands_that_become_stale_at_once_are_one_event() {
    let (node, _crowd, mut changes) = crowded().await;
    pass(secs(60)).await;
    assert_eq!(node.store.sizes(), [BATCH, CROWD - BATCH]);
    assert_eq!(sizes(&bulks(&mut changes)), [CROWD]);
}

// behaviour: 2.8 room-deleted
#[actix::test]
async fn thousands_that_are_pruned_by_call_or_removed_are_one_event_before_the_call_returns() {
    let (node, crowd, mut changes) = crowded().await;
    assert_eq!(node.prune_presences(Some(secs(0))).await.unwrap(), CROWD);
    assert_eq!(sizes(&bulks(&mut changes)), [CROWD]);
    all_join(&crowd, &room("attic")).await;
    let _ = published(&mut changes);
    assert_eq!(node.remove_room(&room("attic"), None).await.unwrap(), CROWD);
    assert_eq!(sizes(&bulks(&mut changes)), [CROWD]);
}

#[actix::test]
async fn thousands_of_presences_of_a_dead_node_are_one_event_in_each_room() {
    let quick = || config().lease(secs(3)).sweep_interval(secs(1));
    let [here, there] = nodes(quick).await;
    let crowd = there.crowd(CROWD).await;
    all_join(&crowd[..CROWD / 2], &room("attic")).await;
    let mut changes = here.changes();
    there.store.faults.hang();
    pass(secs(10)).await;
    let mut sizes = sizes(&bulks(&mut changes));
    sizes.sort_unstable();
    assert_eq!(sizes, [CROWD / 2, CROWD]);
}

#[actix::test]
async fn thousands_of_presences_whose_grace_is_over_are_one_event() {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let old = node_on(&database, "here", config()).await;
    let _crowd = old.crowd(CROWD).await;
    old.store.faults.hang(); // The process is gone.
    let new = node_on(&database, "here", config()).await;
    let mut changes = new.changes();
    pass(secs(13)).await;
    assert_eq!(sizes(&bulks(&mut changes)), [CROWD]);
}

#[actix::test]
async fn a_sweep_that_fails_halfway_fires_its_event_and_the_next_sweep_removes_the_others() {
    let quick = || config().lease(secs(3)).sweep_interval(secs(1));
    let [here, there] = nodes(quick).await;
    let _crowd = there.crowd(CROWD).await;
    let mut changes = here.changes();
    here.store.clear_so_often(1);
    there.store.faults.hang();
    pass(secs(10)).await;
    let first = bulks(&mut changes);
    assert_eq!(sizes(&first), [BATCH]);
    here.store.clear_so_often(usize::MAX);
    pass(secs(2)).await;
    let second = bulks(&mut changes);
    assert_eq!((sizes(&second), first[0].intersection(&second[0]).count()), (vec![CROWD - BATCH], 0));
}

#[actix::test]
async fn an_outage_during_a_removal_splits_its_event() {
    let (node, _crowd, mut changes) = crowded().await;
    node.store.commits_take(ms(100));
    pass(secs(58)).await;
    while node.store.commits().is_empty() {
        pass(ms(10)).await;
    }
    pass(ms(150)).await;
    node.store.faults.fail_next(usize::MAX);
    pass(secs(4)).await;
    assert_eq!(bulks(&mut changes).len(), 0);
    pass(secs(2)).await;
    let first = bulks(&mut changes);
    assert_eq!(sizes(&first), [BATCH]);
    node.store.faults.fail_next(0);
    pass(secs(5)).await;
    let second = bulks(&mut changes);
    assert_eq!((sizes(&second), first[0].intersection(&second[0]).count()), (vec![CROWD - BATCH], 0));
}

#[actix::test]
async fn a_room_that_fails_during_a_removal_continues_the_same_event() {
    let (node, _crowd, mut changes) = crowded().await;
    node.store.commits_take(ms(100));
    let (pruned, ()) = tokio::join!(node.prune_presences(Some(secs(0))), async {
        pass(ms(150)).await;
        panic_room(&node.rooms, lobby());
    });
    let _ = pruned.unwrap();
    pass(secs(3)).await;
    assert_eq!(sizes(&bulks(&mut changes)), [CROWD]);
    assert_eq!(node.rows(lobby()).await.len(), 0);
}

#[actix::test]
async fn a_room_that_gives_up_during_a_removal_fires_the_event_with_those_that_left() {
    let (node, _crowd, mut changes) = crowded().await;
    node.store.commits_take(ms(100));
    let (pruned, ()) = tokio::join!(node.prune_presences(Some(secs(0))), async {
        pass(ms(150)).await;
        for _ in 0..9 {
            panic_room(&node.rooms, lobby());
        }
    });
    let _ = pruned.unwrap();
    settle().await;
    assert_eq!(sizes(&bulks(&mut changes)), [BATCH]);
}

#[actix::test]
async fn joins_and_leaves_during_a_removal_do_not_split_its_event() {
    let (node, _crowd, mut changes) = crowded().await;
    node.store.commits_take(ms(100));
    let (pruned, ()) = tokio::join!(node.prune_presences(Some(secs(0))), async {
        pass(ms(50)).await;
        let ann = node.member("ann").await;
        ann.leave(lobby()).await.unwrap();
    });
    assert_eq!(pruned.unwrap(), CROWD);
    let mut events = published(&mut changes);
    events.sort_by_key(String::len);
    assert_eq!((events.len(), &events[..2]), (3, &["+ann".to_owned(), "-ann".to_owned()][..]));
}

#[actix::test]
async fn a_member_that_joins_again_during_a_removal_has_its_leave_event_before_its_join_event() {
    let (node, crowd, mut changes) = crowded().await;
    node.store.commits_take(ms(100));
    let first = crowd.iter().min_by_key(|client| client.id(lobby())).unwrap();
    let (pruned, ()) = tokio::join!(node.prune_presences(Some(secs(0))), async {
        pass(ms(150)).await;
        // Under another id, on the same channel.
        first.leave(lobby()).await.unwrap();
        first.join(lobby()).await.unwrap();
    });
    assert_eq!(pruned.unwrap(), CROWD);
    let mut left = 0;
    let mut back = None;
    while let Some(Some(event)) = futures_util::FutureExt::now_or_never(changes.next()) {
        match event.change {
            PresenceChange::Bulk(gone) => {
                left += gone.len();
                if back.is_none() {
                    assert!(gone.iter().any(|one| one.channel == first.channel));
                }
            }
            PresenceChange::Added(one) => back = Some(one.channel.clone()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((left, back.as_ref()), (CROWD, Some(&first.channel)));
}

#[actix::test]
async fn a_shutdown_removes_thousands_with_one_event() {
    let node = node().await;
    let _crowd = node.crowd(CROWD).await;
    let mut changes = node.changes();
    node.rooms.hubs().sockets.send_modify(|open| *open += 1);
    node.shutdown().await;
    assert_eq!(sizes(&bulks(&mut changes)), [CROWD]);
}
