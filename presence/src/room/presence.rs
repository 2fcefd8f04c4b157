//! One presence's deadline.

use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, SpawnHandle};

use crate::{
    clock::Tick,
    model::deadline::{Deadline, judge},
    name::PresenceId,
};

use super::{Rooms, actor::RoomActor, message::ToRoom, touch::Touch};

/// Looks after one presence of this node: tells the room when it is stale, and the writer when it was seen.
///
/// It owns no interval. Its one timer fires when there may be something to do, looks at the last touch, and is set again
/// for what is left. A `RoomActor` starts it, and starts it anew should it die.
///
/// It is kept small: there is one for each presence.
#[derive(Debug)]
pub(crate) struct PresenceActor {
    pub(crate) touch: Touch,
    pub(crate) rooms: Rooms,
    /// The last touch that the writer was told of.
    pub(crate) told: Tick,
    pub(crate) guard: DeathGuard,
}

/// The child's way to its room. Tells it that the child is gone, unless it was told to go.
#[derive(Debug)]
pub(crate) struct DeathGuard {
    id: PresenceId,
    room: Option<Addr<RoomActor>>,
}

impl DeathGuard {
    pub(crate) const fn new(id: PresenceId, room: Addr<RoomActor>) -> Self {
        Self { id, room: Some(room) }
    }

    fn tell(&self, message: ToRoom) {
        if let Some(room) = &self.room {
            room.do_send(message);
        }
    }
}

impl Drop for DeathGuard {
    fn drop(&mut self) {
        self.tell(ToRoom::ChildDied(self.id));
    }
}

/// Said to a presence.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) enum ToPresence {
    /// The presence is over.
    Stop,
    /// Fail, to show that it does no harm.
    #[cfg(any(test, feature = "testing"))]
    Panic,
}

impl Actor for PresenceActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        #[cfg(test)]
        self.rooms.count_children(1);
        self.look(ctx);
    }
}

#[cfg(test)]
impl Drop for PresenceActor {
    fn drop(&mut self) {
        self.rooms.count_children(-1);
    }
}

impl PresenceActor {
    fn look(&mut self, ctx: &mut Context<Self>) -> SpawnHandle {
        let (now, seen) = (self.rooms.now(), self.touch.seen());
        let (max_age, flush_interval) = (self.rooms.config().max_age(), self.rooms.config().touch_flush_interval());
        let mut wait = match judge(now, seen, max_age) {
            Deadline::Wait(left) => left,
            Deadline::Stale => {
                // What it sent may have arrived but wait for its consumer: then it is not silent, and soon more is known.
                if !self.touch.is_behind() {
                    self.guard.tell(ToRoom::Stale(self.guard.id));
                }
                max_age / 4
            }
        };
        if seen > self.told && now.since(self.told) >= flush_interval {
            self.told = seen;
            self.rooms.writer().touch(self.guard.id, seen);
        }
        if seen > self.told || wait > flush_interval {
            wait = wait.min(flush_interval);
        }
        ctx.run_later(wait.max(Duration::from_millis(1)), |child, ctx| {
            child.look(ctx);
        })
    }
}

impl Handler<ToPresence> for PresenceActor {
    type Result = ();

    fn handle(&mut self, message: ToPresence, ctx: &mut Self::Context) {
        use actix::ActorContext;
        match message {
            ToPresence::Stop => {
                self.guard.room = None;
                ctx.stop();
            }
            #[cfg(any(test, feature = "testing"))]
            ToPresence::Panic => panic!("a presence was told to fail"),
        }
    }
}
