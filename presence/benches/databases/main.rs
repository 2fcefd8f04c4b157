//! What each database takes, side by side: joins of many callers, removals of 100,000, rooms of 100,000, heartbeats of 100,000.
//! PostgreSQL and MariaDB are started on a free port with their default durability, and end with it. Each figure is measured
//! at least three times; what is printed is the median, the least and the greatest.
//!
//! `cargo bench -p presence --features postgres,mysql,testing --bench databases [-- [sqlite|postgres|mysql] [PART]]`, where PART is
//! `joining`, `removing`, `idle`, `loading`, `touching`, `heartbeats`, `flushes` or `turns`, and on servers also `cluster`, or one of its parts
//! `hot`, `disjoint` and `quiet`.

mod cluster;
mod joining;
mod loading;
mod removing;
mod touching;
mod turns;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use presence::{
    ChannelName, Config, NodeId, NodeName, Presence, PresenceId, PruningSupervisor, RoomName, Rooms, SqlStore, UserId,
    store::{Attempt, NodeStore, RoomStore, RoomWrites, Store, Write},
};
use presence_test_servers::{CommitSync, Database, Server, ServerKind};
use sea_orm::{ConnectOptions, ConnectionTrait, QueryResult, Statement};
use tempfile::TempDir;

/// How often each figure is measured.
const RUNS: usize = 3;
const HOUR: Duration = Duration::from_secs(3600);

/// A database of its own, and where it lives.
struct Place {
    url: String,
    _database: Option<Database>,
    _folder: Option<TempDir>,
}

impl Place {
    async fn new(server: Option<&Server>) -> Self {
        match server {
            Some(server) => {
                let database = server.database().await;
                Self { url: database.url(), _database: Some(database), _folder: None }
            }
            None => {
                let folder = TempDir::new().expect("a folder for the database");
                let url = format!("sqlite://{}/presence.db", folder.path().display());
                Self { url, _database: None, _folder: Some(folder) }
            }
        }
    }

    async fn store(&self) -> SqlStore {
        let store = SqlStore::connect(&self.url).expect("a good URL");
        store.prepare().await.expect("a new database");
        store
    }

    /// A store and a life that may write to it.
    async fn writer(&self) -> (SqlStore, NodeId) {
        let store = self.store().await;
        let node = begin(&store, "bench", HOUR).await;
        (store, node)
    }

    /// What the database answers to a query of one row.
    async fn ask(&self, query: &str) -> QueryResult {
        let mut options = ConnectOptions::new(&self.url);
        options.sqlx_logging(false);
        let connection = sea_orm::Database::connect(options).await.expect("the database is there");
        let query = Statement::from_string(connection.get_database_backend(), query);
        connection.query_one_raw(query).await.expect("it answers").expect("one row")
    }

    /// Rooms that do nothing by themselves.
    async fn rooms(&self) -> (Rooms, actix::Addr<PruningSupervisor>) {
        let quiet = Config::builder().max_age(HOUR).reconcile_interval(HOUR).sweep_interval(HOUR).prune_interval(HOUR);
        let quiet = quiet.lease(Duration::from_secs(2)).store_timeout(Duration::from_secs(30));
        let rooms = Rooms::start(
            quiet.build().expect("good settings"),
            self.store().await,
            NodeName::new("rooms").expect("a good name"),
        );
        let supervisor = PruningSupervisor::spawn(&rooms);
        rooms.ready().await;
        (rooms, supervisor)
    }
}

async fn begin(store: &SqlStore, name: &str, lease: Duration) -> NodeId {
    let node = NodeId::random();
    store.register(node, NodeName::new(name).expect("a good name"), lease).await.expect("a new life");
    node
}

fn room(n: usize) -> RoomName {
    RoomName::new(format!("room {n}")).expect("a good name")
}

fn user(n: usize) -> UserId {
    UserId::new(format!("user {n}")).expect("a good name")
}

fn joins(node: NodeId, size: usize) -> Vec<Write> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let join = |n| {
        let id = PresenceId::random();
        let channel =
            ChannelName::new(format!("ws.{}.0!{}", node.as_uuid().simple(), NUMBER.fetch_add(1, Ordering::Relaxed)));
        Write::Join(Arc::new(Presence::new(id, channel.expect("a good name"), Some(user(n)), node)))
    };
    (0..size).map(join).collect()
}

/// Fills so many rooms with so many presences of a node each, and returns their ids.
async fn fill(store: &SqlStore, node: NodeId, rooms: usize, each: usize) -> Vec<PresenceId> {
    let mut ids = Vec::with_capacity(rooms * each);
    let mut batch = Vec::new();
    let mut count = 0;
    for n in 0..rooms {
        for begun in (0..each).step_by(1_000) {
            let writes = joins(node, (each - begun).min(1_000));
            count += writes.len();
            ids.extend(writes.iter().map(Write::id));
            batch.push(RoomWrites { room: room(n), writes });
            if count >= 1_000 {
                store.commit(node, Attempt::next(), batch.clone().into()).await.expect("the commit works");
                (batch, count) = (Vec::new(), 0);
            }
        }
    }
    if !batch.is_empty() {
        store.commit(node, Attempt::next(), batch.clone().into()).await.expect("the commit works");
    }
    ids
}

/// The median, the least and the greatest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

/// Prints what was measured; `scale` turns it into the unit.
fn tell(database: &str, what: &str, values: Vec<f64>, scale: f64, unit: &str) {
    let (median, least, greatest) = spread(values);
    let digits = if median * scale < 10.0 { 2 } else { 0 };
    println!(
        "{database:<9} {what:<66} {:>9.digits$} {unit} ({:.digits$}–{:.digits$})",
        median * scale,
        least * scale,
        greatest * scale
    );
}

/// Seconds since then.
fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}

/// Seconds of processor time from a `stat` file of `/proc`, in which the clock ticks 100 times a second: that of the process
/// or thread, and of the children of it that have ended.
fn cpu(stat: &Path) -> f64 {
    let Ok(text) = fs::read_to_string(stat) else { return 0.0 };
    let Some((_, fields)) = text.rsplit_once(')') else { return 0.0 };
    let fields: Vec<f64> = fields.split_whitespace().skip(11).take(4).filter_map(|one| one.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

fn own_cpu() -> f64 {
    cpu(Path::new("/proc/self/stat"))
}

/// The processor time of all processes of the server, which run in its folder.
fn server_cpu(server: Option<&Server>) -> f64 {
    let Some(server) = server else { return 0.0 };
    let folder = server.folder();
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let its = processes.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder));
    its.map(|process| cpu(&process.path().join("stat"))).sum()
}

async fn measure(database: &str, server: Option<&Server>, part: Option<&str>) {
    let wanted = |name: &str| part.is_none_or(|part| part == name);
    if wanted("joining") {
        joining::measure(database, server).await;
    }
    if wanted("removing") {
        removing::measure(database, server).await;
    }
    if wanted("idle") {
        removing::measure_idle(database, server).await;
    }
    if wanted("loading") {
        loading::measure(database, server).await;
    }
    if wanted("touching") {
        touching::measure(database, server).await;
    }
    if wanted("heartbeats") {
        touching::measure_heartbeats(database, server).await;
    }
    if wanted("flushes") {
        touching::measure_flushes(database, server).await;
    }
    if wanted("turns") {
        turns::measure(database, server).await;
    }
    let Some(server) = server else { return };
    for name in cluster::PARTS {
        if wanted(name) || wanted("cluster") {
            cluster::measure(database, server, name).await;
        }
    }
}

#[actix::main]
async fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|one| !one.starts_with("--")).collect();
    if let [role, url, name] = &wanted[..]
        && role == "as-node"
    {
        return cluster::serve_as_node(url, name).await;
    }
    let kinds = [("sqlite", None), ("postgres", Some(ServerKind::Postgres)), ("mysql", Some(ServerKind::MySql))];
    let part = wanted.iter().find(|one| kinds.iter().all(|(name, _)| name != one));
    let all = !wanted.iter().any(|one| kinds.iter().any(|(name, _)| name == one));
    for (name, kind) in kinds {
        if all || wanted.iter().any(|one| one == name) {
            let server = kind.map(|kind| Server::start(kind, CommitSync::Full));
            measure(name, server.as_ref(), part.map(String::as_str)).await;
        }
    }
    // A shutdown has nothing to do with it; the servers have ended.
    std::process::exit(0);
}
