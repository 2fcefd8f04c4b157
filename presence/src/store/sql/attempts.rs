//! What is known of commits whose answers were lost.
//!
//! A commit records here what it changes before it is sent, and records in the database that it is the last commit of the
//! node. So after a lost answer, the database shows whether the commit was done, and this shows what it did.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    name::NodeId,
    store::{Attempt, RoomCommit},
};

/// The commits in progress, and the last commit of each node in each lane until the node is forgotten.
#[derive(Debug, Clone, Default)]
pub(super) struct Attempts(Arc<Mutex<HashMap<Attempt, LastCommit>>>);

#[derive(Debug)]
struct LastCommit {
    node: NodeId,
    progress: CommitProgress,
    /// A caller waits for the answer.
    is_awaited: bool,
}

/// The outcome of a commit was requested while a caller still waits for its answer.
#[derive(Debug, thiserror::Error)]
#[error("the commit is still in progress")]
pub(super) struct StillInProgress;

/// The caller dropped a commit before it was sent.
#[derive(Debug, thiserror::Error)]
#[error("the commit was abandoned before it was sent")]
pub(super) struct Abandoned;

/// The progress of a commit.
#[derive(Debug, Clone)]
pub(super) enum CommitProgress {
    /// The COMMIT was not sent yet.
    Begun,
    /// The COMMIT was sent, and its answer has not arrived. If it was done, this is what it changed.
    Sent(Vec<RoomCommit>),
    Done(Vec<RoomCommit>),
}

/// A commit in progress. If this is dropped before the COMMIT is sent, it is not sent.
#[derive(Debug)]
pub(super) struct CommitGuard {
    attempts: Attempts,
    attempt: Attempt,
}

impl Attempts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Attempt, LastCommit>> {
        self.0.lock()
    }

    /// Begins a commit, and forgets those of the node in the same lane for which no caller waits.
    pub(super) fn begin(&self, node: NodeId, attempt: Attempt) -> CommitGuard {
        let mut attempts = self.lock();
        attempts.retain(|other, last| last.node != node || other.lane() != attempt.lane() || last.is_awaited);
        attempts.insert(attempt, LastCommit { node, progress: CommitProgress::Begun, is_awaited: true });
        CommitGuard { attempts: self.clone(), attempt }
    }

    /// The COMMIT is about to be sent, and `commits` is what it changes.
    pub(super) fn send(&self, attempt: Attempt, commits: &[RoomCommit]) -> Result<(), Abandoned> {
        let mut attempts = self.lock();
        let last = attempts.get_mut(&attempt).filter(|last| last.is_awaited).ok_or(Abandoned)?;
        last.progress = CommitProgress::Sent(commits.to_vec());
        Ok(())
    }

    /// The database has committed.
    pub(super) fn done(&self, attempt: Attempt) {
        if let Some(last) = self.lock().get_mut(&attempt)
            && let CommitProgress::Sent(commits) = &mut last.progress
        {
            last.progress = CommitProgress::Done(std::mem::take(commits));
        }
    }

    /// The last commits of all other nodes for which no caller waits.
    pub(super) fn of_others(&self, node: NodeId) -> Vec<(Attempt, NodeId)> {
        let attempts = self.lock();
        let others = attempts.iter().filter(|(_, last)| last.node != node && !last.is_awaited);
        others.map(|(attempt, last)| (*attempt, last.node)).collect()
    }

    pub(super) fn forget(&self, commits: impl Iterator<Item = Attempt>) {
        let mut attempts = self.lock();
        commits.for_each(|attempt| drop(attempts.remove(&attempt)));
    }

    /// The progress of a commit of a node. `None` if it was not done, or is not known.
    pub(super) fn progress(&self, node: NodeId, attempt: Attempt) -> Option<CommitProgress> {
        let attempts = self.lock();
        attempts.get(&attempt).filter(|last| last.node == node).map(|last| last.progress.clone())
    }
}

impl Drop for CommitGuard {
    fn drop(&mut self) {
        let mut attempts = self.attempts.lock();
        if let Entry::Occupied(mut last) = attempts.entry(self.attempt) {
            match last.get().progress {
                CommitProgress::Begun => drop(last.remove()),
                CommitProgress::Sent(_) | CommitProgress::Done(_) => last.get_mut().is_awaited = false,
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
    fn a_commit_that_is_dropped_before_it_is_sent_is_not_sent() {
        let (attempts, node, attempt) = (Attempts::default(), NodeId::random(), Attempt::next());
        let in_progress = attempts.begin(node, attempt);
        assert!(matches!(attempts.progress(node, attempt), Some(CommitProgress::Begun)));
        drop(in_progress);
        assert!(attempts.progress(node, attempt).is_none());
        assert!(attempts.send(attempt, &commits()).is_err());
        assert!(attempts.progress(node, attempt).is_none());
    }

    #[test]
    fn a_commit_that_is_dropped_after_it_was_sent_is_unconfirmed_until_it_is_done() {
        let (attempts, node, attempt) = (Attempts::default(), NodeId::random(), Attempt::next());
        let in_progress = attempts.begin(node, attempt);
        attempts.send(attempt, &commits()).unwrap();
        drop(in_progress);
        assert!(matches!(attempts.progress(node, attempt), Some(CommitProgress::Sent(commits)) if commits.len() == 1));
        assert!(attempts.send(attempt, &commits()).is_err(), "it is not sent again");
        attempts.done(attempt);
        assert!(matches!(attempts.progress(node, attempt), Some(CommitProgress::Done(commits)) if commits.len() == 1));
    }

    #[test]
    fn a_late_answer_of_an_earlier_commit_says_nothing_about_the_last() {
        let (attempts, node) = (Attempts::default(), NodeId::random());
        let (first, second) = (Attempt::next(), Attempt::next());
        let abandoned = attempts.begin(node, first);
        attempts.send(first, &commits()).unwrap();
        drop(abandoned);
        let _under_way = attempts.begin(node, second);
        attempts.done(first);
        assert!(attempts.progress(node, first).is_none());
        assert!(matches!(attempts.progress(node, second), Some(CommitProgress::Begun)));
    }

    #[test]
    fn only_commits_in_progress_and_the_last_of_each_node_are_kept() {
        let (attempts, node) = (Attempts::default(), NodeId::random());
        let three = [Attempt::next(), Attempt::next(), Attempt::next()];
        let in_progress = three.map(|attempt| attempts.begin(node, attempt));
        for attempt in three {
            attempts.send(attempt, &commits()).unwrap();
            attempts.done(attempt);
        }
        drop(in_progress);
        let other = Attempt::next();
        drop(attempts.begin(NodeId::random(), other));
        assert_eq!(attempts.lock().len(), 3);
        let last = Attempt::next();
        let _under_way = attempts.begin(node, last);
        assert_eq!(attempts.lock().keys().collect::<Vec<_>>(), [&last]);
    }
}
