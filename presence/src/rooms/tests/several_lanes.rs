//! What happens to a node while several of its lanes have a transaction in progress.

use super::prelude::*;

/// How long each commit takes.
const COMMIT: Duration = ms(1000);
/// The time between two joins, after which the second one does not wait for the transaction of the first.
const APART: Duration = ms(20);

async fn node_in_lanes() -> TestNode {
    tokio::time::pause();
    let node = node_on(&MemoryStore::new(Clock::system()).in_lanes(), "here", config()).await;
    node.store.commits_take(COMMIT);
    node
}

/// Sockets of these users, each of which joins a room of its own.
async fn join_each<const N: usize>(clients: [&FakeClient; N], meanwhile: impl Future<Output = ()>) {
    let joins = (0..).zip(clients).map(|(n, client)| async move {
        tokio::time::sleep(APART * n).await;
        client.join(&room(&format!("room {n}"))).await
    });
    let (joined, ()) = join(join_all(joins), meanwhile).await;
    joined.into_iter().for_each(|joined| joined.unwrap());
}

/// How many presences each of the first rooms has in the database.
async fn rows<const N: usize>(node: &TestNode) -> [usize; N] {
    let mut rows = [0; N];
    for (n, rows) in rows.iter_mut().enumerate() {
        *rows = node.rows(&room(&format!("room {n}"))).await.len();
    }
    rows
}

#[actix::test]
async fn a_node_that_is_fenced_while_several_lanes_write_begins_once_again_and_writes_each_change_once() {
    let node = node_in_lanes().await;
    let mut changes = node.changes();
    let clients = ["ann", "bob", "cid"].map(|name| node.client(name));
    let (first, registrations) = (node.node().unwrap(), node.store.registrations());
    let database = node.store.database().clone();
    let judge = NodeId::random();
    database.register(judge, NodeName::new("judge").unwrap(), secs(60)).await.unwrap();
    let [ann, bob, cid] = &clients;
    join_each([ann, bob, cid], async {
        pass(ms(500)).await;
        assert_eq!(node.store.commits().len(), 3, "each has a transaction of its own");
        database.renew(first, Duration::ZERO).await.unwrap();
        pass(ms(1)).await;
        // It has no presences, so it is forgotten at once.
        assert_eq!(database.fence(judge).await.unwrap(), []);
        assert!(database.renew(first, secs(10)).await.is_err());
    })
    .await;
    assert_ne!(node.node(), Some(first));
    assert_eq!(node.store.registrations() - registrations, 1);
    pass(secs(10)).await;
    assert_eq!((rows(&node).await, node.store.registrations() - registrations), ([1, 1, 1], 1));
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(events, ["+ann", "+bob", "+cid"]);
}

#[actix::test]
async fn two_lanes_in_doubt_at_once_each_resolve_their_own_transaction_and_no_other_begins_meanwhile() {
    let node = node_in_lanes().await;
    let [ann, bob, cid] = ["ann", "bob", "cid"].map(|name| node.client(name));
    ann.join(&room("room 0")).await.unwrap();
    pass(secs(1)).await;
    let mut changes = node.changes();
    node.store.commits();
    let updated = async {
        ann.update(&room("room 0"), r#"{"n":1}"#).await.unwrap();
    };
    let updated_again = async {
        pass(ms(1100)).await;
        ann.update(&room("room 0"), r#"{"n":2}"#).await.unwrap();
    };
    let bob_joins = async {
        pass(APART).await;
        bob.join(&room("room 1")).await.unwrap();
    };
    let cid_joins = async {
        pass(ms(1100)).await;
        cid.join(&room("room 2")).await.unwrap();
    };
    let outage = async {
        // The update is written and its answer is lost. The join of bob is not written.
        node.store.lose_commits(1);
        pass(COMMIT + APART / 2).await;
        node.store.faults.fail_next(usize::MAX);
        pass(secs(2)).await;
        assert_eq!(node.store.commits().len(), 2, "both are in doubt");
        assert_eq!(rows(&node).await, [1, 0, 0]);
        node.store.faults.fail_next(0);
    };
    tokio::join!(updated, updated_again, bob_joins, cid_joins, outage);
    pass(secs(1)).await;
    assert_eq!(rows(&node).await, [1, 1, 1]);
    let mut events = published(&mut changes);
    events.sort();
    assert_eq!(events, ["+bob", "+cid", "~ann", "~ann"]);
    let members = node.members(&room("room 0")).await.unwrap();
    assert_eq!(members[0].presences()[0].meta.as_str(), r#"{"n":2}"#);
    let written: usize = node.store.sizes().iter().sum();
    assert_eq!(written, 3, "the second update and the two joins, and not the first update again");
}
