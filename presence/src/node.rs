//! One node, that is, one of the processes that share a database: the values that every actor of it needs, and no others.

mod asked_nodes;
mod backoff;
mod comparisons;
mod health;
mod open_requests;
mod registration;
mod standstills;
mod threaded_store;
mod threads;
mod writer;

pub(crate) use asked_nodes::AskedNodes;
pub(crate) use backoff::Backoff;
pub(crate) use comparisons::{Report, SLICES, Scope, SetBack};
pub(crate) use health::Outage;
pub(crate) use open_requests::ToDo;
pub(crate) use standstills::{LATE, Standstills};
pub(crate) use threads::{pause, within};
pub(crate) use writer::{Committed, Full, Priority, RemovalPermit, Submitted, Tried};

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::watch;
use tracing::info;

use crate::{
    Config, Error, Result,
    clock::{Clock, Tick},
    config::gather_time,
    name::{NodeId, NodeName, RoomName},
    signal::{EventPublisher, LeaveGroup, WeakLeaveGroup},
    store::{Store, StoreError},
    telemetry::LineLimit,
};

use self::{
    health::Health, registration::Registration, standstills::PULSE, threaded_store::ThreadedStore, threads::Threads,
    writer::Writer,
};

/// The values that every actor of this process needs. Each actor has an `Arc` of it.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// Every thread may call it. The calls run on the store's own thread.
    pub(crate) store: ThreadedStore,
    pub(crate) writer: Writer,
    pub(crate) signals: EventPublisher,
    pub(crate) health: Health,
    pub(crate) registration: Registration,
    /// The times at which this node could not receive what clients sent.
    pub(crate) standstills: Arc<Standstills>,
    pub(crate) threads: Threads,
    /// The limit of the log lines about changes that are refused because too many wait for the database.
    pub(crate) overloaded: LineLimit,
    id: watch::Sender<Option<NodeId>>,
    is_shutting_down: AtomicBool,
    /// How many tasks watch a presence of this node.
    #[cfg(test)]
    pub(crate) children: std::sync::atomic::AtomicIsize,
    /// How often a room checked whether a pending join is complete.
    #[cfg(test)]
    pub(crate) joins_looked_at: std::sync::atomic::AtomicUsize,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts the threads and the writer. `fenced` is called when the database refuses a write because the lease of this node has expired.
    ///
    /// # Panics
    /// Without a running actix system.
    pub(crate) fn start(
        config: Config,
        store: impl Store,
        name: NodeName,
        clock: Clock,
        fenced: impl Fn(NodeId) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let threads = Threads::start(config.room_threads());
        let store: Arc<dyn Store> = Arc::new(store);
        store.limit_waits(config.lease(), config.store_timeout());
        let health = Health::default();
        let node = Arc::new(Self {
            writer: Writer::new(
                config.max_pending_writes(),
                u16::try_from(config.store_lanes()).unwrap_or(1),
                health.clone(),
                fenced,
            ),
            registration: Registration::new(name, config.lease()),
            config,
            clock,
            store: ThreadedStore::new(store.clone(), threads.runtime().clone()),
            signals: EventPublisher::default(),
            health,
            standstills: Arc::default(),
            threads,
            overloaded: LineLimit::default(),
            id: watch::Sender::new(None),
            is_shutting_down: AtomicBool::new(false),
            #[cfg(test)]
            children: Default::default(),
            #[cfg(test)]
            joins_looked_at: Default::default(),
        });
        let gather = gather_time(node.config.touch_flush_interval());
        let timeout = node.config.store_timeout();
        let writes = node.writer.clone().run(store, node.clock.clone(), node.id.subscribe(), timeout, gather);
        node.spawn(writes);
        node.threads.time().spawn(node.pulse());
        node
    }

    /// A task that notes at each [`PULSE`] that the node runs, until the node is dropped.
    fn pulse(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let (node, clock, standstills) = (Arc::downgrade(self), self.clock.clone(), self.standstills.clone());
        async move {
            while node.strong_count() > 0 {
                if let Some(stood) = standstills.pulse(clock.now()) {
                    info!(?stood, "this node stood still; the silence of its clients during that time does not count");
                }
                tokio::time::sleep(PULSE).await;
            }
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// The current incarnation of this node; `None` while the database has no row of it.
    pub(crate) fn id(&self) -> Option<NodeId> {
        *self.id.borrow()
    }

    pub(crate) fn set_id(&self, id: Option<NodeId>) {
        self.id.send_replace(id);
    }

    /// Waits until this node is registered in the database.
    pub(crate) async fn until_registered(&self) {
        let _ = self.id.subscribe().wait_for(Option::is_some).await;
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.is_shutting_down.load(Ordering::Relaxed)
    }

    /// From now on, new sockets are refused.
    pub(crate) fn begin_shutdown(&self) {
        self.is_shutting_down.store(true, Ordering::Relaxed);
    }

    /// Fails if another `Rooms` of this process has the same node name.
    pub(crate) fn check_name(&self) -> Result<()> {
        let registration = &self.registration;
        if registration.is_name_in_use() { Err(Error::NameInUse { name: registration.name().clone() }) } else { Ok(()) }
    }

    /// Runs a task on the thread of the store.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.threads.runtime().spawn(task);
    }

    /// Awaits a call of the store, but no longer than `store_timeout`.
    pub(crate) async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T> {
        match within(self.config.store_timeout(), call).await {
            Some(answer) => Ok(answer?),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    /// Gathers presences that leave a room together for one event. After `store_timeout`, the event is fired even if it is not complete.
    pub(crate) fn leave_together(&self, room: &RoomName) -> LeaveGroup {
        let group = self.signals.leave_group(room);
        self.fire_after_timeout(vec![group.downgrade()]);
        group
    }

    /// Fires these events after `store_timeout`, even if they are not complete.
    pub(crate) fn fire_after_timeout(&self, unfinished: Vec<WeakLeaveGroup>) {
        let patience = self.config.store_timeout();
        self.spawn(async move {
            tokio::time::sleep(patience).await;
            unfinished.iter().for_each(WeakLeaveGroup::send);
        });
    }
}
