//! Why a command failed, as an exit code and as a line for people.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::store::{StoreError, database_message, is_access_denied};

use super::signals::Signal;

const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const UNAVAILABLE: u8 = 3;
const SILENT: u8 = 4;

pub(super) fn code(code: u8) -> ExitCode {
    ExitCode::from(code)
}

/// Why a command did not do everything.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
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

pub(super) fn report_failure(failure: &Failure) -> ExitCode {
    let absent = root(failure).to_string().contains("unable to open database file");
    let hint = if absent { "; is the path right? `presence migrate` makes a database" } else { "" };
    let reasons = match failure {
        Failure::Store(error) => why(error),
        other => reasons(other),
    };
    let _ = writeln!(io::stderr(), "error: {reasons}{hint}");
    code(failure.code())
}

/// An error of the store and its cause, as the database words it if it does.
pub(super) fn why(error: &StoreError) -> String {
    if let Some(remedy) = error.remedy() {
        return format!("{error}: {remedy}");
    }
    database_message(error).map_or_else(|| reasons(error), |said| format!("{error}: {said}"))
}

/// An error and its first cause, without the errors between them.
fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let (text, cause) = (error.to_string(), root(error).to_string());
    // The driver and sea-orm both add these words for a wrong URL.
    let cause = cause.replace("error with configuration: ", "");
    if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
}

fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error)
}

/// Whether the file is not a database. A node waits until it is repaired, but this tool fails, because the path may be mistyped.
fn is_no_database(error: &StoreError) -> bool {
    root(error).to_string().contains("file is not a database")
}
