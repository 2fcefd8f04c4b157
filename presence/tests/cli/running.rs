//! How the tool is called, what it says when it cannot work, and what it leaves behind.

use presence::store::{NodeStore, RoomStore};

use std::process::{Command, Stdio};

use presence::RoomName;
use sea_orm::{ConnectOptions, ConnectionTrait};

use super::{
    command::{presence, run},
    database::{TestDatabase, change, node, room},
};

const COMMANDS: [&[&str]; 11] = [
    &["rooms"],
    &["members", "lobby"],
    &["users", "lobby"],
    &["nodes"],
    &["prune-presences"],
    &["prune-rooms"],
    &["watch"],
    &["prune-presence"],
    &["prune-room"],
    &["prune_presences"],
    &["prune_rooms"],
];

fn on(url: &str, arguments: &[&str]) -> Command {
    let mut command = presence(arguments);
    command.args(["--database-url", url]);
    command
}

#[test]
fn help_tells_of_every_command_the_database_and_the_exit_codes() {
    let help = run(presence(&["--help"])).done();
    for told in [
        "migrate",
        "rooms",
        "members",
        "users",
        "nodes",
        "prune-presences",
        "prune-rooms",
        "watch",
        "[alias: prune-presence]",
        "[alias: prune-room]",
        "DATABASE_URL",
        "--json",
        "Exit codes:",
        "130",
    ] {
        assert!(help.contains(told), "{told}: {help}");
    }
    for (code, meaning) in [(0, "done"), (1, "failed"), (2, "not understood"), (3, "unavailable"), (4, "answer")] {
        let line = help.lines().find(|line| line.starts_with(&format!("  {code}  "))).unwrap();
        assert!(line.contains(meaning), "{line}");
    }
    assert!(run(presence(&["prune-presences", "--help"])).done().contains("[default: 60s]"));
}

#[test]
fn help_does_not_show_the_url_which_may_hold_a_password() {
    let mut command = presence(&["--help"]);
    command.env("DATABASE_URL", "sqlite://secret.db");
    assert!(!run(command).done().contains("secret"));
    let refused = run(on("oracle://ann:secret@localhost/presence", &["rooms"])).failed(2);
    assert!(!refused.contains("secret"), "{refused}");
}

#[test]
fn what_is_not_understood_is_repeated_in_one_short_line_without_a_password() {
    for argument in
        ["a\nb", "a\u{1b}[31mb\u{7}", "a\u{202e}b", &"x".repeat(10_000), "postgres://ann:geheim@localhost/x"]
    {
        let calls =
            [&["prune-presences", "--age", argument][..], &["rooms", argument], &[argument], &["members", argument]];
        let is_a_name = usize::from(RoomName::new(argument).is_ok());
        for arguments in &calls[..calls.len() - is_a_name] {
            let mut command = presence(arguments);
            command.env("DATABASE_URL", "sqlite://presence.db");
            let error = run(command).failed(2);
            let (line, help) = error.split_once('\n').unwrap();
            assert!(line.chars().count() < 200 && !line.contains(char::is_control), "{arguments:?}: {line:?}");
            assert!(!error.contains("geheim") && !error.contains('\u{202e}') && !error.contains('\u{7}'), "{error:?}");
            assert!(help.starts_with('\n') && help.contains("--help"), "{arguments:?}: {error:?}");
        }
    }
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    for arguments in [
        &[][..],
        &["rooom"],
        &["rooms", "--color"],
        &["members"],
        &["members", ""],
        &["members", "a\u{7}"],
        &["users", &"x".repeat(256)],
        &["prune-presences", "--age", "soon"],
        &["prune-presences", "--age", "90"],
        &["prune-presences", "--wait", "-1s"],
        &["watch", "--interval", "0"],
    ] {
        let mut command = presence(arguments);
        command.env("DATABASE_URL", "sqlite://presence.db");
        assert_eq!(run(command).code, Some(2), "{arguments:?}");
    }
    let negative = run(on("sqlite://presence.db", &["prune-presences", "--age", "-5s"])).failed(2);
    assert!(negative.contains("a time is not negative"), "{negative}");
    #[cfg(feature = "postgres")]
    assert_eq!(
        run(on("postgres://ann:ge/heim@localhost/x", &["rooms"])).failed(2),
        "error: the database cannot be used by this URL: invalid port number\n"
    );
    for url in ["presence.db", "sqlite:", "oracle://localhost/presence"] {
        let _ = run(on(url, &["rooms"])).failed(2);
        let _ = run(on(url, &["migrate"])).failed(2);
    }
}

#[test]
fn without_a_database_it_says_how_to_name_one() {
    for arguments in COMMANDS.iter().chain([&["migrate"][..]].iter()) {
        for empty in [false, true] {
            let mut command = presence(arguments);
            if empty {
                command.env("DATABASE_URL", "");
            }
            let error = run(command).failed(2);
            assert!(error.contains("--database-url") && error.contains("DATABASE_URL"), "{error}");
        }
    }
}

#[tokio::test]
async fn the_option_wins_over_the_environment_and_stands_before_or_after_the_command() {
    let database = TestDatabase::new().await;
    for arguments in [["--database-url", &database.url(), "rooms"], ["rooms", "--database-url", &database.url()]] {
        let mut command = presence(&arguments);
        command.env("DATABASE_URL", "sqlite:///no/such/folder/presence.db");
        assert_eq!(run(command).done(), "no rooms\n");
    }
}

#[test]
fn a_database_that_is_not_there_is_unavailable_and_is_not_made() {
    let database = TestDatabase::bare();
    for arguments in COMMANDS {
        for url in [database.url(), format!("{}?mode=rwc", database.url()), "sqlite:///no/such/folder/x.db".to_owned()]
        {
            let error = run(on(&url, arguments)).failed(3);
            assert!(error.contains("unable to open database file"), "{error}");
            assert!(error.contains("presence migrate") && !error.contains("Connection Error"), "{error}");
            assert_eq!(error.matches("unable to open").count(), 1, "each reason once: {error}");
        }
    }
    let file = database.url().trim_start_matches("sqlite://").to_owned();
    assert!(!std::path::Path::new(&file).exists());
}

#[tokio::test]
async fn a_database_that_is_locked_for_too_long_is_unavailable() {
    let database = TestDatabase::new().await;
    let other =
        sea_orm::Database::connect(ConnectOptions::new(database.url()).max_connections(1).to_owned()).await.unwrap();
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let error = database.run(&["prune-rooms"]).failed(3);
    assert!(error.contains("locked"), "{error}");
    assert_eq!(database.run(&["rooms"]).done(), "no rooms\n", "a reader does not wait");
    other.execute_unprepared("ROLLBACK").await.unwrap();
    assert_eq!(database.run(&["prune-rooms"]).done(), "removed 0 empty rooms\n");
}

#[tokio::test]
async fn a_database_without_tables_or_with_later_ones_is_refused_with_a_hint() {
    let database = TestDatabase::bare();
    std::fs::write(database.url().trim_start_matches("sqlite://"), "").unwrap();
    for arguments in COMMANDS {
        let error = database.run(arguments).failed(1);
        assert!(error.contains("presence migrate"), "{error}");
    }
    std::fs::write(database.url().trim_start_matches("sqlite://"), "Dear diary, ".repeat(1000)).unwrap();
    let error = database.run(&["rooms"]).failed(1);
    assert!(error.contains("not a database"), "{error}");
}

#[tokio::test]
async fn migrate_makes_the_database_once() {
    let database = TestDatabase::bare();
    let applied = database.run(&["migrate"]).done();
    assert!(applied.lines().all(|line| line.starts_with("applied m20")) && !applied.is_empty(), "{applied}");
    assert_eq!(database.run(&["migrate"]).done(), "the schema is up to date\n");
    assert_eq!(database.run(&["migrate", "--json"]).json(), serde_json::json!({"applied": []}));
    assert_eq!(database.run(&["rooms"]).done(), "no rooms\n");
    let other = TestDatabase::bare();
    let applied = other.run(&["--json", "migrate"]).json();
    assert!(applied["applied"][0].as_str().unwrap().starts_with("m20"));
}

#[tokio::test]
async fn nobody_who_closes_the_pipe_early_makes_it_panic() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    for n in 0..2_000 {
        change(&database.store, here, &format!("{n} {}", "x".repeat(200)), []).await;
    }
    for arguments in [&["rooms"][..], &["rooms", "--json"], &["--help"]] {
        let mut command = database.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
}

// behaviour: 5 commands; 5 spellings
#[tokio::test]
async fn rooms_that_nobody_is_in_are_pruned_under_either_name() {
    let database = TestDatabase::new().await;
    let here = node(&database.store, "here").await;
    for (command, told) in [
        ("prune-rooms", "removed 1 empty room\n"),
        ("prune-room", "removed 1 empty room\n"),
        ("prune_rooms", "removed 1 empty room\n"),
    ] {
        change(&database.store, here, "lobby", []).await;
        assert_eq!(database.run(&[command]).done(), told);
        assert_eq!(database.store.load(room("lobby")).await.unwrap(), None);
    }
    for name in ["a", "b"] {
        change(&database.store, here, name, []).await;
    }
    assert_eq!(database.run(&["prune-rooms", "--json"]).json(), serde_json::json!({"removed": 2}));
    let nodes = database.store.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|node| node.node).collect::<Vec<_>>(), [here], "no trace of the tool's own lives");
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[test]
fn a_server_that_is_away_is_unavailable_and_its_password_is_not_shown() {
    for scheme in ["postgres", "mysql"] {
        // Nobody listens on this port.
        let away = run(on(&format!("{scheme}://ann:secret@127.0.0.1:1/presence"), &["rooms"])).failed(3);
        assert!(!away.contains("secret"), "{away}");
    }
}
