//! Three nodes with 10,000 rooms each, in which nothing happens: the statements that this costs, and how late a node learns of a change.

use std::time::{Duration, Instant};

use presence_test_servers::Server;
use tokio::time::sleep;

use super::{
    super::{Place, server_cpu, since, tell},
    Nodes, ROUNDS,
    counters::Counters,
};

const NODES: usize = 3;
const ROOMS: usize = 10_000;
/// Three of the comparisons that nodes make by default.
const WINDOW: Duration = Duration::from_secs(15);
/// What has just begun, ends first.
const SETTLE: Duration = Duration::from_secs(6);
/// By when a node knows of a change of another, in seconds: much later than it should.
const KNOWN: usize = 30;

pub(super) async fn measure(database: &str, server: &Server) {
    let place = Place::new(Some(server)).await;
    Counters::prepare(&place).await;
    let mut nodes = Nodes::start(&place, NODES).await;
    // One after the other: nodes that create the same rooms at the same time wait for one another.
    for node in 0..NODES {
        nodes.does(node, &format!("fill {ROOMS}")).await;
    }
    sleep(SETTLE).await;
    let (mut statements, mut transactions, mut processor, mut ages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (begun, cpu, before) = (Instant::now(), server_cpu(Some(server)), Counters::read(&place).await);
        sleep(WINDOW).await;
        let (seconds, done) = (since(begun), Counters::read(&place).await.since(&before));
        statements.push(done.statements / seconds);
        transactions.push(done.transactions / seconds);
        processor.push((server_cpu(Some(server)) - cpu) / seconds);
        // The first room has one of each node, and one more with each round.
        nodes.does(0, &format!("enter {round}")).await;
        let entered = Instant::now();
        nodes.does(1, &format!("await {} {KNOWN}", NODES + round + 1)).await;
        ages.push(since(entered));
    }
    tell(database, "statements a second, 3 nodes of 10,000 rooms each, idle", statements, 1.0, "/s");
    tell(database, "  commits", transactions, 1.0, "/s");
    tell(database, "  processor time of the server, of a core", processor, 1e2, "%");
    tell(database, "how late a node knows of a join on another", ages, 1.0, "s");
}
