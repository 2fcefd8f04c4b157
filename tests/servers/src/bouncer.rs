//! PgBouncer between a test and its PostgreSQL.

use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

use crate::{
    process::{Process, give},
    program::find,
    server::free_port,
};

/// How long a client has a session of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// For as long as it is connected.
    Session,
    /// For one transaction. Prepared statements are not kept apart.
    Transaction,
}

/// A PgBouncer that this process started. It ends when this is dropped, or when this process ends.
#[derive(Debug)]
pub struct Bouncer {
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Bouncer {
    /// Starts one before the server of this URL, with these settings besides, such as `default_pool_size = 1`.
    ///
    /// # Panics
    /// If PgBouncer is not installed, or does not start.
    #[must_use]
    pub fn start(server: &str, pooling: Pooling, settings: &[&str]) -> Self {
        let program = find("PgBouncer", "pgbouncer", &["pgbouncer"]);
        let folder = tempfile::Builder::new().prefix("presence-").tempdir().expect("there is a place for it");
        give(folder.path());
        let (_, after_scheme) = server.split_once("://").expect("it is a URL");
        let (user, host) = after_scheme.split_once('@').expect("a name and a password");
        let (user, password) = user.split_once(':').expect("a password");
        let host = host.split('/').next().unwrap_or_default();
        let (host, server_port) = host.split_once(':').expect("a port");
        let mode = match pooling {
            Pooling::Session => "session",
            Pooling::Transaction => "transaction",
        };
        let config = folder.path().join("pgbouncer.ini");
        for _ in 0..10 {
            let port = free_port();
            let mut lines = vec![
                "[databases]".to_owned(),
                format!("* = host={host} port={server_port} user={user} password={password}"),
                "[pgbouncer]".to_owned(),
                format!("listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any"),
                format!("pool_mode = {mode}"),
            ];
            lines.extend(settings.iter().map(|&setting| setting.to_owned()));
            if keeps_statements(&program) {
                // Versions from 1.21 on can keep them apart, and later ones do if nothing is said.
                lines.push("max_prepared_statements = 0".to_owned());
            }
            fs::write(&config, lines.join("\n")).expect("the folder is ours");
            let line = [program.clone().into(), config.clone().into()];
            match Process::start(folder.path(), "KILL", &line, |line| line.contains("process up")) {
                Ok(process) => return Self { _process: process, port, _folder: folder },
                // Somebody else took the port meanwhile.
                Err(said) if said.contains("in use") => {}
                Err(said) => panic!("PgBouncer did not start:\n{said}"),
            }
        }
        panic!("PgBouncer found no free port")
    }

    /// The URL of a database on its server that leads through it.
    #[must_use]
    pub fn url(&self, direct: &str) -> String {
        let (before, after) = direct.rsplit_once('@').expect("a name and a password");
        let path = after.split_once('/').map_or("", |(_, path)| path);
        format!("{before}@127.0.0.1:{}/{path}", self.port)
    }
}

/// Whether this version has the setting for prepared statements.
fn keeps_statements(program: &Path) -> bool {
    let output = Command::new(program).arg("--version").output().expect("the program is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next().and_then(|line| line.split_whitespace().nth(1)).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (1, 21)
}
