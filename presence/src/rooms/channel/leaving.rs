//! How a channel leaves its rooms: at the request of its own consumer, of another part of the application, or since its socket has ended.

use std::{collections::HashMap, sync::atomic::Ordering};

use futures_util::future::join_all;

use crate::{Close, Result, name::RoomName, room::Farewell, rooms::Rooms};

use super::Channel;

impl Channel {
    /// Leaves the room at the request of its own consumer. If it is not in the room, nothing happens.
    pub(crate) async fn leave(&self, rooms: &Rooms, room: &RoomName) -> Result<()> {
        self.leave_with(rooms, room, || None).await.map(drop)
    }

    /// Leaves every room at the request of its own consumer.
    pub(crate) async fn leave_all(&self, rooms: &Rooms) -> Result<()> {
        self.leave_all_with(rooms, || None).await.map(drop)
    }

    /// Removes the channel from the room, or from all rooms, at the request of another part of the application. Its socket is notified, or
    /// closed if there is a `close`. Returns the number of rooms that it was in.
    pub(in crate::rooms) async fn remove(
        &self,
        rooms: &Rooms,
        room: Option<&RoomName>,
        close: Option<&Close>,
    ) -> Result<usize> {
        if let Some(close) = close {
            self.note_close(close);
        }
        let farewell = || self.hub.as_ref().map(|hub| Farewell::new(hub.clone(), close.cloned()));
        match room {
            Some(room) => self.leave_with(rooms, room, farewell).await.map(usize::from),
            None => self.leave_all_with(rooms, farewell).await,
        }
    }

    /// Returns whether it was in the room.
    async fn leave_with(
        &self,
        rooms: &Rooms,
        room: &RoomName,
        farewell: impl Fn() -> Option<Farewell>,
    ) -> Result<bool> {
        let left = {
            let mut memberships = self.memberships();
            let left = memberships.remove(room);
            left.map(|left| (left.id, rooms.leave_with(room, left.id, &self.name, farewell())))
        };
        let Some((id, left)) = left else { return Ok(false) };
        self.take_update(room, id);
        left.await.map(|()| true)
    }

    /// Returns the number of rooms that it was in.
    async fn leave_all_with(&self, rooms: &Rooms, farewell: impl Fn() -> Option<Farewell>) -> Result<usize> {
        let former: HashMap<_, _>;
        let left: Vec<_> = {
            // The messages are sent under the lock, so that a room receives them before a later join.
            let mut memberships = self.memberships();
            former = std::mem::take(&mut *memberships);
            former.iter().map(|(room, one)| rooms.leave_with(room, one.id, &self.name, farewell())).collect()
        };
        former.iter().for_each(|(room, one)| drop(self.take_update(room, one.id)));
        join_all(left).await.into_iter().collect::<Result<()>>()?;
        Ok(former.len())
    }

    /// Makes the presences of a socket that has ended leave, or be held.
    pub(crate) async fn depart(&self, rooms: &Rooms) -> Result<()> {
        self.write_last(rooms);
        if !self.is_lost() {
            return self.leave_all(rooms).await;
        }
        self.memberships().drain().for_each(|(room, one)| rooms.lose(&room, one.id, &self.name));
        Ok(())
    }

    /// Writes the pending updates of presences that are about to be held. The updates of presences that leave are dropped.
    fn write_last(&self, rooms: &Rooms) {
        let last = self.updates().take_all();
        for (room, id, meta) in last.into_iter().filter(|_| self.is_lost()) {
            if self.has(&room, id) {
                rooms.update_at_once(&room, id, &self.name, meta);
            }
        }
    }

    /// As [`depart`](Self::depart), without waiting for it.
    pub(crate) fn depart_at_once(&self, rooms: &Rooms) {
        self.write_last(rooms);
        let mut memberships = self.memberships();
        // Another part of the program may still have this channel. From here on its joins fail.
        self.closed.store(true, Ordering::Release);
        for (room, membership) in memberships.drain() {
            if self.is_lost() {
                rooms.lose(&room, membership.id, &self.name);
            } else {
                rooms.leave_at_once(&room, membership.id, &self.name);
            }
        }
    }
}
