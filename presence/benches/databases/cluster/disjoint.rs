//! The same callers on one, two, four and eight nodes, each of which has rooms of its own.

use presence_test_servers::Server;

use super::{
    super::{Place, tell},
    CALLERS, Nodes, ROUNDS,
    counters::Counters,
    node::Load,
};

const NODES: [usize; 4] = [1, 2, 4, 8];
const SECONDS: f64 = 2.0;
/// Rooms of all nodes together.
const ROOMS: usize = 200;

#[derive(Default)]
struct Figures {
    per_second: Vec<f64>,
    by_one: Vec<f64>,
    statements: Vec<f64>,
    transactions: Vec<f64>,
}

pub(super) async fn measure(database: &str, server: &Server) {
    let mut figures: [Figures; 4] = Default::default();
    for _ in 0..ROUNDS {
        let place = Place::new(Some(server)).await;
        Counters::prepare(&place).await;
        let mut nodes = Nodes::start(&place, NODES[3]).await;
        let mut one = 0.0;
        for (count, figures) in NODES.into_iter().zip(&mut figures) {
            let load = |node: usize| {
                let rooms = format!("{count}-{node}");
                Load { rooms, count: ROOMS / count, callers: CALLERS / count, cold: 0, seconds: SECONDS }
            };
            // The warm-up is counted as well, and its joins are not. So what is for each join is a little too much.
            let before = Counters::read(&place).await;
            let joined = nodes.join(count, load).await;
            let done = Counters::read(&place).await.since(&before);
            if count == 1 {
                one = joined.per_second;
            }
            let joins = Counters::joins(&done);
            figures.per_second.push(joined.per_second);
            figures.by_one.push(joined.per_second / one);
            figures.statements.push(done.statements / joins);
            figures.transactions.push(joins / done.transactions);
        }
    }
    for (count, Figures { per_second, by_one, statements, transactions }) in NODES.into_iter().zip(figures) {
        tell(database, &format!("joins of 2,000 callers on {count} nodes, each with its rooms"), per_second, 1.0, "/s");
        tell(database, "= times as many as on one", by_one, 1.0, "x");
        tell(database, "  statements for each join, each a round trip", statements, 1.0, "");
        tell(database, "  joins in each transaction", transactions, 1.0, "");
    }
}
