//! Messages with which any actor of the application reads rooms and subscribes to their changes. The messages that change rooms are in
//! [`command`](super::command).

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};

use crate::{
    Error, Result,
    model::{Member, Presence},
    name::{PresenceId, RoomName, UserId},
    signal::PresenceChanged,
    store::RoomSummary,
};

use super::{Counts, MemberChanges, Rooms, RoomsInner};

/// Answers messages that read rooms, and carries out messages that change them. [`Rooms::addr`] returns its address. After the last
/// handle of the rooms is dropped, it answers [`Error::ShuttingDown`].
#[derive(Debug)]
pub struct RoomsActor {
    rooms: Weak<RoomsInner>,
}

impl RoomsActor {
    pub(super) const fn new(rooms: Weak<RoomsInner>) -> Self {
        Self { rooms }
    }

    pub(super) fn rooms(&self) -> Result<Rooms> {
        self.rooms.upgrade().map(Rooms).ok_or(Error::ShuttingDown)
    }

    /// Runs a call of [`Rooms`] concurrently with the calls of other messages.
    pub(super) fn carry_out<T>(
        &self,
        call: impl AsyncFnOnce(Rooms) -> Result<T> + 'static,
    ) -> ResponseFuture<Result<T>> {
        let rooms = self.rooms();
        Box::pin(async move { call(rooms?).await })
    }
}

impl Actor for RoomsActor {
    type Context = Context<Self>;
}

/// Handles each of these messages by a call of [`Rooms`].
macro_rules! carried_out {
    ($($message:ident $({ $($field:ident),* })? $(($value:ident))? -> $result:ty: |$rooms:ident| $call:expr;)*) => {
        $(impl Handler<$message> for RoomsActor {
            type Result = ResponseFuture<Result<$result>>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                let $message $({ $($field),* })? $(($value))? = message;
                self.carry_out(async move |$rooms| $call.await)
            }
        })*
    };
}
pub(super) use carried_out;

/// Requests [`Rooms::members`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<Member>>")]
pub struct Members {
    /// The room.
    pub room: RoomName,
}

/// Requests [`Rooms::users`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<UserId>>")]
pub struct Users {
    /// The room.
    pub room: RoomName,
}

/// Requests [`Rooms::count`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Counts>")]
pub struct Count {
    /// The room.
    pub room: RoomName,
}

/// Requests [`Rooms::anonymous_count`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<usize>")]
pub struct AnonymousCount {
    /// The room.
    pub room: RoomName,
}

/// Requests [`Rooms::is_here`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<bool>")]
pub struct IsHere {
    /// The room.
    pub room: RoomName,
    /// The user.
    pub user: UserId,
}

/// Requests [`Rooms::presences_of`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<Arc<Presence>>>")]
pub struct PresencesOf {
    /// The room.
    pub room: RoomName,
    /// The user.
    pub user: UserId,
}

/// Requests [`Rooms::last_seen`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<HashMap<PresenceId, Duration>>")]
pub struct LastSeen {
    /// The room.
    pub room: RoomName,
}

/// Requests [`Rooms::members_and_changes`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(Vec<Member>, MemberChanges)>")]
pub struct MembersAndChanges {
    /// The room.
    pub room: RoomName,
}

/// Requests [`Rooms::rooms`]: one page.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<RoomSummary>>")]
pub struct ListRooms {
    /// The page begins after this name; `None` for the first page.
    pub after: Option<RoomName>,
    /// How many rooms the page has at most.
    pub limit: usize,
}

/// Requests [`Rooms::rooms_of`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<RoomName>>")]
pub struct RoomsOf {
    /// The user.
    pub user: UserId,
}

/// Requests [`Rooms::subscribe`].
///
/// ```
/// # use actix::Recipient;
/// # use presence::{PresenceChanged, RoomName, Rooms, actor::Subscribe};
/// fn watch(rooms: &Rooms, room: RoomName, subscriber: Recipient<PresenceChanged>) {
///     rooms.addr().do_send(Subscribe { room: Some(room), subscriber });
/// }
/// ```
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// The room whose changes are sent; `None` for all rooms.
    pub room: Option<RoomName>,
    /// The actor that receives them.
    pub subscriber: Recipient<PresenceChanged>,
}

carried_out! {
    Members { room } -> Vec<Member>: |rooms| rooms.members(&room);
    Users { room } -> Vec<UserId>: |rooms| rooms.users(&room);
    Count { room } -> Counts: |rooms| rooms.count(&room);
    AnonymousCount { room } -> usize: |rooms| rooms.anonymous_count(&room);
    IsHere { room, user } -> bool: |rooms| rooms.is_here(&room, &user);
    PresencesOf { room, user } -> Vec<Arc<Presence>>: |rooms| rooms.presences_of(&room, &user);
    LastSeen { room } -> HashMap<PresenceId, Duration>: |rooms| rooms.last_seen(&room);
    MembersAndChanges { room } -> (Vec<Member>, MemberChanges): |rooms| rooms.members_and_changes(&room);
    ListRooms { after, limit } -> Vec<RoomSummary>: |rooms| rooms.rooms(after.as_ref(), limit);
    RoomsOf { user } -> Vec<RoomName>: |rooms| rooms.rooms_of(&user);
}

impl Handler<Subscribe> for RoomsActor {
    type Result = ();

    fn handle(&mut self, Subscribe { room, subscriber }: Subscribe, _: &mut Self::Context) {
        if let Ok(rooms) = self.rooms() {
            rooms.subscribe(room.as_ref(), subscriber);
        }
    }
}
