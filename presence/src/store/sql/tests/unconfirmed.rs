//! Commits that were sent to a database, and whose answers were lost.

use std::pin::pin;

use super::{
    super::*,
    trial::{Kind, Trial, block_on, on_each_kind},
};
use crate::{model::Delta, name::NodeName, store::NodeStore};

const LEASE: Duration = Duration::from_secs(60);

on_each_kind! {
    the_outcome_of_a_commit_that_was_sent_comes_from_the_database,
    the_outcome_of_a_commit_in_progress_waits_until_it_ends,
    the_last_commit_of_a_fenced_incarnation_is_kept_until_it_is_forgotten,
    each_lane_has_a_last_commit_of_its_own,
}

async fn joined(trial: &Trial) -> (SqlStore, NodeId) {
    let store = SqlStore::connect(&trial.url).unwrap();
    store.prepare().await.unwrap();
    let node = NodeId::random();
    store.register(node, NodeName::new("here").unwrap(), LEASE).await.unwrap();
    (store, node)
}

/// The result of a commit.
fn commits() -> Vec<RoomCommit> {
    vec![RoomCommit::new("lobby".parse().unwrap(), Epoch::random(), Version(1), Delta::default())]
}

/// A transaction whose COMMIT is about to be sent.
async fn sent(store: &SqlStore, node: NodeId, attempt: Attempt, commits: &[RoomCommit]) -> Transaction {
    let in_progress = store.once.attempts.begin(node, attempt);
    let transaction = store.once.write_as(node).await.unwrap();
    transaction.set_last_commit(node, attempt).await.unwrap();
    store.once.attempts.send(attempt, commits).unwrap();
    drop(in_progress);
    transaction
}

fn the_outcome_of_a_commit_that_was_sent_comes_from_the_database(kind: Kind) {
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

fn the_outcome_of_a_commit_in_progress_waits_until_it_ends(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let (store, node) = joined(&trial).await;
        for is_done in [true, false] {
            let (attempt, commits) = (Attempt::next(), commits());
            let transaction = sent(&store, node, attempt, &commits).await;
            let mut outcome = pin!(store.outcome(node, attempt));
            let at_once = tokio::time::timeout(Duration::from_millis(100), outcome.as_mut()).await;
            assert!(at_once.is_err(), "the commit is in progress: {at_once:?}");
            if is_done {
                transaction.commit().await.unwrap();
            } else {
                drop(transaction);
            }
            assert_eq!(outcome.await.unwrap(), is_done.then_some(commits));
        }
    });
}

fn the_last_commit_of_a_fenced_incarnation_is_kept_until_it_is_forgotten(kind: Kind) {
    // The store kept the last commit of each incarnation of a process for ever.
    let trial = Trial::of(kind);
    block_on(async {
        let (store, judge) = joined(&trial).await;
        let lobby = [RoomWrites { room: "lobby".parse().unwrap(), writes: Vec::new() }];
        let incarnation = async |name: &str| {
            let (node, attempt) = (NodeId::random(), Attempt::next());
            store.register(node, NodeName::new(name).unwrap(), LEASE).await.unwrap();
            let commits = store.commit(node, attempt, lobby.clone().into()).await.unwrap();
            (node, attempt, commits)
        };
        let (retired, _, _) = incarnation("there").await;
        store.retire(retired, Duration::ZERO).await.unwrap();
        let (superseded, attempt, commits) = incarnation("elsewhere").await;
        let (live, other, _) = incarnation("elsewhere").await;
        store.fence(judge).await.unwrap();
        let mut kept = store.once.attempts.of_others(judge);
        kept.sort_unstable_by_key(|(attempt, _)| attempt.number());
        assert_eq!(kept, [(attempt, superseded), (other, live)], "{retired} is forgotten");
        assert_eq!(store.outcome(superseded, attempt).await.unwrap(), Some(commits));
    });
}

fn each_lane_has_a_last_commit_of_its_own(kind: Kind) {
    let trial = Trial::of(kind);
    block_on(async {
        let store = SqlStore::connect(&trial.url).unwrap();
        store.prepare().await.unwrap();
        let lanes = store.allow_lanes(5);
        assert_eq!(lanes > 1, !format!("{kind:?}").contains("Sqlite"), "{lanes} lanes");
        let node = NodeId::random();
        store.register(node, NodeName::new("here").unwrap(), LEASE).await.unwrap();
        let mut sent_commits = Vec::new();
        for lane in 0..lanes {
            let (attempt, commits) = (Attempt::next().in_lane(lane), commits());
            let transaction = sent(&store, node, attempt, &commits).await;
            if lane % 2 == 0 {
                transaction.commit().await.unwrap();
            } else {
                drop(transaction);
            }
            sent_commits.push((attempt, (lane % 2 == 0).then_some(commits)));
        }
        for (attempt, commits) in sent_commits {
            assert_eq!(store.outcome(node, attempt).await.unwrap(), commits, "{attempt:?}");
        }
    });
}
