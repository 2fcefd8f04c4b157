//! 100,000 presences in 1,000 rooms are removed, until the last event is heard: those of a dead node, and stale ones of the own.
//! And a round of the supervisor that finds nothing among 1,000,000.

use presence::store::{NodeStore, RoomStore, SweepShare};

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use presence::{ChannelName, PresenceChange, Rooms, Subscription, actor::Sweep};
use presence_test_servers::Server;

use super::{HOUR, Place, RUNS, begin, fill, own_cpu, room, server_cpu, since, tell, user};

const ROOMS: usize = 1_000;
const EACH: usize = 100;
const ALL: usize = ROOMS * EACH;
/// In steps of so many rooms one comes to all of them, in no order of their names.
const SCATTER: usize = 617;
/// How often a round that finds nothing is measured.
const IDLE_ROUNDS: usize = 7;

/// How long something took, and how much processor time of this process and of the server.
#[derive(Default)]
struct Took {
    time: Vec<f64>,
    own: Vec<f64>,
    servers: Vec<f64>,
}

impl Took {
    async fn measure<T>(&mut self, server: Option<&Server>, work: impl Future<Output = T>) -> T {
        let (begun, own, servers) = (Instant::now(), own_cpu(), server_cpu(server));
        let done = work.await;
        self.time.push(since(begun));
        self.own.push(own_cpu() - own);
        self.servers.push(server_cpu(server) - servers);
        done
    }

    fn tell(self, database: &str, what: &str) {
        tell(database, what, self.time, 1.0, "s");
        tell(database, "  processor time of this process", self.own, 1.0, "s");
        if database != "sqlite" {
            tell(database, "  processor time of the server", self.servers, 1.0, "s");
        }
    }
}

/// Hears events until all have left; returns how many events that took.
async fn all_left(changes: &mut Subscription) -> usize {
    let (mut left, mut events) = (0, 0);
    while left < ALL {
        let event = changes.next().await.expect("the rooms are there");
        assert_eq!(event.missed, 0);
        events += 1;
        match event.change {
            PresenceChange::Bulk(gone) => left += gone.len(),
            PresenceChange::Added(_) => events -= 1,
            other => panic!("only bulk changes remove: {other:?}"),
        }
    }
    events
}

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    let (mut dead, mut stale, mut scattered) = (Took::default(), Took::default(), Took::default());
    for run in 0..RUNS {
        let place = Place::new(server).await;
        let store = place.store().await;
        let life = begin(&store, "dead", HOUR).await;
        fill(&store, life, ROOMS, EACH).await;
        store.register(life, "dead".parse().expect("a good name"), Duration::ZERO).await.expect("it ends its lease");
        let (rooms, supervisor) = place.rooms().await;
        // The node must have been alive for a lease before it judges others.
        let lease = rooms.config().lease();
        tokio::time::sleep(lease + lease / 2).await;
        let mut changes = rooms.changes();
        let (events, swept) =
            dead.measure(server, async { tokio::join!(all_left(&mut changes), supervisor.send(Sweep)) }).await;
        let swept = swept.expect("it runs").expect("it sweeps");
        println!("{database:<9} run {run}: {swept} of a dead node removed, {events} bulk events");

        drop(changes);
        for (took, step) in [(&mut stale, 1), (&mut scattered, SCATTER)] {
            join_stale(&rooms, step).await;
            let mut changes = rooms.changes();
            let prune = rooms.prune_presences(Some(Duration::from_millis(1)));
            let (events, pruned) = took.measure(server, async { tokio::join!(all_left(&mut changes), prune) }).await;
            let pruned = pruned.expect("it prunes");
            println!("{database:<9} run {run}: {pruned} stale ones of the own node removed, {events} bulk events");
        }
        rooms.shutdown().await;
    }
    dead.tell(database, "100,000 of a dead node in 1,000 rooms removed, events heard");
    stale.tell(database, "100,000 stale ones of the own node in 1,000 rooms, the same");
    scattered.tell(database, "  if the names of the rooms say nothing of their age");
}

/// Fills rooms with presences of this node that nobody touches, going through them in steps of so many.
async fn join_stale(rooms: &Rooms, step: usize) {
    for hundred in 0..EACH {
        let join = async |n: usize| {
            let channel = ChannelName::new(format!("stale {hundred} {n}")).expect("a good name");
            rooms.add(&room(n * step % ROOMS), &channel, Some(&user(hundred))).await.expect("it joins");
        };
        join_all((0..ROOMS).map(join)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A round of the supervisor that finds nothing to do, among few presences and among many.
pub(super) async fn measure_idle(database: &str, server: Option<&Server>) {
    let place = Place::new(server).await;
    let (store, node) = place.writer().await;
    for (each, live) in [(1, "1,000"), (999, "1,000,000")] {
        fill(&store, node, ROOMS, each).await;
        let before = rows_read(&place).await;
        let mut times = Vec::new();
        for _ in 0..IDLE_ROUNDS {
            let begun = Instant::now();
            assert!(store.fence(node).await.expect("it may judge").is_empty());
            assert_eq!(store.sweep(node, SweepShare::whole(), 1_000).await.expect("it sweeps").handled, 0);
            assert_eq!(
                store.prune(node, Duration::from_secs(60), Duration::ZERO, 1_000).await.expect("it prunes").handled,
                0
            );
            times.push(since(begun));
        }
        tell(database, &format!("fence, sweep and prune with nothing due, {live} live"), times, 1e3, "ms");
        if let (Some(before), Some(after)) = (before, rows_read(&place).await) {
            println!("{database:<9} rows that these {IDLE_ROUNDS} rounds looked at: {}", after - before);
        }
    }
}

/// How many rows the server has looked at so far: PostgreSQL those of presences, MariaDB of all tables. SQLite does not count
/// them; a test looks at its plans instead.
async fn rows_read(place: &Place) -> Option<i64> {
    let counted = if place.url.starts_with("postgres") {
        // A session that rests tells what it has counted after a moment.
        tokio::time::sleep(Duration::from_secs(2)).await;
        "SELECT (seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_user_tables WHERE relname = 'presences'"
    } else if place.url.starts_with("mysql") {
        "SELECT CAST(SUM(variable_value) AS SIGNED) FROM information_schema.global_status \
         WHERE variable_name LIKE 'HANDLER_READ%'"
    } else {
        return None;
    };
    let row = place.ask(counted).await;
    Some(row.try_get_by_index(0).expect("a count"))
}
