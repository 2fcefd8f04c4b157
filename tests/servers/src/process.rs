//! A server process that ends when this one does, however this one ends.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

/// Runs the server, tells its process id, and kills it when told to, or when the pipe from the test closes; then also
/// removes the folder.
const WATCH: &str = r#"
folder=$1 signal=$2; shift 2
cd "$folder" || exit
"$@" >&2 & server=$!
echo "$server"
read -r keep
kill -"$signal" "$server"
wait "$server" 2>/dev/null
[ "$keep" = keep ] || { cd / && rm -rf "$folder"; }
"#;

/// An ordinary user, as whom servers run when the tests run as root: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

#[derive(Debug)]
pub(crate) struct Process {
    watch: Child,
    /// The server itself.
    pub(crate) id: u32,
}

impl Process {
    /// Starts a server and waits until it takes connections.
    ///
    /// # Errors
    /// What it said, if it ended instead.
    pub(crate) fn start(
        folder: &Path,
        signal: &str,
        line: &[OsString],
        is_ready: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Self, String> {
        let mut command = command(folder, Path::new("/bin/sh"));
        command.args(["-c", WATCH, "sh"]).arg(folder).arg(signal).args(line);
        // Out of reach of an interrupt from the keyboard: it is told by the pipe.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Self { watch: command.spawn().expect("there is a shell"), id: 0 };
        let mut id = String::new();
        let stdout = BufReader::new(process.watch.stdout.take().expect("it is piped"));
        stdout.take(64).read_line(&mut id).expect("the shell tells the process id");
        process.id = id.trim().parse().map_err(|_| "the shell did not start the server".to_owned())?;
        let stderr = BufReader::new(process.watch.stderr.take().expect("it is piped"));
        let (tell, told) = mpsc::channel();
        // Reads to the end, or the server would have to wait once the pipe is full.
        thread::spawn(move || {
            let (mut said, mut ready) = (String::new(), false);
            for line in stderr.split(b'\n').map_while(Result::ok) {
                if !ready {
                    let line = String::from_utf8_lossy(&line);
                    said.push_str(&line);
                    said.push('\n');
                    if is_ready(&line) {
                        ready = true;
                        let _ = tell.send(Ok(()));
                    } else if line.contains("in use") {
                        let _ = tell.send(Err(said.clone()));
                    }
                }
            }
            let _ = tell.send(Err(said));
        });
        match told.recv() {
            Ok(Ok(())) => Ok(process),
            Ok(Err(said)) => {
                process.stop();
                Err(said)
            }
            Err(_) => Err("nothing".to_owned()),
        }
    }

    /// Ends the server with the signal that was given at its start, and waits until it is gone. Keeps its folder.
    pub(crate) fn stop(&mut self) {
        if let Some(mut stdin) = self.watch.stdin.take() {
            let _ = stdin.write_all(b"keep\n");
        }
        let _ = self.watch.wait();
    }

    /// Sends the server a signal, such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.id);
        let status = Command::new("/bin/sh").args(["-c", &kill]).status().expect("there is a shell");
        assert!(status.success(), "{kill}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

/// Lets servers write to `folder`, whoever they run as.
pub(crate) fn give(folder: &Path) {
    if is_root(folder) {
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
}

/// A command that runs as the owner of `folder`.
pub(crate) fn command(folder: &Path, program: &Path) -> Command {
    let owner = fs::metadata(folder).expect("the folder is there");
    let mut command = Command::new(program);
    // MariaDB removes all temporary tables of its kind from its temporary folder when it starts, those of others too.
    command.current_dir(folder).env("LC_ALL", "C").env("HOME", folder).env("TMPDIR", folder);
    // Settings of a client must not lead elsewhere.
    for name in ["PGDATA", "PGPORT", "PGHOST", "PGUSER", "PGOPTIONS", "MYSQL_UNIX_PORT", "MYSQL_TCP_PORT"] {
        command.env_remove(name);
    }
    if owner.uid() == NOBODY {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

fn is_root(made_by_us: &Path) -> bool {
    fs::metadata(made_by_us).expect("the folder is there").uid() == 0
}
