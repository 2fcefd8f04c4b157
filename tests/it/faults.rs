//! The database fails under the chat server, in every way that databases fail, and comes back.
//!
//! Each fault is a function of the kind of database, and a test on each kind that knows the fault. What must hold every
//! time: sockets and messages go on; joins fail in time and say that it is worth trying again; leaves wait, and are told on
//! return; nobody else leaves; nothing panics; and the log has one line when the database goes and one when it is back.

mod away;
mod full;
mod network;
mod node;
mod sessions;

use crate::support::backend::Backend;
use crate::support::http::{Response, becomes, get};
use crate::support::member::path;
use crate::support::server::Server;
use crate::support::socket::Upgrade;
use crate::support::{BOUND, Duration, SLACK, eventually, secs};
use tokio::time::Instant;

/// A join or an update gives up after `store_timeout`.
const STORE_TIMEOUT: Duration = secs(5);
/// How often guests beat, so that nobody goes stale.
const BEAT: Duration = secs(5);
/// By when a node notices that its database is back: it asks again every second at least, and waits 5 s for an answer.
const NOTICED: Duration = secs(10);

/// Runs faults on one kind of database.
macro_rules! on {
    ($kind:ident: $($fault:path => $test:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                $fault($crate::support::backend::Kind::$kind).await;
            }
        )*
    };
}

mod sqlite {
    use super::{away, full, node};

    on! {
        Sqlite:
        away::at_start => away_at_start,
        away::under_load => away_for_30_s_under_load,
        node::two_nodes => away_for_two_nodes_for_longer_than_their_leases,
        node::told_to_stop => away_when_the_process_is_told_to_stop,
        full::full => a_file_that_may_not_grow,
        full::read_only => a_file_that_may_only_be_read,
    }
}

mod postgres {
    use super::{away, network, node, sessions};

    on! {
        Postgres:
        away::at_start => away_at_start,
        away::under_load => away_for_30_s_under_load,
        node::two_nodes => away_for_two_nodes_for_longer_than_their_leases,
        node::told_to_stop => away_when_the_process_is_told_to_stop,
        network::slow => every_statement_takes_2_s,
        network::dead => a_network_that_lets_nothing_through,
        network::lost => connections_that_never_answer_again,
        sessions::killed => connections_killed_in_the_middle_of_transactions,
        sessions::read_only => a_server_that_may_only_be_read,
    }
}

mod mysql {
    use super::{away, network, node, sessions};

    on! {
        MySql:
        away::at_start => away_at_start,
        away::under_load => away_for_30_s_under_load,
        node::two_nodes => away_for_two_nodes_for_longer_than_their_leases,
        node::told_to_stop => away_when_the_process_is_told_to_stop,
        network::slow => every_statement_takes_2_s,
        network::dead => a_network_that_lets_nothing_through,
        network::lost => connections_that_never_answer_again,
        sessions::killed => connections_killed_in_the_middle_of_transactions,
        sessions::read_only => a_server_that_may_only_be_read,
    }
}

/// A chat server on this database.
async fn serve(backend: &Backend, variables: &[(&str, &str)]) -> Server {
    let server = Server::start_with(&["--database-url", &backend.url()], variables).await;
    becomes(&server, "/readyz", 200, BOUND).await;
    server
}

/// A new socket is answered in time that it should come back later.
async fn is_refused(server: &Server, user: &str) {
    let begun = Instant::now();
    let response = Upgrade::to(path("lobby", user)).open(server.address()).await.expect_err("a refusal");
    check_refusal(&response);
    let waited = begun.elapsed();
    assert!(waited <= STORE_TIMEOUT + SLACK, "a join fails within its bound, not after {waited:?}");
}

fn check_refusal(response: &Response) {
    assert_eq!(response.status, 503, "{response:?}");
    let again = response.header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(again.is_some_and(|seconds| seconds > 0), "{response:?}");
}

async fn is_healthy_but_not_ready(server: &Server) {
    becomes(server, "/readyz", 503, BOUND).await;
    assert_eq!(get(server.address(), "/healthz").await.status, 200);
}

/// What the server logged since it had logged this.
struct Log(usize);

impl Log {
    fn of(server: &Server) -> Self {
        Self(server.log().len())
    }

    fn lines(&self, server: &Server) -> Vec<String> {
        server.log()[self.0..].lines().map(str::to_owned).collect()
    }

    /// The log has one line for the going, one for the return, and no other.
    async fn tells_one_outage(&self, server: &Server) {
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
