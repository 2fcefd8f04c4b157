//! Commits that were sent to a database and not answered.

use std::pin::pin;

use super::{
    trial::{Kind, Trial, block_on, on_each_kind},
    *,
};
use crate::model::Delta;

const LEASE: Duration = Duration::from_secs(60);

on_each_kind! {
    of_a_commit_that_was_sent_the_database_tells_whether_it_was_done,
    who_asks_for_a_commit_that_is_under_way_waits_until_it_is_over,
    of_a_life_that_is_forgotten_no_commit_is_kept_and_of_one_that_is_over_the_last,
}

async fn joined(trial: &Trial) -> (SqlStore, NodeId) {
    let store = SqlStore::connect(&trial.url).unwrap();
    store.prepare().await.unwrap();
    let node = NodeId::random();
    store.register(node, NodeName::new("here").unwrap(), LEASE).await.unwrap();
    (store, node)
}

/// What a commit says that it does, for these tests.
fn commits() -> Vec<RoomCommit> {
    vec![RoomCommit::new("lobby".parse().unwrap(), Epoch::random(), Version(1), Delta::default())]
}

/// A transaction that notes a commit and is about to be told to commit it.
async fn sent(store: &SqlStore, node: NodeId, attempt: Attempt, commits: &[RoomCommit]) -> Transaction {
    let under_way = store.once.attempts.begin(node, attempt);
    let transaction = store.once.write_as(node).await.unwrap();
    transaction.note_commit(node, attempt).await.unwrap();
    store.once.attempts.send(attempt, commits).unwrap();
    drop(under_way);
    transaction
}

fn of_a_commit_that_was_sent_the_database_tells_whether_it_was_done(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let (store, node) = joined(&trial).await;
        for is_done in [false, true, false] {
            let (attempt, commits) = (Attempt::next(), commits());
            let transaction = sent(&store, node, attempt, &commits).await;
            if is_done {
                transaction.commit().await.unwrap();
            } else {
                drop(transaction);
            }
            assert_eq!(store.outcome(node, attempt).await.unwrap(), is_done.then_some(commits));
        }
    });
}

fn who_asks_for_a_commit_that_is_under_way_waits_until_it_is_over(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let (store, node) = joined(&trial).await;
        for is_done in [true, false] {
            let (attempt, commits) = (Attempt::next(), commits());
            let transaction = sent(&store, node, attempt, &commits).await;
            let mut asks = pin!(store.outcome(node, attempt));
            let at_once = tokio::time::timeout(Duration::from_millis(100), asks.as_mut()).await;
            assert!(at_once.is_err(), "it is not over: {at_once:?}");
            if is_done {
                transaction.commit().await.unwrap();
            } else {
                drop(transaction);
            }
            let outcome = asks.await.unwrap();
            assert_eq!(outcome, is_done.then_some(commits));
        }
    });
}

fn of_a_life_that_is_forgotten_no_commit_is_kept_and_of_one_that_is_over_the_last(kind: Kind) {
    // Each life of a process left what it had last done in the memory of the store.
    let trial = Trial::of(kind);
    block_on(async {
        let (store, judge) = joined(&trial).await;
        let lobby = [RoomWrites { room: "lobby".parse().unwrap(), writes: Vec::new() }];
        let life = async |name: &str| {
            let (node, attempt) = (NodeId::random(), Attempt::next());
            store.register(node, NodeName::new(name).unwrap(), LEASE).await.unwrap();
            let commits = store.commit(node, attempt, lobby.clone().into()).await.unwrap();
            (node, attempt, commits)
        };
        let (over, _, _) = life("there").await;
        store.retire(over, Duration::ZERO).await.unwrap();
        let (superseded, attempt, commits) = life("elsewhere").await;
        let (lives, other, _) = life("elsewhere").await;
        store.fence(judge).await.unwrap();
        let mut kept = store.once.attempts.of_others(judge);
        kept.sort_unstable_by_key(|(attempt, _)| attempt.0);
        assert_eq!(kept, [(attempt, superseded), (other, lives)], "{over} is forgotten");
        assert_eq!(store.outcome(superseded, attempt).await.unwrap(), Some(commits));
    });
}
