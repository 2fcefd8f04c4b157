//! The state of this node as an application and a load balancer see it, and its shutdown.

use std::time::Duration;

use futures_util::FutureExt;
use tracing::{info, warn};

use crate::{
    Error, Rooms,
    delivery::ToHub,
    name::{NodeId, NodeName},
    node::{Outage, pause, within},
    room::ToRoom,
    store::{NodeState, NodeStore},
};

use super::upkeep;

/// How long a shutdown may take in all.
const SHUTDOWN: Duration = Duration::from_secs(8);
/// How long a shutdown waits at most for actors that have subscribed to changes and have not received all events yet.
const SUBSCRIBERS: Duration = Duration::from_secs(1);
/// The time over which sockets with a resume token are closed, so that their clients do not all return at once.
const SPREAD: Duration = Duration::from_secs(3);

/// Why joins on this node are not expected to work. Returned by [`Rooms::not_ready`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The node is not registered in the database yet.
    #[error("the node is starting")]
    Starting,
    /// The database did not answer the last query. The log has the reason.
    #[error("the database is away")]
    StoreAway,
    /// The database answers, but its user lacks a right that a node needs. The log names the right.
    #[error("the user of the database lacks a right")]
    MissingRight,
    /// [`Rooms::shutdown`] was called.
    #[error("shutting down")]
    ShuttingDown,
    /// Other rooms of this process were started first, have the name of this node, and still run. These rooms never serve.
    #[error("other rooms of this process have the name of this node")]
    NameInUse,
    /// Another process took over the name of this node.
    #[error("another process has the name of this node")]
    Superseded,
}

impl Rooms {
    /// The id of the current incarnation of this node; `None` while the node is not registered in the database.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.0.node.id()
    }

    /// Resolves when the node is registered in the database, so that joins work. It does not resolve while
    /// [`not_ready`](Self::not_ready) returns a reason: it waits as long as the database is away, and for ever after a shutdown or if other
    /// rooms of this process have the name of this node.
    pub async fn ready(&self) {
        self.0.node.until_registered().await;
    }

    /// Whether joins are expected to work: the node is registered in the database, the last query was answered, and no shutdown has begun.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.not_ready().is_none()
    }

    /// Why joins are not expected to work; `None` if the node [is ready](Self::is_ready).
    ///
    /// ```
    /// use actix_web::{HttpResponse, web};
    /// use presence::Rooms;
    ///
    /// async fn readyz(rooms: web::Data<Rooms>) -> HttpResponse {
    ///     match rooms.not_ready() {
    ///         None => HttpResponse::Ok().body("ready"),
    ///         Some(reason) => HttpResponse::ServiceUnavailable().body(reason.to_string()),
    ///     }
    /// }
    /// ```
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

    /// Whether another process took over the name of this node. This process then closes its sockets and accepts none.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        *self.0.node.registration.superseded.borrow()
    }

    /// Fails if another process took over the name of this node. An application returns this error from `main` when the server has ended,
    /// so that the process ends with an error and its service manager starts it again.
    ///
    /// # Errors
    /// [`NotReady::Superseded`].
    pub fn check_not_superseded(&self) -> Result<(), NotReady> {
        if self.is_superseded() { Err(NotReady::Superseded) } else { Ok(()) }
    }

    /// Resolves when another process took over the name of this node and has ended since. The application should then end this process
    /// with an error ([`check_not_superseded`](Self::check_not_superseded)), so that its service manager starts it again.
    ///
    /// When the name is taken over, all sockets of this process are closed with 1012 and no socket is accepted. This waits until the other
    /// process has ended: if two processes with one name were started again whenever they end, they would take the name from each other for
    /// ever. A load balancer can tell the two processes apart by [`is_ready`](Self::is_ready).
    pub async fn superseded(&self) {
        let registration = &self.0.node.registration;
        let _ = registration.superseded.subscribe().wait_for(|is_superseded| *is_superseded).await;
        while self.is_in_use(registration.name()).await {
            pause(self.0.node.config.lease()).await;
        }
    }

    /// Whether another process may be running under this name. If the database does not answer, this is assumed.
    async fn is_in_use(&self, name: &NodeName) -> bool {
        let lease = self.0.node.config.lease();
        let Ok(nodes) = self.0.node.bounded(self.0.node.store.live_nodes()).await else { return true };
        nodes.iter().filter(|node| node.name == *name).any(|node| match node.state {
            NodeState::Live { .. } => true,
            // That process may still run and not reach the database.
            NodeState::Expired { since } => since < lease,
            NodeState::Fenced { .. } => false,
        })
    }

    /// Ends this node. New sockets and joins are refused, open sockets are closed with 1012, their presences leave or are held, pending
    /// changes are written to the database, and the row of the node is deleted. It takes at most 9 s. If the database is away, the log says
    /// how many changes were not written. Call it before the server is stopped.
    ///
    /// The connection of a client that does not answer its Close within 1 s is reset. The time that the shutdown takes is added to the graces
    /// of presences that are held already.
    ///
    /// There is one shutdown, however often this is called. Each caller waits for its end, and it continues when a caller stops waiting.
    ///
    /// ```
    /// # use presence::{Config, MemoryStore, NodeName, PruningSupervisor, Rooms};
    /// # #[actix_web::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("web-1")?);
    /// # PruningSupervisor::spawn(&rooms);
    /// # rooms.ready().await;
    /// rooms.shutdown().await;
    /// assert!(rooms.is_shutting_down() && !rooms.is_ready());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn shutdown(&self) {
        let shutdown = self.0.shutdown.get_or_init(|| {
            self.0.node.begin_shutdown();
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
            // Leaves are on their way from connections to rooms and on to the writer. These messages also stop rooms that are idle.
            self.0.node.writer.stop_gathering_touches();
            self.0.table.names().iter().for_each(|room| {
                self.0.table.send_running(room, ToRoom::LeaveSocketless);
                self.0.table.send_running(room, ToRoom::WriteTouches);
            });
            let _ = within(SHUTDOWN / 4, self.settled()).await;
            // The rounds stop first: a renewal that fails because the row is gone would make the node begin another incarnation.
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
                "the end of this node could not be written: what it left is cleaned up when it starts again, or by another node"
            );
        }
        self.stop_rounds().await;
        // The thread that sends events to subscribed actors is about to stop, so their last events are awaited.
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

    /// Resolves when all rooms have stopped and the writer is idle.
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
