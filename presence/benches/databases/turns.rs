//! What it costs to tell who comes online and who goes offline: the same transactions by a store that was asked to and by one
//! that was not, in turn.

use std::time::Instant;

use presence::store::{Attempt, RoomStore, RoomWrites, Store, Write};
use presence_test_servers::Server;

use super::{Place, joins, room, since, tell};

/// How large the transactions are: that of a lone caller, of some at once, and the largest.
const SIZES: [usize; 3] = [1, 30, 1_000];
const ROUNDS: usize = 41;

pub(super) async fn measure(database: &str, server: Option<&Server>) {
    for size in SIZES {
        let places = [Place::new(server).await, Place::new(server).await];
        let stores = [places[0].writer().await, places[1].writer().await];
        stores[1].0.track_online();
        let mut took = [const { [const { Vec::new() }; 2] }; 2];
        for _ in 0..ROUNDS {
            for ((store, node), took) in stores.iter().zip(&mut took) {
                let joins = joins(*node, size);
                let leave = |write: &Write| match write {
                    Write::Join(one) => Write::Leave { id: one.id, channel: one.channel.clone() },
                    _ => unreachable!("they join"),
                };
                let leaves = joins.iter().map(leave).collect();
                for (writes, took) in [joins, leaves].into_iter().zip(took) {
                    let writes = [RoomWrites { room: room(0), writes }];
                    let begun = Instant::now();
                    store.commit(*node, Attempt::next(), writes.clone().into()).await.expect("the commit works");
                    took.push(since(begun));
                }
            }
        }
        let [quiet, telling] = took;
        for ((what, quiet), telling) in ["joins", "leaves"].into_iter().zip(quiet).zip(telling) {
            let ratio = telling.iter().zip(&quiet).map(|(a, b)| a / b).collect();
            tell(database, &format!("a transaction of {size} {what}"), quiet, 1e3, "ms");
            tell(database, &format!("a transaction of {size} {what}, telling turns"), telling, 1e3, "ms");
            tell(database, "= times as long", ratio, 1.0, "x");
        }
    }
}
