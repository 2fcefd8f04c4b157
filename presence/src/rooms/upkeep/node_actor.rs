//! What a node does for its sockets as time passes: without any of it, they would be cut off or see a list that is wrong.
//!
//! It makes the process known to the database and renews its lease, begins again when the database says that the lease is over, carries
//! out what other nodes request, and compares rooms with the database, by which changes of other nodes arrive.

use actix::{Actor, AsyncContext, Context, WrapFuture};
use tracing::{debug, error};

use crate::{Error, Rooms, name::NodeName, telemetry::report};

use super::Work;

/// Keeps a node known to the database. Runs from the start of the rooms to their shutdown.
#[derive(Debug)]
pub(crate) struct NodeActor {
    pub(super) work: Work,
}

impl Rooms {
    /// Makes this node known, if it may have its name.
    pub(crate) fn register(&self, may_have: impl FnOnce(&Self, &NodeName) -> bool) {
        let registration = &self.0.node.registration;
        if !may_have(self, registration.name()) {
            error!("{}", Error::NameInUse { name: registration.name().clone() });
            registration.mark_name_in_use();
        }
        self.0.node_actor.get_or_init(|| {
            let work = Work::new(self);
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
        work.every(ctx, config.sweep_interval(), move |work| {
            let actor = actor.clone();
            async move {
                if let Err(error) = work.answer_others(&actor).await {
                    debug!(error = %report(&error), "not known what other nodes ask of this one, or not answered");
                }
            }
        });
        work.every(ctx, config.sweep_interval(), |work| async move {
            if let Err(error) = work.withdraw().await {
                debug!(error = %report(&error), "a request is not withdrawn; it will be tried again");
            }
        });
        work.every(ctx, config.sweep_interval(), |work| async move {
            if let Err(error) = work.hold_former().await {
                debug!(error = %report(&error), "what a former incarnation left is not held yet");
            }
        });
        work.every(ctx, config.reconcile_interval(), |work| async move {
            if let Err(error) = work.reconcile().await {
                debug!(error = %report(&error), "rooms could not be compared with the store");
            }
        });
    }
}
