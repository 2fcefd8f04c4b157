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

/// Requests [`Rooms::members`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<Member>>")]
pub struct Members {
    /// The room.
    pub room: RoomName,
}

impl Handler<Members> for RoomsActor {
    type Result = ResponseFuture<Result<Vec<Member>>>;

    fn handle(&mut self, Members { room }: Members, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.members(&room).await)
    }
}

/// Requests [`Rooms::users`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<UserId>>")]
pub struct Users {
    /// The room.
    pub room: RoomName,
}

impl Handler<Users> for RoomsActor {
    type Result = ResponseFuture<Result<Vec<UserId>>>;

    fn handle(&mut self, Users { room }: Users, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.users(&room).await)
    }
}

/// Requests [`Rooms::count`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Counts>")]
pub struct Count {
    /// The room.
    pub room: RoomName,
}

impl Handler<Count> for RoomsActor {
    type Result = ResponseFuture<Result<Counts>>;

    fn handle(&mut self, Count { room }: Count, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.count(&room).await)
    }
}

/// Requests [`Rooms::anonymous_count`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<usize>")]
pub struct AnonymousCount {
    /// The room.
    pub room: RoomName,
}

impl Handler<AnonymousCount> for RoomsActor {
    type Result = ResponseFuture<Result<usize>>;

    fn handle(&mut self, AnonymousCount { room }: AnonymousCount, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.anonymous_count(&room).await)
    }
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

impl Handler<IsHere> for RoomsActor {
    type Result = ResponseFuture<Result<bool>>;

    fn handle(&mut self, IsHere { room, user }: IsHere, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.is_here(&room, &user).await)
    }
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

impl Handler<PresencesOf> for RoomsActor {
    type Result = ResponseFuture<Result<Vec<Arc<Presence>>>>;

    fn handle(&mut self, PresencesOf { room, user }: PresencesOf, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.presences_of(&room, &user).await)
    }
}

/// Requests [`Rooms::last_seen`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<HashMap<PresenceId, Duration>>")]
pub struct LastSeen {
    /// The room.
    pub room: RoomName,
}

impl Handler<LastSeen> for RoomsActor {
    type Result = ResponseFuture<Result<HashMap<PresenceId, Duration>>>;

    fn handle(&mut self, LastSeen { room }: LastSeen, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.last_seen(&room).await)
    }
}

/// Requests [`Rooms::members_and_changes`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(Vec<Member>, MemberChanges)>")]
pub struct MembersAndChanges {
    /// The room.
    pub room: RoomName,
}

impl Handler<MembersAndChanges> for RoomsActor {
    type Result = ResponseFuture<Result<(Vec<Member>, MemberChanges)>>;

    fn handle(&mut self, MembersAndChanges { room }: MembersAndChanges, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.members_and_changes(&room).await)
    }
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

impl Handler<ListRooms> for RoomsActor {
    type Result = ResponseFuture<Result<Vec<RoomSummary>>>;

    fn handle(&mut self, ListRooms { after, limit }: ListRooms, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.rooms(after.as_ref(), limit).await)
    }
}

/// Requests [`Rooms::rooms_of`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<RoomName>>")]
pub struct RoomsOf {
    /// The user.
    pub user: UserId,
}

impl Handler<RoomsOf> for RoomsActor {
    type Result = ResponseFuture<Result<Vec<RoomName>>>;

    fn handle(&mut self, RoomsOf { user }: RoomsOf, _: &mut Self::Context) -> Self::Result {
        self.carry_out(async move |rooms| rooms.rooms_of(&user).await)
    }
}

/// Requests [`Rooms::subscribe`].
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Subscribe {
    /// The room whose changes are sent; `None` for all rooms.
    pub room: Option<RoomName>,
    /// The actor that receives them.
    pub subscriber: Recipient<PresenceChanged>,
}

impl Handler<Subscribe> for RoomsActor {
    type Result = ();

    fn handle(&mut self, Subscribe { room, subscriber }: Subscribe, _: &mut Self::Context) {
        if let Ok(rooms) = self.rooms() {
            rooms.subscribe(room.as_ref(), subscriber);
        }
    }
}
