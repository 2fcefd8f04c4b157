//! Measures the example chat from outside. It starts each server itself, lets clients work, checks that each client's view of its room
//! is right at the end, and prints a table. `compare` measures it against a server without presence, and `scale` many sockets.

mod compare;
mod load;
mod pace;
mod process;
mod scale;
mod scenarios;
mod stop;
mod table;
mod wire;

use std::process::{Command, ExitCode};

use clap::Parser;

use compare::Compare;
use process::Program;
use scale::{Crowd, Scale};

/// Measures the example chat from outside.
#[derive(Debug, Parser)]
enum Args {
    /// Starts each server in turn, and prints a table of what they reach.
    Compare(Compare),
    /// Opens many sockets over several nodes of the example chat on one database, and prints a table of what they cost while they do
    /// nothing, while they send heartbeats, and while a node stops and starts again.
    Scale(Scale),
    /// Holds clients for `scale`, which starts this by itself.
    #[command(hide = true)]
    Crowd(Crowd),
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Builds the servers that were not given by their paths, if this program was started by cargo. An old server would be measured
/// otherwise.
fn build(programs: &[Program]) -> Result<(), String> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let folder = process::folder()?;
    let (Some(target), Some(profile)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    let packages = programs.iter().filter_map(Program::package);
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    command.arg("--target-dir").arg(target);
    command.args(packages.flat_map(|package| ["--package", package]));
    if profile == "release" {
        command.arg("--release");
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the servers cannot be built: {status}")),
        Err(error) => Err(format!("the servers cannot be built: {error}")),
    }
}

/// Both sides of all connections need files; a server inherits the limit, which is returned.
fn raise_open_files() -> Result<u64, String> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised)
        .map_err(|error| format!("the limit of open files cannot be raised: {error}"))?;
    Ok(raised.current.unwrap_or(u64::MAX))
}

fn main() -> ExitCode {
    let done = match Args::parse() {
        Args::Compare(args) => compare::compare(&args),
        Args::Scale(args) => scale::scale(&args),
        Args::Crowd(args) => scale::crowd(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}
