//! The life of this node: from the moment the database knows of it to its shutdown.

use std::time::Duration;

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tracing::{info, warn};

use crate::{
    Error, Rooms,
    delivery::message::ToHub,
    name::{NodeId, NodeName},
    node::{
        health::Outage,
        threads::{pause, within},
    },
    room::message::ToRoom,
    store::{NodeState, NodeStore},
};

use super::upkeep;

/// How long a shutdown may take in all.
const SHUTDOWN: Duration = Duration::from_secs(8);
/// How long a shutdown waits at most for actors that subscribed to changes and have events waiting.
const SUBSCRIBERS: Duration = Duration::from_secs(1);
/// Over which time those sockets are closed that can come back, so that they do not all come back at once.
const SPREAD: Duration = Duration::from_secs(3);

/// The shutdown of a node, for which any number of callers can wait.
pub(super) type Shutdown = Shared<BoxFuture<'static, ()>>;

/// Why a node cannot be expected to let anybody in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The database does not know of this node yet.
    #[error("the node is starting")]
    Starting,
    /// The database did not answer when it was last asked. The log says why.
    #[error("the database is away")]
    StoreAway,
    /// The database answers, but its user lacks a right that a node needs. The log says which.
    #[error("the user of the database lacks a right")]
    MissingRight,
    /// A shutdown has begun.
    #[error("shutting down")]
    ShuttingDown,
    /// Other rooms of this process have the name of this node, and still run. They were started first, and these never serve.
    #[error("other rooms of this process have the name of this node")]
    NameInUse,
    /// Another process has taken the name of this node.
    #[error("another process has the name of this node")]
    Superseded,
}

impl Rooms {
    /// Which life of this node it is; `None` until the database knows of it.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.0.node.id()
    }

    /// Resolves once the database knows of this node, so that joins work. It does not resolve as long as [`not_ready`](Self::not_ready)
    /// returns a reason, and never after a shutdown, or if other rooms of this process have the name of this node.
    pub async fn ready(&self) {
        self.0.node.until_registered().await;
    }

    /// Whether joins can be expected to work: the database knows of this node and answered when last asked, and no shutdown
    /// has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.not_ready().is_none()
    }

    /// Why joins cannot be expected to work; `None` if [they can](Self::is_ready).
    #[must_use]
    pub fn not_ready(&self) -> Option<NotReady> {
        if self.is_superseded() {
            return Some(NotReady::Superseded);
        }
        if self.is_shutting_down() {
            return Some(NotReady::ShuttingDown);
        }
        if self.0.node.registration.is_name_in_use() {
            return Some(NotReady::NameInUse);
        }
        match self.0.node.health.outage() {
            Some(Outage::LacksRight) => Some(NotReady::MissingRight),
            Some(Outage::Away | Outage::NeedsOperator) => Some(NotReady::StoreAway),
            None if self.node().is_none() => Some(NotReady::Starting),
            None => None,
        }
    }

    /// Whether [`shutdown`](Self::shutdown) has begun.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.0.node.is_shutting_down()
    }

    /// How many rooms are in the memory of this node.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.table.len()
    }

    /// How many sockets are open on this node.
    #[must_use]
    pub fn sockets(&self) -> usize {
        *self.0.hubs.sockets.borrow()
    }

    /// Whether another process took over the name of this node, so that this one serves nobody any more.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        *self.0.node.registration.superseded.borrow()
    }

    /// An error if another process took over the name of this node: `main` returns it when the server has ended, so that the
    /// process ends with an error and is started again.
    ///
    /// # Errors
    /// [`NotReady::Superseded`].
    pub fn check_not_superseded(&self) -> Result<(), NotReady> {
        if self.is_superseded() { Err(NotReady::Superseded) } else { Ok(()) }
    }

    /// Resolves when another process took over the name of this node, and has ended since. The process should then end with an
    /// error ([`check_not_superseded`](Self::check_not_superseded)), so that it is started again.
    ///
    /// From the moment that the name is taken all sockets are closed with 1012 and nobody is let in. This waits until the other
    /// is gone, since two processes of one name that are started again whenever they end would take the name from each other
    /// for ever, and no visitor could stay with either. What tells them apart for a load balancer is [`is_ready`](Self::is_ready).
    pub async fn superseded(&self) {
        let registration = &self.0.node.registration;
        let _ = registration.superseded.subscribe().wait_for(|is_superseded| *is_superseded).await;
        while self.is_in_use(registration.name()).await {
            pause(self.0.node.config.lease()).await;
        }
    }

    /// Whether another process lives under this name, as far as is known.
    async fn is_in_use(&self, name: &NodeName) -> bool {
        let lease = self.0.node.config.lease();
        let Ok(nodes) = self.0.node.bounded(self.0.node.store.nodes()).await else { return true };
        nodes.iter().filter(|node| node.name == *name).any(|node| match node.state {
            NodeState::Live { .. } => true,
            // It may be cut off from the database, as this process would have been.
            NodeState::Expired { since } => since < lease,
            NodeState::Fenced { .. } => false,
        })
    }

    /// Ends this node: no socket is let in any more, those that are open are closed with 1012, every presence leaves or is
    /// held, what waits for the database is written, and the node's row is removed. Takes at most 9 s, also if the database is away:
    /// then the log says how many changes were not written. Call it before stopping the server.
    ///
    /// A client that does not answer its Close is reset after 1 s. The graces that were running when this was called do not
    /// run meanwhile.
    ///
    /// There is one shutdown, however often this is called: each caller waits for its end. It continues when a caller stops waiting.
    pub async fn shutdown(&self) {
        let shutdown = self.0.shutdown.get_or_init(|| {
            self.0.node.shuts_down();
            let rooms = self.clone();
            // The only thread that neither a consumer nor the database can block.
            let task = self.0.node.threads.time().spawn(async move { rooms.shut_down().await });
            task.map(drop).boxed().shared()
        });
        shutdown.clone().await;
    }

    async fn shut_down(&self) {
        let begun = self.0.node.now();
        info!(sockets = self.sockets(), "shutting down");
        self.0.table.names().iter().for_each(|room| self.0.table.send_running(room, ToRoom::HoldAll));
        let spread = SPREAD.min(self.0.node.config.grace() / 3);
        self.0.hubs.all().iter().for_each(|hub| hub.addr.do_send(ToHub::Restart { within: spread }));
        let drain = async {
            let sockets = (spread + self.0.node.config.close_timeout()).min(SHUTDOWN * 5 / 8);
            let mut open = self.0.hubs.sockets.subscribe();
            let _ = within(sockets, open.wait_for(|open| *open == 0)).await;
            // Leaves are on their way from connections to rooms to the writer. A room that lingers sees that it need not.
            self.0.node.writer.stop_gathering_touches();
            self.0.table.names().iter().for_each(|room| {
                self.0.table.send_running(room, ToRoom::LeaveSocketless);
                self.0.table.send_running(room, ToRoom::WriteTouches);
            });
            let _ = within(SHUTDOWN / 4, self.settled()).await;
            // From here on nothing may be refused to the node and make it begin another life.
            self.stop_rounds().await;
            let node = self.node();
            self.0.node.set_id(None);
            if let Some(node) = node {
                upkeep::Bulk::new(self)
                    .add(self.0.node.bounded(self.0.node.store.retire(node, self.0.node.now().since(begun))).await?);
            }
            Ok::<_, Error>(())
        };
        if !matches!(within(SHUTDOWN, drain).await, Some(Ok(()))) {
            warn!(
                changes = self.0.node.writer.pending(),
                "the end of this node could not be written: what it leaves is dealt with when it starts again, or by another"
            );
        }
        self.stop_rounds().await;
        // Actors that subscribed get their events from a thread that stops.
        self.0.ending.send_replace(true);
        let _ = within(SUBSCRIBERS, self.0.ending.closed()).await;
        self.0.table.end();
        self.0.hubs.all().iter().for_each(|hub| hub.addr.do_send(ToHub::End));
        self.0.node.threads.stop();
    }

    async fn stop_rounds(&self) {
        if let Some(supervisor) = self.0.supervisor.get() {
            let _ = supervisor.send(upkeep::Stop).await;
        }
        if let Some(actor) = self.0.node_actor.get() {
            let _ = actor.send(upkeep::Stop).await;
        }
    }

    /// Resolves when no room has anything under way and the writer is idle.
    async fn settled(&self) {
        loop {
            self.0.node.writer.idle().await;
            if self.running() == 0 {
                return;
            }
            pause(Duration::from_millis(5)).await;
        }
    }
}
