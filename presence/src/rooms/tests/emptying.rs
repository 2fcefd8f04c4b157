//! Rooms start with the first join and stop with the last leave, and no join is lost in between.

use proptest::prelude::*;

use super::prelude::*;

/// Checks that nothing is left of any room, in memory or in the database.
async fn check_nothing_is_left(node: &TestNode, rooms: &[crate::name::RoomName]) {
    pass(secs(10)).await;
    assert_eq!((node.running(), node.children()), (0, 0));
    for room in rooms {
        assert_eq!(node.rows(room).await, NONE);
    }
    node.prune_rooms().await.unwrap();
    assert!(format!("{:?}", node.store.database()).contains("rooms: 0, presences: 0"));
}

#[actix::test]
async fn a_join_that_arrives_while_the_room_stops_succeeds() {
    let node = node().await;
    let (ann, bob) = (node.member("ann").await, node.client("bob"));
    pass(secs(1)).await;
    for _ in 0..100 {
        let (left, joined) = tokio::join!(ann.leave(lobby()), bob.join(lobby()));
        assert!(left.is_ok() && joined.is_ok());
        assert_eq!(node.names(lobby()).await, ["bob"]);
        let (joined, left) = tokio::join!(ann.join(lobby()), bob.leave(lobby()));
        assert!(left.is_ok() && joined.is_ok());
        assert_eq!(node.names(lobby()).await, ["ann"]);
    }
    ann.leave(lobby()).await.unwrap();
    check_nothing_is_left(&node, &[lobby().clone()]).await;
}

#[actix::test]
async fn many_joins_and_leaves_at_once_leave_no_room_no_task_and_no_row() {
    let node = node().await;
    let mut changes = node.changes();
    let names = [room("a"), room("b"), room("c")];
    let node = Rc::new(node);
    let joined = Rc::new(Cell::new(0));
    let tasks = (0..12_usize).map(|n| {
        let node = node.clone();
        let names = names.clone();
        let joined = joined.clone();
        actix::spawn(async move {
            let client = node.client(&format!("u{n}"));
            for turn in 0..25 {
                let room = &names[(n * 7 + turn * 3) % names.len()];
                client.join(room).await.unwrap();
                joined.set(joined.get() + 1);
                assert!(client.view().names().contains(&format!("u{n}")));
                client.leave(room).await.unwrap();
                let _ = client.connection_messages();
            }
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(joined.get(), 300);
    let published = published(&mut changes);
    assert_eq!(published.iter().filter(|event| event.starts_with('+')).count(), 300);
    assert_eq!(published.iter().filter(|event| event.starts_with('-')).count(), 300);
    check_nothing_is_left(&node, &names).await;
}

// behaviour: 2.1 add-to-deleted-room; 2.6 prune-rooms; 2.6 join-after-pruning
#[actix::test]
async fn a_room_begins_another_epoch_after_it_was_pruned() {
    let node = node().await;
    let ann = node.member("ann").await;
    let before = ann.view().epoch;
    node.client("cid").join(&room("attic")).await.unwrap();
    ann.leave(lobby()).await.unwrap();
    pass(secs(10)).await;
    let mut changes = node.changes();
    assert_eq!((node.prune_rooms().await.unwrap(), published(&mut changes)), (1, vec![]));
    assert_eq!(node.rows(&room("attic")).await, ["cid"]);
    let bob = node.member("bob").await;
    ann.join(lobby()).await.unwrap();
    pass(ms(500)).await;
    assert_eq!(ann.sees(), ["ann", "bob"]);
    assert_eq!(bob.sees(), ["ann", "bob"]);
    assert_eq!(ann.view().epoch, bob.view().epoch);
    assert_ne!(ann.view().epoch, before, "a version means nothing without its epoch");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever a few sockets do in whatever order, without waiting for one another, all that is left in the end is those
    /// who came last, and everyone sees the same.
    #[test]
    fn any_mix_of_joins_updates_and_leaves_ends_with_the_presences_that_stayed(
        steps in prop::collection::vec((0..4_usize, 0..4_u8, 0..30_u64), 1..60), commit in 0..25_u64,
    ) {
        let outcome = actix::System::new().block_on(mix(steps, commit));
        prop_assert_eq!(outcome.0, outcome.1);
    }
}

async fn mix(steps: Vec<(usize, u8, u64)>, commit: u64) -> (Vec<String>, Vec<String>) {
    let node = Rc::new(node().await);
    node.store.commits_take(ms(commit));
    let clients: Vec<_> = (0..4).map(|n| Rc::new(node.client(&format!("u{n}")))).collect();
    let mut here = [false; 4];
    for (n, step, wait) in steps {
        let client = clients[n].clone();
        match step {
            0 | 1 => {
                here[n] = true;
                actix::spawn(async move { drop(client.join(lobby()).await) });
            }
            2 => {
                here[n] = false;
                actix::spawn(async move { drop(client.leave(lobby()).await) });
            }
            _ => {
                let meta = format!(r#"{{"wait":{wait}}}"#);
                actix::spawn(async move { drop(client.update(lobby(), &meta).await) });
            }
        }
        settle().await;
        tokio::time::sleep(ms(wait)).await;
    }
    pass(secs(5)).await;
    let truth: Vec<_> = (0..4).filter(|n| here[*n]).map(|n| format!("u{n}")).collect();
    for n in 0..4 {
        if here[n] {
            assert_eq!(clients[n].sees(), truth);
        }
    }
    assert_eq!(node.names(lobby()).await, truth);
    assert_eq!(node.children(), truth.len());
    (node.rows(lobby()).await, truth)
}
