//! What is known of commits whose answers nobody heard.
//!
//! A commit says what it changed before it is sent off, and notes in the database that it is the node's last. So whoever lost
//! the answer finds in the database whether it was done, and here what it did.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    name::NodeId,
    store::{Attempt, RoomCommit},
};

/// The commits that are under way, and of each node the last, until the node is forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<Attempt, Last>>>);

#[derive(Debug)]
struct Last {
    node: NodeId,
    state: State,
    /// Somebody waits for the answer.
    waits: bool,
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
    attempt: Attempt,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Attempt, Last>> {
        self.0.lock()
    }

    /// Begins a commit. Nothing is known any more of those of the node that nobody waits for.
    pub(super) fn begin(&self, node: NodeId, attempt: Attempt) -> UnderWay {
        let mut attempts = self.lock();
        attempts.retain(|_, last| last.node != node || last.waits);
        attempts.insert(attempt, Last { node, state: State::Begun, waits: true });
        UnderWay { attempts: self.clone(), attempt }
    }

    /// From now on the database may do it, and this is what it does.
    pub(super) fn send(&self, attempt: Attempt, commits: &[RoomCommit]) -> Result<(), GivenUp> {
        let mut attempts = self.lock();
        let last = attempts.get_mut(&attempt).filter(|last| last.waits).ok_or(GivenUp)?;
        last.state = State::Sent(commits.to_vec());
        Ok(())
    }

    /// The database has done it.
    pub(super) fn done(&self, attempt: Attempt) {
        if let Some(last) = self.lock().get_mut(&attempt)
            && let State::Sent(commits) = &mut last.state
        {
            last.state = State::Done(std::mem::take(commits));
        }
    }

    /// The last commits of all nodes but this, as far as nobody waits for their answers.
    pub(super) fn of_others(&self, node: NodeId) -> Vec<(Attempt, NodeId)> {
        let attempts = self.lock();
        let others = attempts.iter().filter(|(_, last)| last.node != node && !last.waits);
        others.map(|(attempt, last)| (*attempt, last.node)).collect()
    }

    pub(super) fn forget(&self, commits: impl Iterator<Item = Attempt>) {
        let mut attempts = self.lock();
        commits.for_each(|attempt| drop(attempts.remove(&attempt)));
    }

    /// How far a commit of a node has come. `None`: it was not done, or is not known.
    pub(super) fn state(&self, node: NodeId, attempt: Attempt) -> Option<State> {
        let attempts = self.lock();
        attempts.get(&attempt).filter(|last| last.node == node).map(|last| last.state.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut attempts = self.attempts.lock();
        if let Entry::Occupied(mut last) = attempts.entry(self.attempt) {
            match last.get().state {
                State::Begun => drop(last.remove()),
                State::Sent(_) | State::Done(_) => last.get_mut().waits = false,
            }
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
        assert!(attempts.send(attempt, &commits()).is_err());
        assert!(attempts.state(node, attempt).is_none());
    }

    #[test]
    fn one_that_was_given_up_after_it_was_sent_is_in_doubt_until_it_is_known_to_be_done() {
        let (attempts, node, attempt) = (Attempts::default(), NodeId::random(), Attempt::next());
        let under_way = attempts.begin(node, attempt);
        attempts.send(attempt, &commits()).unwrap();
        drop(under_way);
        assert!(matches!(attempts.state(node, attempt), Some(State::Sent(commits)) if commits.len() == 1));
        assert!(attempts.send(attempt, &commits()).is_err(), "it is not tried again");
        attempts.done(attempt);
        assert!(matches!(attempts.state(node, attempt), Some(State::Done(commits)) if commits.len() == 1));
    }

    #[test]
    fn what_an_earlier_commit_does_late_says_nothing_of_the_last() {
        let (attempts, node) = (Attempts::default(), NodeId::random());
        let (first, second) = (Attempt::next(), Attempt::next());
        let given_up = attempts.begin(node, first);
        attempts.send(first, &commits()).unwrap();
        drop(given_up);
        let _under_way = attempts.begin(node, second);
        attempts.done(first);
        assert!(attempts.state(node, first).is_none());
        assert!(matches!(attempts.state(node, second), Some(State::Begun)));
    }

    #[test]
    fn nothing_is_kept_but_what_is_under_way_and_the_last_of_each_node() {
        let (attempts, node) = (Attempts::default(), NodeId::random());
        let three = [Attempt::next(), Attempt::next(), Attempt::next()];
        let under_way = three.map(|attempt| attempts.begin(node, attempt));
        for attempt in three {
            attempts.send(attempt, &commits()).unwrap();
            attempts.done(attempt);
        }
        drop(under_way);
        let other = Attempt::next();
        drop(attempts.begin(NodeId::random(), other));
        assert_eq!(attempts.lock().len(), 3);
        let last = Attempt::next();
        let _under_way = attempts.begin(node, last);
        assert_eq!(attempts.lock().keys().collect::<Vec<_>>(), [&last]);
    }
}
