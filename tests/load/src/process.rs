//! Servers as processes: started, measured, ended.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    str::FromStr,
    sync::mpsc,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal},
    thread::{CpuSet, sched_setaffinity},
};
use tempfile::TempDir;

use crate::{stop, wire::Dialect};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(30);

/// Variables without the prefix `PRESENCE_` that the example chat reads. They are removed, so that a shell changes no measurement.
const VARIABLES: [&str; 8] =
    ["PORT", "BIND", "DATABASE_URL", "NOTIFY", "WORKERS", "NODE_NAME", "ALLOW_ORIGIN", "RUST_LOG"];

/// What kind of server a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Floor,
    SocketIo,
    /// A consumer that does nothing with `#[touch_presence]`.
    Touch,
    /// The same without the attribute.
    NoTouch,
}

impl Kind {
    /// The servers that are known by their names.
    const ALL: [(&str, Self); 5] = [
        ("chat", Self::Chat),
        ("floor", Self::Floor),
        ("socketioxide", Self::SocketIo),
        ("touch", Self::Touch),
        ("no-touch", Self::NoTouch),
    ];

    fn package(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Floor => "presence-floor",
            Self::SocketIo => "presence-socketioxide",
            Self::Touch | Self::NoTouch => "presence-touch",
        }
    }

    fn dialect(self) -> Dialect {
        if self == Self::SocketIo { Dialect::SocketIo } else { Dialect::Plain }
    }
}

/// A server to measure.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Threads that serve sockets. Only the example chat can have more than one.
    pub(crate) workers: NonZeroUsize,
    /// `None` for the program beside this one.
    path: Option<PathBuf>,
}

impl FromStr for Program {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let (build, workers) = match name.split_once(':') {
            Some((build, workers)) => {
                let workers = workers.parse();
                (build, workers.map_err(|error| format!("the number of workers after the colon: {error}"))?)
            }
            None => (name, NonZeroUsize::MIN),
        };
        let known = Kind::ALL.iter().find(|known| known.0 == build).map(|known| known.1);
        let kind = known.or(path.is_some().then_some(Kind::Chat)).ok_or_else(|| {
            let names = Kind::ALL.map(|known| format!("`{}`", known.0)).join(", ");
            format!("neither {names} nor `NAME=PATH` of another build of the example chat")
        })?;
        if kind != Kind::Chat && workers > NonZeroUsize::MIN {
            return Err(format!("`{build}` has one worker"));
        }
        Ok(Self { name: name.to_owned(), kind, workers, path })
    }
}

impl Program {
    /// The package of the program, if it is not given by its path.
    pub(crate) fn package(&self) -> Option<&'static str> {
        self.path.is_none().then_some(self.kind.package())
    }

    fn path(&self) -> Result<PathBuf, String> {
        let path = match (&self.path, self.package()) {
            (Some(path), _) => path.clone(),
            (None, package) => folder()?.join(package.unwrap_or_default()),
        };
        let path = path.canonicalize();
        path.map_err(|error| format!("there is no server {:?}: {error}; build it first, or give its path", self.name))
    }
}

/// The folder of this program, in which cargo puts the servers too.
pub(crate) fn folder() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("the path of this program is unknown: {error}"))?;
    Ok(program.parent().unwrap_or(Path::new(".")).to_owned())
}

/// On which cores the server and this program run; `None` for no pinning.
pub(crate) type Cores = Option<(usize, usize)>;

fn pin(core: usize) -> Result<(), String> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| format!("cannot run on core {core}: {error}; see --no-pin"))
}

/// How a server is started.
#[derive(Debug, Default)]
pub(crate) struct Setup<'a> {
    /// Arguments of the example chat.
    pub(crate) arguments: Vec<String>,
    /// Variables of the example chat.
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) cores: Cores,
    /// Where several servers have their database; `None` for a folder of its own.
    pub(crate) folder: Option<&'a Path>,
    /// 0 for any.
    pub(crate) port: u16,
}

/// A running server, which is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    core: Option<usize>,
    pub(crate) dialect: Dialect,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    _folder: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts a server, and returns when it listens.
    pub(crate) fn start(program: &Program, setup: &Setup<'_>) -> Result<Self, String> {
        let io = |error: std::io::Error| format!("{:?} cannot be started: {error}", program.name);
        let own = setup.folder.is_none().then(tempfile::tempdir).transpose().map_err(io)?;
        let folder = own.as_ref().map(TempDir::path).or(setup.folder).unwrap_or(Path::new("."));
        let mut logs = (1..).map(|number| folder.join(format!("log{number}")));
        let log = logs.find(|log| !log.exists()).unwrap_or_default();
        let mut command = Command::new(program.path()?);
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(&log).map_err(io)?);
        command.args(["--port", &setup.port.to_string()]);
        match program.kind {
            Kind::Chat => drop(command.args(&setup.arguments)),
            Kind::NoTouch => drop(command.arg("--without")),
            _ => {}
        }
        if matches!(program.kind, Kind::Chat | Kind::Touch | Kind::NoTouch) {
            for variable in VARIABLES {
                command.env_remove(variable);
            }
            for (variable, _) in std::env::vars_os() {
                if variable.to_string_lossy().starts_with("PRESENCE_") {
                    command.env_remove(variable);
                }
            }
            command.envs(setup.variables.iter().map(|(name, value)| (name, value)));
        }
        // A child runs where its parent ran when it was started.
        if let Some((server, _)) = setup.cores {
            pin(server)?;
        }
        let child = command.spawn();
        if let Some((_, load)) = setup.cores {
            pin(load)?;
        }
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let core = setup.cores.map(|(server, _)| server);
        let dialect = program.kind.dialect();
        let mut server = Self { child: child.map_err(io)?, core, dialect, address: any_port, log, _folder: own };
        server.address = server.first_line().map_err(|error| server.explain(error))?;
        Ok(server)
    }

    /// The address on the first line that the server writes.
    fn first_line(&mut self) -> Result<SocketAddr, String> {
        let output = self.child.stdout.take().ok_or("the server has no output")?;
        let (sender, receiver) = mpsc::channel();
        // The thread ends with the server. What the server writes later is read, or the pipe would become full.
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let end = Instant::now() + START;
        let line = loop {
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => break line,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err("the server ended at once".to_owned()),
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() > end => {
                    return Err(format!("the server does not listen after {START:?}"));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => stop::check()?,
            }
        };
        let address = line.strip_prefix("listening on http://").and_then(|address| address.parse().ok());
        address.ok_or_else(|| format!("the server wrote {line:?} and not its address"))
    }

    /// A failure with the end of the server's log.
    pub(crate) fn explain(&self, failure: String) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(10)..];
        if last.is_empty() { failure } else { format!("{failure}\nthe server's log ends with\n{}", last.join("\n")) }
    }

    /// The processor time that the server has used.
    pub(crate) fn processor_time(&self) -> Result<Duration, String> {
        processor_time(&self.child.id().to_string())
    }

    /// For how long the core of the server was busy with anything, or was taken away by a host; `None` without pinning.
    pub(crate) fn core_time(&self) -> Option<Duration> {
        let name = format!("cpu{} ", self.core?);
        let text = std::fs::read_to_string("/proc/stat").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let ticks: Vec<u32> = line.split_whitespace().map_while(|count| count.parse().ok()).collect();
        // The times are user, nice, system, idle, iowait, irq, softirq and steal.
        let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|&place| ticks.get(place)).sum::<u32>();
        Some(TICK * busy)
    }

    /// Sends SIGTERM, as an operator does.
    pub(crate) fn terminate(&self) -> Result<(), String> {
        let sent = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        sent.map_err(|error| format!("SIGTERM cannot be sent: {error}"))
    }

    /// Waits for the end of the process after `terminate`.
    pub(crate) fn wait(&mut self, bound: Duration) -> Result<(), String> {
        let end = Instant::now() + bound;
        loop {
            stop::check()?;
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.explain(format!("the server ended with {status}"))),
                Ok(None) if Instant::now() > end => {
                    return Err(self.explain(format!("the server runs after {bound:?}")));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(format!("the server cannot be waited for: {error}")),
            }
        }
    }

    /// How many files the server has open.
    pub(crate) fn descriptors(&self) -> Result<usize, String> {
        let path = format!("/proc/{}/fd", self.child.id());
        Ok(std::fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?.count())
    }

    /// The resident memory of the server in bytes.
    pub(crate) fn resident(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kilobytes.ok_or_else(|| format!("{path} has no line VmRSS"))? * 1024)
    }
}

/// A tick of the times in `/proc`.
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process has used. That of the threads which it has is exact; that of threads which have ended is known only in
/// ticks, rounded down, as a part of the whole.
pub(crate) fn processor_time(process: &str) -> Result<Duration, String> {
    Ok(of_threads(process)?.max(in_ticks(process)?))
}

fn in_ticks(process: &str) -> Result<Duration, String> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The name of the program, in parentheses, may have spaces. The fields after it begin with the third.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields.split_whitespace());
    let times = fields.map(|fields| fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u32>().ok()));
    Ok(TICK * times.ok_or_else(|| format!("{path} has no times"))?.sum::<u32>())
}

fn of_threads(process: &str) -> Result<Duration, String> {
    let path = format!("/proc/{process}/task");
    let threads = std::fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
    let times = threads.flatten().filter_map(|thread| {
        // A thread may end meanwhile.
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(times.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_time_of_a_thread_that_has_ended_counts() {
        const WORK: Duration = Duration::from_millis(200);
        let before = processor_time("self").unwrap();
        let work = || while own_time() < WORK {};
        std::thread::spawn(work).join().unwrap();
        let used = processor_time("self").unwrap() - before;
        assert!(used + 3 * TICK >= WORK, "{used:?}");
    }

    /// The processor time of this thread.
    fn own_time() -> Duration {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    }

    #[test]
    fn a_server_is_a_name_with_workers_and_a_path() {
        let parse = |text: &str| text.parse::<Program>().map(|it| (it.name, it.kind, it.workers.get(), it.path));
        assert_eq!(parse("floor"), Ok(("floor".to_owned(), Kind::Floor, 1, None)));
        assert_eq!(parse("chat:2"), Ok(("chat:2".to_owned(), Kind::Chat, 2, None)));
        assert_eq!(parse("now:3=a:b"), Ok(("now:3".to_owned(), Kind::Chat, 3, Some(PathBuf::from("a:b")))));
        assert_eq!(parse("socketioxide"), Ok(("socketioxide".to_owned(), Kind::SocketIo, 1, None)));
        for wrong in ["other", "other:2", "floor:2", "socketioxide:2", "chat:0", "chat:"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
