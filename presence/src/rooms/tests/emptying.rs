//! Rooms come with the first join and go with the last leave, and no join is lost in between.

use std::{cell::Cell, rc::Rc};

use proptest::prelude::*;

use super::bench::{Node, heard, lobby, ms, node, pass, room, secs, settle};
use crate::Counts;

/// Nothing is left of any room, in memory or in the database.
async fn check_nothing_is_left(node: &Node, rooms: &[crate::name::RoomName]) {
    pass(secs(10)).await;
    assert_eq!((node.running(), node.children()), (0, 0));
    for room in rooms {
        assert_eq!(node.rows(room).await, Vec::<String>::new());
    }
    node.prune_rooms().await.unwrap();
    assert!(format!("{:?}", node.store.database()).contains("rooms: 0, presences: 0"));
}

#[actix::test]
async fn a_room_stops_with_its_last_leave() {
    let node = node().await;
    let members = node.crowd(3).await;
    assert_eq!((node.running(), node.children()), (1, 3));
    for member in &members {
        member.leave(lobby()).await.unwrap();
    }
    check_nothing_is_left(&node, &[lobby().clone()]).await;
}

#[actix::test]
async fn a_join_that_meets_the_stopping_room_gets_in() {
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
async fn many_who_come_and_go_at_once_leave_no_room_no_child_and_no_row() {
    let node = node().await;
    let mut changes = node.changes();
    let names = [room("a"), room("b"), room("c")];
    let node = Rc::new(node);
    let joined = Rc::new(Cell::new(0));
    let tasks = (0..12_usize).map(|n| {
        let (node, names, joined) = (node.clone(), names.clone(), joined.clone());
        actix::spawn(async move {
            let client = node.client(&format!("u{n}"));
            for turn in 0..25 {
                let room = &names[(n * 7 + turn * 3) % names.len()];
                client.join(room).await.unwrap();
                joined.set(joined.get() + 1);
                assert!(client.screen().names().contains(&format!("u{n}")));
                client.leave(room).await.unwrap();
                let _ = client.told();
            }
        })
    });
    for task in futures_util::future::join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(joined.get(), 300);
    let heard = heard(&mut changes);
    assert_eq!(heard.iter().filter(|event| event.starts_with('+')).count(), 300);
    assert_eq!(heard.iter().filter(|event| event.starts_with('-')).count(), 300);
    check_nothing_is_left(&node, &names).await;
}

#[actix::test]
async fn a_room_that_was_only_read_stops_too() {
    let node = node().await;
    let ann = node.member("ann").await;
    assert_eq!(node.count(&room("attic")).await.unwrap(), Counts::default());
    settle().await;
    assert_eq!(node.running(), 1);
    ann.leave(lobby()).await.unwrap();
    check_nothing_is_left(&node, &[lobby().clone()]).await;
}

// behaviour: 2.1 add-to-deleted-room; 2.6 prune-rooms; 2.6 join-after-pruning
#[actix::test]
async fn a_room_begins_another_life_after_it_was_removed_from_the_database() {
    let node = node().await;
    let ann = node.member("ann").await;
    let before = ann.screen().epoch;
    node.client("cid").join(&room("attic")).await.unwrap();
    ann.leave(lobby()).await.unwrap();
    pass(secs(10)).await;
    let mut changes = node.changes();
    assert_eq!((node.prune_rooms().await.unwrap(), heard(&mut changes)), (1, vec![]));
    assert_eq!(node.rows(&room("attic")).await, ["cid"]);
    let bob = node.member("bob").await;
    ann.join(lobby()).await.unwrap();
    pass(ms(500)).await;
    assert_eq!(ann.sees(), ["ann", "bob"]);
    assert_eq!(bob.sees(), ["ann", "bob"]);
    assert_eq!(ann.screen().epoch, bob.screen().epoch);
    assert_ne!(ann.screen().epoch, before, "a version means nothing without its epoch");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    /// Whatever a few sockets do in whatever order, without waiting for one another, all that is left in the end is those
    /// who came last, and everyone sees the same.
    #[test]
    fn any_mix_of_joins_updates_and_leaves_ends_with_those_who_stayed(
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
