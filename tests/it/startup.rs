//! The process: its flags, its first line, its health.

use crate::support::http::{becomes, get};
use crate::support::member::RoomClient;
use crate::support::server::{ChatServer, command};
use crate::support::{BOUND, eventually, folder, secs, within};
use std::process::Output;

/// Runs the server with arguments that make it end by itself.
async fn run(arguments: &[&str]) -> Output {
    let folder = folder();
    let output = command(folder.path()).args(arguments).output();
    within(BOUND, &format!("the end of a server with {arguments:?}"), output).await.unwrap()
}

/// The server refuses to start and names the wrong field.
async fn refuses(arguments: &[&str], names: &str) {
    let output = run(arguments).await;
    // `--max-age` is the flag's name and `max_age` the setting's: either tells the reader where to look.
    let errors = String::from_utf8_lossy(&output.stderr).to_lowercase().replace('-', "_");
    assert!(!output.status.success(), "{arguments:?} is refused");
    assert!(errors.contains(names), "{arguments:?}: `{names}` is named in: {errors}");
    assert!(!errors.contains("panicked"), "{arguments:?}: a reason, not a panic: {errors}");
    assert!(output.stdout.is_empty(), "{arguments:?}: nothing was listened on");
}

#[tokio::test]
async fn the_first_line_names_the_address_that_answers() {
    let server = ChatServer::start(&["--bind", "127.0.0.1"]).await;
    assert!(server.address().ip().is_loopback() && server.address().port() != 0);
    assert_eq!(get(server.address(), "/").await.status, 200);
}

#[tokio::test]
async fn the_page_is_html_and_loads_nothing_from_another_host() {
    let server = ChatServer::start(&[]).await;
    let page = get(server.address(), "/").await;
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{:?}", page.headers);
    for attribute in ["src=\"http", "src='http", "src=\"//", "href=\"//", "@import", "url(http"] {
        assert!(!page.body.contains(attribute), "the page has {attribute}");
    }
}

#[tokio::test]
async fn a_healthy_server_says_so() {
    let server = ChatServer::start(&[]).await;
    assert_eq!(get(server.address(), "/healthz").await.status, 200);
    // It may take a moment after the first line.
    becomes(&server, "/readyz", 200, BOUND).await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = ChatServer::start(&[]).await;
    assert_eq!(get(server.address(), "/nothing").await.status, 404);
    assert_eq!(get(server.address(), "/../Cargo.toml").await.status / 100, 4);
}

#[tokio::test]
async fn help_names_each_flag_and_its_variable() {
    let output = run(&["--help"]).await;
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for (flag, variable) in [
        ("--port", "PORT"),
        ("--bind", "BIND"),
        ("--database-url", "DATABASE_URL"),
        ("--notify", "NOTIFY"),
        ("--max-age", "PRESENCE_MAX_AGE"),
        ("--grace", "PRESENCE_GRACE"),
        ("--workers", "WORKERS"),
        ("--node-name", "NODE_NAME"),
        ("--allow-origin", "ALLOW_ORIGIN"),
        ("--max-frame-sent", "PRESENCE_MAX_FRAME_SENT"),
    ] {
        assert!(help.contains(flag), "{flag} in the help:\n{help}");
        assert!(help.contains(&format!("[env: {variable}")), "{variable} in the help:\n{help}");
    }
}

#[tokio::test]
async fn a_bad_value_is_refused_and_its_field_named() {
    refuses(&["--port", "70000"], "port").await;
    refuses(&["--bind", "nonsense::host"], "bind").await;
    refuses(&["--notify", "shout"], "notify").await;
    refuses(&["--max-age", "soon"], "max_age").await;
    refuses(&["--grace=-1s"], "grace").await;
    refuses(&["--workers", "none"], "workers").await;
    refuses(&["--max-frame-sent", "5999"], "max_frame_sent").await;
    refuses(&["--allow-origin", "https://a.example,b.example"], "b.example").await;
    refuses(&["--nonsense"], "nonsense").await;
}

#[tokio::test]
async fn values_that_contradict_one_another_are_refused() {
    refuses(&["--port", "0", "--max-age", "1s", "--grace", "2s"], "grace").await;
    refuses(&["--port", "0", "--max-age", "0s"], "max_age").await;
}

#[tokio::test]
async fn a_database_of_an_unknown_kind_is_refused() {
    refuses(&["--port", "0", "--database-url", "nonsense://presence.db"], "database").await;
}

#[tokio::test]
async fn a_database_file_in_a_folder_that_is_not_there_is_refused() {
    refuses(&["--port", "0", "--database-url", "sqlite://no/such/folder/presence.db"], "database").await;
}

#[tokio::test]
async fn a_database_on_several_hosts_is_refused_and_the_remedy_named() {
    // It said "invalid port number".
    for url in [
        "postgres://ann:geheim@one:5432,two:5432/presence",
        "postgres://one,two/presence?target_session_attrs=read-write",
        "postgres:///presence?host=one,two",
        "mysql://ann:geheim@one:3306,two:3306/presence",
    ] {
        refuses(&["--port", "0", "--database-url", url], "several hosts").await;
        refuses(&["--port", "0", "--database-url", url], "proxy").await;
    }
}

#[tokio::test]
async fn a_postgres_that_lacks_characters_is_not_used_and_the_log_says_what_to_do() {
    // It was ready, and each join with another character failed.
    let database = presence_test_servers::database(presence_test_servers::ServerKind::Postgres).await;
    database.make_anew("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'").await;
    let server = ChatServer::start(&["--database-url", &database.url()]).await;
    let line = eventually(BOUND, "the line of the encoding", async || {
        let log = server.log();
        log.lines().find(|line| line.contains("LATIN1")).map(str::to_owned).ok_or(log)
    });
    let line = line.await;
    assert!(line.contains("ERROR") && line.contains("ENCODING 'UTF8'"), "{line}");
    assert_eq!(get(server.address(), "/readyz").await.status, 503);
    assert_eq!(server.log().lines().filter(|line| line.contains("LATIN1")).count(), 1, "{}", server.log());
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused() {
    let server = ChatServer::start(&[]).await;
    let port = server.address().port().to_string();
    refuses(&["--port", &port], &port).await;
}

#[tokio::test]
async fn a_variable_sets_what_its_flag_sets_and_the_flag_wins() {
    let folder = folder();
    let run = |arguments: &'static [&str]| {
        let mut command = command(folder.path());
        command.env("NOTIFY", "shout").args(arguments).output()
    };
    let output = within(BOUND, "the server to refuse its environment", run(&["--port", "0"])).await.unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).to_lowercase().contains("notify"));
    let output = within(BOUND, "the server to refuse its port", run(&["--port", "70000", "--notify", "list"])).await;
    let errors = String::from_utf8_lossy(&output.unwrap().stderr).to_lowercase();
    assert!(
        errors.contains("port") && !errors.contains("shout"),
        "the flag was taken in the variable's place: {errors}"
    );
}

#[tokio::test]
async fn the_variable_of_a_setting_counts_where_the_flag_of_the_chat_is_not_given() {
    // It was read, checked, and then passed over.
    let variables = [("PRESENCE_NOTIFY", "events"), ("PRESENCE_MAX_FRAME_SENT", "7000")];
    let server = ChatServer::start_with(&[], &variables).await;
    let config = get(server.address(), "/config.json").await.body;
    assert!(config.contains("\"notify\":\"events\""), "{config}");
    let server = ChatServer::start_with(&["--notify", "list"], &variables).await;
    let config = get(server.address(), "/config.json").await.body;
    assert!(config.contains("\"notify\":\"list\""), "{config}");
}

#[tokio::test]
async fn why_a_server_does_not_start_is_printed_whatever_the_log_shows() {
    let folder = folder();
    let mut command = command(folder.path());
    command.env("RUST_LOG", "off").args(["--port", "0", "--max-frame-sent", "5999"]);
    let output = within(BOUND, "the end of the server", command.output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && errors.contains("max_frame_sent"), "{errors}");
}

#[tokio::test]
async fn a_variable_that_is_no_setting_is_told_in_the_log_and_passed_over() {
    let server = ChatServer::start_with(&[], &[("PRESENCE_GRACES", "1s"), ("PRESENCE_LEASE", "3s")]).await;
    let log = server.log();
    assert!(log.contains("WARN") && log.contains("PRESENCE_GRACES") && !log.contains("PRESENCE_LEASE"), "{log}");
}

#[tokio::test]
async fn the_database_is_a_file_where_one_was_asked_for() {
    let folder = folder();
    let file = folder.path().join("elsewhere.db");
    let url = format!("sqlite://{}", file.display());
    let server = ChatServer::start(&["--database-url", &url]).await;
    RoomClient::join(&server, "lobby", "ann").await;
    assert!(file.exists(), "{url}");
    assert!(!server.folder().join("presence.db").exists());
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_told_in_the_log_with_the_reason_and_without_the_password() {
    // It said no more than that the store is unavailable.
    for scheme in ["postgres", "mysql"] {
        let url = format!("{scheme}://ann:geheim@127.0.0.1:1/presence");
        let server = ChatServer::start(&["--database-url", &url]).await;
        let line = eventually(secs(10) + BOUND, "the line of the outage", async || {
            let log = server.log();
            log.lines().find(|line| line.contains("the presence store is away")).map(str::to_owned).ok_or(log)
        });
        let line = line.await;
        assert_eq!(line.matches("Connection refused").count(), 1, "each reason once: {line}");
        assert!(!server.log().contains("geheim"), "{line}");
        assert_eq!(get(server.address(), "/readyz").await.status, 503);
    }
}

#[tokio::test]
async fn without_a_flag_the_database_is_presence_db_in_the_working_folder() {
    let server = ChatServer::start(&[]).await;
    RoomClient::join(&server, "lobby", "ann").await;
    assert!(server.folder().join("presence.db").exists());
}

#[tokio::test]
async fn one_worker_serves_rooms_as_many_do() {
    for workers in ["1", "3"] {
        let server = ChatServer::start(&["--workers", workers]).await;
        let mut ann = RoomClient::join(&server, "lobby", "ann").await;
        for n in 0..6 {
            let member = RoomClient::join(&server, "lobby", "bob").await;
            ann.sees_join("bob").await;
            ann.says(&n.to_string()).await;
            ann.hears("ann", &n.to_string()).await;
            member.leave().await;
            ann.sees_leave("bob").await;
        }
    }
}
