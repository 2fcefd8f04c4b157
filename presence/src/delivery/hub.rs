//! The hub of one worker thread, which delivers to the sockets of that thread.
//!
//! A room sends one message to each hub that has members of it. The hub pushes the frame into the outboxes of its own thread, which costs a
//! reference count each. Messages of a room to a hub arrive in order, so first frames, notices and broadcasts never overtake one another.
//!
//! If the hub panics during a message, it delivers the message again to the sockets that have not received it.

mod sockets;

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use actix::{Actor, AsyncContext, Context, Handler};
use tracing::error;

use crate::{CloseCode, clock::Clock, name::RoomName};

use super::{
    message::{HubMembers, HubRef, ToConnection, ToHub},
    outbox::{Filling, Outbox, PAUSE_INTERVAL, WATCH_INTERVAL},
};

pub(crate) use self::sockets::{HubSocket, Sockets};

/// A client that reads first frames more slowly than this, in bytes a second, is cut off first when their memory is needed.
const LEAST_RATE: f64 = 8.0 * 1024.0;

/// After so many sockets, or so many bytes, a hub that writes lets other tasks and threads run, so that no room waits long for a larger one.
const WRITES_PER_TURN: usize = 64;
const BYTES_PER_TURN: usize = 2 * 1024 * 1024;

/// After so many turns of a thread, what clients sent when they had read a broadcast has reached the outboxes.
const ANSWER_TURNS: usize = 4;

/// The actor of a hub.
pub(crate) struct HubActor {
    id: usize,
    sockets: Rc<RefCell<Sockets>>,
    clock: Clock,
    /// The number of the message being delivered.
    number: u64,
    filling: Rc<Filling>,
    /// Whether a look at the outboxes is scheduled, since some are not empty.
    is_watching: bool,
}

impl std::fmt::Debug for HubActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubActor").field("id", &self.id).finish_non_exhaustive()
    }
}

impl HubActor {
    pub(crate) fn new(id: usize, sockets: Rc<RefCell<Sockets>>, filling: Rc<Filling>, clock: Clock) -> Self {
        Self { id, sockets, clock, number: 0, filling, is_watching: false }
    }
}

impl Actor for HubActor {
    type Context = Context<Self>;
}

impl Handler<ToHub> for HubActor {
    type Result = ();

    fn handle(&mut self, mut message: ToHub, ctx: &mut Self::Context) {
        self.number += 1;
        let mut again = true;
        while again {
            let before = self.sockets.borrow().served;
            let delivered = catch_unwind(AssertUnwindSafe(|| self.deliver(&mut message, ctx)));
            if delivered.is_ok() {
                return;
            }
            error!(hub = self.id, "a hub panicked; it goes on with the sockets that have not received the message");
            // This ends after at most one round for each socket, since no socket is served twice.
            again = self.sockets.borrow().served > before;
        }
    }
}

impl HubActor {
    fn deliver(&mut self, message: &mut ToHub, ctx: &mut Context<Self>) {
        let number = self.number;
        let sockets = &mut *self.sockets.borrow_mut();
        #[cfg(test)]
        {
            sockets.messages += 1;
        }
        match message {
            ToHub::Flush(flush) => sockets.flush(flush, number),
            ToHub::Send { room, frames, except, pressure } => {
                let receivers = sockets.room(room, number).filter(|one| except.as_ref() != Some(&one.presence.channel));
                receivers.for_each(|member| member.socket.outbox.push(frames, Some(pressure)));
            }
            ToHub::Event { room, event } => {
                let event = || ToConnection::Event(event.clone());
                sockets.room(room, number).for_each(|member| member.socket.connection.do_send(event()));
            }
            ToHub::Leave { room, channels } => sockets.remove(room, channels),
            ToHub::Removed { room, channels, members, close } => {
                sockets.remove(room, members);
                for channel in channels {
                    if let Some(socket) = sockets.sockets.get(channel) {
                        socket.connection.do_send(ToConnection::Removed { room: room.clone(), close: close.clone() });
                    }
                }
            }
            ToHub::CheckSilence(asked) => {
                while let Some((channel, asked)) = asked.pop() {
                    sockets.served += 1;
                    match sockets.sockets.get(&channel) {
                        Some(socket) => socket.connection.do_send(ToConnection::CheckSilence(asked)),
                        // Its socket is gone, so no frame can arrive any more.
                        None => asked.agree(),
                    }
                }
            }
            ToHub::CloseRoom { room } => {
                let Some(room) = sockets.rooms.remove(room) else { return };
                for member in room.members.into_values() {
                    let close = ToConnection::Close { code: CloseCode::INTERNAL_ERROR, reason: "the room failed" };
                    member.socket.connection.do_send(close);
                }
            }
            ToHub::SendToGroup { group, frames, pressure } => {
                sockets.group(group, number).for_each(|socket| socket.outbox.push(frames, Some(pressure)));
            }
            ToHub::EventToGroup { group, event } => {
                let event = || ToConnection::Event(event.clone());
                sockets.group(group, number).for_each(|socket| socket.connection.do_send(event()));
            }
            ToHub::SendToUser { user, frames, pressure, done } => {
                while let Some(socket) = sockets.next_of(user, done) {
                    socket.outbox.push(frames, Some(pressure));
                }
            }
            ToHub::EventToUser { user, event, done } => {
                while let Some(socket) = sockets.next_of(user, done) {
                    socket.connection.do_send(ToConnection::Event(event.clone()));
                }
            }
            ToHub::SendTo { channel, frames, pressure } => {
                if let Some(socket) = sockets.sockets.get(channel) {
                    socket.outbox.push(frames, Some(pressure));
                }
            }
            ToHub::EventTo { channel, event } => {
                if let Some(socket) = sockets.sockets.get(channel) {
                    socket.connection.do_send(ToConnection::Event(event.clone()));
                }
            }
            ToHub::CloseAll { code, reason } => {
                for socket in sockets.sockets.values() {
                    socket.connection.do_send(ToConnection::Close { code: *code, reason });
                }
            }
            ToHub::Restart { within } => {
                let all = sockets.sockets.len();
                for (n, socket) in sockets.sockets.values().enumerate() {
                    #[expect(clippy::cast_precision_loss, reason = "so many sockets need not be told apart")]
                    let part = n as f64 / all as f64;
                    socket.connection.do_send(ToConnection::Restart { within: *within, part });
                }
            }
            ToHub::End => *sockets = Sockets::default(),
            ToHub::Report { room, to } => {
                let here = sockets.rooms.get(room);
                let members = here.into_iter().flat_map(|room| room.members.values());
                to.do_send(HubMembers {
                    hub: HubRef::new(self.id, ctx.address().recipient()),
                    announced: here.map(|room| room.announced),
                    members: members.map(|member| (member.presence.clone(), member.touch.clone())).collect(),
                });
            }
            ToHub::CutSlowest { room } => self.cut_slowest(room.as_ref()),
            ToHub::Watch => {
                if !std::mem::replace(&mut self.is_watching, true) {
                    watch_later(&self.filling, &self.clock, ctx);
                }
            }
            ToHub::WatchAge => self.watch_age(ctx),
            ToHub::WatchPauses => drop(ctx.run_later(PAUSE_INTERVAL, Self::watch_pauses)),
            ToHub::Write => {
                let (mut count, mut bytes, mut now) = (0, 0, None);
                while count < WRITES_PER_TURN && bytes < BYTES_PER_TURN {
                    let Some(outbox) = self.filling.unwritten.borrow_mut().pop_front() else { break };
                    sockets.served += 1;
                    count += 1;
                    bytes += outbox.write(*now.get_or_insert_with(|| outbox.now()));
                }
                self.write_again(count, ctx);
            }
            #[cfg(any(test, feature = "testing"))]
            ToHub::Panic => panic!("a hub was made to panic"),
        }
    }

    /// Has the hub write again after so many writes, when the other tasks of the thread have run. After the last write to several sockets it
    /// waits for the turns in which their answers arrive, so that these are written together.
    fn write_again(&self, count: usize, ctx: &Context<Self>) {
        let is_over = self.filling.unwritten.borrow().is_empty();
        if is_over && count < 2 {
            self.filling.is_writing.set(false);
            return;
        }
        if !is_over {
            // The threads of rooms and of the store may wait for this core, and with them joins into other rooms.
            std::thread::yield_now();
        }
        let (hub, turns) = (ctx.address(), if is_over { ANSWER_TURNS } else { 1 });
        actix::spawn(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            hub.do_send(ToHub::Write);
        });
    }

    /// Cuts off clients that read first frames of this room, or of any room, slowly: all below [`LEAST_RATE`], or the slowest one if there are
    /// none. Sockets that are closing already are included, since they hold first frames, too.
    fn cut_slowest(&self, room: Option<&RoomName>) {
        let filling = self.filling.outboxes.borrow();
        let rate = |outbox: &Rc<Outbox>| outbox.first_frame_rate(room);
        let mut taking: Vec<_> = filling.iter().filter_map(|outbox| Some((rate(outbox)?, outbox))).collect();
        taking.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let too_slow = taking.iter().take_while(|(rate, _)| *rate < LEAST_RATE).count().max(1);
        taking.iter().take(too_slow).for_each(|(_, outbox)| outbox.make_room());
    }

    /// Has connections taken over that are old enough, and schedules the next look if there are younger ones.
    fn watch_age(&self, ctx: &mut Context<Self>) {
        if let Some(next) = self.filling.settle(self.clock.now()) {
            ctx.run_later(next, |hub, ctx| hub.watch_age(ctx));
        }
    }

    /// Looks at the outboxes for which senders wait, and schedules the next look if there are any.
    fn watch_pauses(&mut self, ctx: &mut Context<Self>) {
        let awaited = std::mem::take(&mut *self.filling.awaited.borrow_mut());
        let still: Vec<_> = awaited.into_iter().filter(|outbox| outbox.watch_pause()).collect();
        let mut awaited = self.filling.awaited.borrow_mut();
        awaited.extend(still);
        if !awaited.is_empty() {
            ctx.run_later(PAUSE_INTERVAL, Self::watch_pauses);
        }
    }

    /// Looks at the outboxes that are not empty, and schedules the next look if there are any.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        self.filling.looks(self.clock.now(), false);
        let filling = std::mem::take(&mut *self.filling.outboxes.borrow_mut());
        let still: Vec<_> = filling.into_iter().filter(|outbox| outbox.watch()).collect();
        self.filling.outboxes.borrow_mut().extend(still);
        self.is_watching = !self.filling.outboxes.borrow().is_empty();
        if self.is_watching {
            watch_later(&self.filling, &self.clock, ctx);
        }
    }
}

fn watch_later(filling: &Filling, clock: &Clock, ctx: &mut Context<HubActor>) {
    filling.looks(clock.now(), true);
    ctx.run_later(WATCH_INTERVAL, HubActor::watch);
}
