//! The node names that this process uses: no two of its `Rooms` have the same name on one database.
//!
//! Between processes the later one takes the name over, since the earlier one may hang. Within a process that would only hide a mistake:
//! rooms that are started once for each worker would take the name from each other for ever.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Weak},
};

use actix::{Addr, System};
use parking_lot::Mutex;

use crate::{
    name::NodeName,
    rooms::{Inner, Rooms},
    store::Store,
};

/// The rooms that have a name.
struct Holder {
    rooms: Weak<Inner>,
    /// The actix system of the rooms. When it has ended, the rooms no longer run, even if they were not shut down.
    system: Option<System>,
}

impl Holder {
    fn is_running(&self) -> bool {
        let Some(rooms) = self.rooms.upgrade() else { return false };
        // The actor is not set yet while it is being started.
        let is_kept = rooms.node_actor.get().is_none_or(Addr::connected);
        let in_a_system = self.system.as_ref().is_none_or(|system| system.arbiter().spawn_fn(|| ()));
        is_kept && in_a_system && !rooms.table.has_ended()
    }
}

/// Claims `name` for these rooms. Returns false if other rooms of this process have it on the same database and still run.
pub(crate) fn claim(rooms: &Rooms, name: &NodeName) -> bool {
    static ALL: LazyLock<Mutex<HashMap<(u64, NodeName), Holder>>> = LazyLock::new(Mutex::default);
    // Two stores can only be compared if they know which database they use.
    let Some(database) = rooms.0.node.store.database_id() else { return true };
    let mut all = ALL.lock();
    all.retain(|_, holder| holder.is_running());
    let key = (database, name.clone());
    let is_free = !all.contains_key(&key);
    if is_free {
        all.insert(key, Holder { rooms: Arc::downgrade(&rooms.0), system: System::try_current() });
    }
    is_free
}
