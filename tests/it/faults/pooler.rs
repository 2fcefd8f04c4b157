//! PgBouncer between the server and PostgreSQL.

use super::{BEAT, is_healthy_but_not_ready, is_refused, serve_at};
use crate::support::backend::{Backend, BackendKind};
use crate::support::guest::Guest;
use crate::support::http::becomes;
use crate::support::server::ChatServer;
use crate::support::{BOUND, eventually};
use presence_test_servers::Pooling;

/// Every version needs this setting, since the driver sends the parameter when it connects.
const IGNORE: &str = "ignore_startup_parameters = extra_float_digits";

/// The only line that is more than information.
async fn one_line(server: &ChatServer) -> String {
    let troubles = || {
        let log = server.log();
        let lines = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    eventually(BOUND, "a line of the log", async || if troubles().is_empty() { Err(String::new()) } else { Ok(()) })
        .await;
    // A second try of what failed comes within a second, and is refused within five.
    is_refused(server, "ann").await;
    let lines = troubles();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines.into_iter().next().unwrap_or_default()
}

#[tokio::test]
async fn sessions_that_are_pooled_serve_as_a_server_does() {
    let backend = Backend::shared(BackendKind::Postgres).await;
    let (_bouncer, url) = backend.behind(Pooling::Session, &[IGNORE]);
    let server = serve_at(&url, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    for n in 0..20 {
        let name = format!("bob{n}");
        let bob = Guest::join(&server, "lobby", &name[..], BEAT).await;
        ann.until("Bob", BOUND, |seen| seen.told.contains(&format!("+{name}"))).await;
        bob.leaves().await;
        ann.until("his leave", BOUND, |seen| seen.told.contains(&format!("-{name}"))).await;
    }
    backend.rows_become("presences", 1, BOUND).await;
    becomes(&server, "/readyz", 200, BOUND).await;
    let log = server.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn transactions_that_are_pooled_without_regard_to_statements_are_refused_and_the_log_says_what_to_do() {
    // It flapped, and a statement of another client may be carried out in the place of one's own. With several sessions it depends on
    // chance whether two clients meet in one of them. With one session the second client always does.
    let backend = Backend::shared(BackendKind::Postgres).await;
    let (_bouncer, url) = backend.behind(Pooling::Transaction, &[IGNORE, "default_pool_size = 1"]);
    let server = ChatServer::start(&["--database-url", &url]).await;
    let line = one_line(&server).await;
    assert!(line.contains("ERROR") && line.contains("a pooler between the node and the database"), "{line}");
    assert!(line.contains("pool_mode = session") && line.contains("max_prepared_statements"), "{line}");
    is_healthy_but_not_ready(&server).await;
}

#[tokio::test]
async fn a_pooler_that_refuses_a_parameter_is_logged_with_the_setting_that_it_needs() {
    let backend = Backend::shared(BackendKind::Postgres).await;
    let (_bouncer, url) = backend.behind(Pooling::Session, &[]);
    let server = ChatServer::start(&["--database-url", &url]).await;
    let line = one_line(&server).await;
    assert!(line.contains("ERROR") && line.contains("ignore_startup_parameters = extra_float_digits"), "{line}");
    is_healthy_but_not_ready(&server).await;
}
