//! What 100,000 presences in 1,000 rooms keep in memory, part by part: their model, their rooms' actors with a child each,
//! and what a store in memory adds. No sockets: those have their own price (`load`).
//!
//! `cargo bench -p presence --features testing --bench memory`

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use presence::{
    Config, PruningSupervisor, Rooms,
    model::{Delta, Presence},
    name::{ChannelName, NodeId, NodeName, PresenceId, RoomName, UserId},
    store::{MemoryStore, RoomWrites, SqlStore, Store, Write},
    testing::bare::{BareRoom, join_without_socket},
};

const ROOMS: usize = 1_000;
const EACH: usize = 100;

/// The resident memory of this process in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is told");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// Says how much more memory there is than before, for each presence.
fn tell(what: &str, before: usize) {
    let more = resident().saturating_sub(before);
    println!("{what:<60} {:>6} bytes a presence ({:.1} MB)", more / (ROOMS * EACH), more as f64 / 1e6);
}

fn room(n: usize) -> RoomName {
    RoomName::new(format!("room {n}")).expect("a good name")
}

fn user(n: usize) -> UserId {
    UserId::new(format!("user {n}")).expect("a good name")
}

fn presences(node: NodeId) -> Vec<Arc<Presence>> {
    let presence = |n| {
        let id = PresenceId::random();
        let channel = format!("ws.{}.0!{}", node.as_uuid().simple(), id.as_uuid().simple());
        Arc::new(Presence::new(id, ChannelName::new(channel).expect("a good name"), Some(user(n)), node))
    };
    (0..EACH).map(presence).collect()
}

fn config() -> Config {
    let hour = Duration::from_secs(3600);
    let quiet = Config::builder().max_age(hour).reconcile_interval(hour).sweep_interval(hour);
    quiet.room_threads(0).store_timeout(Duration::from_secs(60)).build().expect("good settings")
}

async fn actors(store: impl Store, what: &str) -> Rooms {
    let rooms = Rooms::start(config(), store);
    PruningSupervisor::spawn(&rooms, NodeName::new("bench").expect("a good name"));
    rooms.ready().await;
    let before = resident();
    for n in 0..ROOMS {
        let name = room(n);
        let joins = (0..EACH).map(|n| join_without_socket(&rooms, &name, Some(user(n))));
        join_all(joins).await.into_iter().collect::<presence::Result<Vec<_>>>().expect("all join");
    }
    tell(what, before);
    rooms
}

#[actix::main]
async fn main() {
    let node = NodeId::random();
    let before = resident();
    let all: Vec<_> = (0..ROOMS).map(|_| presences(node)).collect();
    tell("the presences themselves, with channel name and user id", before);

    let before = resident();
    let bare = all.iter().enumerate().map(|(n, joined)| {
        let mut bare = BareRoom::new(room(n));
        bare.apply(Delta { joined: joined.clone(), ..Delta::default() });
        bare.news();
        bare
    });
    let bare: Vec<_> = bare.collect();
    tell("their place in the rosters of their rooms", before);

    let store = MemoryStore::default();
    store
        .register(node, &NodeName::new("bench").expect("a good name"), Duration::from_secs(3600))
        .await
        .expect("a life");
    let before = resident();
    for (n, joined) in all.iter().enumerate() {
        let writes = joined.iter().cloned().map(Write::Join).collect();
        store.commit(node, &[RoomWrites { room: room(n), writes }]).await.expect("the commit works");
    }
    tell("their rows in a store in memory", before);

    let folder = tempfile::TempDir::new().expect("a folder for the database");
    let url = format!("sqlite://{}/presence.db", folder.path().display());
    let rooms =
        actors(SqlStore::connect(&url).expect("a good URL"), "all of it with actors, and a store in a SQLite file")
            .await;
    // A shutdown has nothing to do with it.
    drop((bare, all, rooms));
    std::process::exit(0);
}
