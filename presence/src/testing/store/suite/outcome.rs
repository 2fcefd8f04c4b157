//! The outcome of commits whose answers were lost.

#![expect(missing_docs, reason = "the names are sentences")]

use crate::{
    name::NodeId,
    store::{Attempt, RoomCommit, Store, StoreError},
};

use super::{super::ManualClock, anonymous, change::polled, join, let_die, members, node, writes};

pub async fn the_outcome_of_a_dropped_commit_is_known(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    for polls in 0.. {
        let presence = anonymous(node, &polls.to_string());
        let (attempt, changes) = (Attempt::next(), [writes("lobby", [join(&presence)])]);
        let answer = polled(store.commit(node, attempt, changes.clone().into()), polls).await;
        let outcome = settled(store, node, attempt).await;
        let (version, members) = members(store, "lobby").await;
        assert_eq!(outcome.is_some(), members.contains(&presence), "after {polls} steps");
        if let Some([commit]) = outcome.as_deref() {
            assert_eq!((commit.version.0, &commit.delta.joined), (version, &vec![presence]));
        }
        if let Some(answer) = answer {
            assert_eq!(Some(answer.expect("those that were dropped are in nobody's way")), outcome);
            break;
        }
    }
}

/// Waits for the outcome of a commit.
async fn settled(store: &dyn Store, node: NodeId, attempt: Attempt) -> Option<Vec<RoomCommit>> {
    loop {
        match store.outcome(node, attempt).await {
            Ok(outcome) => return outcome,
            // The call continues after its caller has dropped it.
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("the outcome will be known: {error}"),
        }
    }
}

pub async fn a_commit_that_failed_or_was_never_made_has_no_outcome(store: &dyn Store, _: &ManualClock) {
    let node = node(store, "here").await;
    let ann = anonymous(node, "ann");
    let (never, refused, done) = (Attempt::next(), Attempt::next(), Attempt::next());
    assert_eq!(settled(store, node, never).await, None);
    let twice = [writes("lobby", [join(&ann)]), writes("bar", [join(&ann)])];
    assert!(matches!(store.commit(node, refused, twice.clone().into()).await, Err(StoreError::Refused(_))));
    assert_eq!(settled(store, node, refused).await, None);
    let commits = store.commit(node, done, [writes("lobby", [join(&ann)])].into()).await.expect("the commit works");
    assert_eq!(settled(store, node, done).await, Some(commits));
    for other in [never, refused] {
        assert_eq!(settled(store, node, other).await, None, "of those before the last nothing is known");
    }
    assert_eq!(settled(store, NodeId::random(), done).await, None, "it was not that node's");
}

pub async fn the_last_commit_of_a_fenced_incarnation_is_known_until_it_is_forgotten(
    store: &dyn Store,
    time: &ManualClock,
) {
    let (judge, dead, attempt) = (node(store, "judge").await, node(store, "dead").await, Attempt::next());
    let ann = anonymous(dead, "ann");
    let commits = store.commit(dead, attempt, [writes("lobby", [join(&ann)])].into()).await.expect("the commit works");
    assert_eq!(let_die(store, time, judge).await, [dead]);
    assert_eq!(settled(store, dead, attempt).await, Some(commits));
}
