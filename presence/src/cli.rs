//! The command-line tool `presence`: it shows what is in the database, and cleans it, while nodes are running.
//!
//! It connects to the database only, never to a node. Running nodes notice its changes when they next compare their rooms with the
//! database, and it sends requests to nodes through the database. While it changes anything, it is a node itself, with its own name and
//! lease. Results go to standard output when the work is done, errors to standard error, and the exit code shows whether it succeeded.

mod args;
mod as_node;
mod failure;
mod json;
mod list;
mod migrate;
mod prune;
mod report;
mod signals;
mod table;
mod watch;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use crate::{
    config::unwritten,
    store::{SqlStore, Store},
};
use clap::{
    Parser,
    error::{ContextKind, ContextValue},
};

use self::{
    args::{Args, Command},
    failure::{Failure, USAGE, code, report_failure},
    report::Report,
    signals::Signals,
    table::{Medium, shortened, visible},
};

/// Runs the tool with the arguments and the environment of this process, and returns its exit code. `presence --help` describes
/// the commands.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     presence::cli::run()
/// }
/// ```
#[must_use]
pub fn run() -> ExitCode {
    let args = match Args::try_parse().and_then(Args::checked) {
        Ok(args) => args,
        Err(error) => {
            let error = presentable(error);
            // Printing fails only if the reader has closed the pipe.
            let _ = error.print();
            return code(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report_failure(&Failure::Io(error)),
    };
    match runtime.block_on(execute(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe, and needs nothing more.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => report_failure(&failure),
    }
}

/// How many columns of an argument that was not understood are printed.
const ARGUMENT_COLUMNS: usize = 60;

/// Prints an argument that was not understood as one short line. Of a URL it prints only the scheme, because it may contain a password.
fn presentable(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind) {
            let text = match text.split_once("://") {
                Some((before, _)) => format!("{before}://…"),
                None => text.replace(char::is_control, "\u{fffd}"),
            };
            let text = shortened(&visible(&text), ARGUMENT_COLUMNS).into_owned();
            error.insert(kind, ContextValue::String(text));
        }
    }
    error
}

async fn execute(args: &Args) -> Result<(), Failure> {
    let url = args.database_url();
    if let Command::Migrate = args.command {
        let store = SqlStore::connect(url).map_err(Failure::Url)?;
        store.check_connection().await?;
        return args.show(&migrate::migrate(&store).await?);
    }
    // No other command may create a database.
    let store = SqlStore::open(url).map_err(Failure::Url)?;
    // Without this, a call would wait for an unreachable server without an error.
    store.check_connection().await?;
    if !store.pending_migrations().await?.is_empty() {
        return Err(Failure::NotMigrated);
    }
    match &args.command {
        Command::Migrate => unreachable!("returned above"),
        Command::Rooms => args.show(&list::rooms(&store).await?),
        Command::Members { room } => args.show(&list::members(&store, room).await?),
        Command::Users { room } => args.show(&list::users(&store, room).await?),
        Command::Nodes => args.show(&list::nodes(&store).await?),
        Command::PruneRooms => args.show(&as_node::as_node(&store, |node| prune::rooms(&store, node)).await?),
        Command::PrunePresences { age, touch_flush_interval, wait } => {
            let unwritten = unwritten(*touch_flush_interval, *age);
            let pruned =
                as_node::as_node(&store, |node| prune::presences(&store, node, *age, unwritten, *wait)).await?;
            args.show(&pruned)?;
            pruned.check_answers()
        }
        Command::Watch { room, interval } => {
            let mut stop = Signals::listen()?;
            tokio::select! {
                ended = watch::watch(&store, room.as_ref(), *interval, args) => ended,
                _ = stop.next() => Ok(()),
            }
        }
    }
}

impl Args {
    /// Prints the result of a command.
    fn show(&self, report: &impl Report) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let text = if self.json {
            json::line(report)
        } else {
            let medium = if out.is_terminal() { Medium::Terminal } else { Medium::Bytes };
            report.text(medium)
        };
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }
}
