//! After all kinds of ends nothing is left: no actor, no descriptor, no thread, no row, no memory.

use super::host::Host;
use super::puppet::Did;
use crate::support::frame::Raw;
use crate::support::{alone, eventually, millis, secs};
use futures_util::future::join_all;
use std::process::Command;

/// In the environment of the process that does the work, since another test's descriptors are none of ours.
const ALONE: &str = "PRESENCE_TEST_ALONE";

#[tokio::test]
async fn after_a_thousand_sockets_of_all_kinds_nothing_is_left() {
    if std::env::var_os(ALONE).is_some() {
        return come_and_go().await;
    }
    let _alone = alone().await;
    let name = "inproc::leaks::after_a_thousand_sockets_of_all_kinds_nothing_is_left";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(ALONE, "1").env("MALLOC_ARENA_MAX", "1");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

async fn come_and_go() {
    let config = |config: presence::ConfigBuilder| {
        config.close_timeout(millis(300)).write_timeout(millis(500)).handler_timeout(millis(100))
    };
    let mut host = Host::plan().config(config).workers(2).start().await;
    // Whatever is made once is made now.
    round(&mut host, 0..600).await;
    let before = [held("fd"), held("task")];
    let mut grown = Vec::new();
    // The allocator may keep some of one round, but not of each: what leaks, leaks every time.
    while grown.last().is_none_or(|last| *last >= 512) && grown.len() < 4 {
        let size = resident();
        round(&mut host, 600..1600).await;
        grown.push(resident().saturating_sub(size));
    }
    eventually(secs(20), "the descriptors to be closed", async || {
        let now = held("fd");
        if now <= before[0] { Ok(()) } else { Err(format!("{now}, {} before", before[0])) }
    })
    .await;
    assert_eq!(held("task"), before[1], "threads");
    assert!(grown.last().is_some_and(|last| *last < 512), "{grown:?} KiB more after each thousand sockets");
}

/// So many sockets, fifty at a time, until all of them are gone.
async fn round(host: &mut Host, numbers: std::ops::Range<usize>) {
    let numbers: Vec<_> = numbers.collect();
    for some in numbers.chunks(50) {
        join_all(some.iter().map(|n| one(host, *n))).await;
        for n in some {
            if n % 13 == 4 {
                host.saw(&n.to_string(), Did::ConnectDropped).await;
            }
        }
    }
    unread(host).await;
    host.empty().await;
    for n in numbers {
        let ends = host.count(&n.to_string(), |did| matches!(did, Did::Disconnecting(_)));
        let accepted = !matches!(n % 13, 3..=6);
        assert!(ends == usize::from(accepted) || n % 13 == 6, "socket {n} of kind {} ended {ends} times", n % 13);
        host.did(&n.to_string());
    }
}

/// Sockets that do not read, and sockets that closed in order and yet keep their end of the connection.
async fn unread(host: &mut Host) {
    let before = held("fd");
    let mut stuck = Vec::new();
    for _ in 0..10 {
        let upgrade = host.upgrade("stuck", "join lobby").receive_buffer(4096);
        let mut socket = upgrade.open(host.address).await.unwrap();
        socket.text("burst 400 65536").await;
        stuck.push(socket);
        let mut socket = host.open("stuck", "join lobby").await;
        socket.close(1000).await;
        assert_eq!(socket.closing().await, Some(1000));
        stuck.push(socket);
    }
    // Only our own ends are left.
    eventually(secs(20), "the server's descriptors of unread sockets to be closed", async || {
        let now = held("fd");
        if now <= before + stuck.len() { Ok(()) } else { Err(format!("{now}, {before} before")) }
    })
    .await;
    drop(stuck);
    host.empty().await;
    host.did("stuck");
}

/// A socket of one kind, from its beginning to its end.
async fn one(host: &Host, n: usize) {
    let name = n.to_string();
    let room = n / 7 % 5;
    let join = format!("join room{room}");
    let open = async || host.open(&name, &join).await;
    match n % 13 {
        0 => open().await.leave().await,
        1 => open().await.reset(),
        2 => drop(open().await),
        3 => drop(host.refused(&name, &format!("{join}; deny 403 no")).await),
        4 => {
            let socket = host.upgrade(&name, &format!("{join}; stall")).send(host.address).await.unwrap();
            let here = presence::UserId::new(&name).unwrap();
            eventually(secs(20), "its join", async || {
                let joined = host.rooms.is_here(&super::host::room(&format!("room{room}")), &here).await.unwrap();
                if joined { Ok(()) } else { Err("not yet".into()) }
            })
            .await;
            socket.reset();
        }
        5 => drop(host.refused(&name, &format!("{join}; fail")).await),
        6 => host.upgrade(&name, &join).send(host.address).await.unwrap().reset(),
        7 => {
            let mut socket = open().await;
            socket.text("panic").await;
            assert_eq!(socket.closing().await, Some(1011));
        }
        8 => {
            let mut socket = open().await;
            socket.send(Raw::text("x").unmasked()).await;
            assert_eq!(socket.closing().await, Some(1002));
        }
        9 => {
            let mut socket = open().await;
            socket.text("close 4000 enough").await;
            assert_eq!(socket.closing().await, Some(4000));
            socket.close(4000).await;
            socket.ended().await;
        }
        10 => {
            let mut socket = host.open(&name, &format!("{join}; join lobby")).await;
            socket.close_empty().await;
            assert_eq!(socket.closing().await, None);
        }
        11 => {
            let upgrade = host.upgrade_to_end(&name, &join, "fail");
            upgrade.open(host.address).await.unwrap().leave().await;
        }
        _ => {
            let mut socket = open().await;
            socket.text("stall").await;
            assert_eq!(socket.closing().await, Some(1011));
            // It does not answer.
        }
    }
}

/// How many entries the kernel lists of this process.
fn held(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("a Linux with /proc").count()
}

/// Memory in use, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
