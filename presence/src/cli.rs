//! The command-line tool `presence`: what is in the database, and the cleaning of it, beside running nodes.
//!
//! It speaks to the database alone, never to a node: what it changes, running nodes notice when they next compare their
//! rooms with the database, and what only a node can judge it asks of the node through the database. Where it changes
//! anything, it is a node itself for that long, with a name and a lease of its own. Results go to standard output when the
//! work is done, complaints to standard error, and the exit code says which of the two matters.

mod args;
mod json;
mod life;
mod list;
mod migrate;
mod prune;
mod signals;
mod table;
mod watch;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{
    Parser,
    error::{ContextKind, ContextValue},
};
use serde::Serialize;

use crate::store::{SqlStore, Store, StoreError, database_message, is_access_denied};

use self::{
    args::{Args, Command},
    signals::{Signal, Signals},
    table::{Medium, shortened, visible},
};

/// Runs the tool with the arguments and the environment of this process, and says how it went. `presence --help` explains
/// the rest.
#[must_use]
pub fn run() -> ExitCode {
    let args = match Args::try_parse().and_then(Args::checked) {
        Ok(args) => args,
        Err(error) => {
            let error = presentable(error);
            // Help goes to standard output, and a reader that closed it has seen enough.
            let _ = error.print();
            return code(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&Failure::Io(error)),
    };
    match runtime.block_on(obey(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever closed the pipe has seen enough.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => complain(&failure),
    }
}

/// How many columns of an argument that was not understood are repeated.
const TOLD: usize = 60;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 3;
const SILENT: u8 = 4;

fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// Why a command did not do all that it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the database cannot be used by this URL")]
    Url(#[source] StoreError),
    #[error("the database has no tables of this version yet: run `presence migrate`")]
    NotMigrated,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}", silent(.nodes, .wait))]
    Silent { nodes: Vec<String>, wait: String },
    #[error("stopped by {0} before it was done")]
    Stopped(Signal),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn silent(nodes: &[String], wait: &str) -> String {
    let names: Vec<_> = nodes.iter().map(|name| format!("`{name}`")).collect();
    let node = if names.len() == 1 { "node" } else { "nodes" };
    format!("{node} {} did not answer within {wait}", names.join(", "))
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Url(_) => USAGE,
            Self::Store(error @ StoreError::Unavailable(_))
                if is_no_database(error) || is_access_denied(error) || error.needs_operator() =>
            {
                FAILED
            }
            Self::Store(StoreError::Unavailable(_)) => UNAVAILABLE,
            Self::Store(_) | Self::NotMigrated | Self::Io(_) => FAILED,
            Self::Silent { .. } => SILENT,
            Self::Stopped(signal) => signal.code(),
        }
    }
}

/// What was not understood is repeated in one short line, and of a URL no more than its kind: there may be a password in it.
fn presentable(mut error: clap::Error) -> clap::Error {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(text)) = error.get(kind) {
            let text = match text.split_once("://") {
                Some((before, _)) => format!("{before}://…"),
                None => text.replace(char::is_control, "\u{fffd}"),
            };
            let text = shortened(&visible(&text), TOLD).into_owned();
            error.insert(kind, ContextValue::String(text));
        }
    }
    error
}

fn complain(failure: &Failure) -> ExitCode {
    let absent = root(failure).to_string().contains("unable to open database file");
    let hint = if absent { "; is the path right? `presence migrate` makes a database" } else { "" };
    let reasons = match failure {
        Failure::Store(error) => why(error),
        other => reasons(other),
    };
    let _ = writeln!(io::stderr(), "error: {reasons}{hint}");
    code(failure.code())
}

/// A failure of the store and what it comes from, in the database's own words if it had any.
fn why(error: &StoreError) -> String {
    if let Some(remedy) = error.remedy() {
        return format!("{error}: {remedy}");
    }
    database_message(error).map_or_else(|| reasons(error), |said| format!("{error}: {said}"))
}

/// An error and what it comes from, without the layers between.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let (text, cause) = (error.to_string(), root(error).to_string());
    // The driver and sea-orm each say this much of a URL.
    let cause = cause.replace("error with configuration: ", "");
    if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
}

fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error)
}

/// Whether the file is something else. A node waits for it to be mended; one who typed its name wants to know.
fn is_no_database(error: &StoreError) -> bool {
    root(error).to_string().contains("file is not a database")
}

async fn obey(args: &Args) -> Result<(), Failure> {
    let url = args.database_url();
    if let Command::Migrate = args.command {
        let store = SqlStore::connect(url).map_err(Failure::Url)?;
        store.check_connection().await?;
        return args.show(&migrate::migrate(&store).await?);
    }
    // Anything else has no business making a database.
    let store = SqlStore::open(url).map_err(Failure::Url)?;
    // A call would wait for a server that is not there, and not say why it waited.
    store.check_connection().await?;
    if !store.pending_migrations().await?.is_empty() {
        return Err(Failure::NotMigrated);
    }
    match &args.command {
        Command::Migrate => unreachable!("done above"),
        Command::Rooms => args.show(&list::rooms(&store).await?),
        Command::Members { room } => args.show(&list::members(&store, room).await?),
        Command::Users { room } => args.show(&list::users(&store, room).await?),
        Command::Nodes => args.show(&list::nodes(&store).await?),
        Command::PruneRooms => args.show(&life::with_life(&store, |node| prune::rooms(&store, node)).await?),
        Command::PrunePresences { age, wait } => {
            let pruned = life::with_life(&store, |node| prune::presences(&store, node, *age, *wait)).await?;
            args.show(&pruned)?;
            pruned.complaint()
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

/// What a command found or did: a document for programs, text for people.
trait Report: Serialize {
    fn text(&self, medium: Medium) -> String;
}

impl Args {
    /// Prints what a command found.
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
