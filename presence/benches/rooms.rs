//! What rooms cost, from end to end: joining, touching, sending to 1,000, and the first frame in a room of 10,000. Sockets
//! are real ones of this machine; server and clients share its cores.
//!
//! `cargo bench -p presence --features testing --bench rooms`

mod support;

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt::Display,
    hint::black_box,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use presence::{
    ChannelName, MemoryStore, Meta, NodeId, NodeName, Outgoing, Presence, PresenceId, RoomName, SqlStore, UserId,
    store::{Attempt, Delta, NodeStore, RoomStore, RoomWrites, Write},
    testing::bare::BareRoom,
};
use support::{
    client::{BenchClient, text},
    crowd::{Crowd, MARK},
    server::{BenchServer, HEARTBEAT, config},
};
use tempfile::TempDir;

const STATE: &str = r#"{"type":"presence.state""#;

fn room(name: impl Display) -> RoomName {
    RoomName::new(name.to_string()).expect("a good name")
}

/// A SQLite store in a file of this folder.
fn sqlite(folder: &TempDir) -> SqlStore {
    SqlStore::connect(&format!("sqlite://{}/presence.db", folder.path().display())).expect("a good URL")
}

/// Names that were never used before, so that each round meets a room of which nobody knows.
#[derive(Default)]
struct Fresh(u64);

impl Fresh {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// One socket that is open already joins a room in which nobody is, and leaves it.
fn join_and_leave(criterion: &mut Criterion, store: &str, server: &BenchServer) {
    let mut client = BenchClient::connect(server.port, "/presence/lobby/ann");
    let mut fresh = Fresh::default();
    let mut round = |times: u64, timed: fn(Duration, Duration) -> Duration| {
        let mut total = Duration::ZERO;
        for _ in 0..times {
            let begun = Instant::now();
            client.say(&format!("join room {}", fresh.next()));
            client.hear(STATE);
            let joined = begun.elapsed();
            let begun = Instant::now();
            client.say("leave");
            client.hear("left");
            total += timed(joined, begun.elapsed());
        }
        total
    };
    let mut group = criterion.benchmark_group("join");
    group.bench_function(BenchmarkId::new("to the first frame", store), |bencher| {
        bencher.iter_custom(|times| round(times, |joined, _| joined));
    });
    group.bench_function(BenchmarkId::new("leave, until it is durable", store), |bencher| {
        bencher.iter_custom(|times| round(times, |_, left| left));
    });
    group.finish();
}

/// 256 sockets that are open already join at once.
fn join_together(criterion: &mut Criterion, store: &str, server: &BenchServer) {
    const CROWD: usize = 256;
    let paths = (0..CROWD).map(|n| format!("/presence/lobby/user{n}")).collect();
    let crowd = Crowd::connect(server.port, paths);
    let mut fresh = Fresh::default();
    let mut group = criterion.benchmark_group("join");
    group.sample_size(10).throughput(Throughput::Elements(CROWD as u64));
    group.bench_function(BenchmarkId::new("256 into one room", store), |bencher| {
        bencher.iter_custom(|times| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                let lobby = format!("crowd {}", fresh.next());
                crowd.forget();
                let begun = Instant::now();
                crowd.say(&format!("join {lobby}"));
                crowd.hear_states(CROWD);
                total += begun.elapsed();
                crowd.say("leave");
                empty(server, &room(lobby));
            }
            total
        });
    });
    group.finish();
}

/// Waits until nobody is in the room.
fn empty(server: &BenchServer, room: &RoomName) {
    while server.runtime.block_on(server.rooms.count(room)).expect("it answers").presences > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn joins(criterion: &mut Criterion) {
    let in_memory = BenchServer::start(config(), MemoryStore::default());
    let folder = TempDir::new().expect("a folder for the database");
    let in_sqlite = BenchServer::start(config(), sqlite(&folder));
    // How long it takes to be answered at all, without presence: the floor of all others here.
    let mut client = BenchClient::connect(in_memory.port, "/plain");
    criterion.bench_function("join/an answer without presence", |bencher| {
        bencher.iter(|| {
            client.say("answer");
            client.hear("answer").len()
        });
    });
    for (store, server) in [("memory", &in_memory), ("SQLite", &in_sqlite)] {
        join_and_leave(criterion, store, server);
        join_together(criterion, store, server);
    }
}

fn touches(criterion: &mut Criterion) {
    let server = BenchServer::start(config(), MemoryStore::default());
    let mut client = BenchClient::connect(server.port, "/presence/lobby/ann");
    client.say("join");
    client.hear(STATE);
    let mut within = |what: &str, times: u64| {
        client.say(&format!("{what} {times}"));
        let answer = std::str::from_utf8(client.hear("nanos ")).expect("a number");
        Duration::from_nanos(answer["nanos ".len()..].parse().expect("a number"))
    };
    criterion.bench_function("touch/socket.touch", |bencher| bencher.iter_custom(|times| within("touch", times)));
    criterion.bench_function("touch/receive with #[touch_presence]", |bencher| {
        bencher.iter_custom(|times| within("receive", times));
    });
    // From the socket through decoder, inbox and consumer, many in one write. One answer for all of them.
    let mut group = criterion.benchmark_group("touch");
    for (path, who) in [("/presence/lobby/bea", "presence"), ("/plain", "a consumer that ignores it")] {
        let mut client = BenchClient::connect(server.port, path);
        if who == "presence" {
            client.say("join");
            client.hear(STATE);
        }
        let heartbeats = text(HEARTBEAT).repeat(512);
        group.bench_function(BenchmarkId::new("a heartbeat over the socket", who), |bencher| {
            bencher.iter_custom(|times| {
                let begun = Instant::now();
                for _ in 0..times.div_ceil(512) {
                    client.send(&heartbeats);
                }
                client.say("answer");
                client.hear("answer");
                begun.elapsed().mul_f64(times as f64 / (times.div_ceil(512) * 512) as f64)
            });
        });
    }
    group.finish();
}

/// Sends to everyone in a room: until it is in every outbox, and until every client has read it.
fn broadcasts(criterion: &mut Criterion) {
    let message = Outgoing::text(format!("{MARK}{}", "x".repeat(299)));
    let mut group = criterion.benchmark_group("broadcast");
    for size in [1, 1_000] {
        let server = BenchServer::start(config(), MemoryStore::default());
        let paths = (0..size).map(|n| format!("/presence/lobby/user{n}")).collect();
        let crowd = Crowd::connect(server.port, paths);
        crowd.say("join");
        crowd.hear_states(size);
        let lobby = room("lobby");
        let send = |times: u64, timed: fn(Duration, Duration) -> Duration| {
            let mut total = Duration::ZERO;
            for _ in 0..times {
                crowd.forget();
                let begun = Instant::now();
                server.runtime.block_on(server.rooms.send(&lobby, message.clone())).expect("the node runs");
                let pushed = begun.elapsed();
                crowd.hear_marks(size);
                total += timed(pushed, begun.elapsed());
            }
            total
        };
        group.throughput(Throughput::Elements(size as u64)).sample_size(20);
        group.bench_function(BenchmarkId::new("until it is in every outbox", size), |bencher| {
            bencher.iter_custom(|times| send(times, |pushed, _| pushed));
        });
        group.bench_function(BenchmarkId::new("until every client has it", size), |bencher| {
            bencher.iter_custom(|times| send(times, |_, heard| heard));
        });
        // The room answers a question after it has passed on what was sent before. With 64 at a time, the hops between
        // threads hardly count.
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("in the room's actor", size), |bencher| {
            bencher.iter_custom(|times| {
                let mut total = Duration::ZERO;
                for _ in 0..times.div_ceil(64) {
                    crowd.forget();
                    let begun = Instant::now();
                    let sent = server.runtime.block_on(async {
                        let send = |_| {
                            let mut send = Box::pin(server.rooms.send(&lobby, message.clone()));
                            // Asked once, it is on its way.
                            (&mut send).now_or_never().is_none().then_some(send)
                        };
                        let sent: Vec<_> = (0..64).filter_map(send).collect();
                        server.rooms.count(&lobby).await.expect("it answers");
                        sent
                    });
                    total += begun.elapsed();
                    server.runtime.block_on(futures_util::future::join_all(sent));
                    crowd.hear_marks(64 * size);
                }
                total.mul_f64(times as f64 / (times.div_ceil(64) * 64) as f64)
            });
        });
    }
    // The least that could be done: the same bytes into as many queues, on one thread.
    let bytes = Bytes::from("x".repeat(304));
    let queues: Vec<_> = (0..1_000).map(|_| Rc::new(RefCell::new(VecDeque::with_capacity(4)))).collect();
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("a plain loop over 1,000 queues", |bencher| {
        bencher.iter(|| {
            for queue in &queues {
                queue.borrow_mut().push_back(bytes.clone());
            }
            for queue in &queues {
                black_box(queue.borrow_mut().pop_front());
            }
        });
    });
    group.finish();
}

fn presences(node: NodeId, size: usize) -> Vec<Arc<Presence>> {
    let presence = |n| {
        let id = PresenceId::random();
        let channel = ChannelName::new(format!("ws.{}.0!{}", node.as_uuid().simple(), id.as_uuid().simple()));
        let user = UserId::new(format!("user {n}")).expect("a good name");
        let mut presence = Presence::new(id, channel.expect("a good name"), Some(user), node);
        presence.meta = Meta::from_json(r#"{"status":"available"}"#).expect("an object");
        Arc::new(presence)
    };
    (0..size).map(presence).collect()
}

fn joined(presences: Vec<Arc<Presence>>) -> Delta {
    Delta { joined: presences, ..Delta::default() }
}

/// What a room does with its members, without actors and sockets.
fn model(criterion: &mut Criterion) {
    let node = NodeId::random();
    let bare = |size| {
        let mut bare = BareRoom::new(room("lobby"));
        bare.apply(joined(presences(node, size)));
        bare.notice();
        bare
    };
    let mut group = criterion.benchmark_group("room");
    group.throughput(Throughput::Elements(10_000));
    let ten_thousand = bare(10_000);
    group.bench_function("first frame of 10,000", |bencher| {
        bencher.iter(|| ten_thousand.first_frame().expect("there is one"));
    });
    group.bench_function("take in 10,000 joins", |bencher| {
        let all = joined(presences(node, 10_000));
        let new = || (BareRoom::new(room("lobby")), all.clone());
        bencher.iter_batched(new, |(mut bare, all)| (bare.apply(all), bare), BatchSize::LargeInput);
    });
    let mut thousand = bare(1_000);
    let one = presences(node, 1);
    group.throughput(Throughput::Elements(1));
    group.bench_function("one comes and goes among 1,000: two diffs", |bencher| {
        bencher.iter(|| {
            thousand.apply(joined(one.clone()));
            let came = thousand.notice().expect("it came").len();
            thousand.apply(Delta { left: one.clone(), ..Delta::default() });
            came + thousand.notice().expect("it went").len()
        });
    });
    group.finish();
}

/// Joins a room in which 10,000 others are, on another node.
fn join_ten_thousand(criterion: &mut Criterion) {
    const COLD: usize = 20;
    let folder = TempDir::new().expect("a folder for the database");
    let server = BenchServer::start(config().notify_interval(Duration::ZERO), sqlite(&folder));
    let other = NodeId::random();
    server.runtime.block_on(async {
        // Its own connections: those of the server must not wait for this thread, which does not always run its tasks.
        let store = sqlite(&folder);
        let name = NodeName::new("other").expect("a good name");
        store.register(other, name.clone(), Duration::from_secs(3600)).await.expect("a new life");
        for lobby in 0..=COLD {
            let writes = presences(other, 10_000).into_iter().map(Write::Join).collect();
            store
                .commit(other, Attempt::next(), [RoomWrites { room: room(lobby), writes }].into())
                .await
                .expect("the commit works");
        }
    });
    let mut client = BenchClient::connect(server.port, "/presence/lobby/ann");
    let mut join = |lobby: usize| {
        let begun = Instant::now();
        client.say(&format!("join {lobby}"));
        assert!(client.hear(STATE).len() > 1_000_000, "a long frame");
        let joined = begun.elapsed();
        client.say("leave");
        client.hear("left");
        joined
    };
    let mut group = criterion.benchmark_group("join");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
    let mut witness = BenchClient::connect(server.port, "/presence/lobby/witness");
    witness.say(&format!("join {COLD}"));
    witness.hear(STATE);
    group.bench_function("a room of 10,000 that is in memory", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| join(COLD)).sum());
    });
    let mut next = 0;
    group.bench_function("a room of 10,000 that must be read", |bencher| {
        bencher.iter_custom(|times| {
            let cold = |_| {
                // A room stays in memory for some seconds after its last member of this node.
                while next == 0 && server.rooms.running() > 1 {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let joined = join(next);
                next = (next + 1) % COLD;
                joined
            };
            (0..times).map(cold).sum()
        });
    });
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = benches;
    config = quick();
    targets = joins, touches, broadcasts, model, join_ten_thousand
}
criterion_main!(benches);
