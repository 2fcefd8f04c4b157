//! How the meta of a channel's presences is updated.

use std::sync::Arc;

use tracing::debug;

use crate::{Error, Meta, Result, name::RoomName, rooms::Rooms, telemetry::report};

use super::{
    Channel,
    pending_updates::{NextUpdate, Offered},
};

impl Channel {
    /// Updates the presence in the room: at once, or later if the socket has used up its rate of updates.
    pub(crate) async fn update(self: &Arc<Self>, rooms: &Rooms, room: &RoomName, meta: Meta) -> Result<()> {
        let id = self.memberships().get(room).map(|membership| membership.id);
        let Some(id) = id else { return Err(Error::NotInRoom { room: room.clone() }) };
        let rate = rooms.0.node.config.update_rate();
        let now = rooms.0.node.now();
        let answer = {
            let mut updates = self.updates();
            match updates.offer((room.clone(), id, meta), rate, now) {
                Offered::WriteNow(meta) => Some(rooms.update_presence(room, id, &self.name, meta, None)),
                Offered::Pending => None,
                Offered::FirstPending => {
                    debug!(%room, channel = %self.name, "updates come faster than they may be written; the last one waits");
                    actix::spawn(Arc::clone(self).write_updates(rooms.clone()));
                    None
                }
            }
        };
        match answer {
            Some(answer) => answer.await,
            None => Ok(()),
        }
    }

    /// Updates the presence in the room at once, at the request of another part of the application. A pending update of the socket itself
    /// is older: it is written only if this one is refused.
    pub(in crate::rooms) async fn update_for_another(&self, rooms: &Rooms, room: &RoomName, meta: Meta) -> Result<()> {
        let id = self.memberships().get(room).map(|membership| membership.id);
        let Some(id) = id else { return Err(Error::NotInRoom { room: room.clone() }) };
        let answer = {
            // The message is sent under the lock, so that the room receives updates in the order in which they were made.
            let mut updates = self.updates();
            let own = updates.take(room, id);
            rooms.update_presence(room, id, &self.name, meta, own)
        };
        answer.await
    }

    /// Writes the pending updates, as fast as the rate allows, until there are none.
    pub(in crate::rooms) async fn write_updates(self: Arc<Self>, rooms: Rooms) {
        let rate = rooms.0.node.config.update_rate();
        loop {
            let name: RoomName;
            let next = {
                let mut updates = self.updates();
                match updates.next(rate, rooms.0.node.now(), |room, id| self.has(room, id)) {
                    NextUpdate::None => return,
                    NextUpdate::After(wait) => Err(wait),
                    NextUpdate::Write((room, id, meta)) => {
                        name = room.clone();
                        // The message is sent under the lock. Otherwise it could follow a later update of another caller, and overwrite it.
                        // For the same reason it is not sent again without the lock if the room fails.
                        Ok((room, rooms.update_presence_once(&name, id, &self.name, meta)))
                    }
                }
            };
            match next {
                Err(wait) => tokio::time::sleep(wait).await,
                Ok((room, answer)) => {
                    let result = answer.await;
                    let mut updates = self.updates();
                    if let Err(Error::Overloaded { .. } | Error::RoomFailed { .. }) = result {
                        // No other task would try this update again.
                        updates.put_back();
                    } else if updates.finish()
                        && let Err(error) = result
                    {
                        debug!(%room, channel = %self.name, error = %report(&error), "an update that waited failed");
                    }
                }
            }
        }
    }
}
