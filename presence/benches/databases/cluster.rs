//! Several nodes of one database. Each is a process, this program started again, so that none has the threads of another.
//!
//! `-- cluster` measures all of these, or one of `hot`, `disjoint` and `quiet`. Five rounds each. What is compared is measured
//! within a round, because the speed of a machine changes from one to the next.

mod counters;
mod disjoint;
mod hot;
mod node;
mod quiet;

use presence_test_servers::Server;

pub(super) use node::serve as serve_as_node;

use node::Nodes;

/// How often each comparison is measured.
const ROUNDS: usize = 5;
/// How many callers join at once on all nodes together.
const CALLERS: usize = 2_000;

/// The parts of it.
pub(super) const PARTS: [&str; 3] = ["hot", "disjoint", "quiet"];

pub(super) async fn measure(database: &str, server: &Server, part: &str) {
    match part {
        "hot" => hot::measure(database, server).await,
        "disjoint" => disjoint::measure(database, server).await,
        "quiet" => quiet::measure(database, server).await,
        _ => {}
    }
}

/// The value of which a share of all is not greater.
fn percentile(share: f64, values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}
