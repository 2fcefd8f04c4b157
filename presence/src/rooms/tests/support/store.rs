//! A store that records its calls, and in which single kinds of calls can be made to fail or to take long.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::watch, time::Instant};

use crate::{
    name::PresenceId,
    store::{
        MemoryStore, RoomWrites, Store, StoreError, Write,
        forward::{self, Forward},
    },
    testing::store::FaultyStore,
};

type Refuse = Box<dyn Fn(&Write) -> bool + Send>;

/// A call of the writer, with the number of presences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterCall {
    Commit(usize),
    Touch(usize),
}

/// What a transaction did: a commit of the writer, with the number of changes, or a removal of the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionKind {
    Commit(usize),
    Removal,
}

/// One transaction, also one whose caller stopped waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) transaction: TransactionKind,
    pub(crate) begun: Instant,
    pub(crate) ended: Option<Instant>,
}

#[derive(Clone)]
pub(crate) struct RecordingStore<S = MemoryStore> {
    pub(crate) faults: FaultyStore<S>,
    seen: Arc<Mutex<Recorded>>,
    hanging: Arc<watch::Sender<bool>>,
    late: Arc<watch::Sender<bool>>,
    late_requests: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct Recorded {
    commits: Vec<Vec<RoomWrites>>,
    calls: Vec<WriterCall>,
    touch_time: Duration,
    touches: Vec<(Instant, PresenceId)>,
    loads: usize,
    registrations: usize,
    requests_read: usize,
    refuse: Option<Refuse>,
    refuses_touches: bool,
    commit_time: Duration,
    removal_time: Duration,
    spans: Vec<Span>,
    lose: usize,
    lose_registrations: usize,
    lose_answers: usize,
    refuses_reports: bool,
    retire_time: Duration,
    /// How many more times the presences of a dead node are cleared.
    clears: Option<usize>,
    cleared: usize,
}

impl<S: fmt::Debug> fmt::Debug for RecordingStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.fmt(f)
    }
}

impl RecordingStore {
    /// The database itself, which never fails.
    pub(crate) fn database(&self) -> &MemoryStore {
        self.faults.inner()
    }
}

impl<S> RecordingStore<S> {
    pub(crate) fn new(faults: FaultyStore<S>) -> Self {
        Self {
            faults,
            seen: Arc::default(),
            hanging: Arc::new(watch::Sender::new(false)),
            late: Arc::new(watch::Sender::new(false)),
            late_requests: Arc::new(watch::Sender::new(false)),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Recorded> {
        self.seen.lock()
    }

    /// The commits since this was last called, in order.
    pub(crate) fn commits(&self) -> Vec<Vec<RoomWrites>> {
        std::mem::take(&mut self.seen().commits)
    }

    /// The number of changes in each commit since this or `commits` was last called.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.commits().iter().map(|rooms| rooms.iter().map(|room| room.writes.len()).sum()).collect()
    }

    /// The transactions of the writer since this was last called.
    pub(crate) fn calls(&self) -> Vec<WriterCall> {
        std::mem::take(&mut self.seen().calls)
    }

    /// Every transaction of touches takes this long.
    pub(crate) fn touches_take(&self, time: Duration) {
        self.seen().touch_time = time;
    }

    /// Which rows were touched, and when.
    pub(crate) fn touches(&self) -> Vec<(Instant, PresenceId)> {
        std::mem::take(&mut self.seen().touches)
    }

    pub(crate) fn loads(&self) -> usize {
        self.seen().loads
    }

    /// How many times the node was registered.
    pub(crate) fn registrations(&self) -> usize {
        self.seen().registrations
    }

    /// How many times the requests of other nodes were read.
    pub(crate) fn requests_read(&self) -> usize {
        self.seen().requests_read
    }

    /// Refuses every commit that contains such a change.
    pub(crate) fn refuse(&self, refuse: impl Fn(&Write) -> bool + Send + 'static) {
        self.seen().refuse = Some(Box::new(refuse));
    }

    /// Refuses touches from now on.
    pub(crate) fn refuse_touches(&self) {
        self.seen().refuses_touches = true;
    }

    /// Every commit takes this long.
    pub(crate) fn commits_take(&self, time: Duration) {
        self.seen().commit_time = time;
    }

    /// Every removal of the supervisor takes this long.
    pub(crate) fn removals_take(&self, time: Duration) {
        self.seen().removal_time = time;
    }

    /// The commits and removals so far, in the order of their beginnings.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.seen().spans.clone()
    }

    /// Forgets the transactions so far.
    pub(crate) fn forget_spans(&self) {
        self.seen().spans.clear();
    }

    async fn span<T>(&self, transaction: TransactionKind, call: impl Future<Output = T>) -> T {
        let begun = Instant::now();
        let at = {
            let mut seen = self.seen();
            seen.spans.push(Span { transaction, begun, ended: None });
            seen.spans.len() - 1
        };
        // A call whose caller stops waiting ends, too.
        let _end = SpanEnd { seen: self.seen.clone(), at };
        call.await
    }

    async fn removal<T>(&self, call: impl Future<Output = T>) -> T {
        let time = self.seen().removal_time;
        let call = async {
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            call.await
        };
        self.span(TransactionKind::Removal, call).await
    }

    /// The next `count` commits are written, but fail as if the database were away.
    pub(crate) fn lose_commits(&self, count: usize) {
        self.seen().lose = count;
    }

    /// The next `count` registrations are written, but fail as if the database were away.
    pub(crate) fn lose_registrations(&self, count: usize) {
        self.seen().lose_registrations = count;
    }

    /// The next `count` answers to requests of other nodes fail.
    pub(crate) fn lose_answers_to_requests(&self, count: usize) {
        self.seen().lose_answers = count;
    }

    /// Whether reports that the database has lost changes are refused from now on.
    pub(crate) fn refuse_reports(&self, refuse: bool) {
        self.seen().refuses_reports = refuse;
    }

    /// The presences of dead nodes are not cleared.
    pub(crate) fn clear_nobody(&self) {
        self.clear_so_often(0);
    }

    /// The presences of dead nodes are cleared in at most this number of transactions.
    pub(crate) fn clear_so_often(&self, times: usize) {
        self.seen().clears = Some(times);
    }

    /// How many transactions that clear presences of dead nodes were begun so far.
    pub(crate) fn cleared(&self) -> usize {
        self.seen().cleared
    }

    /// The row of a node is deleted at once, but the answer takes this long.
    pub(crate) fn retire_takes(&self, time: Duration) {
        self.seen().retire_time = time;
    }

    /// Commits are written, but are not answered until they are released.
    pub(crate) fn hang_after_commit(&self) {
        self.hanging.send_replace(true);
    }

    /// Rooms are loaded at once, but the snapshot is not returned before it is released.
    pub(crate) fn hang_after_load(&self) {
        self.late.send_replace(true);
    }

    /// Requests of other nodes are read at once, but their list is not returned before it is released.
    pub(crate) fn hang_after_reading_requests(&self) {
        self.late_requests.send_replace(true);
    }

    pub(crate) fn release_requests(&self) {
        self.late_requests.send_replace(false);
    }

    pub(crate) fn release_loads(&self) {
        self.late.send_replace(false);
    }

    pub(crate) fn release_commits(&self) {
        self.hanging.send_replace(false);
    }
}

/// Ends a span when it is dropped.
struct SpanEnd {
    seen: Arc<Mutex<Recorded>>,
    at: usize,
}

impl Drop for SpanEnd {
    fn drop(&mut self) {
        if let Some(span) = self.seen.lock().spans.get_mut(self.at) {
            span.ended = Some(Instant::now());
        }
    }
}

fn away() -> StoreError {
    StoreError::Unavailable(Arc::new(std::fmt::Error))
}

fn take_one(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

fn refused() -> StoreError {
    StoreError::Refused(Arc::new(std::fmt::Error))
}

#[async_trait]
impl<S: Store> Forward for RecordingStore<S> {
    type Inner = FaultyStore<S>;

    fn inner(&self) -> &FaultyStore<S> {
        &self.faults
    }

    async fn forward<T: Send + 'static>(
        &self,
        call: forward::Call,
        make: impl for<'a> Fn(&'a FaultyStore<S>) -> BoxFuture<'a, Result<T, StoreError>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let make = || make(&self.faults);
        match call {
            forward::Call::Commit { rooms, .. } => self.commit(&rooms, make()).await,
            forward::Call::Touch(seen) => self.touch(&seen, make()).await,
            forward::Call::Register => {
                self.seen().registrations += 1;
                let answer = make().await;
                if answer.is_ok() && take_one(&mut self.seen().lose_registrations) { Err(away()) } else { answer }
            }
            forward::Call::Load => {
                self.seen().loads += 1;
                let answer = make().await;
                let _ = self.late.subscribe().wait_for(|late| !late).await;
                answer
            }
            forward::Call::OpenRequests => {
                self.seen().requests_read += 1;
                let answer = make().await;
                let _ = self.late_requests.subscribe().wait_for(|late| !late).await;
                answer
            }
            forward::Call::Clear => {
                if self.seen().clears.as_mut().is_some_and(|clears| !take_one(clears)) {
                    return Err(away());
                }
                self.seen().cleared += 1;
                self.removal(make()).await
            }
            forward::Call::Remove | forward::Call::Sweep => self.removal(make()).await,
            forward::Call::ReportSetBack if self.seen().refuses_reports => Err(refused()),
            forward::Call::Answer if take_one(&mut self.seen().lose_answers) => Err(away()),
            forward::Call::Retire => {
                let answer = make().await;
                let time = self.seen().retire_time;
                tokio::time::sleep(time).await;
                answer
            }
            _ => make().await,
        }
    }
}

impl<S: Store> RecordingStore<S> {
    async fn commit<T>(
        &self,
        rooms: &[RoomWrites],
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let writes = || rooms.iter().flat_map(|room| &room.writes);
        let count = writes().count();
        let (time, refuse) = {
            let mut seen = self.seen();
            seen.commits.push(rooms.to_vec());
            seen.calls.push(WriterCall::Commit(count));
            (seen.commit_time, seen.refuse.as_ref().is_some_and(|refuse| writes().any(refuse)))
        };
        let call = async {
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            if refuse {
                return Err(refused());
            }
            let answer = call.await;
            let _ = self.hanging.subscribe().wait_for(|hanging| !hanging).await;
            if take_one(&mut self.seen().lose) { Err(away()) } else { answer }
        };
        self.span(TransactionKind::Commit(count), call).await
    }

    async fn touch<T>(
        &self,
        seen: &[(PresenceId, Duration)],
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let time = {
            let now = Instant::now();
            let mut watched = self.seen();
            watched.touches.extend(seen.iter().map(|(id, _)| (now, *id)));
            watched.calls.push(WriterCall::Touch(seen.len()));
            if watched.refuses_touches {
                return Err(refused());
            }
            watched.touch_time
        };
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        call.await
    }
}
