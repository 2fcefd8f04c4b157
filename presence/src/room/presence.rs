//! The deadline of one presence.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use actix::Recipient;
use pin_project_lite::pin_project;
use tokio::{
    task::JoinHandle,
    time::{Instant, Sleep, sleep},
};

use crate::{
    clock::Tick,
    delivery::{Touch, UNANSWERED},
    model::deadline::Deadline,
    name::PresenceId,
    node::Node,
};

use super::message::ToRoom;

/// Watches one presence of this node: notifies the room when it is stale, and has the writer write when it was seen.
///
/// It owns no interval. Its one timer fires when there may be something to do. Then the last touch is read, and the timer is set again
/// for the remaining time. A `RoomActor` starts this, and starts it again if it panics.
///
/// It runs in a task of its own, so that its panic affects no other presence. It is no actor of actix: nobody sends messages to it, and
/// because there is one for each presence, it has to be small. The mailbox and the lists of futures of an actix `Context` would take
/// twice as much memory as all the rest.
#[derive(Debug)]
pub(crate) struct PresenceActor {
    touch: Touch,
    node: Arc<Node>,
    /// The last touch that was given to the writer.
    written: Tick,
    guard: DeathGuard,
}

/// Notifies the room if the task that watches a presence panics. If the task is only stopped, it was the room that stopped it.
#[derive(Debug)]
pub(crate) struct DeathGuard {
    id: PresenceId,
    /// All these tasks of a room share it, because each copy of a recipient takes two allocations.
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

/// The task that watches a presence. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    task: JoinHandle<()>,
    #[cfg(test)]
    node: Arc<Node>,
}

impl Child {
    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.task.abort();
        #[cfg(test)]
        self.node.children.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

pin_project! {
    /// A presence that is watched until this is dropped: when its room ends it, and when it panics.
    ///
    /// This is not an `async` block, since that takes 8 bytes more. So the whole task takes 256 bytes; the next size is 384.
    struct PresenceTask {
        actor: PresenceActor,
        has_started: bool,
        #[pin]
        timer: Sleep,
    }
}

impl Future for PresenceTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            if std::mem::replace(this.has_started, true) {
                ready!(this.timer.as_mut().poll(cx));
            }
            let wait = this.actor.check();
            this.timer.as_mut().reset(Instant::now() + wait);
        }
    }
}

impl PresenceActor {
    /// Starts it on the current thread, which has to be that of its room.
    pub(crate) fn start(touch: Touch, node: Arc<Node>, guard: DeathGuard) -> Child {
        #[cfg(test)]
        node.children.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let actor = Self { written: touch.seen(), touch, node: node.clone(), guard };
        let task = actix_rt::spawn(PresenceTask { actor, has_started: false, timer: sleep(Duration::ZERO) });
        Child {
            task,
            #[cfg(test)]
            node,
        }
    }

    /// Does what is due, and returns the time until the next check.
    fn check(&mut self) -> Duration {
        #[cfg(any(test, feature = "testing"))]
        self.touch.panic_if_requested();
        let (now, seen) = (self.node.now(), self.touch.seen());
        let (max_age, flush_interval) = (self.node.config.max_age(), self.node.config.touch_flush_interval());
        let mut wait = match self.touch.deadline(&self.node.standstills, now, max_age) {
            Deadline::Wait(left) => left,
            Deadline::Stale => {
                // What the client sent may have arrived and wait for its consumer. Then the client is not silent, and is touched soon,
                // unless the consumer has blocked its thread for good.
                let limit = max_age.saturating_add(max_age.saturating_mul(UNANSWERED));
                let deadline = || self.touch.deadline(&self.node.standstills, now, limit);
                if !self.touch.has_backlog() || deadline() == Deadline::Stale {
                    self.guard.room.do_send(ToRoom::Stale(self.guard.id));
                }
                max_age / 4
            }
        };
        if seen > self.written && now.since(self.written) >= flush_interval {
            self.written = seen;
            self.node.writer.touch(self.guard.id, seen);
        }
        if seen > self.written || wait > flush_interval {
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
        // With what tokio adds before and after it, a task takes 256 bytes.
        assert_eq!(size_of::<PresenceTask>(), 152);
    }
}
