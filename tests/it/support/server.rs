//! The chat server as a process: started, asked, signalled, killed, started again.

use super::process::{cargo, open_files};
use super::{BOUND, Duration, secs, within};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Variables that the server reads, taken away so that a developer's shell changes no test.
const VARIABLES: [&str; 8] =
    ["PORT", "BIND", "DATABASE_URL", "LAYER_URL", "NOTIFY", "WORKERS", "NODE_NAME", "ALLOW_ORIGIN"];

/// A running chat server with a folder, and so a database, of its own. Ended when dropped.
#[derive(Debug)]
pub(crate) struct ChatServer {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl ChatServer {
    /// Starts a server on a port that the system picks, with these arguments besides.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    /// As `start`, with settings that have no argument, by their variables.
    pub(crate) async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        open_files(1024).expect("enough open files for a small test");
        let folder = super::folder();
        let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let variables: Vec<_> = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let started = run(folder.path(), 0, &arguments, &variables).await;
        let (child, address) = started.unwrap_or_else(|why| panic!("{why}"));
        Self { child, address, folder, arguments, variables }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("the server runs")
    }

    /// Everything that the server wrote after its first line.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `kill -9`: no farewell of any kind.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.expect("the server can be killed");
    }

    /// Sends a signal by name, as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let kill = Command::new("sh").args(["-c", &format!("kill -s {name} {}", self.pid())]).status().await;
        assert!(kill.is_ok_and(|status| status.success()), "SIG{name} can be sent");
    }

    /// Waits for the end that a signal asked for.
    pub(crate) async fn exit(&mut self, bound: Duration) -> ExitStatus {
        within(bound, "the server to exit", self.child.wait()).await.expect("the server was started by us")
    }

    /// As `start_again`, with other arguments.
    pub(crate) async fn start_again_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.start_again().await;
    }

    /// Starts again after an end and kills what was started after `moment`, wherever it is by then.
    pub(crate) async fn start_and_kill(&mut self, moment: Duration) {
        // A child is killed when it is dropped.
        drop(
            tokio::time::timeout(
                moment,
                run(self.folder.path(), self.address.port(), &self.arguments, &self.variables),
            )
            .await,
        );
    }

    /// Starts again after an end, on the same port, folder and database, as the next incarnation of the same node.
    pub(crate) async fn start_again(&mut self) {
        let port = self.address.port();
        let end = Instant::now() + BOUND;
        loop {
            match run(self.folder.path(), port, &self.arguments, &self.variables).await {
                Ok((child, address)) => {
                    (self.child, self.address) = (child, address);
                    return;
                }
                // Another test's connection may have been given the free port for a moment.
                Err(why) => assert!(Instant::now() < end, "{why}"),
            }
        }
    }
}

impl Drop for ChatServer {
    fn drop(&mut self) {
        end(&mut self.child);
        // A test that passed with a panic in the server did not pass.
        let log = self.log();
        if std::thread::panicking() {
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("--- the server's last words ({:?})", self.arguments);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        } else {
            assert!(!log.contains("panicked at"), "the server panicked:\n{log}");
        }
    }
}

/// Kills a child and awaits its death, without the runtime: it would else write into a folder that is being removed.
pub(super) fn end(child: &mut Child) {
    drop(child.start_kill());
    let end = std::time::Instant::now() + secs(5);
    while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
}

async fn run(
    folder: &Path,
    port: u16,
    arguments: &[String],
    variables: &[(String, String)],
) -> Result<(Child, SocketAddr), String> {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
    let mut command = command(folder);
    command.args(["--port", &port.to_string()]).args(arguments);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().map_err(|error| error.to_string())?;
    let mut lines = BufReader::new(child.stdout.take().expect("a piped output")).lines();
    let first = within(secs(60), "the server's first line", lines.next_line()).await;
    let Ok(Some(first)) = first else {
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        return Err(format!("the server ended before its first line:\n{log}"));
    };
    let address = first.strip_prefix("listening on http://").and_then(|address| address.parse().ok());
    let address = address.unwrap_or_else(|| panic!("`listening on http://ADDRESS:PORT`, not {first:?}"));
    // What follows on the output is log; a full pipe would stop the server.
    let log = folder.join("log");
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if let Ok(mut log) = std::fs::File::options().append(true).open(&log) {
                drop(std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes()));
            }
        }
    });
    Ok((child, address))
}

/// The server's command, with nothing set but its working folder and a clean environment.
pub(crate) fn command(folder: &Path) -> Command {
    // A limit on the size of files is to be an error of the write, and not the end of the process.
    // With `ULIMIT` a test sets another limit of its own, in the words of the shell.
    let mut command = Command::new("sh");
    let script = r#"trap "" XFSZ; [ -z "$ULIMIT" ] || ulimit $ULIMIT; exec "$0" "$@""#;
    command.args(["-c", script]).arg(binary()).env_remove("ULIMIT");
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    // Those of the tests themselves look like settings too, and the server would warn of them.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PRESENCE_") {
            command.env_remove(variable);
        }
    }
    command.env("RUST_BACKTRACE", "1").env("NO_COLOR", "1");
    command.current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// The chat binary: the one that `CHAT_BIN` names, else built, which is quick when it is fresh.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("CHAT_BIN") {
            return std::path::absolute(path).expect("a working folder");
        }
        // target/{debug,release}/deps/it-…
        let test = std::env::current_exe().expect("the test's own path");
        let profile = test.parent().and_then(Path::parent).expect("a test is in the target folder's `deps`");
        let release = profile.ends_with("release").then_some("--release");
        let built = cargo()
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--package", "chat", "--all-features", "--target-dir"])
            .arg(profile.parent().expect("a target folder"))
            .args(release)
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the chat server builds");
        profile.join("chat")
    })
}
