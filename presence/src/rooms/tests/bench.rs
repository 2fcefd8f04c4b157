//! A node on the test's thread, sockets without a network, and what their clients see.

mod client;
mod log;
mod screen;
mod store;

use std::{ops::Deref, sync::LazyLock, time::Duration};

use futures_util::FutureExt;

use crate::{
    Config, PruningSupervisor, Rooms,
    clock::Clock,
    config::ConfigBuilder,
    name::{NodeName, RoomName, UserId},
    node::LATE,
    signal::{PresenceChange, Subscription},
    store::{MemoryStore, RoomStore},
    testing::store::FaultyStore,
};

pub(crate) use self::client::Client;
pub(crate) use self::log::Log;
pub(crate) use self::screen::Screen;
pub(crate) use self::store::{Call, Kind, Span, Watched};

pub(crate) fn lobby() -> &'static RoomName {
    static LOBBY: LazyLock<RoomName> = LazyLock::new(|| room("lobby"));
    &LOBBY
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lets time pass, and everything happen that is due by then.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}

/// Lets just so much time pass at once. Sleeping may take a millisecond longer.
pub(crate) async fn leap(time: Duration) {
    advance(time).await;
    settle().await;
}

/// Lets just so much time pass, in steps: a node that does not run for longer than [`LATE`] stands still.
pub(crate) async fn advance(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(LATE);
        tokio::time::advance(step).await;
        left -= step;
        // Not after the last one: what is due at the end has not happened yet.
        if !left.is_zero() {
            settle_a_little().await;
        }
    }
}

/// Lets happen what one step of time brings.
async fn settle_a_little() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Lets everything happen that needs no time.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// A node and its store. Its rooms are used through it directly.
pub(crate) struct Node {
    pub(crate) rooms: Rooms,
    pub(crate) store: Watched,
}

impl Deref for Node {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.rooms
    }
}

pub(crate) fn config() -> ConfigBuilder {
    Config::builder().room_threads(0)
}

/// A node with the default settings. From here on, time stands still.
pub(crate) async fn node() -> Node {
    node_with(config()).await
}

pub(crate) async fn node_with(config: ConfigBuilder) -> Node {
    tokio::time::pause();
    node_on(&MemoryStore::new(Clock::system()), "here", config).await
}

/// A node on a database that others may use too.
pub(crate) async fn node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> Node {
    let node = starting_node_on(database, name, config);
    node.rooms.ready().await;
    settle().await;
    node
}

/// A node that has called nothing yet, and begins when the test next waits.
pub(crate) fn starting_node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> Node {
    let node = unsupervised_node_on(database, name, config);
    PruningSupervisor::spawn(&node.rooms);
    node
}

/// As `starting_node_on`, without a supervisor.
pub(crate) fn unsupervised_node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> Node {
    let store = Watched::new(FaultyStore::new(database.clone()));
    let (config, name) = (config.build().unwrap(), NodeName::new(name).unwrap());
    // Several of them play several processes, and one that starts again one that was killed.
    Node { rooms: Rooms::start_as_another_process(config, store.clone(), name), store }
}

/// As `starting_node_on`, for rooms that are of this process like the others of the test.
pub(crate) fn own_node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> Node {
    let store = Watched::new(FaultyStore::new(database.clone()));
    let rooms = Rooms::start(config.build().unwrap(), store.clone(), NodeName::new(name).unwrap());
    PruningSupervisor::spawn(&rooms);
    Node { rooms, store }
}

impl Node {
    /// A socket of this user, in no room.
    pub(crate) fn client(&self, name: &str) -> Client {
        Client::new(&self.rooms, Some(user(name)))
    }

    pub(crate) fn anonymous(&self) -> Client {
        Client::new(&self.rooms, None)
    }

    /// A socket of this user in the lobby.
    pub(crate) async fn member(&self, name: &str) -> Client {
        let client = self.client(name);
        client.join(lobby()).await.unwrap();
        client
    }

    /// Sockets in the lobby, of users `u0`, `u1` and so on, who joined together.
    pub(crate) async fn crowd(&self, count: usize) -> Vec<Client> {
        let clients: Vec<_> = (0..count).map(|n| self.client(&format!("u{n}"))).collect();
        join_all(&clients, lobby()).await;
        clients
    }

    /// Makes a room busy: so many anonymous sockets join together that its next notice waits for as long as the settings allow.
    pub(crate) async fn stir(&self, room: &RoomName) {
        let interval = usize::try_from(self.rooms.config().notify_interval().as_millis()).expect("a short time");
        // A room saves enough for ten joins at once, and spends in advance what it may spend in one interval: a join in 20 ms.
        let clients: Vec<_> = (0..12 + interval / 20).map(|_| self.anonymous()).collect();
        join_all(&clients, room).await;
    }

    /// The users of the rows of a room, sorted; anonymous ones are `-`.
    pub(crate) async fn rows(&self, room: &RoomName) -> Vec<String> {
        let snapshot = self.store.database().load(room.clone()).await.unwrap();
        let presences = snapshot.into_iter().flat_map(|snapshot| snapshot.presences);
        let mut users: Vec<_> = presences.map(|one| name_of(one.user.as_ref())).collect();
        users.sort();
        users
    }

    /// The users in a room as the handle tells them.
    pub(crate) async fn names(&self, room: &RoomName) -> Vec<String> {
        let users = self.rooms.users(room).await.unwrap();
        users.iter().map(|user| user.as_str().to_owned()).collect()
    }

    /// How many presences are looked after.
    pub(crate) fn children(&self) -> usize {
        usize::try_from(self.rooms.this_node().children.load(std::sync::atomic::Ordering::Relaxed))
            .expect("only those that started have stopped")
    }
}

pub(crate) async fn join_all(clients: &[Client], room: &RoomName) {
    for joined in futures_util::future::join_all(clients.iter().map(|client| client.join(room))).await {
        joined.unwrap();
    }
}

fn name_of(user: Option<&UserId>) -> String {
    user.map_or("-".to_owned(), |user| user.as_str().to_owned())
}

/// What a subscriber heard so far, as short texts: `+a` came, `-a` went, `~a` changed, `-[a b]` were pruned together.
pub(crate) fn heard(changes: &mut Subscription) -> Vec<String> {
    let mut heard = Vec::new();
    // A task has a budget of things that are ready; here all of them are wanted.
    while let Some(Some(event)) = tokio::task::unconstrained(changes.next()).now_or_never() {
        heard.push(short(&event.change));
    }
    heard
}

/// Who came online and who went offline of what a subscriber heard so far: the event, and then `+a` or `-a` for each.
pub(crate) fn turns(changes: &mut Subscription) -> Vec<String> {
    let mut turns = Vec::new();
    while let Some(Some(event)) = tokio::task::unconstrained(changes.next()).now_or_never() {
        let online = event.user_online().iter().map(|user| format!(" +{}", user.as_str()));
        let mut all: Vec<_> =
            online.chain(event.user_offline().iter().map(|user| format!(" -{}", user.as_str()))).collect();
        all.sort();
        turns.push(format!("{}:{}", short(&event.change), all.concat()));
    }
    turns
}

pub(crate) fn short(change: &PresenceChange) -> String {
    match change {
        PresenceChange::Added(one) => format!("+{}", name_of(one.user.as_ref())),
        PresenceChange::Removed(one) => format!("-{}", name_of(one.user.as_ref())),
        PresenceChange::Updated(one) => format!("~{}", name_of(one.user.as_ref())),
        PresenceChange::Bulk(left) => {
            let mut names: Vec<_> = left.iter().map(|one| name_of(one.user.as_ref())).collect();
            names.sort();
            format!("-[{}]", names.join(" "))
        }
    }
}
