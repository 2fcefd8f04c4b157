//! The node names that this process uses: no two of its `Rooms` have the same name on one database.
//!
//! Between processes the later one takes the name over, since the earlier one may hang. Within a process that would only hide a mistake:
//! rooms that are started once for each worker would take the name from each other for ever.

use std::{
    collections::HashMap,
    sync::{LazyLock, Weak},
};

use parking_lot::Mutex;

use crate::name::NodeName;

/// The rooms that have a name.
pub(super) trait NameHolder: Send + Sync {
    fn is_running(&self) -> bool;
}

struct NameClaim {
    holder: Weak<dyn NameHolder>,
    /// The actix system of the rooms. When it has ended, the rooms no longer run, even if they were not shut down.
    system: Option<actix::System>,
}

impl NameClaim {
    fn is_valid(&self) -> bool {
        let runs = self.holder.upgrade().is_some_and(|holder| holder.is_running());
        runs && self.system.as_ref().is_none_or(|system| system.arbiter().spawn_fn(|| ()))
    }
}

/// Claims `name` on the database with this id. Returns false if other rooms of this process have it and still run.
pub(super) fn claim(database: u64, name: &NodeName, holder: Weak<dyn NameHolder>) -> bool {
    static ALL: LazyLock<Mutex<HashMap<(u64, NodeName), NameClaim>>> = LazyLock::new(Mutex::default);
    let mut all = ALL.lock();
    all.retain(|_, claim| claim.is_valid());
    let key = (database, name.clone());
    let is_free = !all.contains_key(&key);
    if is_free {
        all.insert(key, NameClaim { holder, system: actix::System::try_current() });
    }
    is_free
}
