//! The rounds that a node does for its sockets. Without them sockets would be cut off, or see a wrong list of members.
//!
//! It registers the process in the database and renews its lease, registers again when the lease has expired, carries out requests of
//! other nodes, and compares rooms with the database, which is how changes of other nodes arrive.

use std::time::Duration;

use actix::{Actor, AsyncContext, Context, WrapFuture};
use tracing::{debug, error};

use crate::{Error, Rooms, name::NodeName, telemetry::report};

use super::Upkeep;

/// Several rooms notice one after the other that the database has lost changes. One round is enough for all of them.
const NOTICED_TOGETHER: Duration = Duration::from_millis(100);

/// Keeps a node registered in the database, from the start of the rooms to their shutdown.
#[derive(Debug)]
pub(crate) struct NodeActor {
    pub(super) work: Upkeep,
}

impl Rooms {
    /// Starts the actor that registers this node, unless other rooms of this process have its name.
    pub(crate) fn register(&self, may_have: impl FnOnce(&Self, &NodeName) -> bool) {
        let registration = &self.0.node.registration;
        if !may_have(self, registration.name()) {
            error!("{}", Error::NameInUse { name: registration.name().clone() });
            registration.mark_name_in_use();
        }
        self.0.node_actor.get_or_init(|| {
            let work = Upkeep::new(self);
            NodeActor::start_in_arbiter(self.0.node.threads.store(), move |_: &mut Context<NodeActor>| NodeActor {
                work,
            })
        });
    }
}

impl Actor for NodeActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (work, config) = (&self.work, &self.work.node.config);
        if work.node.check_name().is_err() {
            return;
        }
        let beginning = work.clone();
        ctx.spawn(async move { beginning.begin().await }.into_actor(self));
        work.every(ctx, config.lease() / 3, |work| async move { work.renew().await });
        let actor = ctx.address();
        work.node.registration.open_requests().look_at(work.node.now().after(config.sweep_interval()));
        let due = |work: Upkeep| async move { work.requests_are_due().await };
        work.every_or_when(ctx, Duration::MAX, due, move |work| {
            let actor = actor.clone();
            async move {
                if let Err(error) = work.look_for_requests(&actor).await {
                    debug!(error = %report(&error), "requests of other nodes could not be read; it will be tried again");
                }
            }
        });
        work.every(ctx, config.sweep_interval(), |work| async move {
            if let Err(error) = work.withdraw().await {
                debug!(error = %report(&error), "a request could not be withdrawn; it will be tried again");
            }
        });
        work.every(ctx, config.sweep_interval(), |work| async move {
            if let Err(error) = work.hold_former().await {
                debug!(error = %report(&error), "the presences of an earlier incarnation are not held yet");
            }
        });
        let set_back = |work: Upkeep| async move {
            work.node.registration.set_back.notified().await;
            tokio::time::sleep(NOTICED_TOGETHER).await;
        };
        work.every_or_when(ctx, config.reconcile_interval(), set_back, |work| async move {
            if let Err(error) = work.reconcile_recent().await {
                debug!(error = %report(&error), "rooms could not be compared with the store");
            }
        });
    }
}
