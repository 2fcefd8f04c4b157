//! 2,000 callers join one room, on one node and on four; and what that is to joins into other rooms of the same nodes.

use presence_test_servers::Server;

use super::{
    super::{Place, tell},
    CALLERS, Nodes, ROUNDS,
    node::Load,
};

const NODES: usize = 4;
const SECONDS: f64 = 2.0;
/// Callers of cold rooms on each node.
const COLD: usize = 8;

pub(super) async fn measure(database: &str, server: &Server) {
    let [mut one, mut four, mut ratio, mut calm, mut beside, mut late] = [const { Vec::new() }; 6];
    for _ in 0..ROUNDS {
        let place = Place::new(Some(server)).await;
        let mut nodes = Nodes::start(&place, NODES).await;
        let load = |rooms: &str, nodes: usize, cold| {
            let callers = CALLERS.checked_div(nodes).unwrap_or_default();
            Load { rooms: rooms.to_owned(), count: 1, callers, cold, seconds: SECONDS }
        };
        let alone = nodes.join(1, |_| load("alone", 1, 0)).await;
        let together = nodes.join(NODES, |_| load("together", NODES, 0)).await;
        let without = nodes.join(NODES, |_| load("nobody", 0, COLD)).await;
        let with = nodes.join(NODES, |_| load("hot", NODES, COLD)).await;
        one.push(alone.per_second);
        four.push(together.per_second);
        ratio.push(together.per_second / alone.per_second);
        calm.push(without.p99());
        beside.push(with.p99());
        late.push(with.p99() / without.p99());
    }
    tell(database, "joins into one room, 2,000 callers of one node", one, 1.0, "/s");
    tell(database, "the same, 500 callers of each of four nodes", four, 1.0, "/s");
    tell(database, "= times as many", ratio, 1.0, "x");
    tell(database, "joins into cold rooms of four nodes, 99th percentile", calm, 1e3, "ms");
    tell(database, "the same, while 2,000 callers join one room", beside, 1e3, "ms");
    tell(database, "= times as long", late, 1.0, "x");
}
