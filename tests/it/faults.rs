//! The database fails under the chat server, in every way that databases fail, and comes back.
//!
//! Each fault is a function of the kind of database, and a test on each kind that knows the fault. What must hold every
//! time: sockets and messages go on; joins fail in time and say that it is worth trying again; leaves wait, and are told on
//! return; nobody else leaves; nothing panics; and the log has one line when the database goes and one when it is back.

mod anew;
mod away;
mod file;
mod full;
mod network;
mod node;
mod pooler;
mod sessions;

use crate::support::backend::Backend;
use crate::support::guest::Guest;
use crate::support::http::{Response, becomes, get};
use crate::support::member::path;
use crate::support::server::ChatServer;
use crate::support::socket::HandshakeRequest;
use crate::support::{BOUND, Duration, SLACK, eventually, secs};
use tokio::time::Instant;

/// A join or an update gives up after `store_timeout`.
const STORE_TIMEOUT: Duration = secs(5);
/// How often guests beat, so that nobody goes stale.
const BEAT: Duration = secs(5);
/// By when a node notices that its database is back: it asks again every second at least, and waits 5 s for an answer.
const NOTICED: Duration = secs(10);
/// How long a fault lasts: longer than a lease.
const TROUBLE: Duration = secs(15);

/// Runs faults on one kind of database.
macro_rules! on {
    ($kind:ident: $($fault:path => $test:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                $fault($crate::support::backend::BackendKind::$kind).await;
            }
        )*
    };
}

mod sqlite {
    use super::{anew, away, file, full, node};

    on! {
        Sqlite:
        anew::made_anew => whose_tables_are_dropped_while_nodes_run,
        file::moved_away => a_file_that_is_moved_away_and_back,
        file::replaced => a_file_that_is_replaced_by_another,
        away::at_start => away_at_start,
        away::under_load => away_for_30_s_under_load,
        node::two_nodes => away_for_two_nodes_for_longer_than_their_leases,
        node::told_to_stop => away_when_the_process_is_told_to_stop,
        full::full => a_file_that_may_not_grow,
        full::read_only => a_file_that_may_only_be_read,
    }
}

/// The faults of servers, on a kind of them.
macro_rules! server {
    ($module:ident, $kind:ident) => {
        mod $module {
            use super::{anew, away, network, node, sessions};

            on! {
                $kind:
                anew::made_anew => dropped_and_made_anew_while_nodes_run,
                away::at_start => away_at_start,
                away::under_load => away_for_30_s_under_load,
                node::two_nodes => away_for_two_nodes_for_longer_than_their_leases,
                node::told_to_stop => away_when_the_process_is_told_to_stop,
                network::slow => every_statement_takes_1_s,
                network::dead => a_network_that_lets_nothing_through,
                network::lost => connections_that_never_answer_again,
                network::slow_readings => with_slow_readings_nobody_is_there_who_has_left,
                sessions::killed => connections_killed_in_the_middle_of_transactions,
                sessions::read_only => a_server_that_may_only_be_read,
            }
        }
    };
}

server!(postgres, Postgres);
server!(mysql, MySql);

/// A chat server on this database.
async fn serve(backend: &Backend, variables: &[(&str, &str)]) -> ChatServer {
    serve_at(&backend.url(), variables).await
}

async fn serve_at(url: &str, variables: &[(&str, &str)]) -> ChatServer {
    let server = ChatServer::start_with(&["--database-url", url], variables).await;
    becomes(&server, "/readyz", 200, BOUND).await;
    server
}

/// A new socket is answered in time that it should come back later.
async fn is_refused(server: &ChatServer, user: &str) {
    let begun = Instant::now();
    let response = HandshakeRequest::to(path("lobby", user)).open(server.address()).await.expect_err("a refusal");
    check_refusal(&response);
    let waited = begun.elapsed();
    assert!(waited <= STORE_TIMEOUT + SLACK, "a join fails within its bound, not after {waited:?}");
}

fn check_refusal(response: &Response) {
    assert_eq!(response.status, 503, "{response:?}");
    let again = response.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(again.is_some_and(|seconds| seconds > 0), "{response:?}");
}

async fn is_healthy_but_not_ready(server: &ChatServer) {
    becomes(server, "/readyz", 503, BOUND).await;
    assert_eq!(get(server.address(), "/healthz").await.status, 200);
}

/// Three are in a room when a fault begins that lasts for longer than a lease. Joins are refused, messages go on, and a leave
/// waits until the fault has ended.
async fn suffers(backend: &Backend, begin: impl AsyncFn(), end: impl AsyncFn()) {
    let server = serve(backend, &[]).await;
    let mut ann = Guest::join(&server, "lobby", "ann", BEAT).await;
    let bob = Guest::join(&server, "lobby", "bob", BEAT).await;
    let dan = Guest::join(&server, "lobby", "dan", BEAT).await;
    ann.until("all three", BOUND, |seen| seen.roster.users.len() == 3).await;
    let (before, log) = (ann.seen().told.len(), LogSince::of(&server));

    begin().await;
    let begun = Instant::now();
    dan.leaves().await;
    for turn in 0.. {
        is_refused(&server, "fay").await;
        bob.says(&format!("{turn}"));
        ann.hears(&format!("{turn}")).await;
        if turn == 0 {
            is_healthy_but_not_ready(&server).await;
        }
        if begun.elapsed() >= TROUBLE {
            break;
        }
    }
    assert_eq!(ann.seen().told.len(), before, "nobody is told of what is not committed");
    end().await;
    let ended = Instant::now();
    ann.until("the leave of Dan", NOTICED, |seen| seen.told.contains(&"-dan".to_owned())).await;
    println!("{:?}: a leave is told {:?} after the end", backend.kind, ended.elapsed());
    becomes(&server, "/readyz", 200, NOTICED).await;
    let _gus = Guest::join(&server, "lobby", "gus", BEAT).await;
    ann.until("Gus", BOUND, |seen| seen.told.contains(&"+gus".to_owned())).await;
    assert_eq!(ann.seen().told[before..], ["-dan", "+gus"]);
    backend.rows_become("presences", 3, BOUND).await;
    log.tells_one_outage(&server).await;
}

/// What the server logged since it had logged this.
struct LogSince(usize);

impl LogSince {
    fn of(server: &ChatServer) -> Self {
        Self(server.log().len())
    }

    fn lines(&self, server: &ChatServer) -> Vec<String> {
        server.log()[self.0..].lines().map(str::to_owned).collect()
    }

    /// The log has one line for the going, one for the return, and no other.
    async fn tells_one_outage(&self, server: &ChatServer) {
        let back = |line: &String| line.contains("the presence store is back");
        eventually(BOUND, "the line of the return", async || match self.lines(server) {
            lines if lines.iter().any(back) => Ok(()),
            lines => Err(format!("{lines:#?}")),
        })
        .await;
        let lines = self.lines(server);
        assert!(
            matches!(&lines[..], [away, is_back] if away.contains("the presence store is away") && back(is_back)),
            "one line for each change of state: {lines:#?}"
        );
    }
}
