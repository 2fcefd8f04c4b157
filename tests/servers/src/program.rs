//! Where the programs of the databases are, and how they are run.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::server::{CommitSync, ServerKind};

const INIT_SQL: &str = "\
    CREATE USER IF NOT EXISTS 'presence'@'%' IDENTIFIED BY 'presence';\n\
    GRANT ALL PRIVILEGES ON *.* TO 'presence'@'%' WITH GRANT OPTION;\n";

/// The user that databases are made and used as, and its password.
pub(crate) const USER: &str = "presence";

/// Fills an empty folder with what the server needs to start. `command` makes a command that runs as the right user.
pub(crate) fn initialise(kind: ServerKind, folder: &Path, command: impl Fn(&Path) -> Command) {
    let data = folder.join("data");
    let mut initialise = match kind {
        ServerKind::Postgres => {
            let password = folder.join("password");
            fs::write(&password, USER).expect("the folder is ours");
            let mut initdb = command(&of_server(kind, &["initdb"]));
            // A password is asked for, and in the cheapest way: tests make many connections.
            initdb.args(["--no-sync", "--auth=password", "--encoding=UTF8", "--locale=C", "--username", USER]);
            initdb.arg("--pwfile").arg(password).arg("--pgdata").arg(&data);
            initdb
        }
        ServerKind::MySql => {
            fs::write(folder.join("init.sql"), INIT_SQL).expect("the folder is ours");
            let server = of_server(kind, &["mariadbd", "mysqld"]);
            if is_mariadb(&server) {
                let mut install = command(&of_server(kind, &["mariadb-install-db"]));
                install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
                install.arg(option("--datadir=", &data)).args(["--innodb-log-file-size=16M"]);
                install
            } else {
                let mut initialise = command(&server);
                initialise.args(["--no-defaults", "--initialize-insecure"]).arg(option("--datadir=", &data));
                initialise
            }
        }
    };
    let output = initialise.stdin(Stdio::null()).output().expect("the program is there");
    assert!(
        output.status.success(),
        "{initialise:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// The server's program and its arguments.
pub(crate) fn serve(kind: ServerKind, folder: &Path, port: u16, durability: CommitSync) -> Vec<OsString> {
    let data = folder.join("data");
    let mut line: Vec<OsString> = Vec::new();
    match kind {
        ServerKind::Postgres => {
            line.extend([of_server(kind, &["postgres"]).into(), "-D".into(), data.into(), "-p".into()]);
            line.push(port.to_string().into());
            let mut settings = vec!["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=400"];
            if durability == CommitSync::None {
                settings.extend(["fsync=off", "full_page_writes=off"]);
            }
            if durability == CommitSync::Full {
                // It counts statements for who asks, and costs nearly nothing.
                settings.push("shared_preload_libraries=pg_stat_statements");
            }
            for setting in settings {
                line.extend(["-c".into(), setting.into()]);
            }
        }
        ServerKind::MySql => {
            line.extend([of_server(kind, &["mariadbd", "mysqld"]).into(), "--no-defaults".into()]);
            line.extend([option("--datadir=", &data), option("--socket=", &folder.join("socket"))]);
            line.extend([option("--pid-file=", &folder.join("pid")), option("--init-file=", &folder.join("init.sql"))]);
            line.push(format!("--port={port}").into());
            let settings = ["--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=400"];
            line.extend(settings.map(OsString::from));
            let settings = ["--loose-mysqlx=OFF", "--performance-schema=OFF", "--innodb-buffer-pool-size=128M"];
            line.extend(settings.map(OsString::from));
            line.extend(["--innodb-log-file-size=16M", "--skip-log-bin"].map(OsString::from));
            if durability == CommitSync::None {
                line.push("--innodb-flush-log-at-trx-commit=2".into());
                line.push("--innodb-flush-method=nosync".into());
            }
        }
    }
    line
}

/// What the server says once it takes connections.
pub(crate) fn is_ready(kind: ServerKind, line: &str) -> bool {
    match kind {
        ServerKind::Postgres => line.contains("database system is ready to accept connections"),
        ServerKind::MySql => line.contains("d: ready for connections"),
    }
}

/// The signal that ends the server at once, as a crash would: what it had not written to its log is lost.
pub(crate) fn crash(kind: ServerKind) -> &'static str {
    match kind {
        // A postmaster that is killed leaves its children behind, and they keep it from starting again for a while.
        ServerKind::Postgres => "QUIT",
        ServerKind::MySql => "KILL",
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

fn is_mariadb(server: &Path) -> bool {
    let version = Command::new(server).args(["--no-defaults", "--version"]).output().expect("the program is there");
    String::from_utf8_lossy(&version.stdout).contains("MariaDB")
}

/// The first of these programs that is there, newest version first. `what` they are is in these Debian packages.
pub(crate) fn find(what: &str, packages: &str, names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    // Debian keeps each version of PostgreSQL in a folder of its own, and only its clients in the path.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable();
    folders.splice(0..0, versions.into_iter().rev().map(|(_, folder)| folder));
    let programs = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    programs.into_iter().find(|program| program.is_file()).unwrap_or_else(|| {
        panic!(
            "{what} is not installed: {names:?} is nowhere in the path. \
             Run tests/run, which installs it, or: apt-get install {packages}"
        )
    })
}

fn of_server(kind: ServerKind, names: &[&str]) -> PathBuf {
    match kind {
        ServerKind::Postgres => find("PostgreSQL", "postgresql", names),
        ServerKind::MySql => find("MariaDB", "mariadb-server-core mariadb-client-core", names),
    }
}
