//! The incarnation of this node in the database: how it begins, how its lease is renewed, and what happens when it is over.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use actix::{AsyncContext, Handler, Message, WrapFuture};
use parking_lot::{Mutex, MutexGuard};
use tracing::{debug, error, info, warn};

use crate::{
    CloseCode, Error, Result, Rooms,
    delivery::ToHub,
    name::NodeId,
    node::{Backoff, within},
    room::ToRoom,
    store::{LiveNode, NodeState, NodeStore, RoomStore, Store, StoreError},
    telemetry::report,
};

use super::{CLI, NodeActor, Upkeep};

/// How long a superseded node waits for the database to name the process that took over.
const NAMING: Duration = Duration::from_secs(1);

/// The incarnations that this process has begun.
fn incarnations() -> MutexGuard<'static, HashSet<NodeId>> {
    static ALL: LazyLock<Mutex<HashSet<NodeId>>> = LazyLock::new(Mutex::default);
    ALL.lock()
}

impl Upkeep {
    /// Warns if other nodes use this database: nodes see each other's changes late, and do not receive each other's messages.
    async fn warn_of_others(&self, node: NodeId) {
        let Ok(nodes) = self.node.bounded(self.node.store.live_nodes()).await else { return };
        let others = nodes.iter().filter(|other| other.node != node && matches!(other.state, NodeState::Live { .. }));
        let others: Vec<_> = others.map(|other| other.name.as_str()).filter(|name| !name.starts_with(CLI)).collect();
        if !others.is_empty() {
            warn!(
                ?others,
                every = ?self.node.config.reconcile_interval(),
                "other nodes use this database: their changes arrive when rooms are compared with it, and their messages do not arrive"
            );
        }
    }

    /// Begins an incarnation of this node. It tries until the database answers, and ends early if another process took over the name.
    pub(super) async fn begin(&self) {
        let mut backoff = Backoff::default();
        let mut node = NodeId::random();
        loop {
            match self.register(node).await {
                Ok(former) => {
                    info!(name = %self.node.registration.name(), %node, "this node is registered in the store");
                    self.node.registration.uncleared().extend(former);
                    self.node.set_id(Some(node));
                    self.node.health.renewal_succeeded();
                    if let Err(error) = self.hold_former().await {
                        debug!(error = %report(&error), "the presences of an earlier incarnation are not held yet");
                    }
                    self.warn_of_others(node).await;
                    return;
                }
                // An earlier attempt succeeded without an answer, and the incarnation that it began is over by now.
                Err(Error::StoreUnavailable(Some(StoreError::Fenced { superseded, .. }))) => {
                    if superseded {
                        self.superseded().await;
                        return;
                    }
                    node = NodeId::random();
                }
                Err(error) => self.away(&error),
            }
            backoff.pause().await;
        }
    }

    async fn register(&self, node: NodeId) -> Result<Vec<NodeId>> {
        let (asked, lease) = (self.node.now(), self.node.config.lease());
        self.node.bounded(self.node.store.prepare()).await?;
        let former =
            self.node.bounded(self.node.store.register(node, self.node.registration.name().clone(), lease)).await?;
        self.node.registration.lease().renewed(asked);
        self.node.writer.own_writes().begin(node);
        incarnations().insert(node);
        Ok(former)
    }

    pub(super) async fn renew(&self) {
        let Ok(node) = self.id() else { return };
        let (asked, lease) = (self.node.now(), self.node.config.lease());
        let renewal = self.node.writer.own_writes().renew(node);
        let answer = tokio::time::timeout(lease / 3, self.node.store.renew(node, lease)).await;
        match answer.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(Arc::new(elapsed)))) {
            Ok(time) => {
                let mut lease = self.node.registration.lease();
                if lease.observe_time(asked, self.node.now(), time) {
                    warn!("the clock of the database jumped forward: for one lease no other node is considered dead");
                }
                lease.renewed(asked);
                renewal.confirm();
                self.node.health.renewal_succeeded();
            }
            Err(StoreError::Fenced { node, superseded }) => self.fenced(node, superseded).await,
            Err(error) if error.is_tables_missing() => {
                self.node.registration.lease().failed();
                self.away(&error);
                self.begin_again(
                    node,
                    "the tables of the database are gone: the node creates them again, and its sockets join again",
                )
                .await;
            }
            Err(error) => {
                self.node.registration.lease().failed();
                self.away(&error);
            }
        }
    }

    fn away(&self, error: &(dyn std::error::Error + 'static)) {
        self.node.health.renewal_failed(&(Arc::new(self.node.store.clone()) as Arc<dyn Store>), error);
    }

    /// Whether this node may decide now that other nodes are dead. The lease is renewed first, since the renewal shows whether the clock of
    /// the database, by which other nodes are judged, has jumped.
    pub(super) async fn may_judge(&self) -> bool {
        if !self.node.registration.lease().may_judge(self.node.now()) {
            return false;
        }
        self.renew().await;
        self.node.registration.lease().may_judge(self.node.now())
    }

    /// Handles the answer of the database that this incarnation is over: a new one begins, unless another process took over the name.
    async fn fenced(&self, node: NodeId, superseded: bool) {
        if superseded {
            if self.node.id() == Some(node) {
                self.node.set_id(None);
                self.node.registration.lease().failed();
                self.superseded().await;
            }
            return;
        }
        self.begin_again(
            node,
            "other nodes considered this node dead; it begins a new incarnation and its sockets join again",
        )
        .await;
    }

    /// Begins a new incarnation, and makes the presences of open sockets join again. It does nothing if `node` is not the current one.
    async fn begin_again(&self, node: NodeId, why: &'static str) {
        if self.node.id() != Some(node) {
            return;
        }
        self.node.set_id(None);
        self.node.registration.lease().failed();
        warn!(name = %self.node.registration.name(), "{why}");
        let is_forgotten = self.is_forgotten(node).await;
        self.begin().await;
        for room in self.rooms.table().names() {
            if is_forgotten {
                self.rooms.table().send_running(&room, ToRoom::WentBack { position: None, may_differ: true });
            }
            self.rooms.table().send_running(&room, ToRoom::Rejoin);
        }
    }

    /// Whether the database does not know this incarnation, or cannot say so. Others forget one that they have cleaned up after. But the
    /// database may also have lost it with other changes, and what it has confirmed to this incarnation shows no loss to the next one.
    async fn is_forgotten(&self, node: NodeId) -> bool {
        let known = self.node.bounded(self.node.store.recent_changes(node, Duration::MAX, 1)).await;
        !known.is_ok_and(|changes| changes.own_writes.is_some())
    }

    /// Logs which process took over the name of this node, and since when, and closes all sockets.
    async fn superseded(&self) {
        let nodes = within(NAMING, self.node.store.live_nodes()).await.and_then(Result::ok).unwrap_or_default();
        let is_other = |other: &&LiveNode| {
            other.name == *self.node.registration.name() && matches!(other.state, NodeState::Live { .. })
        };
        let other = nodes.iter().find(is_other);
        let (node, age) = (other.map(|other| other.node), other.map(|other| other.age));
        let process = other.and_then(|other| other.process.as_deref()).unwrap_or("a process that is not known");
        if node.is_some_and(|node| incarnations().contains(&node)) {
            error!(
                name = %self.node.registration.name(), other = node.map(display), since = age.map(debug),
                "this process started its rooms twice under one name, and the later take the place of the earlier: start them once, before `HttpServer::new`, and clone the handle into its closure"
            );
        } else {
            error!(
                name = %self.node.registration.name(), other = process, node = node.map(display), since = age.map(debug),
                "another process took over the name of this node, which serves nobody while that one runs: two processes of one node name on one database do this to one another; give each its own"
            );
        }
        self.node.begin_shutdown();
        self.node.registration.superseded.send_replace(true);
        for hub in self.rooms.hubs().all() {
            hub.addr.do_send(ToHub::CloseAll { code: CloseCode::RESTARTING, reason: "the node is restarting" });
        }
    }
}

/// Reports that the database refused a write since this incarnation is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Fenced(NodeId);

impl Rooms {
    /// The database refused a write because `dead`, an incarnation of this node, is fenced.
    pub(in crate::rooms) fn report_fenced(&self, dead: NodeId) {
        if let Some(actor) = self.0.node_actor.get() {
            actor.do_send(Fenced(dead));
        }
    }
}

impl Handler<Fenced> for NodeActor {
    type Result = ();

    fn handle(&mut self, Fenced(dead): Fenced, ctx: &mut Self::Context) {
        if self.work.node.id() != Some(dead) {
            return;
        }
        // The renewal shows whether another process took over the name.
        let work = self.work.clone();
        ctx.spawn(async move { work.renew().await }.into_actor(self));
    }
}
