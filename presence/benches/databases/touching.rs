//! 100,000 presences send heartbeats every 30 s, so that each is written at most once in that time: how much of a core the
//! store and the database take for it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use presence::store::Store;
use presence_test_servers::Server;
use sea_orm::{ConnectOptions, ConnectionTrait, Database, Statement};

use super::{Place, fill, since, tell};

/// As many as the writer puts into one transaction.
const BATCH: usize = 1_000;
/// How many rounds of touches.
const ROUNDS: usize = 5;

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let place = Place::new(server).await;
    let (store, node) = place.writer().await;
    let ids = fill(&store, node, 1_000, 100).await;
    let (mut took, mut own, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        // Each touch is later than the one before, else it writes nothing.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (begun, cpu, theirs) = (Instant::now(), own_cpu(), server_cpu(server));
        for batch in ids.chunks(BATCH) {
            let seen: Vec<_> = batch.iter().map(|id| (*id, Duration::ZERO)).collect();
            store.touch(node, &seen).await.expect("touching works");
        }
        took.push(since(begun));
        own.push(own_cpu() - cpu);
        servers.push(server_cpu(server) - theirs);
    }
    tell(database, "100,000 touches, 1,000 a transaction", took, 1.0, "s");
    for interval in [10.0, 15.0, 30.0] {
        let (own, servers) = (own.clone(), servers.clone());
        let what = format!("of one core for that every {interval} s, in this process");
        tell(database, &what, own, 100.0 / interval, "%");
        if server.is_some() {
            let what = format!("of one core for that every {interval} s, in the server");
            tell(database, &what, servers, 100.0 / interval, "%");
        }
    }
    if place.url.starts_with("postgres") {
        tell_hot(&place).await;
    }
}

/// How many updates moved no row to another page, and so touched no index.
async fn tell_hot(place: &Place) {
    let mut options = ConnectOptions::new(&place.url);
    options.sqlx_logging(false);
    let connection = Database::connect(options).await.expect("the server is there");
    let backend = connection.get_database_backend();
    // The server counts with a delay.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let query = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'presences'";
    let row = connection.query_one_raw(Statement::from_string(backend, query)).await.expect("it answers");
    let row = row.expect("the table is there");
    let (all, hot): (i64, i64) = (row.try_get_by_index(0).expect("a count"), row.try_get_by_index(1).expect("a count"));
    println!("postgres  updates {all}, of these HOT {hot} ({:.1} %)", 100.0 * hot as f64 / all as f64);
}

/// Seconds of processor time from a `stat` file of `/proc`, in which the clock ticks 100 times a second.
fn cpu(stat: &Path) -> f64 {
    let Ok(text) = fs::read_to_string(stat) else { return 0.0 };
    let Some((_, fields)) = text.rsplit_once(')') else { return 0.0 };
    let fields: Vec<f64> = fields.split_whitespace().skip(11).take(2).filter_map(|one| one.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}

fn own_cpu() -> f64 {
    cpu(Path::new("/proc/self/stat"))
}

/// That of all processes of the server, which run in its folder.
fn server_cpu(server: Option<&Server>) -> f64 {
    let Some(server) = server else { return 0.0 };
    let folder = server.folder();
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let its = processes.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder));
    its.map(|process| cpu(&process.path().join("stat"))).sum()
}
