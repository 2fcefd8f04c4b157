//! A process as one of those that share a database: what every actor of it needs, and no more.

pub(crate) mod apart;
pub(crate) mod backoff;
pub(crate) mod health;
pub(crate) mod listening;
pub(crate) mod open_requests;
pub(crate) mod registration;
pub(crate) mod threads;
pub(crate) mod writer;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tracing::info;

use crate::{
    Config, Error, Result,
    clock::{Clock, Tick},
    name::{NodeId, NodeName, RoomName},
    signal::{LeaveGroup, Signals, WeakLeaveGroup},
    store::{Store, StoreError},
    telemetry::LineLimit,
};

use self::{
    apart::Apart,
    health::Health,
    listening::{Listening, PULSE},
    registration::Registration,
    threads::{Threads, within},
    writer::Writer,
};

/// How long touches are gathered at most before they are written.
const MAX_GATHER: Duration = Duration::from_secs(4);

/// What every actor of this process needs. Each holds it.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    /// Its calls may be made on any thread, and run on its own.
    pub(crate) store: Apart,
    pub(crate) writer: Writer,
    pub(crate) signals: Signals,
    pub(crate) health: Health,
    pub(crate) registration: Registration,
    /// When this node was there to receive what clients sent.
    pub(crate) listening: Arc<Listening>,
    pub(crate) threads: Threads,
    /// The limit of the log lines about changes that are refused because too many wait for the database.
    pub(crate) overloaded: LineLimit,
    id: watch::Sender<Option<NodeId>>,
    is_shutting_down: AtomicBool,
    /// How many presences are looked after.
    #[cfg(test)]
    pub(crate) children: std::sync::atomic::AtomicIsize,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Node {
    /// Starts the threads and the writer. `fenced` is called when the database refuses a write because the lease of this node is over.
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
        let health = Health::default();
        let node = Arc::new(Self {
            writer: Writer::new(config.max_pending_writes(), health.clone(), fenced),
            registration: Registration::new(name, config.lease()),
            config,
            clock,
            store: Apart::new(store.clone(), threads.runtime().clone()),
            signals: Signals::default(),
            health,
            listening: Arc::default(),
            threads,
            overloaded: LineLimit::default(),
            id: watch::Sender::new(None),
            is_shutting_down: AtomicBool::new(false),
            #[cfg(test)]
            children: Default::default(),
        });
        let gather = MAX_GATHER.min(node.config.touch_flush_interval() / 4);
        let timeout = node.config.store_timeout();
        let writes = node.writer.clone().run(store, node.clock.clone(), node.id.subscribe(), timeout, gather);
        node.spawn(writes);
        node.threads.time().spawn(node.pulse());
        node
    }

    /// Notes again and again that the node runs, as long as it does.
    fn pulse(self: &Arc<Self>) -> impl Future<Output = ()> + use<> {
        let (node, clock, listening) = (Arc::downgrade(self), self.clock.clone(), self.listening.clone());
        async move {
            while node.strong_count() > 0 {
                if let Some(stood) = listening.pulse(clock.now()) {
                    info!(?stood, "this node stood still; that its clients were silent meanwhile does not count");
                }
                tokio::time::sleep(PULSE).await;
            }
        }
    }

    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// Its current incarnation; `None` until the database knows of it.
    pub(crate) fn id(&self) -> Option<NodeId> {
        *self.id.borrow()
    }

    pub(crate) fn set_id(&self, id: Option<NodeId>) {
        self.id.send_replace(id);
    }

    /// Resolves once the database knows of this node.
    pub(crate) async fn is_known(&self) {
        let _ = self.id.subscribe().wait_for(Option::is_some).await;
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.is_shutting_down.load(Ordering::Relaxed)
    }

    /// From now on no socket is let in.
    pub(crate) fn shuts_down(&self) {
        self.is_shutting_down.store(true, Ordering::Relaxed);
    }

    /// Whether this node has a name that no other rooms of this process have.
    pub(crate) fn check_name(&self) -> Result<()> {
        let registration = &self.registration;
        if registration.is_name_in_use() { Err(Error::NameInUse { name: registration.name().clone() }) } else { Ok(()) }
    }

    /// Runs something on the thread of the store.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.threads.runtime().spawn(task);
    }

    /// What the store answers within its time-out.
    pub(crate) async fn bounded<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T> {
        match within(self.config.store_timeout(), call).await {
            Some(answer) => Ok(answer?),
            None => Err(Error::StoreUnavailable(None)),
        }
    }

    /// Gathers those who leave a room together for one event, which is fired in any case when the store has had its time-out.
    pub(crate) fn leave_together(&self, room: &RoomName) -> LeaveGroup {
        let together = self.signals.leave_group(room);
        self.tell_in_time(vec![together.downgrade()]);
        together
    }

    /// Fires these events when the store has had its time-out, complete or not.
    pub(crate) fn tell_in_time(&self, unfinished: Vec<WeakLeaveGroup>) {
        let patience = self.config.store_timeout();
        self.spawn(async move {
            tokio::time::sleep(patience).await;
            unfinished.iter().for_each(WeakLeaveGroup::send);
        });
    }
}
