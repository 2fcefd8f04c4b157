//! Runs a command with a PostgreSQL and a MariaDB beside it, which end with it: `presence-test-servers cargo test`.
//!
//! The command finds them by `PRESENCE_TEST_POSTGRES` and `PRESENCE_TEST_MYSQL`. Those that are set already stay, and
//! nothing is started for them.

use std::{
    env,
    process::{Command, ExitCode},
};

use presence_test_servers::{CommitSync, Server, ServerKind};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: presence-test-servers COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let mut servers = Vec::new();
    for (kind, variable) in
        [(ServerKind::Postgres, "PRESENCE_TEST_POSTGRES"), (ServerKind::MySql, "PRESENCE_TEST_MYSQL")]
    {
        if env::var_os(variable).is_none_or(|url| url.is_empty()) {
            let server = Server::start(kind, CommitSync::None);
            command.env(variable, server.url());
            servers.push(server);
        }
    }
    match command.status() {
        // Whoever was ended by a signal has no code.
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("{:?}: {error}", command.get_program());
            ExitCode::FAILURE
        }
    }
}
