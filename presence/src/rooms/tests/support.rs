//! Tools of these tests: a node on the thread of the test, sockets without a network, and what their clients see.

mod client;
mod client_view;
mod kernel;
mod log;

mod store;

use std::{ops::Deref, sync::LazyLock, time::Duration};

use futures_util::FutureExt;

use crate::{
    Config, PruningSupervisor, Rooms,
    clock::Clock,
    config::ConfigBuilder,
    name::{ChannelName, NodeName, RoomName, UserId},
    node::LATE,
    signal::{PresenceChange, Subscription},
    store::{MemoryStore, RoomStore},
    testing::store::FaultyStore,
};

pub(crate) use self::client::FakeClient;
pub(crate) use self::client_view::ClientView;
pub(crate) use self::kernel::FakeKernel;
pub(crate) use self::log::Log;
pub(crate) use self::store::{RecordingStore, Span, TransactionKind, WriterCall};

/// An empty list of names, events or rows.
pub(crate) const NONE: [&str; 0] = [];

pub(crate) fn lobby() -> &'static RoomName {
    static LOBBY: LazyLock<RoomName> = LazyLock::new(|| room("lobby"));
    &LOBBY
}

pub(crate) fn room(name: &str) -> RoomName {
    RoomName::new(name).unwrap()
}

pub(crate) fn channel(name: impl AsRef<str>) -> ChannelName {
    ChannelName::new(name).unwrap()
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

/// Lets time pass, and runs all tasks that are due by then.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}

/// Lets exactly this time pass, and runs all tasks that are due then. `pass` may take a millisecond longer.
pub(crate) async fn leap(time: Duration) {
    advance(time).await;
    settle().await;
}

/// Lets exactly this time pass, in steps: a node that does not run for longer than [`LATE`] stands still.
pub(crate) async fn advance(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(LATE);
        tokio::time::advance(step).await;
        left -= step;
        // It does not settle after the last step: what is due at the end has not happened yet.
        if !left.is_zero() {
            settle_a_little().await;
        }
    }
}

/// Runs the tasks that one step of time has woken.
async fn settle_a_little() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Runs all tasks until they wait for time.
pub(crate) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// A node and its store. Its rooms are used through it directly.
pub(crate) struct TestNode {
    pub(crate) rooms: Rooms,
    pub(crate) store: RecordingStore,
}

impl Deref for TestNode {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.rooms
    }
}

pub(crate) fn config() -> ConfigBuilder {
    Config::builder().room_threads(0)
}

/// A node with the default settings. From here on, time stands still.
pub(crate) async fn node() -> TestNode {
    node_with(config()).await
}

pub(crate) async fn node_with(config: ConfigBuilder) -> TestNode {
    tokio::time::pause();
    new_node(config).await
}

/// As `node_with`, in a test that has stopped time itself and needs several databases.
pub(crate) async fn new_node(config: ConfigBuilder) -> TestNode {
    node_on(&MemoryStore::new(Clock::system()), "here", config).await
}

/// Nodes on one database, named `here`, `there` and `yonder`. From here on, time stands still.
pub(crate) async fn nodes<const N: usize>(config: impl Fn() -> ConfigBuilder) -> [TestNode; N] {
    tokio::time::pause();
    let database = MemoryStore::new(Clock::system());
    let mut nodes = Vec::new();
    for name in ["here", "there", "yonder"].into_iter().take(N) {
        nodes.push(node_on(&database, name, config()).await);
    }
    nodes.try_into().ok().expect("there is a name for each")
}

/// Settings with which a node notices within a few seconds what other nodes do.
pub(crate) fn quick() -> ConfigBuilder {
    config().lease(secs(3)).sweep_interval(secs(1)).reconcile_interval(secs(2))
}

/// Lets time pass in which these sockets are seen every second.
pub(crate) async fn alive(clients: &[&FakeClient], time: Duration) {
    for _ in 0..time.as_secs() {
        pass(secs(1)).await;
        clients.iter().for_each(|client| client.touch());
    }
}

/// A node on a database that other nodes may use, too.
pub(crate) async fn node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> TestNode {
    let node = starting_node_on(database, name, config);
    node.rooms.ready().await;
    settle().await;
    node
}

/// A node that has made no call yet. It begins when the test next waits.
pub(crate) fn starting_node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> TestNode {
    let node = unsupervised_node_on(database, name, config);
    PruningSupervisor::spawn(&node.rooms);
    node
}

/// As `starting_node_on`, without a supervisor.
pub(crate) fn unsupervised_node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> TestNode {
    let store = RecordingStore::new(FaultyStore::new(database.clone()));
    let (config, name) = (config.build().unwrap(), NodeName::new(name).unwrap());
    // In a test, several nodes stand for several processes, also for one that starts again after it was killed.
    TestNode { rooms: Rooms::start_as_another_process(config, store.clone(), name), store }
}

/// As `starting_node_on`, for rooms of the same process as other rooms of the test.
pub(crate) fn own_node_on(database: &MemoryStore, name: &str, config: ConfigBuilder) -> TestNode {
    let store = RecordingStore::new(FaultyStore::new(database.clone()));
    let rooms = Rooms::start(config.build().unwrap(), store.clone(), NodeName::new(name).unwrap());
    PruningSupervisor::spawn(&rooms);
    TestNode { rooms, store }
}

impl TestNode {
    /// A socket of this user, in no room.
    pub(crate) fn client(&self, name: &str) -> FakeClient {
        FakeClient::new(&self.rooms, Some(user(name)))
    }

    pub(crate) fn anonymous(&self) -> FakeClient {
        FakeClient::new(&self.rooms, None)
    }

    /// A socket of this user in the lobby.
    pub(crate) async fn member(&self, name: &str) -> FakeClient {
        let client = self.client(name);
        client.join(lobby()).await.unwrap();
        client
    }

    /// Sockets of these users in the lobby, who joined in this order.
    pub(crate) async fn members_named<const N: usize>(&self, names: [&str; N]) -> [FakeClient; N] {
        let clients = names.map(|name| self.client(name));
        for client in &clients {
            client.join(lobby()).await.unwrap();
        }
        clients
    }

    /// Sockets in the lobby, of users `u0`, `u1` and so on, who joined together.
    pub(crate) async fn crowd(&self, count: usize) -> Vec<FakeClient> {
        let clients: Vec<_> = (0..count).map(|n| self.client(&format!("u{n}"))).collect();
        all_join(&clients, lobby()).await;
        clients
    }

    /// Makes a room busy: so many anonymous sockets join together that its next notice waits for as long as the settings allow.
    pub(crate) async fn stir(&self, room: &RoomName) {
        let interval = usize::try_from(self.rooms.config().notify_interval().as_millis()).expect("a short time");
        // A room saves enough for ten joins at once, and spends in advance what it may spend in one interval: a join in 20 ms.
        let clients: Vec<_> = (0..12 + interval / 20).map(|_| self.anonymous()).collect();
        all_join(&clients, room).await;
    }

    /// The users of the rows of a room, sorted; anonymous ones are `-`.
    pub(crate) async fn rows(&self, room: &RoomName) -> Vec<String> {
        let snapshot = self.store.database().load(room.clone()).await.unwrap();
        let presences = snapshot.into_iter().flat_map(|snapshot| snapshot.presences);
        let mut users: Vec<_> = presences.map(|one| name_of(one.user.as_ref())).collect();
        users.sort();
        users
    }

    /// The users in a room as the handle returns them.
    pub(crate) async fn names(&self, room: &RoomName) -> Vec<String> {
        let users = self.rooms.users(room).await.unwrap();
        users.iter().map(|user| user.as_str().to_owned()).collect()
    }

    /// How many tasks watch presences of this node.
    pub(crate) fn children(&self) -> usize {
        usize::try_from(self.rooms.this_node().children.load(std::sync::atomic::Ordering::Relaxed))
            .expect("only those that started have stopped")
    }
}

pub(crate) async fn all_join(clients: &[FakeClient], room: &RoomName) {
    for joined in futures_util::future::join_all(clients.iter().map(|client| client.join(room))).await {
        joined.unwrap();
    }
}

fn name_of(user: Option<&UserId>) -> String {
    user.map_or("-".to_owned(), |user| user.as_str().to_owned())
}

/// The events so far as short texts: `+a` joined, `-a` left, `~a` changed, `-[a b]` left together.
pub(crate) fn published(changes: &mut Subscription) -> Vec<String> {
    let mut published = Vec::new();
    // Tokio limits how many ready events a task receives at once. Here all of them are wanted.
    while let Some(Some(event)) = tokio::task::unconstrained(changes.next()).now_or_never() {
        published.push(short(&event.change));
    }
    published
}

/// The events so far, each followed by `+a` or `-a` for each user that it shows as going online or offline.
pub(crate) fn online_events(changes: &mut Subscription) -> Vec<String> {
    let mut online_events = Vec::new();
    while let Some(Some(event)) = tokio::task::unconstrained(changes.next()).now_or_never() {
        let online = event.user_online().iter().map(|user| format!(" +{}", user.as_str()));
        let mut all: Vec<_> =
            online.chain(event.user_offline().iter().map(|user| format!(" -{}", user.as_str()))).collect();
        all.sort();
        online_events.push(format!("{}:{}", short(&event.change), all.concat()));
    }
    online_events
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
