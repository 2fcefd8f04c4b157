//! What the operating system knows of a process: its descriptors, its connections, its limits.

use super::server::ChatServer;
use super::{Duration, eventually};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

/// Cargo, as from a shell. With the variables that it has set for this test, it would build crates whose build script looks at them, such as
/// `ring`, and all that depend on these, and once more when it is next called without.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let is_of_this_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_this_test) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// What a process holds open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptors {
    pub(crate) sockets: usize,
    /// Files, timers and the like. The database's connections come and go among them.
    others: usize,
}

/// The descriptors that the server holds now.
pub(crate) fn descriptors(server: &ChatServer) -> Descriptors {
    let folder = format!("/proc/{}/fd", server.pid());
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let (sockets, others): (Vec<_>, Vec<_>) =
        targets.partition(|target| target.to_string_lossy().starts_with("socket:"));
    Descriptors { sockets: sockets.len(), others: others.len() }
}

/// How many bytes of memory the server has.
pub(crate) fn resident(server: &ChatServer) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a Linux with /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of what is resident");
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<usize>().ok()).expect("a number") * 1024
}

/// Waits until the server holds what it held when idle: not one socket more, and of other things not more than a pool
/// of database connections may have been opened for.
pub(crate) async fn descriptors_back_to(server: &ChatServer, idle: Descriptors, bound: Duration) {
    const POOL: usize = 32;
    eventually(bound, "the server's descriptors to be closed", async || match descriptors(server) {
        now if now.sockets <= idle.sockets && now.others <= idle.others + POOL => Ok(()),
        now => Err(format!("{now:?}, {idle:?} when idle")),
    })
    .await;
}

/// Waits until the kernel holds nothing any more of the server's end of the connection to `client`.
///
/// A connection that the process has dropped but the kernel still tries to flush is not gone.
pub(crate) async fn connection_gone(server: &ChatServer, client: SocketAddr, bound: Duration) {
    eventually(bound, "the server's end of the connection to be gone", async || match state(server, client) {
        None => Ok(()),
        Some(state) => Err(format!("TCP state {state:#x}")),
    })
    .await;
}

/// The state of the server's end, as in the kernel's `tcp_states.h`, if there is one that can still carry data.
fn state(server: &ChatServer, client: SocketAddr) -> Option<u8> {
    const TIME_WAIT: u8 = 6;
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a Linux with /proc");
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (port(fields.next()?)?, port(fields.next()?)?);
        let state = u8::from_str_radix(fields.next()?, 16).ok()?;
        (local == server.address().port() && remote == client.port() && state != TIME_WAIT).then_some(state)
    })
}

/// Raises this process's limit of open files, which the servers started later inherit, and gives it if it is enough.
///
/// A server needs two for each socket: it keeps a second handle by which to cut it off.
/// By `prlimit` of util-linux on ourselves, since the call itself would need unsafe code.
pub(crate) fn open_files(needed: u64) -> Result<u64, String> {
    static RAISED: OnceLock<()> = OnceLock::new();
    RAISED.get_or_init(|| {
        let pid = std::process::id().to_string();
        let raise = |limits: String| {
            let raised = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={limits}")]).output();
            raised.is_ok_and(|output| output.status.success())
        };
        // Root may raise the hard limit as well.
        let hard = limits().1;
        let _ = hard < 65_536 && raise("65536:65536".into()) || raise(format!("{hard}:"));
    });
    let (soft, _) = limits();
    if soft >= needed {
        Ok(soft)
    } else {
        Err(format!("{needed} open files are needed and {soft} allowed: `ulimit -n`"))
    }
}

fn limits() -> (u64, u64) {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("a Linux with /proc");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit of open files");
    let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
