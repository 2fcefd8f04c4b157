//! Messages with which actors of an application call [`Rooms`](crate::Rooms). They have the same results and errors as its methods.
//!
//! Send them to [`Rooms::addr`](crate::Rooms::addr), which handles several at the same time. Send [`Sweep`] and [`Reconcile`] to a
//! [`PruningSupervisor`](crate::PruningSupervisor).
//!
//! ```
//! # use presence::{Config, MemoryStore, NodeName, PruningSupervisor, RoomName, Rooms, actor::Users};
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let rooms = Rooms::start(Config::default(), MemoryStore::default(), NodeName::new("web-1")?);
//! # PruningSupervisor::spawn(&rooms);
//! let users = rooms.addr().send(Users { room: RoomName::new("lobby")? }).await??;
//! assert!(users.is_empty());
//! # Ok(())
//! # }
//! ```

pub use crate::rooms::{
    PrunePresences, PruneRooms, Reconcile, RoomsActor, Sweep,
    command::{
        Add, LeaveAll, Remove, RemovePresence, RemoveRoom, RemoveUser, RemoveUserFrom, Touch, Update, UpdateUser,
    },
    query::{
        AnonymousCount, Count, IsHere, LastSeen, ListRooms, Members, MembersAndChanges, PresencesOf, RoomsOf,
        Subscribe, Users,
    },
};
