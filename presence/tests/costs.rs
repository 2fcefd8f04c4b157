//! What the main paths cost, counted in allocations and in bytes, which depend little on how busy the machine is. Each bound is 15 % above
//! the most that was measured when it was last set, also while other programs kept the cores busy. A change that needs more either has a
//! reason, and sets a new bound, or is a mistake.
//!
//! The server runs in this process, with its own threads for sockets, rooms and the store. The clients run here too: a new one allocates
//! some 70 kB, which are part of the cost of a join, and after that nothing.

use std::{
    alloc::System,
    collections::HashSet,
    fs::{read_dir, read_link, read_to_string},
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use presence::{Outgoing, RoomName, SqlStore, store::Store as _};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};
use tempfile::TempDir;

#[path = "../benches/support/client.rs"]
mod client;
#[path = "../benches/support/server.rs"]
mod server;

use client::{BenchClient, request, text};
use server::{BenchServer, HEARTBEAT, config};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What the first frame of a member begins with.
const STATE: &str = r#"{"type":"presence.state""#;
const MEMBERS: usize = 10;

/// The allocator counts for the whole process, so the tests of this file run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many descriptors of this process are a second one of a TCP connection.
fn second_descriptors() -> usize {
    let table = read_to_string("/proc/self/net/tcp").expect("a Linux with /proc");
    let established = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let established: HashSet<_> =
        established.filter(|columns| columns[3] == "01").map(|columns| format!("socket:[{}]", columns[9])).collect();
    let descriptors = read_dir("/proc/self/fd").expect("a Linux with /proc").flatten();
    let links = descriptors.filter_map(|one| read_link(one.path()).ok()?.into_os_string().into_string().ok());
    let connections: Vec<_> = links.filter(|link| established.contains(link)).collect();
    connections.len() - connections.iter().collect::<HashSet<_>>().len()
}

/// A server with a SQLite file.
struct CostServer {
    server: BenchServer,
    _folder: TempDir,
}

impl CostServer {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder for the database");
        let path = folder.path().join("presence.db");
        let store = SqlStore::connect(&format!("sqlite://{}", path.display())).expect("a good URL");
        // The node finds out only after some seconds that no other one reads what it changes.
        store.keep_changes(false);
        let server = BenchServer::start(config().messages_per_second(0).joins_per_second(0), store);
        Self { server, _folder: folder }
    }

    /// A client that has joined a room and has its first frame.
    fn member(&self, room: usize, user: usize) -> BenchClient {
        let mut client = BenchClient::connect(self.server.port, &format!("/presence/room{room}/user{user}"));
        client.say("join");
        client.hear(STATE);
        client
    }

    /// Waits until all connections are taken over from the HTTP server. Before that the server has two descriptors of each. Meanwhile a
    /// client exchanges messages with the server.
    fn takes_over(&self, client: &mut BenchClient) {
        let begun = Instant::now();
        while second_descriptors() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{} are not taken over", second_descriptors());
            client.say("answer");
            client.hear("answer");
        }
    }

    /// The members of a room, each of which knows of all others.
    fn room(&self, room: usize, members: usize) -> Vec<BenchClient> {
        (0..members).map(|user| self.member(room, user)).collect()
    }
}

/// A socket that has joined a room, has its first frame, and takes no memory of this process but that of the server.
fn idle(bed: &CostServer, room: usize, user: usize) -> TcpStream {
    let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, bed.server.port)).expect("the server listens");
    socket.write_all(request(&format!("/presence/room{room}/user{user}")).as_bytes()).expect("the server reads");
    let mut received = [0; 8192];
    let mut length = 0;
    let mut wait_for = |socket: &mut TcpStream, wanted: &[u8]| {
        while !received[..length].windows(wanted.len()).any(|bytes| bytes == wanted) {
            let read = socket.read(&mut received[length..]).expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            length += read;
        }
    };
    wait_for(&mut socket, b"\r\n\r\n");
    socket.write_all(&text("join")).expect("the server reads");
    wait_for(&mut socket, STATE.as_bytes());
    socket
}

/// What was allocated since `before`, for each of `count`: how often, and how many bytes.
fn allocated(before: Stats, count: usize) -> (f64, f64) {
    let now = ALLOCATOR.stats() - before;
    let times = now.allocations + now.reallocations;
    (times as f64 / count as f64, now.bytes_allocated as f64 / count as f64)
}

fn assert_at_most(what: &str, measured: f64, bound: f64) {
    println!("{what}: {measured:.2}, at most {bound}");
    assert!(measured <= bound, "{what}: {measured:.2}, and the bound is {bound}");
}

#[test]
fn a_join_over_a_new_socket_and_its_leave_allocate_no_more_than_before() {
    let _alone = alone();
    let bed = CostServer::new();
    let mut first = bed.member(0, 0);
    let mut join_and_leave = |count: usize| {
        for user in 0..count {
            let mut client = bed.member(0, 1 + user);
            client.say("leave");
            client.hear("left");
        }
        first.say("answer");
        first.hear("answer");
    };
    join_and_leave(50);
    let before = ALLOCATOR.stats();
    join_and_leave(200);
    let (times, bytes) = allocated(before, 200);
    assert_at_most("allocations for a join and a leave", times, 600.0);
    assert_at_most("bytes allocated for a join and a leave", bytes, 202_000.0);
}

#[test]
fn a_heartbeat_allocates_no_more_than_before() {
    let _alone = alone();
    let bed = CostServer::new();
    let mut client = bed.member(0, 0);
    bed.takes_over(&mut client);
    let one = text(HEARTBEAT);
    let mut send = |count: usize| {
        for _ in 0..count {
            client.send(&one);
        }
        client.say("answer");
        client.hear("answer");
    };
    send(500);
    // The least of three: what else the process does meanwhile only adds to it.
    let measure = |_| {
        let before = ALLOCATOR.stats();
        send(5_000);
        allocated(before, 5_000)
    };
    let (times, bytes) = (0..3).map(measure).min_by(|(one, _), (other, _)| one.total_cmp(other)).expect("three");
    assert_at_most("allocations for a heartbeat", times, 0.05);
    assert_at_most("bytes allocated for a heartbeat", bytes, 30.0);
}

#[test]
fn the_delivery_of_a_message_allocates_no_more_than_before() {
    let _alone = alone();
    let bed = CostServer::new();
    let mut members = bed.room(0, MEMBERS);
    bed.takes_over(&mut members[0]);
    let room = RoomName::new("room0").expect("a good name");
    let message = Outgoing::text(format!("message {}", "x".repeat(56)));
    let mut send = |count: usize| {
        for _ in 0..count {
            bed.server.runtime.block_on(bed.server.rooms.send(&room, message.clone())).expect("the node runs");
            for member in &mut members {
                member.hear("message");
            }
        }
    };
    send(100);
    let before = ALLOCATOR.stats();
    send(500);
    let (times, bytes) = allocated(before, 500 * MEMBERS);
    assert_at_most("allocations for a delivery", times, 1.55);
    assert_at_most("bytes allocated for a delivery", bytes, 135.0);
}

#[test]
fn an_idle_socket_in_a_room_keeps_no_more_memory_than_before() {
    let _alone = alone();
    let bed = CostServer::new();
    let in_use = || {
        let stats = ALLOCATOR.stats();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    let mut witness = bed.member(21, 0);
    let mut sockets = Vec::with_capacity(21 * MEMBERS);
    sockets.extend((0..MEMBERS).map(|user| idle(&bed, 0, user)));
    bed.takes_over(&mut witness);
    let before = in_use();
    for room in 1..=20 {
        sockets.extend((0..MEMBERS).map(|user| idle(&bed, room, user)));
    }
    bed.takes_over(&mut witness);
    let each = (in_use() - before) as f64 / (20 * MEMBERS) as f64;
    assert_at_most("bytes for an idle socket in a room", each, 19_100.0);
}
