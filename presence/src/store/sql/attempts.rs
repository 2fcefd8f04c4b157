//! What is known of commits whose answers nobody heard.
//!
//! A commit says what it changed before it is sent off, and notes in the database that it is the node's last. So whoever lost
//! the answer finds in the database whether it was done, and here what it did.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    name::NodeId,
    store::{Attempt, RoomCommit},
};

/// The last commit of each node that wrote by this store.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<NodeId, Last>>>);

#[derive(Debug)]
struct Last {
    attempt: Attempt,
    state: State,
}

/// A commit is asked for whose answer somebody still waits for.
#[derive(Debug, thiserror::Error)]
#[error("the commit is still under way")]
pub(super) struct StillUnderWay;

/// Nobody waits for a commit any more that was not sent yet.
#[derive(Debug, thiserror::Error)]
#[error("the commit was given up before it was sent")]
pub(super) struct GivenUp;

/// How far a commit has come.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// The database has not been told to commit it.
    Begun,
    /// It has; whether it did is not known. This is what it did then.
    Sent(Vec<RoomCommit>),
    Done(Vec<RoomCommit>),
}

/// A commit whose answer somebody waits for. If that ends before it is sent, it is not sent.
#[derive(Debug)]
pub(super) struct UnderWay {
    attempts: Attempts,
    node: NodeId,
    attempt: Attempt,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a commit. Nothing is known any more of the one before it.
    pub(super) fn begin(&self, node: NodeId, attempt: Attempt) -> UnderWay {
        self.lock().insert(node, Last { attempt, state: State::Begun });
        UnderWay { attempts: self.clone(), node, attempt }
    }

    /// From now on the database may do it, and this is what it does.
    pub(super) fn send(&self, node: NodeId, attempt: Attempt, commits: &[RoomCommit]) -> Result<(), GivenUp> {
        let mut last = self.lock();
        let last = last.get_mut(&node).filter(|last| last.attempt == attempt).ok_or(GivenUp)?;
        last.state = State::Sent(commits.to_vec());
        Ok(())
    }

    /// The database has done it.
    pub(super) fn done(&self, node: NodeId, attempt: Attempt) {
        if let Some(last) = self.lock().get_mut(&node).filter(|last| last.attempt == attempt)
            && let State::Sent(commits) = &mut last.state
        {
            last.state = State::Done(std::mem::take(commits));
        }
    }

    /// How far a commit has come. `None`: it was not done, or is not known.
    pub(super) fn state(&self, node: NodeId, attempt: Attempt) -> Option<State> {
        let last = self.lock();
        last.get(&node).filter(|last| last.attempt == attempt).map(|last| last.state.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut last = self.attempts.lock();
        let begun = |last: &Last| last.attempt == self.attempt && matches!(last.state, State::Begun);
        if last.get(&self.node).is_some_and(begun) {
            last.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Epoch, Version};

    fn commits() -> Vec<RoomCommit> {
        let room = "lobby".parse().unwrap();
        vec![RoomCommit::new(room, Epoch::random(), Version(1), crate::model::Delta::default())]
    }

    #[test]
    fn one_that_was_given_up_before_it_was_sent_is_not_sent() {
        let (attempts, node, attempt) = (Attempts::default(), NodeId::random(), Attempt::next());
        let under_way = attempts.begin(node, attempt);
        assert!(matches!(attempts.state(node, attempt), Some(State::Begun)));
        drop(under_way);
        assert!(attempts.state(node, attempt).is_none());
        assert!(attempts.send(node, attempt, &commits()).is_err());
        assert!(attempts.state(node, attempt).is_none());
    }

    #[test]
    fn one_that_was_given_up_after_it_was_sent_is_in_doubt_until_it_is_known_to_be_done() {
        let (attempts, node, attempt) = (Attempts::default(), NodeId::random(), Attempt::next());
        let under_way = attempts.begin(node, attempt);
        attempts.send(node, attempt, &commits()).unwrap();
        drop(under_way);
        assert!(matches!(attempts.state(node, attempt), Some(State::Sent(commits)) if commits.len() == 1));
        attempts.done(node, attempt);
        assert!(matches!(attempts.state(node, attempt), Some(State::Done(commits)) if commits.len() == 1));
    }

    #[test]
    fn what_an_earlier_commit_does_late_says_nothing_of_the_last() {
        let (attempts, node) = (Attempts::default(), NodeId::random());
        let (first, second) = (Attempt::next(), Attempt::next());
        let late = attempts.begin(node, first);
        let _under_way = attempts.begin(node, second);
        assert!(attempts.send(node, first, &commits()).is_err());
        attempts.done(node, first);
        drop(late);
        assert!(attempts.state(node, first).is_none());
        assert!(matches!(attempts.state(node, second), Some(State::Begun)));
    }
}
