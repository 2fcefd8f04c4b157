//! What the store in SQLite costs: commits of 1, 100 and 1,000 joins, loading 10,000 presences, touching 10,000,
//! a sweep that finds nothing among 100,000, and clearing away a dead node.
//!
//! `cargo bench -p presence --bench store`

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use presence::{
    ChannelName, NodeId, NodeName, Presence, PresenceId, RoomName, SqlStore, UserId,
    store::{Attempt, ClearMode, NodeStore, RoomStore, RoomWrites, Store, SweepShare, Write},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A store in a file of its own, and a node that may write.
struct StoreBench {
    runtime: Runtime,
    store: SqlStore,
    node: NodeId,
    _folder: TempDir,
}

fn bench() -> StoreBench {
    let folder = TempDir::new().expect("a folder for the database");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = format!("sqlite://{}/presence.db", folder.path().display());
    let store = SqlStore::connect(&url).expect("a good URL");
    let node = NodeId::random();
    runtime.block_on(async {
        store.prepare().await.expect("a new database");
        let name = NodeName::new("bench").expect("a good name");
        store.register(node, name.clone(), Duration::from_secs(3600)).await.expect("a new life");
    });
    StoreBench { runtime, store, node, _folder: folder }
}

fn joins(node: NodeId, room: &str, size: usize) -> Vec<RoomWrites> {
    let join = |_| {
        let id = PresenceId::random();
        let channel = ChannelName::new(format!("node/{id}")).expect("a good name");
        let user = UserId::new(format!("user of {id}")).expect("a good name");
        Write::Join(Arc::new(Presence::new(id, channel, Some(user), node)))
    };
    vec![RoomWrites { room: RoomName::new(room).expect("a good name"), writes: (0..size).map(join).collect() }]
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store/commit joins");
    for size in [1, 100, 1_000] {
        let StoreBench { runtime, store, node, _folder } = bench();
        group.throughput(Throughput::Elements(size as u64));
        group.bench_function(size.to_string(), |bencher| {
            let commit = |rooms: Vec<RoomWrites>| {
                let store = &store;
                async move {
                    black_box(
                        store.commit(node, Attempt::next(), rooms.clone().into()).await.expect("the commit works"),
                    )
                }
            };
            bencher.to_async(&runtime).iter_batched(|| joins(node, "lobby", size), commit, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn reads(criterion: &mut Criterion) {
    let StoreBench { runtime, store, node, _folder } = bench();
    let room = joins(node, "lobby", 10_000);
    runtime.block_on(store.commit(node, Attempt::next(), room.clone().into())).expect("the commit works");
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("load 10,000", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(async || black_box(store.load(room[0].room.clone()).await.expect("loading works")));
    });
    let seen: Vec<_> = room[0].writes.iter().map(|write| (write.id(), Duration::ZERO)).collect();
    group.bench_function("touch 10,000", |bencher| {
        bencher.to_async(&runtime).iter_batched(
            // Each touch is later than the one before, else it writes nothing.
            || std::thread::sleep(Duration::from_millis(2)),
            |()| async { store.touch(node, seen.clone().into()).await.expect("touching works") },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn sweeps(criterion: &mut Criterion) {
    let StoreBench { runtime, store, node, _folder } = bench();
    for room in 0..100 {
        let joins = joins(node, &format!("room {room}"), 1_000);
        runtime.block_on(store.commit(node, Attempt::next(), joins.clone().into())).expect("the commit works");
    }
    criterion.bench_function("store/sweep of 100,000 live ones", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(async || black_box(store.sweep(node, SweepShare::whole(), 1_000).await.expect("sweeping works")));
    });
    criterion.bench_function("store/prune of 100,000 live ones", |bencher| {
        let max_age = Duration::from_secs(60);
        bencher
            .to_async(&runtime)
            .iter(async || black_box(store.prune(node, max_age, Duration::ZERO, 1_000).await.expect("pruning works")));
    });
}

/// How long it takes to clear away a dead node with 100,000 presences in 1,000 rooms, in batches of 10,000.
fn clears(criterion: &mut Criterion) {
    let StoreBench { runtime, store, node, _folder } = bench();
    let clear = async || {
        let dead = NodeId::random();
        let name = NodeName::new("dead").expect("a good name");
        store.register(dead, name.clone(), Duration::ZERO).await.expect("a new life");
        for hundred in 0..10 {
            let rooms: Vec<_> = (0..100).flat_map(|room| joins(dead, &format!("room {hundred} {room}"), 100)).collect();
            store.commit(dead, Attempt::next(), rooms.clone().into()).await.expect("the commit works");
        }
        // Its lease is over with the millisecond in which it began.
        tokio::time::sleep(Duration::from_millis(2)).await;
        let begun = Instant::now();
        assert_eq!(store.fence(node).await.expect("it may judge"), [dead]);
        let mut left = 0;
        loop {
            let remains = ClearMode::HoldResumable(Duration::from_secs(10));
            let batch = store.clear(node, dead, remains, 10_000).await.expect("it may clear");
            left += batch.commits.iter().map(|commit| commit.delta.left.len()).sum::<usize>();
            if batch.handled < 10_000 {
                break;
            }
        }
        assert_eq!(left, 100_000);
        begun.elapsed()
    };
    let mut group = criterion.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Elements(100_000));
    group.bench_function("clear 100,000 of a dead node", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| runtime.block_on(clear())).sum());
    });
    group.finish();
}

criterion_group!(benches, commits, reads, sweeps, clears);
criterion_main!(benches);
