//! A server that is not there, or does not let us in: the message says why, at once, and never tells the password.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use presence::{SqlStore, store::Write};
use presence_test_servers::{CommitSync, Server, ServerKind, database};

use super::{
    command::{Ran, presence, run},
    database::{change, node, presence as presence_of},
};

const KINDS: &[ServerKind] = &[
    #[cfg(feature = "postgres")]
    ServerKind::Postgres,
    #[cfg(feature = "mysql")]
    ServerKind::MySql,
];

const SECRET: &str = "geheim";

const fn scheme(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Postgres => "postgres",
        ServerKind::MySql => "mysql",
    }
}

fn on(url: &str, arguments: &[&str]) -> Command {
    let mut command = presence(arguments);
    command.env("DATABASE_URL", url);
    command
}

/// Every kind of command fails so, with this exit code, for one of these reasons.
#[track_caller]
fn fails(url: &str, code: i32, reasons: &[&str]) {
    for arguments in [&["migrate"][..], &["rooms"], &["rooms", "--json"], &["prune-presences"], &["watch"]] {
        let begun = Instant::now();
        let ran = run(on(url, arguments));
        let Ran { out, err, .. } = &ran;
        assert!(!out.contains(SECRET) && !err.contains(SECRET), "{arguments:?}: {ran:?}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{arguments:?}: {:?}", begun.elapsed());
        let error = ran.failed(code);
        assert!(reasons.iter().any(|reason| error.contains(reason)), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!error.contains("timed out") && !error.contains("at line"), "{error}");
    }
}

/// This URL with another user, password or database.
fn with(url: &str, user: Option<&str>, name: Option<&str>) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (login, place) = rest.rsplit_once('@').unwrap();
    let (host, database) = place.split_once('/').unwrap();
    let login = user.map_or(login.to_owned(), |user| format!("{user}:{SECRET}"));
    format!("{scheme}://{login}@{host}/{}", name.unwrap_or(database))
}

#[test]
fn a_server_that_is_not_there_refuses_the_connection() {
    for kind in KINDS {
        fails(&format!("{}://ann:{SECRET}@127.0.0.1:1/presence", scheme(*kind)), 3, &["Connection refused"]);
    }
}

#[test]
fn a_host_that_is_not_known_cannot_be_looked_up() {
    for kind in KINDS {
        fails(&format!("{}://ann:{SECRET}@nowhere.invalid/presence", scheme(*kind)), 3, &["failed to lookup address"]);
    }
}

#[tokio::test]
async fn a_database_that_the_server_does_not_have_is_named() {
    for kind in KINDS {
        let database = database(*kind).await;
        let url = with(&database.url(), None, Some("nosuch"));
        fails(&url, 3, &["database \"nosuch\" does not exist", "Unknown database 'nosuch'"]);
    }
}

#[tokio::test]
async fn a_wrong_password_or_user_is_named_and_trying_again_will_not_help() {
    for kind in KINDS {
        let database = database(*kind).await;
        let known = database.user(&[]).await;
        let user = known.split_once("://").unwrap().1.split_once(':').unwrap().0.to_owned();
        for user in [&*user, "nosuch"] {
            let url = with(&database.url(), Some(user), None);
            let says = [
                format!("password authentication failed for user \"{user}\""),
                format!("role \"{user}\" does not exist"),
                format!("Access denied for user '{user}'@"),
            ];
            fails(&url, 1, &says.each_ref().map(String::as_str));
        }
    }
}

#[tokio::test]
async fn watch_says_why_it_waits_and_goes_on() {
    // Of each kind it is the same, and to start one takes its time.
    for kind in &KINDS[..1] {
        let server = Server::start(*kind, CommitSync::None);
        let database = server.database().await;
        let _ = run(on(&database.url(), &["migrate"])).done();
        let mut watch = on(&database.url(), &["watch", "--interval", "50ms"]);
        let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut err = BufReader::new(watch.stderr.take().unwrap()).lines();
        assert_eq!(out.next().unwrap().unwrap(), "watching: rooms 0, presences 0");
        server.stop_hard();
        let waits = err.next().unwrap().unwrap();
        assert!(waits.contains("watching goes on") && waits.contains("Connection refused"), "{waits}");
        server.start_again();
        let store = SqlStore::connect(&database.url()).unwrap();
        let node = node(&store, "web-1").await;
        change(&store, node, "lobby", [Write::Join(presence_of(node, "1", "ann"))]).await;
        assert_eq!(out.next().unwrap().unwrap(), "joined   lobby  ann");
        watch.kill().unwrap();
        watch.wait().unwrap();
    }
}
