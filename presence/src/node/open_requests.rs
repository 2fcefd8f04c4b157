//! Requests from other nodes, and the progress of each.
//!
//! A plain value without an actor, a database or a clock: it receives the list of requests in the database, and returns what has to be
//! done. Its one rule is that a request is carried out once. A second time would remove presences that joined since.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::future::AbortHandle;

use crate::{clock::Tick, name::RequestId, store::Request};

/// The requests that this node has not finished.
#[derive(Debug, Default)]
pub(crate) struct OpenRequests {
    progress: HashMap<RequestId, Progress>,
    /// When the list of requests is read next, unless a sweep asks the database before whether there are any.
    next_look: Tick,
}

#[derive(Debug)]
enum Progress {
    /// The actor of the node was sent a message to carry it out, and has not begun.
    Sent,
    UnderWay(AbortHandle),
    /// The request was carried out, and removed `count` presences.
    Done {
        count: u64,
        is_answered: bool,
    },
}

/// What has to be done after the requests were read from the database.
#[derive(Debug, Default)]
pub(crate) struct ToDo {
    /// The actor of the node has to be sent these, to carry them out.
    pub(crate) begin: Vec<Request>,
    /// These are done, and their answers are not in the database yet.
    pub(crate) answer: Vec<(RequestId, u64)>,
    /// These were withdrawn while they were carried out.
    pub(crate) abort: Vec<AbortHandle>,
}

impl OpenRequests {
    pub(crate) fn look_at(&mut self, at: Tick) {
        self.next_look = at;
    }

    /// In which time the list of requests is to be read.
    pub(crate) fn next_look_in(&self, now: Tick) -> Duration {
        self.next_look.since(now)
    }

    /// A sweep has asked the database whether there are requests to this node. Returns whether their list has to be read now, also because
    /// some that were on it may be withdrawn. Otherwise it is not read before `at`, by when the next sweep asks.
    pub(crate) fn surveyed(&mut self, has_requests: bool, at: Tick) -> bool {
        let must_look = has_requests || !self.progress.is_empty();
        if !must_look {
            self.look_at(at);
        }
        must_look
    }

    /// Compares the requests with those that the database lists as not answered. The list may have been read before this node did and
    /// answered some of them.
    pub(crate) fn look(&mut self, listed: Vec<Request>) -> ToDo {
        let mut to_do = ToDo::default();
        let ids: HashSet<_> = listed.iter().map(|request| request.id).collect();
        self.progress.retain(|id, progress| {
            let is_listed = ids.contains(id);
            match progress {
                Progress::Sent => is_listed,
                Progress::UnderWay(_) if is_listed => true,
                Progress::UnderWay(work) => {
                    to_do.abort.push(work.clone());
                    false
                }
                Progress::Done { is_answered: true, .. } if !is_listed => false,
                // It is kept even if it is not listed: the lease of the requesting node may have expired for a moment, and then the
                // request is listed again.
                Progress::Done { count, .. } => {
                    to_do.answer.push((*id, *count));
                    true
                }
            }
        });
        for request in listed {
            self.progress.entry(request.id).or_insert_with(|| {
                to_do.begin.push(request);
                Progress::Sent
            });
        }
        to_do
    }

    /// Notes that the actor begins with this request, and returns whether it may. It may not if the request was withdrawn after
    /// the message was sent, or if an earlier message has begun it already.
    pub(crate) fn begin(&mut self, id: RequestId, work: AbortHandle) -> bool {
        let progress = self.progress.get_mut(&id).filter(|progress| matches!(progress, Progress::Sent));
        progress.map(|progress| *progress = Progress::UnderWay(work)).is_some()
    }

    /// The work panicked. It begins again if the request is still listed.
    pub(crate) fn failed(&mut self, id: RequestId) {
        self.progress.remove(&id);
    }

    /// The request was carried out, and removed `count` presences.
    pub(crate) fn done(&mut self, id: RequestId, count: u64) {
        self.progress.insert(id, Progress::Done { count, is_answered: false });
    }

    /// The answer is in the database. The request is kept until it is no longer listed, since a list that was read earlier may still
    /// contain it.
    pub(crate) fn answered(&mut self, id: RequestId) {
        if let Some(Progress::Done { is_answered, .. }) = self.progress.get_mut(&id) {
            *is_answered = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Order;

    fn request() -> Request {
        Request { id: RequestId::random(), order: Order::Prune { max_age: Duration::ZERO } }
    }

    /// The requests to begin, the answers to write, and the number of requests to abort, after this list was read.
    fn look(open: &mut OpenRequests, listed: &[&Request]) -> (Vec<RequestId>, Vec<(RequestId, u64)>, usize) {
        let ToDo { begin, answer, abort } = open.look(listed.iter().copied().cloned().collect());
        (begin.into_iter().map(|request| request.id).collect(), answer, abort.len())
    }

    fn begin(open: &mut OpenRequests, id: RequestId) -> bool {
        open.begin(id, AbortHandle::new_pair().0)
    }

    fn nothing() -> (Vec<RequestId>, Vec<(RequestId, u64)>, usize) {
        (Vec::new(), Vec::new(), 0)
    }

    /// One request that was carried out and removed seven presences.
    fn with_one_done() -> (OpenRequests, Request) {
        let (mut open, one) = (OpenRequests::default(), request());
        look(&mut open, &[&one]);
        assert!(begin(&mut open, one.id));
        open.done(one.id, 7);
        (open, one)
    }

    #[test]
    fn the_list_is_not_read_while_sweeps_find_no_requests_and_none_is_unfinished() {
        let (mut open, one) = (OpenRequests::default(), request());
        open.look_at(Tick(2_000));
        assert_eq!(open.next_look_in(Tick(500)), Duration::from_millis(1_500));
        assert!(!open.surveyed(false, Tick(3_000)));
        assert_eq!(open.next_look_in(Tick(2_000)), Duration::from_secs(1));
        assert!(open.surveyed(true, Tick(5_000)));
        assert_eq!(open.next_look_in(Tick(3_000)), Duration::ZERO);
        look(&mut open, &[&one]);
        assert!(open.surveyed(false, Tick(6_000)), "it may be withdrawn");
        look(&mut open, &[]);
        assert!(!open.surveyed(false, Tick(6_000)));
    }

    #[test]
    fn a_request_that_is_listed_again_before_and_after_it_begins_is_begun_once() {
        let (mut open, one) = (OpenRequests::default(), request());
        assert_eq!(look(&mut open, &[&one]), (vec![one.id], Vec::new(), 0));
        assert_eq!(look(&mut open, &[&one]), nothing());
        assert!(begin(&mut open, one.id));
        assert_eq!(look(&mut open, &[&one]), nothing());
    }

    #[test]
    fn a_request_that_was_never_listed_or_is_withdrawn_before_it_begins_is_not_begun() {
        let (mut open, one) = (OpenRequests::default(), request());
        assert!(!begin(&mut open, one.id));
        look(&mut open, &[&one]);
        assert_eq!(look(&mut open, &[]), nothing());
        assert!(!begin(&mut open, one.id));
    }

    #[test]
    fn a_request_that_is_withdrawn_while_it_is_under_way_is_aborted_and_others_continue() {
        let (mut open, one, other) = (OpenRequests::default(), request(), request());
        look(&mut open, &[&one, &other]);
        let (ones, others) = (AbortHandle::new_pair().0, AbortHandle::new_pair().0);
        assert!(open.begin(one.id, ones.clone()) && open.begin(other.id, others.clone()));
        let to_do = open.look(vec![other.clone()]);
        to_do.abort.iter().for_each(AbortHandle::abort);
        assert_eq!((ones.is_aborted(), others.is_aborted()), (true, false));
        assert_eq!(look(&mut open, &[&one, &other]), (vec![one.id], Vec::new(), 0), "it is requested again");
    }

    #[test]
    fn a_request_that_vanishes_and_is_listed_again_before_it_begins_is_begun_once() {
        let (mut open, one) = (OpenRequests::default(), request());
        for listed in [&[&one][..], &[], &[&one]] {
            look(&mut open, listed);
        }
        assert_eq!([begin(&mut open, one.id), begin(&mut open, one.id)], [true, false], "there are two messages");
        assert_eq!(look(&mut open, &[]).2, 1, "and one of them to abort");
    }

    #[test]
    fn a_request_that_is_done_is_not_begun_again_by_a_message_or_a_list_that_is_late() {
        let (mut open, one) = with_one_done();
        open.answered(one.id);
        assert!(!begin(&mut open, one.id));
        assert_eq!(look(&mut open, &[&one]), (Vec::new(), vec![(one.id, 7)], 0));
        assert!(!begin(&mut open, one.id));
    }

    #[test]
    fn an_answer_is_given_until_the_database_has_it_and_then_the_request_is_forgotten() {
        let (mut open, one) = with_one_done();
        let answer = (Vec::new(), vec![(one.id, 7)], 0);
        assert_eq!([look(&mut open, &[&one]), look(&mut open, &[&one])], [answer.clone(), answer]);
        open.answered(one.id);
        assert_eq!(look(&mut open, &[]), nothing());
        assert!(open.progress.is_empty(), "{open:?}");
    }

    #[test]
    fn a_request_that_is_done_and_vanishes_for_a_while_before_it_is_answered_is_not_begun_again() {
        let (mut open, one) = with_one_done();
        let answer = (Vec::new(), vec![(one.id, 7)], 0);
        assert_eq!([look(&mut open, &[]), look(&mut open, &[&one])], [answer.clone(), answer]);
    }

    #[test]
    fn a_request_whose_work_panicked_is_begun_again() {
        let (mut open, one) = (OpenRequests::default(), request());
        look(&mut open, &[&one]);
        assert!(begin(&mut open, one.id));
        open.failed(one.id);
        assert_eq!(look(&mut open, &[&one]), (vec![one.id], Vec::new(), 0));
    }
}
