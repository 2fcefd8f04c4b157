//! 100,000 presences send a heartbeat every 30 s: what share of a core the store takes for it, its thread and the database
//! together; the same if they send one every 5 s, by how often a row learns of it; and what a touch costs by itself, in
//! transactions of several sizes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use presence::{ChannelName, Config, NodeName, PresenceId, PruningSupervisor, Rooms, store::RoomStore};
use presence_test_servers::Server;

use super::{Place, cpu, fill, own_cpu, room, server_cpu, since, tell, user};

const PRESENCES: usize = 100_000;
const ROOMS: usize = 1_000;
/// How often each sends a heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The same for clients that send many.
const OFTEN: Duration = Duration::from_secs(5);
/// How often a row learns of them, in seconds.
const FLUSHES: [u64; 4] = [2, 5, 10, 15];
/// How often each size of transactions is measured.
const ROUNDS: usize = 5;
/// Over how many times 30 s each of these is measured.
const WINDOWS: usize = 3;
const WINDOW: Duration = Duration::from_secs(30);

/// What a touch costs, with as many in each transaction as the writer puts there, and with fewer and more.
pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let place = Place::new(server).await;
    let (store, node) = place.writer().await;
    let mut ids = fill(&store, node, ROOMS, PRESENCES / ROOMS).await;
    // Heartbeats come in no order.
    ids.sort_unstable_by_key(|id| scattered(*id));
    for (batch, touched) in [(100, 20_000), (1_000, PRESENCES), (10_000, PRESENCES)] {
        let (mut took, mut own, mut servers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            // Each touch is later than the one before, else it writes nothing.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let (begun, cpu, theirs) = (Instant::now(), own_cpu(), server_cpu(server));
            for batch in ids[..touched].chunks(batch) {
                let seen: Vec<_> = batch.iter().map(|id| (*id, Duration::ZERO)).collect();
                store.touch(node, seen.clone().into()).await.expect("touching works");
            }
            let each = 1.0 / touched as f64;
            took.push(since(begun) * each);
            own.push((own_cpu() - cpu) * each);
            servers.push((server_cpu(server) - theirs) * each);
        }
        tell(database, &format!("a touch, {batch} in a transaction"), took, 1e6, "µs");
        tell(database, "  of that, processor time of this process", own, 1e6, "µs");
        if server.is_some() {
            tell(database, "  processor time of the server", servers, 1e6, "µs");
        }
    }
    tell_hot(&place).await;
}

/// Heartbeats as they come: through rooms with the default settings.
pub(super) async fn measure_heartbeats(database: &str, server: Option<&Server>) {
    let what = "of a core: the store, heartbeats of 100,000 every 30 s";
    measure_beats(database, server, Config::default(), HEARTBEAT, what).await;
}

/// Heartbeats of clients that send many, by how often a row learns of them.
pub(super) async fn measure_flushes(database: &str, server: Option<&Server>) {
    for seconds in FLUSHES {
        let config =
            Config::builder().touch_flush_interval(Duration::from_secs(seconds)).build().expect("good settings");
        let what = format!("of a core: the store, heartbeats every 5 s, written every {seconds} s");
        measure_beats(database, server, config, OFTEN, &what).await;
    }
}

async fn measure_beats(database: &str, server: Option<&Server>, config: Config, every: Duration, what: &str) {
    let place = Place::new(server).await;
    let before = threads();
    let rooms = Rooms::start(config, place.store().await, NodeName::new("bench").expect("a good name"));
    // The first thread that rooms start is the store's.
    let store = threads().into_iter().find(|thread| !before.contains(thread)).expect("it has started");
    let _supervisor = PruningSupervisor::spawn(&rooms);
    rooms.ready().await;
    let channel = |n: usize| ChannelName::new(format!("heart {n}")).expect("a good name");
    let channels: Vec<_> = (0..PRESENCES).map(channel).collect();
    for thousand in channels.chunks(1_000).enumerate().map(|(at, thousand)| (at * 1_000, thousand)) {
        let (first, thousand) = thousand;
        let join = async |(n, channel): (usize, &ChannelName)| {
            rooms.add(&room((first + n) % ROOMS), channel, Some(&user(first + n))).await.expect("it joins");
        };
        join_all(thousand.iter().enumerate().map(join)).await;
    }
    let (mut own, mut servers) = (Vec::new(), Vec::new());
    // The first round is for the touches to spread.
    for window in 0..=WINDOWS {
        let (cpu, theirs) = (store_cpu(&store), server_cpu(server));
        for _ in 0..WINDOW.as_secs() / every.as_secs() {
            beat(&rooms, &channels, every).await;
        }
        if window > 0 {
            own.push((store_cpu(&store) - cpu) / WINDOW.as_secs_f64());
            servers.push((server_cpu(server) - theirs) / WINDOW.as_secs_f64());
        }
    }
    tell(database, what, own, 100.0, "%");
    if server.is_some() {
        tell(database, "  and the server", servers, 100.0, "%");
    }
    tell_hot(&place).await;
    assert_eq!(rooms.count(&room(0)).await.expect("it counts").presences, PRESENCES / ROOMS, "nobody went stale");
    rooms.shutdown().await;
}

/// Each channel sends one heartbeat, evenly within that time.
async fn beat(rooms: &Rooms, channels: &[ChannelName], within: Duration) {
    const STEPS: usize = 100;
    let begun = tokio::time::Instant::now();
    for (step, some) in channels.chunks(channels.len().div_ceil(STEPS)).enumerate() {
        some.iter().for_each(|channel| rooms.touch(channel));
        let done = within * u32::try_from(step + 1).expect("few steps") / STEPS as u32;
        tokio::time::sleep_until(begun + done).await;
    }
}

/// A number that has nothing to do with when the presence joined.
fn scattered(id: PresenceId) -> u64 {
    id.as_uuid().as_u64_pair().1
}

/// How many updates of PostgreSQL moved no row to another page, and so touched no index.
async fn tell_hot(place: &Place) {
    if !place.url.starts_with("postgres") {
        return;
    }
    // The server counts with a delay.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'presences'";
    let row = place.ask(query).await;
    let (all, hot): (i64, i64) = (row.try_get_by_index(0).expect("a count"), row.try_get_by_index(1).expect("a count"));
    println!("postgres  updates {all}, of these HOT {hot} ({:.1} %)", 100.0 * hot as f64 / all as f64);
}

/// The threads of this process, in the order in which they began.
fn threads() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let mut threads: Vec<PathBuf> = threads.map(|thread| thread.path()).collect();
    threads.sort_unstable_by_key(|thread| thread.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    threads
}

/// That of the store's thread, and of SQLite's, if it is that.
fn store_cpu(store: &Path) -> f64 {
    let is_sqlite =
        |thread: &PathBuf| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("sqlx-sqlite"));
    let sqlite: f64 = threads().iter().filter(|thread| is_sqlite(thread)).map(|thread| cpu(&thread.join("stat"))).sum();
    cpu(&store.join("stat")) + sqlite
}
