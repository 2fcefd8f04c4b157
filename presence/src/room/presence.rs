//! One presence's deadline.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use actix::{Actor, ActorContext, ActorState, Recipient};
use pin_project_lite::pin_project;
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep},
};

use crate::{
    clock::Tick,
    delivery::{inquiry::UNANSWERED, touch::Touch},
    model::deadline::Deadline,
    name::PresenceId,
    node::Node,
};

use super::message::ToRoom;

/// Looks after one presence of this node: tells the room when it is stale, and the writer when it was seen.
///
/// It owns no interval. Its one timer fires when there may be something to do, looks at the last touch, and is set again
/// for what is left. A `RoomActor` starts it, and starts it anew should it die.
///
/// It is kept small: there is one for each presence. So it runs in a [`Life`] of its own instead of actix's `Context`, whose
/// mailbox and lists of futures would take twice as much as all the rest.
#[derive(Debug)]
pub(crate) struct PresenceActor {
    touch: Touch,
    node: Arc<Node>,
    /// The last touch that the writer was told of.
    told: Tick,
    guard: DeathGuard,
}

/// The child's way to its room. Tells it that the child died, if it did: one that is merely stopped was told so by its room.
#[derive(Debug)]
pub(crate) struct DeathGuard {
    id: PresenceId,
    /// Shared by all children of the room: each copy of a recipient takes two allocations.
    room: Rc<Recipient<ToRoom>>,
}

impl DeathGuard {
    pub(crate) const fn new(id: PresenceId, room: Rc<Recipient<ToRoom>>) -> Self {
        Self { id, room }
    }
}

impl Drop for DeathGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.room.do_send(ToRoom::ChildDied(self.id));
        }
    }
}

/// What surrounds a presence: no mailbox, since nobody tells it anything. Its room ends it by letting go of the [`Child`].
#[derive(Debug)]
pub(crate) struct Life(ActorState);

impl ActorContext for Life {
    fn stop(&mut self) {
        self.0 = ActorState::Stopped;
    }

    fn terminate(&mut self) {
        self.0 = ActorState::Stopped;
    }

    fn state(&self) -> ActorState {
        self.0
    }
}

impl Actor for PresenceActor {
    type Context = Life;

    #[cfg(test)]
    fn started(&mut self, _: &mut Life) {
        self.node.children.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(test)]
    fn stopped(&mut self, _: &mut Life) {
        self.node.children.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A presence that is looked after, in a task of its own, until this is dropped.
#[derive(Debug)]
pub(crate) struct Child(JoinHandle<()>);

impl Child {
    /// Whether it lives.
    pub(crate) fn is_alive(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pin_project! {
    /// An actor that has started, and stops with this: also when its room ends it, and when it fails.
    ///
    /// Written out, since an `async` block takes 8 bytes more. As it is, a task takes 256 bytes, and the next size is 384.
    struct Living {
        actor: PresenceActor,
        life: Life,
        #[pin]
        timer: Sleep,
    }

    impl PinnedDrop for Living {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.life.terminate();
            this.actor.stopped(this.life);
        }
    }
}

impl Future for Living {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        while this.life.state().alive() {
            if this.life.0 == ActorState::Running {
                ready!(this.timer.as_mut().poll(cx));
            }
            this.life.0 = ActorState::Running;
            let wait = this.actor.look();
            this.timer.as_mut().reset(Instant::now() + wait);
        }
        Poll::Ready(())
    }
}

impl PresenceActor {
    /// Starts it on the thread of its room, which calls this.
    pub(crate) fn start(touch: Touch, node: Arc<Node>, guard: DeathGuard) -> Child {
        let mut actor = Self { told: touch.seen(), touch, node, guard };
        let mut life = Life(ActorState::Started);
        actor.started(&mut life);
        Child(actix_rt::spawn(Living { actor, life, timer: sleep(Duration::ZERO) }))
    }

    /// Does what is due, and says when to look again.
    fn look(&mut self) -> Duration {
        #[cfg(any(test, feature = "testing"))]
        self.touch.fail_if_told();
        let (now, seen) = (self.node.now(), self.touch.seen());
        let (max_age, flush_interval) = (self.node.config.max_age(), self.node.config.touch_flush_interval());
        let mut wait = match self.touch.deadline(&self.node.listening, now, max_age) {
            Deadline::Wait(left) => left,
            Deadline::Stale => {
                // What it sent may have arrived but wait for its consumer: then it is not silent, and soon more is known; unless the
                // consumer has blocked its thread for good.
                let limit = max_age.saturating_add(max_age.saturating_mul(UNANSWERED));
                let deadline = || self.touch.deadline(&self.node.listening, now, limit);
                if !self.touch.has_backlog() || deadline() == Deadline::Stale {
                    self.guard.room.do_send(ToRoom::Stale(self.guard.id));
                }
                max_age / 4
            }
        };
        if seen > self.told && now.since(self.told) >= flush_interval {
            self.told = seen;
            self.node.writer.touch(self.guard.id, seen);
        }
        if seen > self.told || wait > flush_interval {
            wait = wait.min(flush_interval);
        }
        wait.max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_presence_takes_the_smallest_task_that_has_a_timer() {
        // What tokio puts before and after it makes 256 bytes of that.
        assert_eq!(size_of::<Living>(), 152);
    }
}
