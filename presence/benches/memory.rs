//! What 1,000,000 presences in 10,000 rooms keep in memory, part by part: their model, their rooms' actors with a child each,
//! and what a store in memory adds. No sockets: those have their own price.
//!
//! Three processes measure it one after the other. Of each part two figures are told: how much was asked of the allocator and
//! not given back, and by how much the resident memory of the process grew, with all that the allocator needs besides.
//!
//! `cargo bench -p presence --features testing --bench memory [-- PRESENCES]`

use std::{
    alloc::System,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use presence::{
    ChannelName, Config, MemoryStore, NodeId, NodeName, Presence, PresenceId, PruningSupervisor, RoomName, Rooms,
    SqlStore, UserId,
    store::{Attempt, Delta, NodeStore, RoomStore, RoomWrites, Store, Write},
    testing::bare::{BareRoom, join_without_socket},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RUNS: usize = 3;
const PRESENCES: usize = 1_000_000;
/// How many are in each room.
const EACH: usize = 100;
/// What a measuring process is told to do, and how it marks its answers.
const ONCE: &str = "once";

/// How much memory is in use, in bytes.
struct Used {
    /// Of the allocator's.
    allocated: usize,
    /// How many allocations that is.
    pieces: usize,
    /// Of the system's.
    resident: usize,
}

impl Used {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is told");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        Self {
            allocated: stats.bytes_allocated - stats.bytes_deallocated,
            pieces: stats.allocations - stats.deallocations,
            resident: kib * 1024,
        }
    }

    /// Says how much more there is by now, for each presence.
    fn tell(&self, what: &str, presences: usize) {
        let now = Self::now();
        let each = |before: usize, now: usize| now.saturating_sub(before) as f64 / presences as f64;
        let (allocated, pieces) = (each(self.allocated, now.allocated), each(self.pieces, now.pieces));
        println!("{ONCE}\t{what}\t{allocated}\t{pieces}\t{}", each(self.resident, now.resident));
    }
}

fn room(n: usize) -> RoomName {
    RoomName::new(format!("room {n}")).expect("a good name")
}

fn user(n: usize) -> UserId {
    UserId::new(format!("user {n}")).expect("a good name")
}

fn presences(node: NodeId, room: usize) -> Vec<Arc<Presence>> {
    let presence = |n| {
        let id = PresenceId::random();
        let channel = format!("ws.{}.0!{}", node.as_uuid().simple(), room * EACH + n);
        Arc::new(Presence::new(id, ChannelName::new(channel).expect("a good name"), Some(user(n)), node))
    };
    (0..EACH).map(presence).collect()
}

fn config() -> Config {
    let hour = Duration::from_secs(3600);
    let quiet = Config::builder().max_age(hour).reconcile_interval(hour).sweep_interval(hour);
    quiet.room_threads(0).store_timeout(Duration::from_secs(60)).build().expect("good settings")
}

async fn start(store: impl Store) -> Rooms {
    let rooms = Rooms::start(config(), store, NodeName::new("bench").expect("a good name"));
    PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    rooms
}

/// Measures each part in this process.
async fn once(presences_in_all: usize) {
    let count = presences_in_all / EACH;
    let node = NodeId::random();
    let before = Used::now();
    let all: Vec<_> = (0..count).map(|n| presences(node, n)).collect();
    before.tell("the presence itself, with its channel name and user", presences_in_all);

    let before = Used::now();
    let bare = all.iter().enumerate().map(|(n, joined)| {
        let mut bare = BareRoom::new(room(n));
        bare.apply(Delta { joined: joined.clone(), ..Delta::default() });
        bare.notice();
        bare
    });
    let bare: Vec<_> = bare.collect();
    before.tell("its place in the room's roster", presences_in_all);

    let store = MemoryStore::default();
    let name = NodeName::new("bench").expect("a good name");
    store.register(node, name.clone(), Duration::from_secs(3600)).await.expect("a life");
    let before = Used::now();
    for (n, joined) in all.iter().enumerate() {
        let writes = joined.iter().cloned().map(Write::Join).collect();
        store
            .commit(node, Attempt::next(), [RoomWrites { room: room(n), writes }].into())
            .await
            .expect("the commit works");
    }
    before.tell("its row in a store in memory", presences_in_all);

    let folder = tempfile::TempDir::new().expect("a folder for the database");
    let url = format!("sqlite://{}/presence.db", folder.path().display());
    let rooms = start(SqlStore::connect(&url).expect("a good URL")).await;
    let before = Used::now();
    for n in 0..count {
        let name = room(n);
        let joins = (0..EACH).map(|n| join_without_socket(&rooms, &name, Some(user(n))));
        join_all(joins).await.into_iter().collect::<presence::Result<Vec<_>>>().expect("all join");
    }
    // What was used for a moment is given back.
    tokio::time::sleep(Duration::from_millis(100)).await;
    before.tell("all of it: model, actors, and a store in a SQLite file", presences_in_all);
    // A shutdown has nothing to do with it.
    drop((bare, all, rooms, folder));
}

/// One part of one run: bytes asked for, pieces, resident bytes.
type Figures = [f64; 3];

/// Has another process measure, and reads what it tells.
fn run(presences: usize) -> Vec<(String, Figures)> {
    let this = std::env::current_exe().expect("this program");
    let mut once = Command::new(this);
    let output = once.args([ONCE, &presences.to_string()]).stderr(Stdio::inherit()).output().expect("it runs");
    assert!(output.status.success(), "a measuring process failed");
    let text = String::from_utf8(output.stdout).expect("its answers");
    let told = text.lines().filter_map(|line| {
        let mut fields = line.strip_prefix(ONCE)?.trim_start().split('\t');
        let what = fields.next()?.to_owned();
        let figures: Vec<f64> = fields.filter_map(|figure| figure.parse().ok()).collect();
        Some((what, figures.try_into().ok()?))
    });
    told.collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| !one.starts_with("--")).collect();
    let number = arguments.iter().find_map(|one| one.parse().ok());
    let presences = number.unwrap_or(PRESENCES).next_multiple_of(EACH);
    if arguments.iter().any(|one| one == ONCE) {
        actix::System::new().block_on(once(presences));
        std::process::exit(0);
    }
    let runs: Vec<_> = (0..RUNS).map(|_| run(presences)).collect();
    println!("{presences} presences, {EACH} in each room, {RUNS} runs: the median of each, the least and the greatest");
    for (at, (what, _)) in runs[0].iter().enumerate() {
        let told = ["bytes asked for", "pieces", "bytes resident"].iter().enumerate().map(|(figure, unit)| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[at].1[figure]).collect();
            values.sort_by(f64::total_cmp);
            let digits = usize::from(figure == 1);
            let (median, least, greatest) = (values[values.len() / 2], values[0], values[values.len() - 1]);
            format!("{median:.digits$} ({least:.digits$}–{greatest:.digits$}) {unit}")
        });
        println!("{what}: {}", told.collect::<Vec<_>>().join(", "));
    }
}
