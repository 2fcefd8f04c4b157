//! `scale`: many sockets over several nodes of one database.

mod crowd;
mod crowds;
mod heartbeats;
mod restart;
mod sheet;

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    build,
    process::{Program, Server, Setup},
    raise_open_files,
    scenarios::percentile,
    setting, stop,
};

pub(crate) use self::crowd::{Crowd, crowd};
use self::{
    crowds::{Crowds, part},
    sheet::Sheet,
};

/// Descriptors that a node keeps for other things than sockets, at most.
const NODE_RESERVE: u64 = 128;
/// How many descriptors the example chat takes for each socket.
const DESCRIPTORS: u64 = 2;
/// Descriptors that a process of clients needs for other things than clients.
const CROWD_RESERVE: u64 = 64;
/// The most clients of one address. Linux gives an address 28,232 ports by default.
const CLIENTS: u64 = 25_000;
/// The most members of the large room by default.
const LARGE_ROOM: usize = 10_000;
/// Members of each of the other rooms.
const ROOM: usize = 10;
/// How long the last notices may take, in seconds.
const SETTLE: u64 = 60;
/// How often the heartbeats pause: once for each column of the table.
const PAUSES: f64 = 3.0;
/// The longest time for which a client may send nothing, in seconds. The example chat closes a socket after 60.
const SILENCE: f64 = 55.0;

/// All settings of the example chat are the defaults, unless `--set` changes them. All processes run on all cores. The members of each
/// room are on all nodes in turn, as behind a balancer.
#[derive(Debug, clap::Args)]
pub(crate) struct Scale {
    /// The number of all sockets, those in the large room included.
    #[arg(long, default_value_t = 5000)]
    sockets: usize,
    /// How many processes of the example chat share the database [default: as few as the limit of open files allows]. A node needs two
    /// files for each socket.
    #[arg(long)]
    nodes: Option<usize>,
    /// How many members one large room has, which is filled after the rooms of ten [default: a fifth of the sockets, at most 10,000].
    #[arg(long)]
    large_room: Option<usize>,
    /// For how many seconds the processor time is measured, first without and then with heartbeats.
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How many seconds pass between two heartbeats of a client. The example chat closes a socket that sends nothing for 60 s, so this
    /// and three times `--seconds` may be 55 at most together.
    #[arg(long, default_value_t = 30.0)]
    heartbeat: f64,
    /// How many handshakes are under way at once, in all processes together.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
    /// `chat`, or NAME=PATH of another build of the example chat.
    #[arg(long, value_name = "SERVER", default_value = "chat")]
    server: Program,
    /// A setting of the example chat, such as DATABASE_URL=postgres://… of an empty database instead of a SQLite file.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    settings: Vec<(String, String)>,
}

pub(crate) fn scale(args: &Scale) -> Result<(), String> {
    let silence = args.heartbeat + PAUSES * args.seconds;
    if args.heartbeat <= 0.0 || args.seconds <= 0.0 || silence > SILENCE {
        return Err(format!(
            "--heartbeat and {PAUSES} times --seconds must be more than 0, and {SILENCE} at most together"
        ));
    }
    if args.server.package().is_some() {
        build(std::slice::from_ref(&args.server))?;
    }
    let plan = Plan::new(args, raise_open_files()?)?;
    eprintln!("{} nodes, {} processes of clients", plan.nodes, plan.small_crowds + 1);
    stop::watch().map_err(|error| format!("signals cannot be watched: {error}"))?;
    let mut sheet = Sheet::default();
    let measured = Run::start(args, &plan, &mut sheet).and_then(|mut run| run.measure(&plan, &mut sheet));
    // Also after a failure or a signal.
    println!("{sheet}");
    measured
}

/// How many of everything.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    nodes: usize,
    /// Sockets in rooms of ten.
    small: usize,
    large: usize,
    /// Processes of clients in rooms of ten.
    small_crowds: usize,
}

impl Plan {
    fn new(args: &Scale, open_files: u64) -> Result<Self, String> {
        let large = args.large_room.unwrap_or(LARGE_ROOM.min(args.sockets / 5));
        let small = args.sockets.checked_sub(large).filter(|&small| small >= 2 * ROOM && large > 0);
        let small = small.ok_or("the large room has no member, or fewer than 20 sockets are left for other rooms")?;
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX).max(1);
        let of_a_node = count(open_files.saturating_sub(NODE_RESERVE) / DESCRIPTORS);
        let of_a_crowd = count(open_files.saturating_sub(CROWD_RESERVE).min(CLIENTS));
        let least = args.sockets.div_ceil(of_a_node);
        let nodes = args.nodes.unwrap_or(least);
        let limit = format!("with a limit of {open_files} open files");
        if nodes < least {
            return Err(format!("{limit} a node can have {of_a_node} sockets: use at least {least} nodes"));
        }
        if large > of_a_crowd {
            return Err(format!("{limit} the large room can have {of_a_crowd} members, in one process of clients"));
        }
        Ok(Self { nodes, small, large, small_crowds: small.div_ceil(of_a_crowd) })
    }
}

/// The processor times at the beginning of a measurement.
#[derive(Debug)]
struct Window {
    began: Instant,
    nodes: Duration,
    clients: Duration,
}

/// Running nodes and clients.
#[derive(Debug)]
struct Run<'a> {
    args: &'a Scale,
    nodes: Vec<Server>,
    small: Crowds,
    large: Crowds,
    sockets: usize,
    /// The resident memory of all nodes without a socket, in bytes.
    empty: u64,
    /// The kernel's memory without a socket, in bytes.
    kernel: u64,
    folder: tempfile::TempDir,
}

impl<'a> Run<'a> {
    fn start(args: &'a Scale, plan: &Plan, sheet: &mut Sheet) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("there is no place for the database: {error}"))?;
        sheet.begin(String::from("empty"));
        let (small, large) =
            (Crowds::start(1, plan.small_crowds, args.heartbeat)?, Crowds::start(0, 1, args.heartbeat)?);
        let mut run = Self { args, nodes: Vec::new(), small, large, sockets: 0, empty: 0, kernel: kernel()?, folder };
        let mut slowest = 0.0_f64;
        for _ in 0..plan.nodes {
            let began = Instant::now();
            let node = run.node(0)?;
            slowest = slowest.max(began.elapsed().as_secs_f64());
            run.nodes.push(node);
        }
        run.empty = run.resident()?;
        sheet.write("sockets", 0.to_string());
        sheet.add("RSS of all nodes, MB", run.empty as f64 / 1e6);
        sheet.add("start of a node, the slowest, ms", slowest * 1e3);
        Ok(run)
    }

    fn node(&self, port: u16) -> Result<Server, String> {
        let variables = self.args.settings.clone();
        Server::start(
            &self.args.server,
            &Setup { variables, folder: Some(self.folder.path()), port, ..Setup::default() },
        )
    }

    fn measure(&mut self, plan: &Plan, sheet: &mut Sheet) -> Result<(), String> {
        let measured = self.measure_all(plan, sheet);
        measured.map_err(|failure| match self.nodes.first() {
            Some(node) => node.explain(failure),
            None => failure,
        })
    }

    fn measure_all(&mut self, plan: &Plan, sheet: &mut Sheet) -> Result<(), String> {
        // A room is filled as a whole.
        let half = plan.small / 2 / ROOM * ROOM;
        for (name, count) in [("half in rooms of 10", half), ("rooms of 10", plan.small - half)] {
            sheet.begin(name.to_owned());
            self.open(count, false, sheet)?;
            self.hold(sheet)?;
        }
        sheet.begin(format!("and a room of {}", plan.large));
        self.open(plan.large, true, sheet)?;
        self.hold(sheet)?;
        self.restart(sheet)?;
        self.stop(sheet)
    }

    /// Asks all processes of clients.
    fn ask_all(&mut self, command: &str) -> Result<Vec<Vec<f64>>, String> {
        self.small.ask(|_| command.to_owned())?;
        self.large.ask(|_| command.to_owned())?;
        Ok([self.small.answers()?, self.large.answers()?].concat())
    }

    /// Opens clients in new rooms of ten, or in the large room.
    fn open(&mut self, count: usize, large: bool, sheet: &mut Sheet) -> Result<(), String> {
        let servers = self.nodes.iter().map(|node| node.address.to_string()).collect::<Vec<_>>().join(" ");
        let window = self.begin()?;
        let (crowds, room) = if large { (&mut self.large, count) } else { (&mut self.small, ROOM) };
        let (processes, at_once) = (crowds.len(), self.args.at_once);
        let began = Instant::now();
        crowds.ask(|number| {
            let (clients, at_once) = (part(count / ROOM, processes, number) * ROOM, at_once.div_ceil(processes));
            let rest = if number == 0 { count % ROOM } else { 0 };
            format!("open {} {room} {at_once} {servers}", clients + rest)
        })?;
        let answers = crowds.answers()?;
        self.joined("", answers, began, sheet);
        let shares = self.end(&window)?;
        sheet.add("processor of all nodes, while clients join, % of a core", shares.0);
        sheet.add("processor of all clients, while they join, % of a core", shares.1);
        self.sockets += count;
        let settled = self.settle()?;
        sheet.add("from the last join until all views are right, s", settled.iter().copied().fold(0.0, f64::max));
        Ok(())
    }

    fn joined(&self, when: &str, answers: Vec<Vec<f64>>, began: Instant, sheet: &mut Sheet) {
        let seconds = began.elapsed().as_secs_f64();
        let times = answers.into_iter().flatten().map(|micros| Duration::from_secs_f64(micros / 1e6));
        let mut times: Vec<_> = times.collect();
        let names = match when {
            "" => ["joins/s", "request to own first frame, p50, ms", "request to own first frame, p99, ms"],
            _ => ["joins/s of those who return", "their first frame, p50, ms", "their first frame, p99, ms"],
        };
        sheet.add(names[0], times.len() as f64 / seconds);
        sheet.add(names[1], percentile(&mut times, 0.5));
        sheet.add(names[2], percentile(&mut times, 0.99));
    }

    /// After how many seconds the views of each process were right; the last is the large room.
    fn settle(&mut self) -> Result<Vec<f64>, String> {
        let answers = self.ask_all(&format!("settle {SETTLE}"))?;
        Ok(answers.into_iter().flatten().collect())
    }

    fn resident(&self) -> Result<u64, String> {
        self.nodes.iter().map(Server::resident).sum()
    }

    /// Measures the sockets that are there, without and with heartbeats.
    fn hold(&mut self, sheet: &mut Sheet) -> Result<(), String> {
        let sockets = self.sockets as f64;
        sheet.write("sockets", self.sockets.to_string());
        let idle = self.shares(false)?;
        let beating = self.shares(true)?;
        let (resident, kernel) = (self.resident()?, kernel()?.saturating_sub(self.kernel));
        let files = self.nodes.iter().map(Server::descriptors).sum::<Result<usize, _>>()?;
        sheet.add("RSS of all nodes, MB", resident as f64 / 1e6);
        sheet.add("RSS for each socket, KB", resident.saturating_sub(self.empty) as f64 / sockets / 1e3);
        sheet.add("kernel memory for each connection, both ends, KB", kernel as f64 / sockets / 1e3);
        sheet.add("open files of the nodes for each socket", files as f64 / sockets);
        sheet.add("processor of all nodes, no heartbeats, % of a core", idle.0);
        sheet.add("processor of all nodes, with heartbeats, % of a core", beating.0);
        sheet.add("processor of all clients, with heartbeats, % of a core", beating.1);
        Ok(())
    }

    /// The shares of a core that nodes and clients take.
    fn shares(&mut self, beats: bool) -> Result<(f64, f64), String> {
        self.ask_all(&format!("beat {beats}"))?;
        let window = self.begin()?;
        pause(self.args.seconds)?;
        self.end(&window)
    }

    fn begin(&self) -> Result<Window, String> {
        let nodes = self.nodes.iter().map(Server::processor_time).sum::<Result<_, _>>()?;
        let clients = self.small.processor_time()? + self.large.processor_time()?;
        Ok(Window { began: Instant::now(), nodes, clients })
    }

    /// The shares of a core that nodes and clients took since the beginning of a window.
    fn end(&self, window: &Window) -> Result<(f64, f64), String> {
        let (now, seconds) = (self.begin()?, window.began.elapsed().as_secs_f64());
        let share = |after: Duration, before| 100.0 * after.saturating_sub(before).as_secs_f64() / seconds;
        Ok((share(now.nodes, window.nodes), share(now.clients, window.clients)))
    }
}

fn pause(seconds: f64) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        stop::check()?;
        thread::sleep(left.min(Duration::from_millis(50)));
    }
    Ok(())
}

/// The memory of the kernel's objects in bytes. Other programs change it too.
fn kernel() -> Result<u64, String> {
    const PATH: &str = "/proc/meminfo";
    let text = std::fs::read_to_string(PATH).map_err(|error| format!("{PATH}: {error}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.ok_or_else(|| format!("{PATH} has no line Slab"))? * 1024)
}

#[cfg(test)]
mod tests;
